//! A table made fast to ask: exact hosts, then wildcards of one label; under a host the longest
//! path prefix of whole segments. Immutable once built.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use skep_model::id::{AllocationId, ServiceId};
use skep_model::routing::RouteSpec;

use crate::backend::{InFlight, LiveBackend, enter};
use crate::endpoint::At;
use crate::metrics::{ServiceMetrics, TriedMetrics};
use crate::parts::{self, Part};
use crate::rules::Rules;
use crate::sticky;
use crate::table::{Backend, Checked, Route};
use crate::tcp::{self, TcpIndex};

/// The routes of one table.
#[derive(Debug, Default)]
pub(crate) struct Index {
    exact: HashMap<String, Vec<Entry>>,
    /// By the domain after `*.`.
    wildcard: HashMap<String, Vec<Entry>>,
    pub(crate) backends: HashMap<Backend, Arc<LiveBackend>>,
    /// Of the routes that have any.
    pub(crate) rules: RulesByPlace,
    /// The routes of connections.
    pub(crate) tcp: TcpIndex,
}

type Backends = HashMap<Backend, Arc<LiveBackend>>;
type RulesByPlace = HashMap<At, Arc<Rules>>;

#[derive(Debug)]
struct Entry {
    /// Without a trailing `/`; entries of a host are in falling order of priority and length.
    prefix: String,
    /// 0: none is said.
    priority: u32,
    target: Target,
}

/// Where a route leads.
#[derive(Debug)]
pub(crate) struct Target {
    /// The route's.
    pub(crate) name: Arc<str>,
    pub(crate) metrics: Arc<ServiceMetrics>,
    backends: Vec<Arc<LiveBackend>>,
    /// Where services share its requests; most have none.
    parts: Vec<Part>,
    /// Requests wait for a backend where there is none.
    pub(crate) sleeps: bool,
    pub(crate) rules: Option<Arc<Rules>>,
    /// The cookie by which clients stay where they are.
    pub(crate) cookie: Option<Arc<str>>,
    /// Answers are compressed.
    pub(crate) compress: bool,
}

impl Index {
    /// Builds the index of `checked`; backends that `old` has stay as they are, and so do the rules
    /// of routes that say the same as before.
    pub(crate) fn build(
        checked: &Checked<'_>,
        (old, old_rules): (&Backends, &RulesByPlace),
        make: impl Fn(Backend) -> Arc<LiveBackend>,
        mut metrics: impl FnMut(ServiceId) -> Arc<ServiceMetrics>,
    ) -> Self {
        let mut index = Self::default();
        let make = |backend: &Backend| {
            let known = old.get(backend).cloned();
            known.unwrap_or_else(|| make(backend.clone()))
        };
        for route in checked.tcp.values() {
            let target = tcp::Target {
                metrics: metrics(route.service),
                backends: index.live(&route.backends, make),
                proxy_protocol: route.proxy_protocol,
                tls: route.tls(),
            };
            index.tcp.insert(&route.door, target);
        }
        for ((host, prefix), route) in &checked.routes {
            let backends = index.live(&route.backends, make);
            let rules = route.rules.as_ref().map(|spec| {
                let place = ((*host).to_owned(), (*prefix).to_owned());
                let same = old_rules.get(&place).filter(|rules| rules.are_of(spec));
                let rules = same.cloned().unwrap_or_else(|| Arc::new(Rules::new(spec)));
                index.rules.insert(place, Arc::clone(&rules));
                rules
            });
            let is = |what: fn(&RouteSpec) -> bool| route.rules.as_deref().is_some_and(what);
            let is_sticky = is(|rules| rules.sticky);
            let cookie = is_sticky.then(|| sticky::cookie_name(route.service, prefix).into());
            let target = Target {
                rules,
                cookie,
                compress: is(|rules| rules.compress),
                name: route.name.as_str().into(),
                metrics: metrics(route.service),
                parts: parts_of(route, &backends, &mut metrics),
                backends,
                sleeps: route.sleeps,
            };
            let (hosts, key) = match host.strip_prefix("*.") {
                Some(parent) => (&mut index.wildcard, parent),
                None => (&mut index.exact, *host),
            };
            hosts.entry(key.to_owned()).or_default().push(Entry {
                prefix: (*prefix).to_owned(),
                priority: priority(route),
                target,
            });
        }
        index.try_out(checked, metrics);
        for entries in index.exact.values_mut().chain(index.wildcard.values_mut()) {
            entries.sort_by_key(|entry| std::cmp::Reverse((entry.priority, entry.prefix.len())));
        }
        index
    }

    /// Has the requests of releases that are tried counted apart.
    fn try_out(
        &self,
        checked: &Checked<'_>,
        mut metrics: impl FnMut(ServiceId) -> Arc<ServiceMetrics>,
    ) {
        let tried = checked.routes.values().flat_map(|route| &route.tried);
        let counters: HashMap<AllocationId, Arc<TriedMetrics>> = tried
            .flat_map(|tried| {
                let counters = metrics(tried.service).tried(tried.deployment);
                let allocations = tried.allocations.iter();
                allocations.map(move |id| (*id, Arc::clone(&counters)))
            })
            .collect();
        for (backend, live) in &self.backends {
            live.try_out(counters.get(&backend.allocation).cloned());
        }
    }

    /// Backends of a route, each once.
    fn live(
        &mut self,
        of_route: &[Backend],
        make: impl Fn(&Backend) -> Arc<LiveBackend>,
    ) -> Vec<Arc<LiveBackend>> {
        let mut backends: Vec<Arc<LiveBackend>> = Vec::with_capacity(of_route.len());
        for backend in of_route {
            let live = self.backends.entry(backend.clone());
            let live = live.or_insert_with(|| make(backend));
            if !backends.iter().any(|known| Arc::ptr_eq(known, live)) {
                backends.push(Arc::clone(live));
            }
        }
        backends
    }

    /// Whether this very name, and no wildcard, has routes of requests.
    pub(crate) fn has_host(&self, host: &str) -> bool {
        self.exact.contains_key(host)
    }

    /// The route that was given for exactly this host and prefix.
    pub(crate) fn at(&self, (host, prefix): &At) -> Option<&Target> {
        let entries = match host.strip_prefix("*.") {
            Some(parent) => self.wildcard.get(parent),
            None => self.exact.get(host),
        };
        let entry = entries?.iter().find(|entry| entry.prefix == *prefix)?;
        Some(&entry.target)
    }

    /// Every route with its host and prefix, in no order.
    pub(crate) fn for_each<'a>(&'a self, mut each: impl FnMut(&Cow<'a, str>, &'a str, &'a Target)) {
        let mut each_of = |host: Cow<'a, str>, entries: &'a [Entry]| {
            for entry in entries {
                each(&host, &entry.prefix, &entry.target);
            }
        };
        for (host, entries) in &self.exact {
            each_of(host.into(), entries);
        }
        for (parent, entries) in &self.wildcard {
            each_of(format!("*.{parent}").into(), entries);
        }
    }

    /// The route of a lower-case host and a path.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Target> {
        let exact = self
            .exact
            .get(host)
            .and_then(|entries| longest(entries, path));
        exact.or_else(|| {
            let (label, parent) = host.split_once('.')?;
            let entries = self.wildcard.get(parent).filter(|_| !label.is_empty())?;
            longest(entries, path)
        })
    }
}

/// Who shares the route's requests, with `live` of its backends.
fn parts_of(
    route: &Route,
    live: &[Arc<LiveBackend>],
    metrics: &mut impl FnMut(ServiceId) -> Arc<ServiceMetrics>,
) -> Vec<Part> {
    let part = |part: &skep_model::route::Part| {
        let own = |live: &&Arc<LiveBackend>| part.allocations.contains(&live.backend.allocation);
        Part {
            name: part.name.as_str().into(),
            metrics: metrics(part.service),
            weight: part.weight,
            backends: live.iter().filter(own).cloned().collect(),
        }
    };
    route.parts.iter().map(part).collect()
}

/// 0: none is said.
pub(crate) fn priority(route: &Route) -> u32 {
    let rules = route.rules.as_ref();
    rules.and_then(|rules| rules.priority).unwrap_or(0)
}

fn longest<'a>(entries: &'a [Entry], path: &str) -> Option<&'a Target> {
    let covers = |entry: &&Entry| {
        path.strip_prefix(entry.prefix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || entry.prefix.is_empty())
    };
    entries.iter().find(covers).map(|entry| &entry.target)
}

impl Target {
    pub(crate) fn backends(&self) -> &[Arc<LiveBackend>] {
        &self.backends
    }

    /// Enters the backend that a client has been told of, unless that fails.
    pub(crate) fn enter_again(&self, token: u64, tried: &[Arc<LiveBackend>]) -> Option<InFlight> {
        let is_it = |live: &&Arc<LiveBackend>| {
            sticky::token(live.backend.allocation) == token
                && !live.is_failing()
                && !tried.iter().any(|known| Arc::ptr_eq(known, live))
        };
        self.backends.iter().find(is_it).map(LiveBackend::enter)
    }

    /// Enters one of its backends: see [`enter`], and [`parts::enter`] where services share it.
    pub(crate) fn enter(&self, random: u64, tried: &[Arc<LiveBackend>]) -> Option<InFlight> {
        match &*self.parts {
            [] => enter(&self.backends, random, tried),
            parts => parts::enter(parts, random, tried),
        }
    }

    /// The same in place of a backend of `service`: as long as that has a part, within it.
    pub(crate) fn enter_for(
        &self,
        service: ServiceId,
        random: u64,
        tried: &[Arc<LiveBackend>],
    ) -> Option<InFlight> {
        let mut parts = self.parts.iter();
        match parts.find(|part| part.metrics.service() == service) {
            Some(part) => enter(&part.backends, random, tried),
            None => self.enter(random, tried),
        }
    }

    /// Whose a request is that `live` takes: of the part that it belongs to. Without one, of the first part,
    /// which is woken by it.
    pub(crate) fn taker(
        &self,
        live: Option<&Arc<LiveBackend>>,
    ) -> (&Arc<str>, &Arc<ServiceMetrics>) {
        let mut parts = self.parts.iter();
        let part = parts.find(|part| live.is_none_or(|live| part.has(live)));
        part.map_or((&self.name, &self.metrics), |part| {
            (&part.name, &part.metrics)
        })
    }

    /// Several services share it.
    pub(crate) fn is_split(&self) -> bool {
        !self.parts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Drains;
    use crate::table::{Place, Table};
    use skep_model::id::AllocationId;
    use std::time::Duration;

    fn backend(number: u16) -> Backend {
        Backend {
            allocation: AllocationId::from_u128(u128::from(number)),
            place: Place::Here(([127, 0, 0, 1], number).into()),
        }
    }

    fn index(routes: &[(&str, &str, &[u16])]) -> Index {
        let routes = routes
            .iter()
            .enumerate()
            .map(|(number, (host, path_prefix, ports))| Route {
                sleeps: false,
                rules: None,
                parts: Vec::new(),
                host: (*host).to_owned(),
                path_prefix: (*path_prefix).to_owned(),
                service: ServiceId::from_u128(number as u128),
                name: format!("r{number}"),
                backends: ports.iter().copied().map(backend).collect(),
                tried: Vec::new(),
            });
        let table = Table {
            routes: routes.collect(),
            ..Table::default()
        };
        let drains = Drains::new();
        let make = |backend| LiveBackend::new(backend, 1, Arc::clone(&drains));
        Index::build(
            &table.check(),
            (&HashMap::new(), &HashMap::new()),
            make,
            |service| Arc::new(ServiceMetrics::new(service)),
        )
    }

    #[test]
    fn exact_before_wildcard_and_longest_whole_segments() {
        let index = index(&[
            ("a.x.io", "/", &[]),
            ("a.x.io", "/api", &[]),
            ("a.x.io", "/api/v1/", &[]),
            ("*.x.io", "/", &[]),
            ("*.x.io", "/only", &[]),
            ("b.x.io", "/only-b", &[]),
        ]);
        let found = |host: &str, path: &str| {
            index
                .find(host, path)
                .map(|target| target.metrics.service().as_u128() as usize)
        };
        for (host, path, route) in [
            ("a.x.io", "/", Some(0)),
            ("a.x.io", "/apis", Some(0)),
            ("a.x.io", "*", Some(0)),
            ("a.x.io", "/api", Some(1)),
            ("a.x.io", "/api/", Some(1)),
            ("a.x.io", "/api/v10", Some(1)),
            ("a.x.io", "/api/v1/z", Some(2)),
            ("c.x.io", "/only/z", Some(4)),
            ("b.x.io", "/elsewhere", Some(3)),
            ("b.x.io", "/only-b", Some(5)),
            ("c.d.x.io", "/", None),
            (".x.io", "/", None),
            ("x.io", "/", None),
            ("y.io", "/", None),
        ] {
            assert_eq!(found(host, path), route, "{host}{path}");
        }
    }

    #[test]
    fn the_less_busy_of_two_is_entered() {
        let index = index(&[("h", "/", &[1, 2])]);
        let target = index.find("h", "/").expect("routed");
        let held: Vec<_> = (0..10)
            .filter_map(|random| target.enter(random, &[]))
            .collect();
        assert_eq!(held.len(), 10);
        assert!(target.backends.iter().all(|backend| backend.load() == 5));
        drop(held);
        assert!(target.backends.iter().all(|backend| backend.load() == 0));
    }

    #[test]
    fn failing_ones_are_passed_over_only_while_there_is_another() {
        let index = index(&[("h", "/", &[1, 2, 3])]);
        let target = index.find("h", "/").expect("routed");
        let entered = |tried: &[Arc<LiveBackend>]| -> Vec<u16> {
            let mut ports: Vec<_> = (0..50u64)
                .filter_map(|n| target.enter(n.wrapping_mul(0x9E37_79B9_7F4A_7C15), tried))
                .map(|guard| guard.backend().backend.allocation.as_u128() as u16)
                .collect();
            ports.sort_unstable();
            ports.dedup();
            ports
        };
        assert_eq!(entered(&[]), [1, 2, 3]);
        target.backends[0].failed(Duration::from_secs(60));
        assert_eq!(entered(&[]), [2, 3]);
        let tried = [
            Arc::clone(&target.backends[1]),
            Arc::clone(&target.backends[2]),
        ];
        assert_eq!(entered(&tried), [1], "failing, but the last one left");
        target.backends[0].connected();
        assert_eq!(entered(&[]), [1, 2, 3]);
        assert!(target.enter(0, &target.backends).is_none(), "all tried");
    }
}
