//! A node without a machine: a certificate that was got with a join token, as an agent gets it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use skep_model::id::{NodeId, TokenId};
use skep_proto::convert::{id_bits, id_bytes};
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;

use super::{ALPN_GRPC, certificate_request, grpc_tls};
use crate::tls;
use crate::tls::channel;

/// What such a node is: enough for ten replicas of a small service.
const CPU_MILLIS: u32 = 8_000;
const MEMORY_BYTES: u64 = 16 << 30;
const DISK_BYTES: u64 = 100 << 30;

/// A joined node.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// What it says of its machine.
    #[serde(default)]
    pub machine: Machine,
}

/// By what a hypervisor knows a node's machine; of a node without one nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The id in its SMBIOS; a container has none.
    pub uuid: Option<String>,
    /// Its network cards.
    pub macs: Vec<String>,
    /// A file that says how large it is: cores, and memory in MiB; none: as all others.
    #[serde(default)]
    pub size: Option<PathBuf>,
    /// Storages that other nodes have as well.
    #[serde(default)]
    pub shared_storage: Vec<String>,
}

/// What is in that file.
#[derive(Deserialize)]
struct Size {
    cores: u32,
    memory_mib: u64,
}

impl Machine {
    /// CPU, thousandths of a core, and memory, bytes.
    fn size(&self) -> (u32, u64) {
        let said = self.size.as_ref().and_then(|file| std::fs::read(file).ok());
        let said: Option<Size> = said.and_then(|text| serde_json::from_slice(&text).ok());
        said.map_or((CPU_MILLIS, MEMORY_BYTES), |it| {
            (it.cores * 1_000, it.memory_mib << 20)
        })
    }
}

/// What an agent would tell of its machine.
pub(super) fn facts(name: &str, machine: &Machine) -> v1::Facts {
    // In the order of the list of guests, plus one: a VM, or a container of Proxmox's.
    let guest = match (machine.macs.is_empty(), &machine.uuid) {
        (true, _) => 0,
        (false, Some(_)) => 2,
        (false, None) => 3,
    };
    let told = v1::Machine {
        guest,
        uuid: machine.uuid.clone(),
        macs: machine.macs.clone(),
        ..v1::Machine::default()
    };
    let (cpu_millis, memory_bytes) = machine.size();
    v1::Facts {
        machine: (guest > 0).then_some(told),
        hostname: name.to_owned(),
        architecture: "x86_64".to_owned(),
        kernel: "6.1".to_owned(),
        cpu_millis,
        memory_bytes,
        disk_bytes: DISK_BYTES,
        docker_version: "20.10".to_owned(),
        agent_version: "0.1.0".to_owned(),
        ingress_port: None,
        builder: true,
        storage: !machine.shared_storage.is_empty(),
        shared_storage: machine.shared_storage.clone(),
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
    join_over(
        &mut AgentsClient::new(channel),
        token,
        (name, Machine::default()),
    )
    .await
}

/// The same as a guest does: it knows no CA but the one that its token names.
///
/// # Errors
/// Refused.
pub async fn join_guest(
    server: SocketAddr,
    token: &str,
    (name, machine): (&str, Machine),
) -> Result<Member> {
    let fingerprint = token.split('.').nth(2).context("a token has 5 parts")?;
    let config = tls::client_of_pinned_ca(fingerprint, ALPN_GRPC)?;
    let channel = channel(server, config).await?;
    join_over(&mut AgentsClient::new(channel), token, (name, machine)).await
}

/// The same on a connection that is there.
///
/// # Errors
/// Refused.
pub(super) async fn join_over(
    client: &mut AgentsClient<tonic::transport::Channel>,
    token: &str,
    (name, machine): (&str, Machine),
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
        facts: Some(facts(name, &machine)),
    };
    let reply = client.join(request).await?.into_inner();
    let id = NodeId::from_u128(id_bits("node", &reply.node)?);
    Ok(Member {
        id: id.to_string(),
        name: name.to_owned(),
        certificate_pem: reply.certificate_pem,
        key_pem,
        ca_pem: reply.ca_pem,
        machine,
    })
}
