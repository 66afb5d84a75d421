//! Shells through a server that is not the one of the node's session.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::lab::cluster::{LabCluster, with_servers};
use skep_tests::lab::node::Node;
use skep_tests::skep::Skep;
use skep_tests::{place, wait};

const SEEN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_server_opens_a_shell_on_any_node() {
    with_servers("shells", 3, async |cluster| -> Result<()> {
        cluster.servers.settled().await?;
        let host = cluster.lab().add_host().await?;
        let token = cluster.servers.bootstrap().join_token.clone();
        let server = cluster.servers.server(0).site.cluster;
        let node = Node::start(cluster.host(host), server, &token).await?;
        let outcome = copy_through_each(cluster, &node).await;
        if outcome.is_err() {
            println!("--- agent\n{}", node.agent.log());
        }
        node.stop().await?;
        outcome
    })
    .await;
}

async fn copy_through_each(cluster: &LabCluster, node: &Node) -> Result<()> {
    let api = &cluster.servers.server(0).api;
    wait::until_ok("the node to be ready", SEEN, async || {
        let nodes = api.get("/v1/nodes").await?;
        ensure!(nodes["nodes"][0]["status"] == "ready", "{nodes}");
        Ok(())
    })
    .await?;
    let name = Name::of("web");
    api.put_service(&name, json!({})).await?;
    let image = json!({ "type": "image", "reference": node.image("1").await? });
    api.live(&name, &image).await?;
    let app = std::fs::read(place::test_app()?)?;
    let bootstrap = cluster.servers.bootstrap();
    for at in 0..3 {
        // Only one of them has the node's session.
        let private = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(private).tempdir()?;
        let skep = Skep::new(&place::skep_binary()?, folder.path());
        let url = format!("https://{}", cluster.servers.server(at).site.api);
        let login = [
            "login",
            "--server",
            &url,
            "--fingerprint",
            &bootstrap.ca_fingerprint,
        ];
        skep.run_with_token(&bootstrap.token, &login).await?.ok()?;
        let copied = folder.path().join("app");
        let to = copied.to_string_lossy();
        skep.run(&["cp", "web:/skep-test-app", &*to]).await?.ok()?;
        ensure!(
            std::fs::read(&copied)? == app,
            "through server {at}: other bytes"
        );
        let refused = skep.run(&["cp", "web:/nowhere", &*to]).await?;
        refused.code(1)?.says(&["no `/nowhere`"])?;
    }
    Ok(())
}
