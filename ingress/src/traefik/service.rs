//! Where a router of Traefik's leads: to the addresses of a route's backends, or by weight to those of the
//! services that share it.

use std::borrow::Cow;
use std::net::SocketAddr;

use serde::{Serialize, Serializer};
use skep_model::route::Part;

use super::escape;
use crate::endpoint::Addresses;
use crate::sticky;
use crate::table::{Backend, Route};

#[derive(Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) enum Service {
    LoadBalancer(LoadBalancer),
    Weighted(Weighted),
}

#[derive(Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoadBalancer {
    pass_host_header: bool,
    servers: Vec<Server>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sticky: Option<Sticky>,
}

#[derive(Serialize, PartialEq)]
pub(super) struct Weighted {
    services: Vec<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sticky: Option<Sticky>,
}

#[derive(Serialize, PartialEq)]
struct Share {
    name: String,
    weight: u32,
}

#[derive(Serialize, PartialEq)]
struct Sticky {
    cookie: Cookie,
}

#[derive(Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Cookie {
    name: String,
    http_only: bool,
    same_site: &'static str,
}

#[derive(Serialize, PartialEq)]
struct Server {
    #[serde(serialize_with = "url")]
    url: SocketAddr,
}

fn url<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("http://{address}"))
}

/// A service of our own, at one address or at none.
pub(super) fn plain(url: Option<SocketAddr>) -> Service {
    balanced(url.into_iter().collect(), None)
}

/// The services of `route`, whose router has `name`. A part without a backend is not there: Traefik would
/// send it its share nevertheless.
pub(super) fn of<'a>(
    name: &Cow<'a, str>,
    at: (&str, &str),
    route: &Route,
    addresses: &Addresses,
) -> Vec<(Cow<'a, str>, Service)> {
    let is_sticky = route.rules.as_ref().is_some_and(|rules| rules.sticky);
    let cookie = is_sticky.then(|| sticky::cookie_name(route.service, at.1));
    let parts = route.parts.iter().filter(|part| part.weight > 0);
    let parts = parts.map(|part| (part, dialed(of_part(route, part), addresses)));
    let parts: Vec<_> = parts.filter(|(_, urls)| !urls.is_empty()).collect();
    if parts.len() < 2 {
        return vec![(name.clone(), balanced(all(route, at, addresses), cookie))];
    }
    // Names of services are unique within an environment, and no route's name has two of these.
    let part_name = |part: &Part| format!("{name}//part/{}", escape(&part.name));
    let share = |(part, _): &(&Part, _)| Share {
        name: part_name(part),
        weight: part.weight,
    };
    let weighted = Weighted {
        services: parts.iter().map(share).collect(),
        // One cookie says which part, another which of its backends.
        sticky: cookie.as_ref().map(|name| kept_by(format!("{name}-part"))),
    };
    let mut services = vec![(name.clone(), Service::Weighted(weighted))];
    for (part, urls) in parts {
        services.push((part_name(part).into(), balanced(urls, cookie.clone())));
    }
    services
}

fn balanced(urls: Vec<SocketAddr>, cookie: Option<String>) -> Service {
    Service::LoadBalancer(LoadBalancer {
        pass_host_header: true,
        servers: urls.into_iter().map(|url| Server { url }).collect(),
        sticky: cookie.map(kept_by),
    })
}

fn kept_by(name: String) -> Sticky {
    Sticky {
        cookie: Cookie {
            name,
            http_only: true,
            same_site: "lax",
        },
    }
}

fn of_part<'a>(route: &'a Route, part: &'a Part) -> impl Iterator<Item = &'a Backend> {
    let backends = route.backends.iter();
    backends.filter(|backend| part.allocations.contains(&backend.allocation))
}

/// Where requests of a route go: to its backends, or where they wait for the first one.
fn all(route: &Route, at: (&str, &str), addresses: &Addresses) -> Vec<SocketAddr> {
    let mut all = dialed(route.backends.iter(), addresses);
    if route.backends.is_empty() && route.sleeps {
        let at = (at.0.to_owned(), at.1.to_owned());
        all.extend(addresses.asleep.get(&at));
    }
    all
}

fn dialed<'a>(
    backends: impl Iterator<Item = &'a Backend>,
    addresses: &Addresses,
) -> Vec<SocketAddr> {
    let mut all: Vec<_> = backends
        .filter_map(|backend| addresses.backends.get(backend).copied())
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}
