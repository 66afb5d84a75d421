//! Servers of the control plane, and tokens that let servers and nodes join.

use serde::{Deserialize, Serialize};

use crate::id::{ServerId, TokenId};
use crate::name;
use crate::problem::Problem;

/// Most servers in a cluster: five vote, the rest are replacements that stand by.
pub const MAX_SERVERS: usize = 9;
/// Longest note on a token, in bytes.
pub const MAX_NOTE: usize = 200;
/// Longest version that a server may call its own, in bytes.
const MAX_VERSION: usize = 100;

/// A server of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Identity: what its certificate says.
    pub id: ServerId,
    /// Its member id in the Raft group: given by the cluster, never used twice.
    pub member: u64,
    /// Unique in the cluster.
    pub name: String,
    /// host:port where servers and agents are spoken to.
    pub cluster_address: String,
    /// host:port of the API.
    pub api_address: String,
    /// Its own version.
    pub version: String,
    /// The newest feature level that it understands.
    pub feature_level: u32,
    /// Cluster time of joining, ms since the epoch.
    pub joined_ms: u64,
}

impl Server {
    /// Checks what a server says of itself: name, addresses, version.
    ///
    /// # Errors
    /// Names the field, and what is accepted.
    pub fn check(&self) -> Result<(), Problem> {
        name::check("name", &self.name)?;
        check_address("cluster_address", &self.cluster_address)?;
        check_address("api_address", &self.api_address)?;
        if self.version.len() > MAX_VERSION {
            return Err(Problem::invalid("version", "the version is too long")
                .hint(format!("at most {MAX_VERSION} bytes")));
        }
        Ok(())
    }
}

/// Checks an address at which a server is dialled: `HOST:PORT`, an IPv6 address in brackets.
///
/// # Errors
/// Says what is accepted.
pub fn check_address(field: &str, address: &str) -> Result<(), Problem> {
    let is_good = address.rsplit_once(':').is_some_and(|(host, port)| {
        let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
        let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let is_host = match inner {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                host.parse::<std::net::Ipv4Addr>().is_ok() || name::check_host(field, host).is_ok()
            }
        };
        is_port && is_host && !host.starts_with('*')
    });
    if is_good {
        return Ok(());
    }
    let shown: String = address.chars().take(80).collect();
    Err(Problem::invalid(
        field,
        format!("`{}` is not an address", shown.escape_debug()),
    )
    .hint("HOST:PORT, where the other servers and the agents reach this server"))
}

/// What a token lets its bearer become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A node.
    #[default]
    Node,
    /// A server.
    Server,
}

impl Role {
    /// Every role, in the order of the stored format: append only.
    pub const ALL: [Self; 2] = [Self::Node, Self::Server];
}

/// A permission to join, bound to a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Its public half.
    pub id: TokenId,
    /// SHA-256 of the secret half.
    pub secret_hash: Vec<u8>,
    /// Cluster time at which it ends, ms since the epoch.
    pub expires_ms: u64,
    /// Joins left.
    pub uses_left: u32,
    /// What it is good for.
    pub role: Role,
    /// In the words of whoever made it.
    pub note: String,
    /// Cluster time of making it.
    pub created_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in [
            "10.0.0.1:7070",
            "[fd00::1]:7070",
            "server-1.lan:1",
            "localhost:65535",
        ] {
            assert!(check_address("a", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "10.0.0.1",
            ":1",
            "h:0",
            "h:65536",
            "fd00::1:1",
            "[h]:1",
            "*.lan:1",
            "h h:1",
        ] {
            let problem = check_address("a", bad).expect_err(bad);
            assert_eq!(problem.field.as_deref(), Some("a"));
        }
    }
}
