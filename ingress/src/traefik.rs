//! The table as Traefik's HTTP provider wants it. Pure and deterministic: the same table gives
//! the same bytes, so that Traefik sees a change only where there is one.
//!
//! What binds the shape: an empty object anywhere makes Traefik refuse the whole body, an empty
//! body removes every route, an unknown field refuses all. Hence only fields that every Traefik
//! v3 knows, and a router named after the revision in every body: it is never empty, and once
//! Traefik's API shows that router, the table is in use.

mod middleware;
mod service;
mod tcp;
mod tls;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use serde::{Serialize, Serializer};
use skep_model::routing::MAX_PRIORITY;

use crate::acme;
use crate::endpoint::Addresses;
use crate::index;
use crate::ready;
use crate::table::{LeftOut, MAX_PATH_PREFIX_BYTES, Table};
use middleware::Middleware;
use service::Service;

/// Names that begin so are ours.
const RESERVED: &str = "skep-rev";
/// About what a plain route takes.
const BYTES_OF_A_ROUTE: usize = 300;
/// Above any path, and above the redirect to HTTPS (10) that users are told to configure.
const WILDCARD_PRIORITY: usize = 1000;
/// A priority that was said is above any length of a path.
const STEP: usize = MAX_PATH_PREFIX_BYTES + 1000;
/// Any exact host is above any wildcard, whatever is said of paths: a wildcard never takes a request from
/// a host that is another project's.
const EXACT_PRIORITY: usize = WILDCARD_PRIORITY + (MAX_PRIORITY as usize + 1) * STEP;

/// Above every route: the highest of an exact host is below twice the lowest.
const ABOVE_ALL: usize = 2 * EXACT_PRIORITY;
/// The router of what authorities ask, and its service: names of ours.
const PROOFS: &str = "skep-rev.proofs";
/// Those of what load balancers ask.
const READY: &str = "skep-rev.ready";

/// How Traefik is set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The entry points that serve the routes. Empty: Traefik's defaults.
    pub entry_points: Vec<String>,
    /// Certificates that Traefik shows: hosts that they stand for are served under TLS, too.
    pub certificates: Vec<Pair>,
    /// Where certificate authorities get their answers, for every host. None: nobody asks.
    pub proofs: Option<SocketAddr>,
    /// Where load balancers learn whether they are to send requests to this node, at every host. None: nowhere.
    pub ready: Option<SocketAddr>,
}

/// A certificate with its key as Traefik takes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// Hosts that it stands for, in lower case; some may begin with `*.`.
    pub names: Vec<String>,
    /// The leaf and what links it to its root, PEM.
    pub chain: String,
    /// PEM.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pair({:?})", self.names)
    }
}

/// A body for Traefik.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// JSON.
    pub body: Vec<u8>,
    /// Routes that are not in it.
    pub left_out: Vec<LeftOut>,
}

/// The name of the router that tells that Traefik uses the table of `revision`
/// (`/api/http/routers/NAME@http`).
pub fn revision_router(revision: u64) -> String {
    format!("{RESERVED}-{revision}")
}

#[derive(Serialize)]
struct Document<'a> {
    http: Http<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<tcp::Tcp<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls<'a>>,
}

#[derive(Serialize)]
struct Tls<'a> {
    certificates: Vec<CertFile<'a>>,
}

/// Traefik takes text of the file in place of its name.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CertFile<'a> {
    cert_file: &'a str,
    key_file: &'a str,
}

/// One of the few objects that may be empty.
#[derive(Debug, Clone, Serialize)]
struct RouterTls {}

#[derive(Serialize)]
struct Http<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    middlewares: BTreeMap<String, Middleware>,
    routers: ByName<'a, Router<'a>>,
    services: ByName<'a, Service>,
}

/// A map that is filled in almost the order of its names, and read once.
struct ByName<'a, T>(Vec<(Cow<'a, str>, T)>);

impl<'a, T> ByName<'a, T> {
    /// No two have one name.
    fn new(mut all: Vec<(Cow<'a, str>, T)>) -> Self {
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        debug_assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0));
        Self(all)
    }
}

impl<T: Serialize> Serialize for ByName<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Router<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    entry_points: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    middlewares: Vec<String>,
    priority: usize,
    rule: Rule<'a>,
    service: Cow<'a, str>,
    /// With it a router serves TLS alone, without it clear text alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<RouterTls>,
}

/// Which requests a router takes.
enum Rule<'a> {
    Route {
        host: &'a str,
        prefix: &'a str,
    },
    /// None that is ever sent: it tells which table is in use.
    Revision(u64),
    /// What certificate authorities ask, of every host.
    Proofs,
    /// What load balancers ask.
    Ready,
}

impl fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, prefix) = match self {
            Self::Route { host, prefix } => (host, prefix),
            Self::Revision(revision) => return write!(f, "Host(`rev-{revision}.skep.invalid`)"),
            Self::Proofs => return write!(f, "PathPrefix(`{}`)", acme::PATH),
            Self::Ready => return write!(f, "Path(`{}`)", ready::PATH),
        };
        // `Host` with a wildcard is new in 3.7; a regular expression works on every v3.
        match host.strip_prefix("*.") {
            Some(parent) => {
                let parent = parent.replace('.', "\\.");
                write!(f, "HostRegexp(`^[a-z0-9_-]+\\.{parent}$`)")?;
            }
            None => write!(f, "Host(`{host}`)")?,
        }
        if prefix.is_empty() {
            return Ok(());
        }
        // `PathPrefix` alone would match inside of a segment.
        write!(f, " && (Path(`{prefix}`) || PathPrefix(`{prefix}/`))")
    }
}

impl Serialize for Rule<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Renders `table`, whose backends Traefik reaches at `addresses`: one that has none is not there. Of several
/// entry points each has a router of its own, because Traefik renames routers that list several.
pub fn render(table: &Table, addresses: &Addresses, options: &Options) -> Rendered {
    let checked = table.check();
    let count = checked.routes.len() + 1;
    let mut all_middlewares = BTreeMap::new();
    let mut routers = Vec::with_capacity(count * options.entry_points.len().max(1));
    let mut services = Vec::with_capacity(count);
    // By name, so that which of two equal names stays plain does not depend on the hosts alone.
    let covered = tls::names(&options.certificates);
    let mut routes: Vec<_> = checked.routes.iter().collect();
    routes.sort_by_key(|(key, route)| (&route.name, **key));
    let entry_points = &options.entry_points;
    let mut last = None;
    for ((host, prefix), route) in routes {
        let mut name = router_name(&route.name);
        let has_twin = last.replace(&route.name) == Some(&route.name);
        if has_twin {
            name = format!("{name}/{}/{}", escape(host), escape(prefix)).into();
        }
        let made = service::of(&name, (host, prefix), route, addresses);
        // Hosts of one service mostly lead to the same place, and what Traefik does not read twice it has read
        // sooner.
        let service = match services.last().filter(|_| has_twin) {
            Some((before, service)) if made.len() == 1 && made[0].1 == *service => {
                Cow::clone(before)
            }
            _ => {
                services.extend(made);
                name.clone()
            }
        };
        let of_route = route.rules.as_deref().map_or_else(Vec::new, middleware::of);
        let mut middlewares = Vec::with_capacity(of_route.len());
        for (kind, middleware) in of_route {
            // No route's name has two of these beside each other at its end.
            let name = format!("{name}//{kind}");
            all_middlewares.insert(name.clone(), middleware);
            middlewares.push(name);
        }
        // The first entry point has the router with the plain name.
        for place in 0..entry_points.len().max(1) {
            let further = entry_points.get(place).filter(|_| place > 0);
            let router_name = further.map_or_else(
                || name.clone(),
                |entry| format!("{name}//{}", escape(entry)).into(),
            );
            let router = |tls| Router {
                entry_points: entry_points.get(place..=place).unwrap_or_default(),
                middlewares: middlewares.clone(),
                priority: priority(host, prefix, index::priority(route)),
                rule: Rule::Route { host, prefix },
                service: service.clone(),
                tls,
            };
            if tls::is_covered(host, &covered) {
                let name = format!("{router_name}//tls");
                routers.push((name.into(), router(Some(RouterTls {}))));
            }
            routers.push((router_name, router(None)));
        }
    }
    let own = [
        (PROOFS, Rule::Proofs, options.proofs),
        (READY, Rule::Ready, options.ready),
    ];
    for (name, rule, ingress) in own {
        let Some(url) = ingress else { continue };
        routers.push((name.into(), of_every_host(name, rule, entry_points)));
        services.push((name.into(), service::plain(Some(url))));
    }
    let acknowledgement = Router {
        entry_points: entry_points.get(..1).unwrap_or_default(),
        middlewares: Vec::new(),
        priority: 1,
        rule: Rule::Revision(table.revision),
        service: RESERVED.into(),
        tls: None,
    };
    routers.push((revision_router(table.revision).into(), acknowledgement));
    services.push((RESERVED.into(), service::plain(None)));
    let http = Http {
        middlewares: all_middlewares,
        routers: ByName::new(routers),
        services: ByName::new(services),
    };
    let mut body = Vec::with_capacity(count * BYTES_OF_A_ROUTE);
    let tls = tls::of(&options.certificates);
    let tcp = tcp::of(&checked, addresses, entry_points);
    let document = Document { http, tcp, tls };
    serde_json::to_writer(&mut body, &document).expect("maps with string keys are JSON");
    Rendered {
        body,
        left_out: checked.left_out,
    }
}

/// A router of what the ingress answers itself, whatever the host.
fn of_every_host<'a>(name: &'a str, rule: Rule<'a>, entry_points: &'a [String]) -> Router<'a> {
    Router {
        entry_points: entry_points.get(..1).unwrap_or_default(),
        middlewares: Vec::new(),
        priority: ABOVE_ALL,
        rule,
        service: name.into(),
        tls: None,
    }
}

/// `said` is the route's own priority, 0 where it has none.
fn priority(host: &str, prefix: &str, said: u32) -> usize {
    let base = if host.starts_with("*.") {
        WILDCARD_PRIORITY
    } else {
        EXACT_PRIORITY
    };
    base + said as usize * STEP + prefix.len()
}

/// A name that no other route's name can become.
fn router_name(name: &str) -> Cow<'_, str> {
    let escaped = escape(name);
    // Traefik refuses empty names, and ours are ours.
    match escaped.strip_prefix(RESERVED.split_at(1).0) {
        _ if escaped.is_empty() => ".".into(),
        Some(rest) if escaped.starts_with(RESERVED) => {
            format!(".{:02x}{rest}", RESERVED.as_bytes()[0]).into()
        }
        _ => escaped,
    }
}

/// Keeps lower-case letters, digits, `-` and `_`; any other byte is `.` and two hexadecimal
/// digits. No two texts have the same form.
fn escape(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if text.bytes().all(is_plain) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, ".{byte:02x}");
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests;
