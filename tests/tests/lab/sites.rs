//! A static site over several nodes: each hands out its own files, a node that has lost them gets them again,
//! and a new release never shows beside the old one at the same node.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_tests::api::{Api, Name};
use skep_tests::git::Repository;
use skep_tests::http;
use skep_tests::lab::node::Node;
use skep_tests::lab::nodes::{Wanted, with_nodes};
use skep_tests::wait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SEEN: Duration = Duration::from_secs(60);
const HOST: &str = "site-production-site.localhost";
/// Between two requests of a visitor.
const PAUSE: Duration = Duration::from_millis(5);

fn write(repository: &Repository, version: u32) -> Result<()> {
    let app = &repository.app;
    for gone in ["Dockerfile", "skep-test-app"] {
        let gone = app.dir().join(gone);
        if gone.exists() {
            std::fs::remove_file(gone)?;
        }
    }
    app.write(
        "skep.toml",
        "builder = \"static\"\n[static]\noutput = \".\"\n",
    )?;
    app.write("index.html", &format!("version={version} "))
}

async fn answers(node: &Node, version: u32) -> Result<()> {
    wait::until_ok("the site to answer", SEEN, async || {
        let seen = version_at(node.ingress).await?;
        ensure!(seen == version, "{}: version {seen}", node.name);
        Ok(())
    })
    .await
}

async fn version_at(ingress: SocketAddr) -> Result<u32> {
    let answer = http::get(ingress, HOST, "/").await?;
    let text = answer.text();
    ensure!(answer.status == 200, "{} {text}", answer.status);
    let number = text.trim().strip_prefix("version=").context("a version")?;
    Ok(number.parse()?)
}

/// Sites whose files a node has.
fn sites(node: &Node) -> Result<usize> {
    Ok(std::fs::read_dir(node.path("agent/bundles/sites"))?.count())
}

/// Asks a node all the time; answers how often, or the first thing that was wrong.
fn visit(ingress: SocketAddr, until: CancellationToken) -> JoinHandle<Result<u64>> {
    tokio::spawn(async move {
        let (mut asked, mut newest) = (0, 0);
        while until
            .run_until_cancelled(tokio::time::sleep(PAUSE))
            .await
            .is_some()
        {
            let seen = version_at(ingress).await.context("a request failed")?;
            ensure!(seen >= newest, "version {seen} after {newest}");
            newest = seen;
            asked += 1;
        }
        Ok(asked)
    })
}

async fn deploy(api: &Api, name: &Name, repository: &Repository) -> Result<()> {
    repository.push("main")?;
    let request = json!({
        "type": "git", "repository": repository.url()?, "branch": "main",
    });
    api.live(name, &request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_hands_out_its_own_files_and_gets_them_again() {
    with_nodes("sites", Wanted::nodes(3), async |cluster, nodes| {
        let api = &cluster.servers.server(0).api;
        let name = Name::of("site");
        let repository = Repository::create(&nodes[0].path("git"), "lab", "0")?;
        write(&repository, 1)?;
        api.put_service(&name, json!({})).await?;
        deploy(api, &name, &repository).await?;
        for node in nodes.iter() {
            answers(node, 1).await?;
            ensure!(sites(node)? == 1, "{} has no files", node.name);
            let containers = node.containers.all().await?;
            ensure!(containers.is_empty(), "{containers:?}");
        }

        // A node that has lost everything but who it is.
        let lost = &nodes[2];
        lost.agent.kill().await?;
        lost.net.kill().await?;
        for folder in ["agent/bundles", "agent/images"] {
            std::fs::remove_dir_all(lost.path(folder))?;
        }
        lost.net.start().await?;
        lost.agent.start().await?;
        wait::until_ok("the files to be there again", SEEN, async || {
            ensure!(sites(lost)? == 1);
            Ok(())
        })
        .await?;
        answers(lost, 1).await?;

        // New releases under load: none fails, and no node goes back to the older one.
        let until = CancellationToken::new();
        let visitors: Vec<_> = nodes
            .iter()
            .map(|node| visit(node.ingress, until.clone()))
            .collect();
        for version in 2..=4 {
            write(&repository, version)?;
            deploy(api, &name, &repository).await?;
            for node in nodes.iter() {
                answers(node, version).await?;
            }
        }
        until.cancel();
        for visitor in visitors {
            let asked = visitor.await??;
            ensure!(asked > 20, "only {asked} requests");
        }
        for node in nodes.iter() {
            wait::until_ok("older files to go", SEEN, async || {
                ensure!(sites(node)? == 1, "{} at {}", sites(node)?, node.name);
                Ok(())
            })
            .await?;
        }
        Ok(())
    })
    .await;
}
