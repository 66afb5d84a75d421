//! A node without a machine: a certificate that was got with a join token, as an agent gets it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use skep_model::id::{NodeId, TokenId};
use skep_proto::convert::{id_bits, id_bytes};
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;

use super::{certificate_request, grpc_tls};
use crate::tls::channel;

/// What such a node is: enough for ten replicas of a small service.
const CPU_MILLIS: u32 = 8_000;
const MEMORY_BYTES: u64 = 16 << 30;
const DISK_BYTES: u64 = 100 << 30;

/// A joined node.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its id, as in the API.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its certificate.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
    /// The CA that it trusts.
    pub ca_pem: String,
}

/// What an agent would tell of its machine.
pub(super) fn facts(name: &str) -> v1::Facts {
    v1::Facts {
        hostname: name.to_owned(),
        architecture: "x86_64".to_owned(),
        kernel: "6.1".to_owned(),
        cpu_millis: CPU_MILLIS,
        memory_bytes: MEMORY_BYTES,
        disk_bytes: DISK_BYTES,
        docker_version: "20.10".to_owned(),
        agent_version: "0.1.0".to_owned(),
        ingress_port: None,
        builder: true,
        ..v1::Facts::default()
    }
}

/// Joins a node of this name.
///
/// # Errors
/// Refused.
pub async fn join_node(
    server: SocketAddr,
    ca_pem: &str,
    token: &str,
    name: &str,
) -> Result<Member> {
    let channel = channel(server, grpc_tls(ca_pem, None)?).await?;
    join_over(&mut AgentsClient::new(channel), token, name).await
}

/// The same on a connection that is there.
///
/// # Errors
/// Refused.
pub(super) async fn join_over(
    client: &mut AgentsClient<tonic::transport::Channel>,
    token: &str,
    name: &str,
) -> Result<Member> {
    let parts: Vec<&str> = token.split('.').collect();
    ensure!(parts.len() == 5, "a token has 5 parts");
    let id: TokenId = parts[3].parse().context("the id of the token")?;
    let (csr_pem, key_pem) = certificate_request()?;
    let request = v1::JoinRequest {
        token: id_bytes(id.as_u128()),
        secret: parts[4].to_owned(),
        name: name.to_owned(),
        csr_pem,
        facts: Some(facts(name)),
    };
    let reply = client.join(request).await?.into_inner();
    let id = NodeId::from_u128(id_bits("node", &reply.node)?);
    Ok(Member {
        id: id.to_string(),
        name: name.to_owned(),
        certificate_pem: reply.certificate_pem,
        key_pem,
        ca_pem: reply.ca_pem,
    })
}
