//! What Traefik is told of connections: by name alone, since its entry points are its own and no table opens
//! another. Each route has one address, behind which the ingress chooses; who the client is goes with each
//! connection.

use std::net::SocketAddr;

use serde::{Serialize, Serializer};
use skep_model::tcp::{Door, TlsMode};

use super::{ByName, escape, router_name};
use crate::endpoint::Addresses;
use crate::table::Checked;

/// An exact name before a wildcard, whatever their lengths.
const EXACT_PRIORITY: usize = 2;
const WILDCARD_PRIORITY: usize = 1;

#[derive(Serialize)]
pub(super) struct Tcp<'a> {
    routers: ByName<'a, Router<'a>>,
    services: ByName<'a, Service>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Router<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    entry_points: &'a [String],
    priority: usize,
    rule: String,
    service: String,
    tls: Tls,
}

#[derive(Serialize)]
struct Tls {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    passthrough: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    load_balancer: LoadBalancer,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadBalancer {
    proxy_protocol: ProxyProtocol,
    servers: [Server; 1],
    /// In ms, after one side has said that nothing more comes from it: never, since the other may have much to
    /// say. Silence is the ingress' to judge. Its place since 3.0 is a transport, with which 3.7 forgets
    /// `proxy_protocol`.
    termination_delay: i32,
}

#[derive(Serialize)]
struct ProxyProtocol {
    version: u8,
}

#[derive(Serialize)]
struct Server {
    #[serde(serialize_with = "text")]
    address: SocketAddr,
}

fn text<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

/// None: there is no route by name, and an empty object would make Traefik refuse all.
pub(super) fn of<'a>(
    checked: &Checked<'a>,
    addresses: &Addresses,
    entry_points: &'a [String],
) -> Option<Tcp<'a>> {
    let mut routers = Vec::new();
    let mut services = Vec::new();
    for route in checked.tcp.values() {
        let Door::Sni { host, tls } = &route.door else {
            continue;
        };
        let Some(address) = addresses.named.get(host) else {
            continue;
        };
        let name = format!("{}/{}", router_name(&route.name), escape(host));
        for place in 0..entry_points.len().max(1) {
            // The first entry point has the router with the plain name, as for requests.
            let further = entry_points.get(place).filter(|_| place > 0);
            let router_name = further.map_or_else(
                || name.clone(),
                |entry| format!("{name}//{}", escape(entry)),
            );
            let router = Router {
                entry_points: entry_points.get(place..=place).unwrap_or_default(),
                priority: match host.starts_with("*.") {
                    true => WILDCARD_PRIORITY,
                    false => EXACT_PRIORITY,
                },
                rule: rule(host, checked),
                service: name.clone(),
                tls: Tls {
                    passthrough: *tls == TlsMode::Passthrough,
                },
            };
            routers.push((router_name.into(), router));
        }
        let load_balancer = LoadBalancer {
            proxy_protocol: ProxyProtocol { version: 2 },
            servers: [Server { address: *address }],
            termination_delay: -1,
        };
        services.push((name.into(), Service { load_balancer }));
    }
    (!routers.is_empty()).then(|| Tcp {
        routers: ByName::new(routers),
        services: ByName::new(services),
    })
}

fn rule(host: &str, checked: &Checked<'_>) -> String {
    let Some(parent) = host.strip_prefix("*.") else {
        return format!("HostSNI(`{host}`)");
    };
    let mut rule = format!(
        "HostSNIRegexp(`^[a-z0-9_-]+\\.{}$`)",
        parent.replace('.', "\\.")
    );
    // An exact host of HTTP is before a wildcard of connections.
    let mut last = "";
    for (http, _) in checked.routes.keys() {
        let label = http
            .strip_suffix(parent)
            .and_then(|it| it.strip_suffix('.'));
        let is_below = label.is_some_and(|label| label != "*" && !label.contains('.'));
        if is_below && *http != last {
            rule.push_str(&format!(" && !HostSNI(`{http}`)"));
            last = http;
        }
    }
    rule
}
