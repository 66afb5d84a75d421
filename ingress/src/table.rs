//! The node-local table of routes, and which of its routes can be served at all.
//!
//! The embedded ingress and the renderer for Traefik both take their routes from
//! [`Table::check`], so that they always agree on what is routed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::route::{Part, Tried};
use skep_model::routing::{self, RouteSpec};
use skep_model::tcp::{Door, TlsMode};

use crate::files::Bundle;

/// The longest host name that DNS allows, in bytes.
const MAX_HOST_BYTES: usize = 253;
/// The longest label that DNS allows, in bytes.
const MAX_LABEL_BYTES: usize = 63;
/// Far above any real prefix; keeps Traefik's priorities of exact and wildcard hosts apart.
pub const MAX_PATH_PREFIX_BYTES: usize = 1024;

/// All routes of a node at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Grows with each different table.
    pub revision: u64,
    /// The routes, in any order.
    pub routes: Vec<Route>,
    /// Those of connections, in any order.
    pub tcp: Vec<TcpRoute>,
}

/// A way in for connections that leads to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRoute {
    /// Where they come in.
    pub door: Door,
    /// A header of the PROXY protocol leads each in.
    pub proxy_protocol: bool,
    /// Who answers, for metrics.
    pub service: ServiceId,
    /// Stable over deployments: names the router in Traefik.
    pub name: String,
    /// Where they may go. Empty: they are closed.
    pub backends: Vec<Backend>,
}

impl TcpRoute {
    /// Who speaks TLS.
    pub(crate) fn tls(&self) -> TlsMode {
        match self.door {
            Door::Sni { tls, .. } => tls,
            Door::Entry(_) => TlsMode::Passthrough,
        }
    }
}

/// A host and path that lead to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Lower case and exact, or `*.` and a parent domain: exactly one label in place of `*`.
    pub host: String,
    /// Whole segments of the path: `/api` is `/api` and all below it, never `/apis`. `/` is all.
    pub path_prefix: String,
    /// Who answers, for metrics.
    pub service: ServiceId,
    /// Stable over deployments: names the router in Traefik.
    pub name: String,
    /// Where requests may go. Empty: 503, unless it sleeps.
    pub backends: Vec<Backend>,
    /// Requests that find no backend wait for one, for at most `Options::wake_timeout`.
    pub sleeps: bool,
    /// What is done to requests on their way; none: nothing.
    pub rules: Option<Arc<RouteSpec>>,
    /// Services that share its requests, and which of the backends are whose. Empty: all are the
    /// service's own. A backend that is no part's gets nothing.
    pub parts: Vec<Part>,
    /// Releases whose requests are counted apart, too. A backend of one is among those of the route.
    pub tried: Vec<Tried>,
}

/// An allocation that takes requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// Which allocation.
    pub allocation: AllocationId,
    /// Where it listens, speaking HTTP/1.1, or what is handed out for it.
    pub place: Place,
}

/// Where an allocation listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// On this node.
    Here(SocketAddr),
    /// On another one.
    There {
        /// Which.
        node: NodeId,
        /// The container's port.
        port: u16,
    },
    /// Nowhere: this process hands out the files of a static site by itself. Never of a route of connections.
    Files(Bundle),
}

impl Place {
    /// Where it listens, wherever that is; 0: nowhere.
    pub fn port(&self) -> u16 {
        match self {
            Self::Here(address) => address.port(),
            Self::There { port, .. } => *port,
            Self::Files(_) => 0,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(address) => write!(f, "{address}"),
            Self::There { node, port } => write!(f, "port {port} on node {node}"),
            Self::Files(bundle) => write!(f, "files in {}", bundle.folder().display()),
        }
    }
}

/// Why a route is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not a host name.
    #[error(
        "the host is not a lower-case DNS name (letters, digits, `-`, `_`, `.`; at most a leading `*.`; \
         punycode for other letters)"
    )]
    Host,
    /// Not a path prefix.
    #[error(
        "the path prefix must begin with `/` and hold only letters, digits and -._~!$&'()*+,;=:@/, \
         at most {MAX_PATH_PREFIX_BYTES} bytes"
    )]
    PathPrefix,
    /// What is to be done to requests cannot be done.
    #[error("what is said of it is not accepted")]
    Rules,
    /// The host has routes of both kinds.
    #[error("the host has routes of HTTP, too")]
    Both,
    /// The same host and path belong to another route.
    #[error("another route has the same host and path")]
    Duplicate,
}

/// A route that is not served, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The route's name.
    pub name: String,
    /// Its host as given.
    pub host: String,
    /// Its path prefix as given.
    pub path_prefix: String,
    /// What is wrong.
    pub fault: Fault,
}

/// The routes of a table that can be served, by host and normal path prefix, and the others.
#[derive(Debug, Default)]
pub struct Checked<'a> {
    /// Keyed by host and prefix without its trailing `/`: the prefix of everything is empty.
    pub routes: BTreeMap<(&'a str, &'a str), &'a Route>,
    /// Routes of connections, by where they come in: a host once, whoever speaks TLS.
    pub tcp: BTreeMap<(Option<&'a str>, u16), &'a TcpRoute>,
    /// What cannot be served.
    pub left_out: Vec<LeftOut>,
}

impl Table {
    /// Sorts the routes into those that can be served and those that cannot. Of two routes with
    /// one host and path the one with the smaller (name, service, backends) stays, whatever
    /// their order.
    pub fn check(&self) -> Checked<'_> {
        let mut checked = Checked::default();
        for route in &self.routes {
            match fault(route) {
                Some(fault) => checked.leave_out(route, fault),
                None => checked.add(route),
            }
        }
        for route in &self.tcp {
            checked.add_tcp(route);
        }
        checked
    }
}

impl<'a> Checked<'a> {
    fn add(&mut self, route: &'a Route) {
        let key = (route.host.as_str(), route.path_prefix.trim_end_matches('/'));
        let loser = match self.routes.entry(key) {
            Entry::Vacant(place) => {
                place.insert(route);
                return;
            }
            Entry::Occupied(mut place) => {
                let first = *place.get();
                if rank(route) < rank(first) {
                    place.insert(route)
                } else {
                    route
                }
            }
        };
        self.leave_out(loser, Fault::Duplicate);
    }

    /// Of two for one place the one with the smaller name stays; a host of requests is not one of connections.
    fn add_tcp(&mut self, route: &'a TcpRoute) {
        let (key, shown) = match &route.door {
            Door::Sni { host, .. } => ((Some(&**host), 0), host.clone()),
            Door::Entry(port) => ((None, *port), format!("port {port}")),
        };
        let mut leave_out = |route: &TcpRoute, fault| {
            self.left_out.push(LeftOut {
                name: route.name.clone(),
                host: shown.clone(),
                path_prefix: String::new(),
                fault,
            });
        };
        if let (Some(host), _) = key {
            if !is_host_name(host.strip_prefix("*.").unwrap_or(host)) {
                return leave_out(route, Fault::Host);
            }
            let mut of_host = self.routes.range((host, "")..);
            if of_host.next().is_some_and(|((first, _), _)| *first == host) {
                return leave_out(route, Fault::Both);
            }
        }
        let rank = |it: &'a TcpRoute| {
            let said = (&it.door, it.proxy_protocol);
            (&*it.name, it.service, &*it.backends, said)
        };
        match self.tcp.get(&key).copied() {
            Some(first) if rank(first) <= rank(route) => leave_out(route, Fault::Duplicate),
            other => {
                if let Some(first) = other {
                    leave_out(first, Fault::Duplicate);
                }
                self.tcp.insert(key, route);
            }
        }
    }

    fn leave_out(&mut self, route: &Route, fault: Fault) {
        self.left_out.push(LeftOut {
            name: route.name.clone(),
            host: route.host.clone(),
            path_prefix: route.path_prefix.clone(),
            fault,
        });
    }
}

/// Which of two routes for one host and path stays: the smaller.
fn rank(route: &Route) -> (&str, ServiceId, &[Backend], Option<&RouteSpec>, &[Part]) {
    let rules = route.rules.as_deref();
    (
        &route.name,
        route.service,
        &route.backends,
        rules,
        &route.parts,
    )
}

fn fault(route: &Route) -> Option<Fault> {
    let name = route.host.strip_prefix("*.").unwrap_or(&route.host);
    if !is_host_name(name) {
        Some(Fault::Host)
    } else if !is_path_prefix(&route.path_prefix) {
        Some(Fault::PathPrefix)
    } else if let Some(rules) = &route.rules
        && routing::check_all(std::slice::from_ref(rules), &[]).is_err()
    {
        Some(Fault::Rules)
    } else {
        None
    }
}

fn is_host_name(text: &str) -> bool {
    text.len() <= MAX_HOST_BYTES
        && text.split('.').all(|label| {
            (1..=MAX_LABEL_BYTES).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(is_host_byte)
        })
}

/// A byte of a host name, in lower case.
pub(crate) fn is_host_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')
}

fn is_path_prefix(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= MAX_PATH_PREFIX_BYTES
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str, host: &str, path_prefix: &str) -> Route {
        Route {
            sleeps: false,
            rules: None,
            parts: Vec::new(),
            host: host.to_owned(),
            path_prefix: path_prefix.to_owned(),
            service: ServiceId::from_u128(1),
            name: name.to_owned(),
            backends: Vec::new(),
            tried: Vec::new(),
        }
    }

    fn faults(routes: Vec<Route>) -> Vec<(String, Fault)> {
        let table = Table {
            routes,
            ..Table::default()
        };
        table
            .check()
            .left_out
            .into_iter()
            .map(|left| (left.name, left.fault))
            .collect()
    }

    #[test]
    fn good_hosts_and_paths_pass() {
        for host in [
            "localhost",
            "a.b-c.d",
            "*.example.com",
            "xn--bcher-kva.example",
            "_x.1.2",
        ] {
            assert_eq!(faults(vec![route("r", host, "/a-b/~c")]), [], "{host}");
        }
    }

    #[test]
    fn hosts_that_could_break_out_are_left_out() {
        let long = "a.".repeat(130) + "b";
        for host in [
            "",
            "*",
            "*.",
            "*.*.b",
            "a..b",
            "A.b",
            "a`b",
            "a b",
            "bücher.de",
            "a.b.",
            "-a.b",
            "a.b:80",
            &long,
        ] {
            assert_eq!(
                faults(vec![route("r", host, "/")]),
                [("r".to_owned(), Fault::Host)],
                "{host}"
            );
        }
    }

    #[test]
    fn paths_that_could_break_out_are_left_out() {
        for path in [
            "",
            "a",
            "/a`) || Host(`x",
            "/a b",
            "/a?b",
            "/a%2f",
            "/ä",
            "/a\\",
        ] {
            assert_eq!(
                faults(vec![route("r", "h", path)]),
                [("r".to_owned(), Fault::PathPrefix)],
                "{path}"
            );
        }
    }

    #[test]
    fn of_two_equal_routes_the_smaller_name_stays_in_any_order() {
        let (a, b) = (route("a", "h", "/x/"), route("b", "h", "/x"));
        let lost = [("b".to_owned(), Fault::Duplicate)];
        assert_eq!(faults(vec![a.clone(), b.clone()]), lost);
        assert_eq!(faults(vec![b, a]), lost);
    }

    #[test]
    fn equal_routes_that_differ_in_backends_alone_do_not_depend_on_their_order() {
        let backend = Backend {
            allocation: AllocationId::from_u128(1),
            place: Place::Here(SocketAddr::from(([127, 0, 0, 1], 1))),
        };
        let without = route("a", "*.b", "/");
        let with = Route {
            sleeps: false,
            rules: None,
            parts: Vec::new(),
            backends: vec![backend],
            ..without.clone()
        };
        for routes in [[with.clone(), without.clone()], [without, with]] {
            let table = Table {
                revision: 1,
                routes: routes.to_vec(),
                ..Table::default()
            };
            let kept = table.check().routes[&("*.b", "")].clone();
            assert!(kept.backends.is_empty());
        }
    }
}
