//! One simulated agent as the service of a guest: it learns where its servers are and how to join from its environment, joins
//! once, keeps what it has got, and says which machine it is in.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Agents, Behavior};
use crate::servers::node::{Machine, Member, join_guest};

/// What a guest is.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where agents dial the servers: HOST:PORT, or several, separated by commas
    #[arg(long, value_name = "HOST:PORT", env = "SKEP_SERVER")]
    server: String,
    /// Join token
    #[arg(
        long,
        value_name = "TOKEN",
        env = "SKEP_JOIN_TOKEN",
        hide_env_values = true
    )]
    join: Option<String>,
    /// Its name
    #[arg(long, value_name = "NAME", env = "SKEP_NODE_NAME")]
    name: Option<String>,
    /// Address of its network card
    #[arg(long, value_name = "MAC")]
    mac: String,
    /// Id in its SMBIOS; without it is a container
    #[arg(long, value_name = "UUID")]
    uuid: Option<String>,
    /// Say what the file `size.json` on its disk says of cores and memory, and not the same as all others
    #[arg(long)]
    sized: bool,
    /// A storage that other nodes have as well; may be given several times
    #[arg(long, value_name = "NAME")]
    shared_storage: Vec<String>,
    /// Its disk: a folder that stays
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

/// Joins, where it has not yet, and keeps its session, until the future is dropped.
///
/// # Errors
/// No server is reached, or it is refused.
pub async fn run(options: Options) -> Result<()> {
    let file = options.data.join("member.json");
    let server = address(&options.server)?;
    let size = options.sized.then(|| options.data.join("size.json"));
    let mut member: Member = match std::fs::read(&file) {
        Ok(known) => serde_json::from_slice(&known)?,
        Err(_) => {
            let token = options.join.as_deref().context("no join token")?;
            let machine = Machine {
                uuid: options.uuid,
                macs: vec![options.mac.to_ascii_lowercase()],
                size: size.clone(),
                shared_storage: options.shared_storage.clone(),
            };
            let name = options
                .name
                .unwrap_or_else(|| options.mac.replace(':', "-"));
            let member = join_guest(server, token, (&name, machine)).await?;
            std::fs::write(&file, serde_json::to_vec(&member)?)?;
            member
        }
    };
    (member.machine.size, member.machine.shared_storage) = (size, options.shared_storage);
    println!("{} is {}", member.name, member.id);
    let behavior = Behavior {
        start: Duration::ZERO,
        has_samples: true,
        has_build_logs: false,
    };
    let _agents = Agents::start(server, vec![member], behavior);
    std::future::pending().await
}

/// The first that there is.
fn address(text: &str) -> Result<SocketAddr> {
    let all = text.split(',').map(str::trim);
    let mut found = all.filter_map(|it| it.to_socket_addrs().ok()?.next());
    found
        .next()
        .with_context(|| format!("`{text}` leads nowhere"))
}
