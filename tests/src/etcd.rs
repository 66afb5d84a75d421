//! etcd, the peer of the consensus bench: three members on loopback with TLS between peers and for
//! clients, as Debian packages it, with its defaults. And the little of its API that the bench needs
//! (etcd's `rpc.proto`, services KV and Maintenance), written down here: its client crate wants
//! protoc to build.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::pki::Pki;
use crate::process::Process;
use crate::{place, tls, wait};

const MEMBERS: usize = 3;
/// Electing a leader takes it about two seconds.
const READY: Duration = Duration::from_secs(30);

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutRequest {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// Its value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`, of which nothing is read.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

/// `etcdserverpb.StatusResponse`: who answers and who leads.
#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

/// A client of one member.
#[derive(Debug, Clone)]
pub struct Client {
    grpc: Grpc<Channel>,
}

impl Client {
    /// On this connection.
    pub fn new(channel: Channel) -> Self {
        Self {
            grpc: Grpc::new(channel),
        }
    }

    /// Puts a value under a key.
    ///
    /// # Errors
    /// Refused, or no answer.
    pub async fn put(&mut self, request: PutRequest) -> Result<()> {
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        self.grpc.ready().await?;
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        let request = tonic::Request::new(request);
        self.grpc.unary(request, path, codec).await?;
        Ok(())
    }

    async fn leads(&mut self) -> Result<bool> {
        let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");
        self.grpc.ready().await?;
        let codec = ProstCodec::<StatusRequest, StatusResponse>::default();
        let request = tonic::Request::new(StatusRequest {});
        let status = self.grpc.unary(request, path, codec).await?.into_inner();
        ensure!(status.leader != 0, "nobody leads");
        Ok(status
            .header
            .is_some_and(|header| header.member_id == status.leader))
    }
}

/// How a client reaches it.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The leader's client port.
    pub leader: SocketAddr,
    /// The CA.
    pub ca_pem: String,
    /// A client's certificate.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
}

/// Three members.
pub struct Etcd {
    members: Vec<Process>,
    clients: Vec<SocketAddr>,
    pki: Pki,
}

impl Etcd {
    /// Starts them with their data below `dir`.
    ///
    /// # Errors
    /// etcd is not installed, or does not start.
    pub async fn start(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let pki = Pki::make(dir, Ipv4Addr::LOCALHOST.into())?;
        let addresses = |_| -> Result<_> { Ok([place::free_address()?, place::free_address()?]) };
        let addresses = (0..MEMBERS).map(addresses).collect::<Result<Vec<_>>>()?;
        let name = |member: usize| format!("etcd{member}");
        let peers = addresses.iter().enumerate();
        let peers = peers.map(|(member, [peer, _])| format!("{}=https://{peer}", name(member)));
        let peers = peers.collect::<Vec<_>>().join(",");
        let mut members = Vec::new();
        for (member, [peer, client]) in addresses.iter().enumerate() {
            let (peer, client) = (format!("https://{peer}"), format!("https://{client}"));
            let log = dir.join(format!("{}.log", name(member)));
            let process = Process::new(&name(member), Path::new("etcd"), log)
                .args(["--name", &name(member), "--initial-cluster", &peers])
                .args([
                    "--listen-peer-urls",
                    &peer,
                    "--initial-advertise-peer-urls",
                    &peer,
                ])
                .args([
                    "--listen-client-urls",
                    &client,
                    "--advertise-client-urls",
                    &client,
                ])
                .args(["--client-cert-auth", "--peer-client-cert-auth"])
                .args(["--logger", "zap", "--log-level", "warn"])
                .args([Path::new("--data-dir"), &dir.join(name(member))])
                .args([Path::new("--trusted-ca-file"), &pki.ca])
                .args([Path::new("--cert-file"), &pki.certificate])
                .args([Path::new("--key-file"), &pki.key])
                .args([Path::new("--peer-trusted-ca-file"), &pki.ca])
                .args([Path::new("--peer-cert-file"), &pki.certificate])
                .args([Path::new("--peer-key-file"), &pki.key]);
            process
                .start()
                .await
                .context("`make setup-tests` installs etcd")?;
            members.push(process);
        }
        Ok(Self {
            members,
            clients: addresses.into_iter().map(|[_, client]| client).collect(),
            pki,
        })
    }

    /// Waits for a leader and says how to reach it.
    ///
    /// # Errors
    /// Nobody leads in time; tells what a member said.
    pub async fn reach(&self) -> Result<Reach> {
        let ca_pem = std::fs::read_to_string(&self.pki.ca)?;
        let certificate_pem = std::fs::read_to_string(&self.pki.certificate)?;
        let key_pem = std::fs::read_to_string(&self.pki.key)?;
        let shown = tls::Shown {
            chain_pem: &certificate_pem,
            key_pem: &key_pem,
        };
        let config = tls::client(&ca_pem, Some(shown), b"h2")?;
        let leader = wait::until_ok("etcd to have a leader", READY, async || {
            for address in &self.clients {
                let channel = tls::channel(*address, config.clone()).await?;
                if Client::new(channel).leads().await? {
                    return Ok(*address);
                }
            }
            anyhow::bail!("none of them leads")
        });
        let leader = leader.await.with_context(|| self.members[0].log())?;
        Ok(Reach {
            leader,
            ca_pem,
            certificate_pem,
            key_pem,
        })
    }

    /// Stops them.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn stop(self) -> Result<()> {
        for member in &self.members {
            member.kill().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::{self, Job, Target};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn three_members_take_writes_from_the_bench() {
        let dir = tempfile::tempdir().unwrap();
        let etcd = Etcd::start(dir.path()).await.unwrap();
        let reach = etcd.reach().await.unwrap();
        let job = Job {
            target: Target::EtcdUnary,
            address: reach.leader,
            ca_pem: reach.ca_pem,
            certificate_pem: reach.certificate_pem,
            key_pem: reach.key_pem,
            node: Vec::new(),
            connections: 2,
            in_flight: 16,
            measure_ms: 500,
            per_s: None,
        };
        let done = writer::run(job).await.unwrap();
        assert!(done.per_s > 50.0 && done.p50_ms <= done.p99_ms, "{done:?}");
        println!("{done:?}");
        etcd.stop().await.unwrap();
    }
}
