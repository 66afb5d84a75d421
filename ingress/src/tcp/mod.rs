//! Connections of any protocol: by the name in their TLS handshake or by a port of their own to a service, as
//! bytes. Chooses a backend as for requests; a connection counts as in flight on it for as long as it lasts.

mod carry;
mod endpoint;
mod entries;
mod hello;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use skep_model::tcp::{Door, TlsMode};

use crate::backend::{InFlight, LiveBackend, enter};
use crate::metrics::ServiceMetrics;

pub(crate) use carry::{Call, carry};
pub(crate) use endpoint::Names;
pub(crate) use entries::Entries;
pub(crate) use hello::{Hello, peek};

/// The key of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum At {
    /// As the route has it: exact, or `*.` and a domain.
    Name(String),
    /// A port.
    Entry(u16),
}

/// Where a route leads.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) metrics: Arc<ServiceMetrics>,
    pub(crate) backends: Vec<Arc<LiveBackend>>,
    pub(crate) proxy_protocol: bool,
    pub(crate) tls: TlsMode,
}

/// The routes of connections of one table.
#[derive(Debug, Default)]
pub(crate) struct TcpIndex {
    names: HashMap<String, Target>,
    entries: BTreeMap<u16, Target>,
}

impl TcpIndex {
    pub(crate) fn insert(&mut self, door: &Door, target: Target) {
        match door {
            Door::Sni { host, .. } => drop(self.names.insert(host.clone(), target)),
            Door::Entry(port) => drop(self.entries.insert(*port, target)),
        }
    }

    pub(crate) fn at(&self, at: &At) -> Option<&Target> {
        match at {
            At::Name(host) => self.names.get(host),
            At::Entry(port) => self.entries.get(port),
        }
    }

    /// Whether handshakes have to be looked into at all.
    pub(crate) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// The hosts, as routes have them, in their order.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.names.keys().map(String::as_str).collect()
    }

    /// The ports, in their order.
    pub(crate) fn entries(&self) -> BTreeSet<u16> {
        self.entries.keys().copied().collect()
    }

    /// The route of a lower-case name. `is_http`: the name itself has routes of HTTP, so that no wildcard
    /// stands for it.
    pub(crate) fn named(
        &self,
        host: &str,
        is_http: impl FnOnce() -> bool,
    ) -> Option<(At, TlsMode)> {
        let found = |key: String| {
            let tls = self.names.get(&key)?.tls;
            Some((At::Name(key), tls))
        };
        found(host.to_owned()).or_else(|| {
            let (label, parent) = host.split_once('.')?;
            let is_one = !label.is_empty() && !is_http();
            is_one.then(|| found(format!("*.{parent}"))).flatten()
        })
    }
}

/// What is needed to lead a connection on.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) metrics: Arc<ServiceMetrics>,
    pub(crate) proxy_protocol: bool,
    /// None: nobody is left who could take it.
    pub(crate) in_flight: Option<InFlight>,
}

impl Target {
    /// Enters a backend; only while the table is locked.
    pub(crate) fn choose(&self, random: u64, tried: &[Arc<LiveBackend>]) -> Choice {
        Choice {
            metrics: Arc::clone(&self.metrics),
            proxy_protocol: self.proxy_protocol,
            in_flight: enter(&self.backends, random, tried),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::id::ServiceId;

    #[test]
    fn a_name_is_found_exactly_first_and_no_wildcard_takes_a_host_of_http() {
        let mut index = TcpIndex::default();
        for host in ["db.x.io", "*.x.io", "*.y.io"] {
            let door = Door::Sni {
                host: host.into(),
                tls: TlsMode::Passthrough,
            };
            let target = Target {
                metrics: Arc::new(ServiceMetrics::new(ServiceId::from_u128(1))),
                backends: Vec::new(),
                proxy_protocol: false,
                tls: TlsMode::Passthrough,
            };
            index.insert(&door, target);
        }
        for (host, is_http, found) in [
            ("db.x.io", false, Some("db.x.io")),
            ("db.x.io", true, Some("db.x.io")),
            ("a.x.io", false, Some("*.x.io")),
            ("a.x.io", true, None),
            ("a.b.x.io", false, None),
            ("x.io", false, None),
            (".x.io", false, None),
            ("db.y.io", false, Some("*.y.io")),
            ("db.z.io", false, None),
            ("", false, None),
        ] {
            let at = index.named(host, || is_http).map(|(at, _)| at);
            let wanted = found.map(|host| At::Name(host.into()));
            assert_eq!(at, wanted, "{host} {is_http}");
        }
    }
}
