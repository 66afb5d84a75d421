//! Routes of TCP connections: a service says by which door its connections come in, a name in their TLS
//! handshake or a port of its own on every node. Owns the bounds; who may have a name is [`crate::claim`]'s
//! question, who has a port is in the replicated state.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::check_host;
use crate::problem::Problem;
use crate::routing::RouteSpec;

/// Most TCP routes of one service.
pub const MAX_TCP_ROUTES: usize = 20;
/// Most ports that a cluster gives away: each is a listener on every node.
pub const MAX_PORTS: u16 = 1_000;

/// One way in for connections to a service. It has `sni` or `entry`, never both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TcpSpec {
    /// The container's port.
    pub port: u16,
    /// Connections whose TLS handshake names this host: exact, or `*.` and a domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Who speaks TLS with the client; of a route with `sni` alone.
    #[serde(skip_serializing_if = "TlsMode::is_default")]
    pub tls: TlsMode,
    /// Connections to this port of every node that serves apps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<u16>,
    /// Each connection begins with a header of the PROXY protocol, version 2: whose it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub proxy_protocol: bool,
}

/// Who speaks TLS with the client.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// The service: bytes go to it as they came.
    #[default]
    Passthrough,
    /// The ingress, with the host's certificate: the service gets what was inside.
    Terminate,
}

impl TlsMode {
    /// In the order of the stored format: append only.
    pub const ALL: [Self; 2] = [Self::Passthrough, Self::Terminate];

    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// As people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Terminate => "terminate",
        }
    }
}

/// Where connections come in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Door {
    /// The TLS port, by the name that the handshake asks for.
    Sni {
        /// Exact, or `*.` and a domain.
        host: String,
        /// Who speaks TLS.
        tls: TlsMode,
    },
    /// A port of its own.
    Entry(u16),
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sni { host, tls } => write!(f, "{host} (TLS, {})", tls.as_str()),
            Self::Entry(port) => write!(f, "port {port}"),
        }
    }
}

impl TcpSpec {
    /// Where its connections come in; none: it says neither, or both.
    pub fn door(&self) -> Option<Door> {
        match (&self.sni, self.entry) {
            (Some(host), None) => Some(Door::Sni {
                host: host.clone(),
                tls: self.tls,
            }),
            (None, Some(port)) => Some(Door::Entry(port)),
            _ => None,
        }
    }

    fn check(&self) -> Result<(), Problem> {
        if self.port == 0 {
            return Err(
                Problem::invalid("port", "it is not said where the service listens")
                    .hint("the container's port, 1 to 65535"),
            );
        }
        match (&self.sni, self.entry) {
            (Some(host), None) => check_host("sni", host),
            (None, Some(0)) => {
                Err(Problem::invalid("entry", "0 is not a port").hint("1 to 65535"))
            }
            (None, Some(_)) if self.tls != TlsMode::Passthrough => {
                let text = "on a port of its own the ingress never speaks TLS";
                Err(Problem::invalid("tls", text)
                    .hint("leave it out, or give `sni` in place of `entry`"))
            }
            (None, Some(_)) => Ok(()),
            (Some(_), Some(_)) => Err(Problem::invalid("entry", "there is `sni`, too")
                .hint("one of the two; a second route may have the other")),
            (None, None) => Err(Problem::invalid("sni", "it is not said how connections come in")
                .hint("`sni` = a host, for connections under TLS; or `entry` = a port of the cluster's nodes")),
        }
    }
}

/// Checks all TCP routes of a service beside its hosts of HTTP.
///
/// # Errors
/// The first field that is not accepted, and what would be.
pub fn check_all(
    all: &[TcpSpec],
    (routes, domains): (&[RouteSpec], &[String]),
) -> Result<(), Problem> {
    if all.len() > MAX_TCP_ROUTES {
        let text = format!("{} are too many", all.len());
        return Err(Problem::invalid("tcp", text).hint(format!("at most {MAX_TCP_ROUTES}")));
    }
    let routed = routes.iter().filter_map(|route| route.host.as_deref());
    let http: BTreeSet<&str> = routed.chain(domains.iter().map(String::as_str)).collect();
    let mut hosts = BTreeSet::new();
    let mut entries = BTreeSet::new();
    for (number, tcp) in all.iter().enumerate() {
        tcp.check().map_err(|problem| {
            let field = problem.field.clone().unwrap_or_default();
            problem.at(format!("tcp[{number}].{field}"))
        })?;
        if let Some(host) = tcp.sni.as_deref() {
            let at = format!("tcp[{number}].sni");
            if http.contains(host) {
                return Err(both(host).at(at));
            }
            if !hosts.insert(host) {
                let text = format!("`{host}` has a route already");
                return Err(Problem::invalid(at, text).hint("one route for each host"));
            }
        }
        if let Some(entry) = tcp.entry
            && !entries.insert(entry)
        {
            let text = format!("the port {entry} has a route already");
            return Err(Problem::invalid(format!("tcp[{number}].entry"), text)
                .hint("one route for each port"));
        }
    }
    Ok(())
}

/// A host that would have routes of both kinds.
pub fn both(host: &str) -> Problem {
    let text =
        format!("`{host}` has routes of HTTP: a handshake that names it could be meant for either");
    Problem::invalid("sni", text).hint("another host for one of them")
}

/// The ports that services may have as entries, the last one included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Ports {
    /// Whether a port is one of them.
    pub fn has(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Checks its bounds.
    ///
    /// # Errors
    /// Not a range, or too large a one.
    pub fn check(self) -> Result<(), Problem> {
        let refused = |text: String| {
            Err(Problem::invalid("ports", text).hint(format!(
                "FIRST-LAST, at most {MAX_PORTS} ports, for example 15000-15999"
            )))
        };
        if self.first == 0 || self.first > self.last {
            return refused(format!("{self} is not a range of ports"));
        }
        let count = u32::from(self.last - self.first) + 1;
        match count > u32::from(MAX_PORTS) {
            true => refused(format!("{self} are {count} ports, too many")),
            false => Ok(()),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for Ports {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) => Self { first, last },
            _ => {
                let text = format!("`{}` is not a range of ports", text.escape_debug());
                return Err(Problem::invalid("ports", text).hint("for example 15000-15999"));
            }
        };
        ports.check()?;
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sni(host: &str) -> TcpSpec {
        TcpSpec {
            port: 5432,
            sni: Some(host.into()),
            ..TcpSpec::default()
        }
    }

    fn entry(entry: u16) -> TcpSpec {
        TcpSpec {
            port: 5432,
            entry: Some(entry),
            ..TcpSpec::default()
        }
    }

    #[test]
    fn each_bound_names_its_field() {
        let domains = ["www.example.com".to_owned()];
        let both = TcpSpec {
            entry: Some(1),
            ..sni("db.example.com")
        };
        let ended = TcpSpec {
            tls: TlsMode::Terminate,
            ..entry(1)
        };
        let many = (1..=21).map(entry).collect::<Vec<_>>();
        let portless = TcpSpec {
            port: 0,
            ..entry(1)
        };
        for (all, field) in [
            (
                vec![sni("db.example.com"), sni("*.example.com"), entry(7)],
                None,
            ),
            (vec![portless], Some("tcp[0].port")),
            (vec![sni("A b")], Some("tcp[0].sni")),
            (vec![entry(0)], Some("tcp[0].entry")),
            (vec![ended], Some("tcp[0].tls")),
            (vec![both], Some("tcp[0].entry")),
            (
                vec![TcpSpec {
                    port: 1,
                    ..TcpSpec::default()
                }],
                Some("tcp[0].sni"),
            ),
            (vec![entry(7), sni("www.example.com")], Some("tcp[1].sni")),
            (vec![sni("a.io"), sni("a.io")], Some("tcp[1].sni")),
            (vec![entry(7), entry(8), entry(7)], Some("tcp[2].entry")),
            (many, Some("tcp")),
        ] {
            let checked = check_all(&all, (&[], &domains));
            let found = checked.err().map(|problem| {
                assert!(problem.hint.is_some(), "{problem}");
                problem.field.unwrap_or_default()
            });
            assert_eq!(found.as_deref(), field, "{all:?}");
        }
    }

    #[test]
    fn ranges_of_ports_read_as_people_write_them() {
        let ports = |first, last| Some(Ports { first, last });
        for (text, read) in [
            ("15000-15999", ports(15000, 15999)),
            ("1883", ports(1883, 1883)),
            (" 1 - 2 ", ports(1, 2)),
            ("64536-65535", ports(64536, 65535)),
            ("0-5", None),
            ("9-8", None),
            ("1-1001", None),
            ("1-70000", None),
            ("many", None),
            ("", None),
        ] {
            let found = text.parse::<Ports>();
            assert_eq!(found.ok(), read, "{text}");
        }
        let ports: Ports = "10-12".parse().expect("a range");
        assert!(ports.has(10) && ports.has(12) && !ports.has(13) && !ports.has(9));
        assert_eq!(ports.to_string(), "10-12");
    }
}
