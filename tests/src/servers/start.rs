//! Starts the servers of a cluster, one command each.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::{ALPN_HTTP, SETTLE, Server, Servers, Site};
use crate::api::Api;
use crate::cluster::Bootstrap;
use crate::process::Process;
use crate::{place, tls, wait};

/// From start to the file that says that it is ready.
const READY: Duration = Duration::from_secs(90);

impl Servers {
    /// Founds a cluster at the first of these places and lets the others join, one after the other.
    ///
    /// # Errors
    /// One does not start; tells what it said.
    pub async fn start_at(sites: Vec<Site>) -> Result<Self> {
        let mut sites = sites.into_iter();
        let first = sites.next().context("a cluster has a server")?;
        let process = founder(&first)?;
        let mut servers = Self::found(first, process).await?;
        for site in sites {
            servers.join(site).await?;
        }
        Ok(servers)
    }

    /// Founds a cluster with a process that writes the place's bootstrap file.
    ///
    /// # Errors
    /// It does not start; tells what it said.
    pub async fn found(site: Site, process: Process) -> Result<Self> {
        process.start().await?;
        let bootstrap = read_bootstrap(&site, &process).await;
        let bootstrap = bootstrap.with_context(|| process.log())?;
        let tls = tls::client(&bootstrap.ca_pem, None, ALPN_HTTP)?;
        let mut servers = Self {
            list: Vec::new(),
            bootstrap,
            tls,
        };
        servers.add(site, process);
        Ok(servers)
    }

    fn add(&mut self, site: Site, process: Process) {
        let api = Api::new(site.api, &self.bootstrap.token).over(self.tls.clone());
        self.list.push(Server { site, process, api });
    }

    /// One more server, with a token that is good for it alone. Answers once it answers.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn join(&mut self, site: Site) -> Result<()> {
        let request = json!({ "role": "server", "uses": 1, "note": site.name });
        let token = self.list[0].api.post("/v1/tokens", &request).await?;
        let token = token["token"].as_str().context("a token")?.to_owned();
        let process = joiner(&site, &token, self.list[0].site.cluster)?;
        process.start().await?;
        self.add(site, process);
        let new = self.list.len() - 1;
        let up = wait::until("the new server to answer", SETTLE, async || {
            let is_running = self.list[new].process.is_running().await?;
            ensure!(is_running, "the server has ended");
            Ok(self.brief(new).await.ok())
        })
        .await;
        if let Err(error) = up {
            // It is none of the cluster's.
            let log = self.list.pop().map(|server| server.process.log());
            return Err(error.context(log.unwrap_or_default()));
        }
        Ok(())
    }
}

fn founder(site: &Site) -> Result<Process> {
    let bootstrap = site.path("bootstrap.json");
    let process = common(site, &["server"])?;
    Ok(process.args([Path::new("--bootstrap"), &bootstrap]))
}

fn joiner(site: &Site, token: &str, first: SocketAddr) -> Result<Process> {
    let process = common(site, &["server", "join"])?;
    let server = first.to_string();
    Ok(process
        .args(["--server", &server])
        .env("SKEP_JOIN_TOKEN", token))
}

fn common(site: &Site, command: &[&str]) -> Result<Process> {
    let (api, cluster) = (site.api.to_string(), site.cluster.to_string());
    let address = site.api.ip().to_string();
    let key = site.path("operator.key");
    Ok(site
        .process("server", &place::skep_binary()?)
        .args(command.iter().copied())
        .args(["--exit-with-parent", "--server-name", &site.name])
        .args(["--api-addr", &api, "--agent-addr", &cluster])
        .args(["--name", &address])
        .args([Path::new("--data-dir"), &site.data])
        .args([Path::new("--key-file"), &key])
        .env("NO_COLOR", "1"))
}

async fn read_bootstrap(site: &Site, process: &Process) -> Result<Bootstrap> {
    let path = site.path("bootstrap.json");
    wait::until("the bootstrap file", READY, async || {
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(_) if process.is_running().await? => Ok(None),
            Err(_) => bail!("the server has ended"),
        }
    })
    .await
}
