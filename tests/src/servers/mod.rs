//! Several servers of one cluster, as an administrator starts them: the first founds it, the others
//! join with a token. Killed, frozen and started again by their place in the list.

pub mod agents;
mod node;
mod site;
mod start;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::api::Api;
use crate::cluster::Bootstrap;
use crate::process::{Process, signal};
use crate::register::clients::{Access, meta_of};
use crate::{tls, wait};

pub use node::{Machine, Member, join_guest, join_node};
pub use site::Site;

/// A server that is not up by then does not start; those that catch up are given the same.
const SETTLE: Duration = Duration::from_secs(60);
/// Entries that a follower of a cluster at rest may be behind: the reports are not of one moment.
const REST_LAG: u64 = 16;
/// A server that does not answer by then is frozen or cut off, or waits for one that is.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a server gets to hand on and end.
const STOP: Duration = Duration::from_secs(60);
const ALPN_HTTP: &[u8] = b"http/1.1";
const ALPN_GRPC: &[u8] = b"h2";

/// One server.
pub struct Server {
    /// Where it is.
    pub site: Site,
    /// The process.
    pub process: Process,
    /// Its API, with the admin's token.
    pub api: Api,
}

/// A server's own word, as far as tests look.
#[derive(Debug, Deserialize)]
struct Report {
    member: u64,
    term: u64,
    leader: Option<u64>,
}

/// A server, as another sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct Seen {
    /// Identity.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its member id.
    pub member: u64,
    /// `leader`, `voter`, `learner`, `outside`.
    pub role: String,
    /// Nothing is wrong with it.
    pub healthy: bool,
    /// Entries behind the leader.
    pub lag: Option<u64>,
    /// Its own word.
    pub report: Option<Value>,
    /// Why it does not answer.
    pub unreachable: Option<String>,
}

impl Seen {
    /// What is wrong with it, in its own words and those of who asked it.
    pub fn problems(&self) -> Vec<String> {
        let own = self
            .report
            .as_ref()
            .and_then(|report| report["problems"].as_array());
        let own = own.into_iter().flatten().filter_map(Value::as_str);
        own.map(str::to_owned)
            .chain(self.unreachable.clone())
            .collect()
    }
}

/// The servers, as one of them sees them.
#[derive(Debug, Clone, Deserialize)]
pub struct Group {
    /// Who leads.
    pub leader: Option<String>,
    /// Raft term.
    pub term: u64,
    /// By name.
    pub servers: Vec<Seen>,
}

impl Group {
    /// How many have this role.
    pub fn count(&self, role: &str) -> usize {
        self.servers.iter().filter(|one| one.role == role).count()
    }

    /// Names of the servers in this role.
    pub fn with_role(&self, role: &str) -> Vec<&str> {
        let these = self.servers.iter().filter(|one| one.role == role);
        these.map(|one| one.name.as_str()).collect()
    }

    /// A server by name.
    ///
    /// # Errors
    /// It is not known.
    pub fn server(&self, name: &str) -> Result<&Seen> {
        let found = self.servers.iter().find(|one| one.name == name);
        found.with_context(|| format!("no server {name} in {self:?}"))
    }
}

/// A certificate of an operator, and what is needed with it.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The certificate.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
    /// The CA that it trusts.
    pub ca_pem: String,
}

/// Voters among so many servers: the largest odd number, five at most.
pub fn voters_of(servers: usize) -> usize {
    [1, 1, 1, 3, 3, 5][servers.min(5)]
}

/// The servers of a cluster.
pub struct Servers {
    list: Vec<Server>,
    bootstrap: Bootstrap,
    tls: Arc<ClientConfig>,
}

impl Servers {
    /// All of them.
    pub fn all(&self) -> &[Server] {
        &self.list
    }

    /// One, by its place in the list.
    pub fn server(&self, place: usize) -> &Server {
        &self.list[place]
    }

    /// How the first one said it can be reached.
    pub fn bootstrap(&self) -> &Bootstrap {
        &self.bootstrap
    }

    /// What a server sees of all.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn seen_by(&self, place: usize) -> Result<Group> {
        let answer = self.list[place]
            .api
            .call(Method::GET, "/v1/servers", None)
            .await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        answer.json()
    }

    /// Place of the leader, as those servers see it that run. A leader that was left behind says so
    /// of itself for a while: the newest term counts.
    ///
    /// # Errors
    /// Nobody knows one in time.
    pub async fn leader(&self) -> Result<usize> {
        self.leader_among(&(0..self.list.len()).collect::<Vec<_>>())
            .await
    }

    /// The same, asked of these servers alone, and one of them.
    ///
    /// # Errors
    /// None of them leads in time.
    pub async fn leader_among(&self, places: &[usize]) -> Result<usize> {
        wait::until_ok("a leader", SETTLE, async || {
            let mut members = BTreeMap::new();
            let mut newest = (0, None);
            for place in places {
                let Ok(report) = self.report(*place).await else {
                    continue;
                };
                members.insert(report.member, *place);
                if report.term > newest.0 {
                    newest = (report.term, report.leader);
                }
            }
            let leader = newest.1.context("nobody knows a leader")?;
            let place = members.get(&leader);
            place
                .copied()
                .with_context(|| format!("member {leader} leads, not one of {members:?}"))
        })
        .await
    }

    /// What a server says of itself, which it does without asking others.
    async fn report(&self, place: usize) -> Result<Report> {
        let server = &self.list[place];
        if !server.process.is_running().await? {
            bail!("it does not run");
        }
        let report = timeout(PATIENCE, server.api.get("/v1/server")).await??;
        Ok(serde_json::from_value(report)?)
    }

    /// The same as `seen_by`, with little patience: the server may be frozen or cut off.
    async fn brief(&self, place: usize) -> Result<Group> {
        if !self.list[place].process.is_running().await? {
            bail!("it does not run");
        }
        timeout(PATIENCE, self.seen_by(place)).await?
    }

    /// Waits until each server sees all of them well: as many voters as there are to be, nobody
    /// behind, one leader.
    ///
    /// # Errors
    /// It does not become so; tells what is missing.
    pub async fn settled(&self) -> Result<Group> {
        let count = self.list.len();
        wait::until_ok("all servers to be well", SETTLE, async || {
            let mut last = None;
            for place in 0..count {
                let group = self.brief(place).await?;
                let voters = group.count("leader") + group.count("voter");
                let is_well = |one: &Seen| one.healthy && one.lag.is_some_and(|lag| lag < REST_LAG);
                ensure!(
                    group.servers.len() == count
                        && group.count("leader") == 1
                        && voters == voters_of(count)
                        && group.count("outside") == 0
                        && group.servers.iter().all(is_well),
                    "{group:?}"
                );
                last = Some(group);
            }
            last.context("there are servers")
        })
        .await
    }

    /// Waits until a server that was removed has ended by itself; it is none of these any more.
    ///
    /// # Errors
    /// It goes on, or failed.
    pub async fn left(&mut self, place: usize) -> Result<()> {
        let server = self.list.remove(place);
        let status = server.process.ended(SETTLE).await?;
        let log = server.process.log();
        ensure!(
            log.contains("the cluster has removed this server"),
            "{status} {log}"
        );
        Ok(())
    }

    /// kill -9.
    ///
    /// # Errors
    /// As of the process.
    pub async fn kill(&self, place: usize) -> Result<()> {
        self.list[place].process.kill().await
    }

    /// Starts a server that was killed, or ended by itself.
    ///
    /// # Errors
    /// As of the process.
    pub async fn start(&self, place: usize) -> Result<()> {
        self.list[place].process.start().await
    }

    /// Ends a server as an administrator would and starts what `change` makes of it.
    ///
    /// # Errors
    /// As of the process.
    pub async fn restart_as(
        &mut self,
        place: usize,
        change: impl FnOnce(Process) -> Process,
    ) -> Result<()> {
        self.list[place].process.restart_as(STOP, change).await
    }

    /// Sets a variable for a server's next start.
    pub fn set_env(&mut self, place: usize, name: &str, value: &str) {
        self.list[place].process.set_env(name, value);
    }

    /// Starts whatever does not run; answers who that was.
    ///
    /// # Errors
    /// As of the process.
    pub async fn start_all(&self) -> Result<Vec<usize>> {
        let mut started = Vec::new();
        for (place, server) in self.list.iter().enumerate() {
            if !server.process.is_running().await? {
                server.process.start().await?;
                started.push(place);
            }
        }
        Ok(started)
    }

    /// SIGSTOP: it lives and does nothing.
    ///
    /// # Errors
    /// It does not run.
    pub async fn freeze(&self, place: usize) -> Result<()> {
        self.signal(place, "STOP").await
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub async fn thaw(&self, place: usize) -> Result<()> {
        self.signal(place, "CONT").await
    }

    async fn signal(&self, place: usize, name: &str) -> Result<()> {
        let process = &self.list[place].process;
        let pid = process.pid().await;
        let pid = pid.with_context(|| format!("{} does not run", process.name()))?;
        signal(pid, name).await
    }

    /// Writes one key of a node's metadata through a server.
    ///
    /// # Errors
    /// Refused, or no answer.
    pub async fn set_meta(&self, place: usize, node: &str, key: &str, value: &str) -> Result<()> {
        let set = serde_json::json!({ "set": { key: value } });
        let path = format!("/v1/nodes/{node}/meta");
        self.list[place].api.put(&path, &set).await.map(drop)
    }

    /// Reads it through a server, linearizably; empty: it is not set.
    ///
    /// # Errors
    /// Refused, or no answer.
    pub async fn meta(&self, place: usize, node: &str, key: &str) -> Result<String> {
        let nodes = self.list[place].api.get("/v1/nodes").await?;
        let meta = meta_of(&nodes, node).with_context(|| format!("no node {node}: {nodes}"))?;
        Ok(meta[key].as_str().unwrap_or_default().to_owned())
    }

    /// The registers of a node's metadata, through every server.
    pub fn access(&self, node: &str) -> Access {
        Access {
            servers: self.list.iter().map(|server| server.site.api).collect(),
            tls: self.tls.clone(),
            token: self.bootstrap.token.clone(),
            node: node.to_owned(),
        }
    }

    /// A certificate for the gRPC service of operators.
    ///
    /// # Errors
    /// Refused.
    pub async fn operator(&self) -> Result<Operator> {
        let (csr_pem, key_pem) = certificate_request()?;
        let request = serde_json::json!({ "csr_pem": csr_pem });
        let answer = self.list[0].api.post("/v1/operators", &request).await?;
        let text = |name: &str| {
            let text = answer[name].as_str().map(str::to_owned);
            text.with_context(|| format!("no {name} in {answer}"))
        };
        Ok(Operator {
            certificate_pem: text("certificate_pem")?,
            key_pem,
            ca_pem: text("ca_pem")?,
        })
    }

    /// Where servers and agents are spoken to.
    pub fn cluster_addresses(&self) -> Vec<SocketAddr> {
        self.list.iter().map(|server| server.site.cluster).collect()
    }

    /// Last lines of every log, for a test that failed.
    pub fn print_logs(&self) {
        const LINES: usize = 60;
        for server in &self.list {
            let log = server.process.log();
            let lines: Vec<&str> = log.lines().collect();
            println!(
                "--- {}, last lines of {}",
                server.process.name(),
                lines.len()
            );
            for line in &lines[lines.len().saturating_sub(LINES)..] {
                println!("{line}");
            }
        }
    }
}

/// A request for a certificate and its new key, as PEM.
///
/// # Errors
/// The key cannot be made.
pub fn certificate_request() -> Result<(String, String)> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let request = rcgen::CertificateParams::default().serialize_request(&key)?;
    Ok((request.pem()?, key.serialize_pem()))
}

/// The configuration of a gRPC client of the cluster's servers.
///
/// # Errors
/// A PEM is none.
pub fn grpc_tls(ca_pem: &str, shown: Option<tls::Shown<'_>>) -> Result<Arc<ClientConfig>> {
    tls::client(ca_pem, shown, ALPN_GRPC)
}
