//! The table as Traefik's HTTP provider wants it. Pure and deterministic: the same table gives
//! the same bytes, so that Traefik sees a change only where there is one.
//!
//! What binds the shape: an empty object anywhere makes Traefik refuse the whole body, an empty
//! body removes every route, an unknown field refuses all. Hence only fields that every Traefik
//! v3 knows, and a router named after the revision in every body: it is never empty, and once
//! Traefik's API shows that router, the table is in use.

mod middleware;
mod tls;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

use serde::Serialize;
use skep_model::routing::MAX_PRIORITY;

use crate::index;
use crate::table::{Backend, LeftOut, MAX_PATH_PREFIX_BYTES, Place, Route, Table};
use middleware::Middleware;

/// Names that begin so are ours.
const RESERVED: &str = "skep-rev";
/// Above any path, and above the redirect to HTTPS (10) that users are told to configure.
const WILDCARD_PRIORITY: usize = 1000;
/// A priority that was said is above any length of a path.
const STEP: usize = MAX_PATH_PREFIX_BYTES + 1000;
/// Any exact host is above any wildcard, whatever is said of paths: a wildcard never takes a request from
/// a host that is another project's.
const EXACT_PRIORITY: usize = WILDCARD_PRIORITY + (MAX_PRIORITY as usize + 1) * STEP;

/// How Traefik is set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The entry points that serve the routes. Empty: Traefik's defaults.
    pub entry_points: Vec<String>,
    /// Certificates that Traefik shows: hosts that they stand for are served under TLS, too.
    pub certificates: Vec<Pair>,
    /// Where certificate authorities get their answers, for every host. None: nobody asks.
    pub proofs: Option<SocketAddr>,
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
struct Document {
    http: Http,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
}

#[derive(Serialize)]
struct Tls {
    certificates: Vec<CertFile>,
}

/// Traefik takes text of the file in place of its name.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CertFile {
    cert_file: String,
    key_file: String,
}

/// One of the few objects that may be empty.
#[derive(Debug, Clone, Serialize)]
struct RouterTls {}

#[derive(Serialize)]
struct Http {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    middlewares: BTreeMap<String, Middleware>,
    routers: BTreeMap<String, Router>,
    services: BTreeMap<String, Service>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Router {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entry_points: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    middlewares: Vec<String>,
    priority: usize,
    rule: String,
    service: String,
    /// With it a router serves TLS alone, without it clear text alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<RouterTls>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    load_balancer: LoadBalancer,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadBalancer {
    pass_host_header: bool,
    servers: Vec<Server>,
}

#[derive(Serialize)]
struct Server {
    url: String,
}

/// Renders `table`. Traefik reaches what has an address alone: whoever wants it to reach backends of other
/// nodes gives them one of this node. Of several entry points each has a router of its own, because Traefik
/// renames routers that list several.
pub fn render(table: &Table, options: &Options) -> Rendered {
    let checked = table.check();
    let mut http = Http {
        middlewares: BTreeMap::new(),
        routers: BTreeMap::new(),
        services: BTreeMap::new(),
    };
    // By name, so that which of two equal names stays plain does not depend on the hosts alone.
    let covered = tls::names(&options.certificates);
    let mut routes: Vec<_> = checked.routes.iter().collect();
    routes.sort_by_key(|(key, route)| (&route.name, **key));
    for ((host, prefix), route) in routes {
        let mut name = router_name(&route.name);
        if http.services.contains_key(&name) {
            name = format!("{name}/{}/{}", escape(host), escape(prefix));
        }
        http.services.insert(name.clone(), service(route));
        let of_route = route.rules.as_deref().map_or_else(Vec::new, middleware::of);
        let mut middlewares = Vec::with_capacity(of_route.len());
        for (kind, middleware) in of_route {
            // No route's name has two of these beside each other at its end.
            let name = format!("{name}//{kind}");
            http.middlewares.insert(name.clone(), middleware);
            middlewares.push(name);
        }
        for (router_name, entry_points) in entry_points(&name, &options.entry_points) {
            let router = |tls| Router {
                entry_points: entry_points.clone(),
                middlewares: middlewares.clone(),
                priority: priority(host, prefix, index::priority(route)),
                rule: rule(host, prefix),
                service: name.clone(),
                tls,
            };
            if tls::is_covered(host, &covered) {
                let name = format!("{router_name}//tls");
                http.routers.insert(name, router(Some(RouterTls {})));
            }
            http.routers.insert(router_name, router(None));
        }
    }
    if let Some(proofs) = options.proofs {
        tls::lead_to_proofs(&mut http, proofs, options.entry_points.first());
    }
    let acknowledgement = Router {
        entry_points: options.entry_points.first().cloned().into_iter().collect(),
        middlewares: Vec::new(),
        priority: 1,
        rule: format!("Host(`rev-{}.skep.invalid`)", table.revision),
        service: RESERVED.to_owned(),
        tls: None,
    };
    http.routers
        .insert(revision_router(table.revision), acknowledgement);
    let nowhere = LoadBalancer {
        pass_host_header: true,
        servers: Vec::new(),
    };
    http.services.insert(
        RESERVED.to_owned(),
        Service {
            load_balancer: nowhere,
        },
    );
    let tls = tls::of(&options.certificates);
    let body = serde_json::to_vec(&Document { http, tls }).expect("maps with string keys are JSON");
    Rendered {
        body,
        left_out: checked.left_out,
    }
}

fn service(route: &Route) -> Service {
    let here = |backend: &Backend| match backend.place {
        Place::Here(address) => Some(address),
        Place::There { .. } => None,
    };
    let mut addresses: Vec<_> = route.backends.iter().filter_map(here).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let servers = addresses
        .iter()
        .map(|address| Server {
            url: format!("http://{address}"),
        })
        .collect();
    Service {
        load_balancer: LoadBalancer {
            pass_host_header: true,
            servers,
        },
    }
}

/// The routers of a service with their entry points: the first keeps the plain name.
fn entry_points(name: &str, all: &[String]) -> Vec<(String, Vec<String>)> {
    let Some((first, further)) = all.split_first() else {
        return vec![(name.to_owned(), Vec::new())];
    };
    let mut routers = vec![(name.to_owned(), vec![first.clone()])];
    routers.extend(
        further
            .iter()
            .map(|entry| (format!("{name}//{}", escape(entry)), vec![entry.clone()])),
    );
    routers
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

fn rule(host: &str, prefix: &str) -> String {
    // `Host` with a wildcard is new in 3.7; a regular expression works on every v3.
    let mut rule = match host.strip_prefix("*.") {
        Some(parent) => format!(
            "HostRegexp(`^[a-z0-9_-]+\\.{}$`)",
            parent.replace('.', "\\.")
        ),
        None => format!("Host(`{host}`)"),
    };
    if !prefix.is_empty() {
        // `PathPrefix` alone would match inside of a segment.
        let _ = write!(rule, " && (Path(`{prefix}`) || PathPrefix(`{prefix}/`))");
    }
    rule
}

/// A name that no other route's name can become.
fn router_name(name: &str) -> String {
    let escaped = escape(name);
    // Traefik refuses empty names, and ours are ours.
    match escaped.strip_prefix(RESERVED.split_at(1).0) {
        _ if escaped.is_empty() => ".".to_owned(),
        Some(rest) if escaped.starts_with(RESERVED) => {
            format!(".{:02x}{rest}", RESERVED.as_bytes()[0])
        }
        _ => escaped,
    }
}

/// Keeps lower-case letters, digits, `-` and `_`; any other byte is `.` and two hexadecimal
/// digits. No two texts have the same form.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, ".{byte:02x}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
