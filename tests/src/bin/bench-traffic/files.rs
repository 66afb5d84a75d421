//! Static sites: files that the data plane hands out itself, beside an nginx for each site, asked directly and
//! behind the ingress, which is how a container of it would be asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_proto::v1::{NodeBackend, NodeTable};
use skep_tests::figures::{Figure, p50};
use skep_tests::{http, place, wait};

use super::proxies::{ENDS, Proxy, nginx, routes, skep_net};
use super::{MIB, ROUNDS, SEEN};

/// A page of a blog.
const PAGE_BYTES: usize = 10 << 10;
/// Enough to see what each of them takes.
const SITES: usize = 20;

pub(super) async fn files() -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let page: String = "0123456789abcdef".repeat(PAGE_BYTES / 16);
    let folder = bundle(&dir.path().join("bundle"), &page)?;
    let root = dir.path().join("root");
    std::fs::create_dir(&root)?;
    std::fs::write(root.join("index.html"), &page)?;
    let location = format!("root {};", root.display());

    let address = place::free_address()?;
    let direct = nginx(dir.path(), "files", 2, address, &location).await?;
    let (own, mut net) = skep_net(&dir.path().join("own")).await?;
    net.publish(handing_out(1, 1, &folder)).await?;
    let (behind, mut net_behind) = skep_net(&dir.path().join("behind")).await?;
    net_behind.publish(routes(1, 1, address)).await?;
    let all = [&own, &direct, &behind];
    for proxy in all {
        answers(proxy, page.len()).await?;
    }
    let mut rates = [const { Vec::new() }; 3];
    let mut costs = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (at, proxy) in all.iter().enumerate() {
            let (outcome, cost) = proxy.measure(None).await?;
            rates[at].push(outcome.rate);
            costs[at].push(cost);
        }
    }
    let [own_rate, direct_rate, behind_rate] = rates.each_mut().map(|it| p50(it));
    let [own_cost, direct_cost, _] = costs.each_mut().map(|it| p50(it));

    let before = own.process.rss_bytes().await? as f64;
    let folders: Vec<PathBuf> = (0..SITES)
        .map(|at| bundle(&dir.path().join(format!("site-{at}")), &page))
        .collect::<Result<_>>()?;
    net.publish(sites(2, &folders)).await?;
    own.fire(Duration::from_millis(200), None).run().await?;
    let of_own = (own.process.rss_bytes().await? as f64 - before).max(0.0) / SITES as f64;
    let mut servers = Vec::new();
    let mut of_nginx = 0.0;
    for at in 0..SITES {
        let name = format!("site-{at}");
        let server = nginx(dir.path(), &name, 1, place::free_address()?, &location).await?;
        answers(&server, page.len()).await?;
        of_nginx += private_bytes(&server).await?;
        servers.push(server);
    }
    let of_nginx = of_nginx / SITES as f64;
    for proxy in [own, direct, behind].iter().chain(&servers) {
        proxy.process.terminate(ENDS).await?;
    }
    let rate = |peer, of_peer| {
        Figure::alone("static.requests_per_s", own_rate, "1/s").beside(peer, of_peer)
    };
    Ok(vec![
        rate("nginx behind the ingress", behind_rate),
        rate("nginx asked directly", direct_rate),
        Figure::alone("static.cpu_us_per_request", own_cost, "us").beside("nginx", direct_cost),
        Figure::alone("static.memory_mib_per_site", of_own / MIB, "MiB")
            .beside("nginx, without its container", of_nginx / MIB),
    ])
}

async fn answers(proxy: &Proxy, bytes: usize) -> Result<()> {
    wait::until_ok("the page", SEEN, async || {
        let answer = http::get(proxy.address, "bench.test", "/").await?;
        ensure!(answer.body.len() == bytes, "{}", answer.status);
        Ok(())
    })
    .await
}

/// The folder of a site of one page, as an agent unpacks it.
fn bundle(folder: &Path, page: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("0"), page)?;
    let sum = ring::digest::digest(&ring::digest::SHA256, page.as_bytes());
    let file = json!({ "content": 0, "size": page.len(), "sha256": hex::encode(sum) });
    let index = json!({ "format": 1, "files": { "index.html": file } });
    std::fs::write(folder.join("index.json"), serde_json::to_vec(&index)?)?;
    Ok(folder.to_owned())
}

/// The routes of the other parts, with a folder for each backend.
fn handing_out(sequence: u64, count: usize, folder: &Path) -> NodeTable {
    let mut table = routes(sequence, count, ([127, 0, 0, 1], 1).into());
    for route in &mut table.routes {
        for backend in &mut route.backends {
            *backend = NodeBackend {
                allocation: std::mem::take(&mut backend.allocation),
                files: folder.display().to_string(),
                ..NodeBackend::default()
            };
        }
    }
    table
}

fn sites(sequence: u64, folders: &[PathBuf]) -> NodeTable {
    let mut table = handing_out(sequence, folders.len(), Path::new(""));
    for (route, folder) in table.routes.iter_mut().zip(folders) {
        for backend in &mut route.backends {
            backend.files = folder.display().to_string();
        }
    }
    table
}

/// Memory that an nginx and its workers share with nobody.
async fn private_bytes(server: &Proxy) -> Result<f64> {
    let pid = server.process.pid().await.context("it runs")?;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let pids =
        std::iter::once(pid.to_string()).chain(children.split_whitespace().map(str::to_owned));
    let mut bytes = 0.0;
    for pid in pids {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let private = rollup.lines().filter(|line| line.starts_with("Private_"));
        let kib = private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        bytes += kib.sum::<f64>() * 1024.0;
    }
    Ok(bytes)
}
