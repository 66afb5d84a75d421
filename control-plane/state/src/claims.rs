//! Whose hosts are: the rules by which a service may have a route, and what becomes of claims as routes
//! come and go. Everything follows from the state and its time.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_model::claim::{Claim, GRACE_MS, MAX_PER_PROJECT, check_claimable};
use skep_model::id::{ProjectId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_proto::LEVEL_SCHEDULING;

use crate::state::State;

/// What is counted in the words of a refusal.
const HOUR_MS: u64 = 3_600_000;

/// In place of a path: connections whose handshake names the host. No path is like it.
const BY_NAME: &str = "TLS";

/// A host and a path at which somebody answers, and the field that says so.
struct Place<'a> {
    host: &'a str,
    /// Without a trailing `/`.
    prefix: &'a str,
    field: String,
}

/// The places that a specification names by host.
fn places(service: &Service) -> impl Iterator<Item = Place<'_>> {
    let short = service.spec.domains.iter().map(|host| Place {
        host,
        prefix: "",
        field: "domains".to_owned(),
    });
    let routes = service.spec.routes.iter().enumerate();
    let long = routes.filter_map(|(number, route)| {
        Some(Place {
            host: route.host.as_deref()?,
            prefix: route.prefix(),
            field: format!("routes[{number}].host"),
        })
    });
    let tcp = service.spec.tcp.iter().enumerate();
    let named = tcp.filter_map(|(number, tcp)| {
        Some(Place {
            host: tcp.sni.as_deref()?,
            prefix: BY_NAME,
            field: format!("tcp[{number}].sni"),
        })
    });
    short.chain(long).chain(named)
}

impl State {
    /// Every claim, by host; those that were given up and wait for their time included.
    pub fn claims(&self) -> impl Iterator<Item = &Arc<Claim>> {
        self.claims.values()
    }

    /// The services that have routes on a host, and at which path (`/`, `/api`; `TLS`: of connections), by
    /// path.
    pub fn served_at(&self, host: &str) -> impl Iterator<Item = (&str, &Arc<Service>)> {
        let first = (host.to_owned(), String::new(), ServiceId::from_u128(0));
        let owned = host.to_owned();
        self.hosts
            .range(first..)
            .take_while(move |(at, _, _)| *at == owned)
            .filter_map(|(_, prefix, id)| {
                let path = if prefix.is_empty() { "/" } else { prefix };
                Some((path, self.service(*id)?))
            })
    }

    /// Whether a claim's time is over, and it is to be forgotten.
    pub fn has_free_claims(&self, now_ms: u64) -> bool {
        self.claims.values().any(|claim| claim.is_free(now_ms))
    }

    /// Whether a service may have the routes of its specification; what it has in the state already, it
    /// keeps.
    ///
    /// # Errors
    /// Names who has the host, or its path, and what to do.
    pub fn check_routes(&self, wanted: &Service) -> Result<(), Problem> {
        if self.feature_level() < LEVEL_SCHEDULING {
            return self.check_domains(wanted);
        }
        let old = self.service(wanted.id);
        if old.is_none() {
            self.check_generated(wanted)?;
        }
        let had: BTreeSet<(&str, &str)> = old
            .iter()
            .flat_map(|old| places(old))
            .map(|place| (place.host, place.prefix))
            .collect();
        let had_hosts: BTreeSet<&str> = had.iter().map(|(host, _)| *host).collect();
        self.check_entries(wanted)?;
        self.check_own_name(wanted)?;
        let own = self.host_of(wanted);
        let mut taken = BTreeSet::new();
        for place in places(wanted) {
            if place.host != own && !had_hosts.contains(place.host) && taken.insert(place.host) {
                self.check_host(place.host, wanted, taken.len())
                    .map_err(|problem| problem.at(place.field.clone()))?;
            }
            if !had.contains(&(place.host, place.prefix)) {
                self.check_place(&place, wanted.id)?;
            }
        }
        Ok(())
    }

    /// Whether projects prove that domains are theirs before they get hosts of them.
    pub fn needs_domain_proof(&self) -> bool {
        self.domain_proof
    }

    /// Hosts of a specification that its project does not have yet, with the fields that name them, but for those that
    /// are the cluster's to give.
    pub fn unproved_hosts(
        &self,
        project: Option<ProjectId>,
        wanted: &Service,
    ) -> Vec<(String, String)> {
        let is_given = |host: &str| {
            let mut bases = self.base_domains();
            bases.any(|base| host.strip_suffix(base).is_some_and(|it| it.ends_with('.')))
        };
        let is_had = |host: &str| {
            let claim = self.claims.get(host);
            let claim = claim.filter(|claim| !claim.is_free(self.time_ms));
            claim.is_some_and(|claim| Some(claim.project) == project)
        };
        let new = places(wanted).filter(|place| !is_given(place.host) && !is_had(place.host));
        let mut hosts: Vec<_> = new.map(|it| (it.host.to_owned(), it.field)).collect();
        hosts.sort_unstable();
        hosts.dedup_by(|one, other| one.0 == other.0);
        hosts
    }

    /// The same for a service whose generated name changes: nothing is kept.
    pub(crate) fn check_anew(&self, service: &Service) -> Result<(), Problem> {
        self.check_generated(service)?;
        self.check_own_name(service)?;
        let own = self.host_of(service);
        let hosts = service.spec.hosts();
        let mut others = hosts.into_iter().filter(|host| *host != own);
        others.try_for_each(|host| self.check_host(host, service, 1))
    }

    /// As it was before there were claims: a host of `domains` is one service's.
    fn check_domains(&self, wanted: &Service) -> Result<(), Problem> {
        for host in &wanted.spec.domains {
            let mut there = self.served_at(host);
            if let Some((_, owner)) = there.find(|(_, owner)| owner.id != wanted.id) {
                let label = self.label_of(owner);
                let text = format!("`{host}` belongs to service {label}");
                return Err(Problem::new(Code::Conflict, text)
                    .at("domains")
                    .hint("remove it there first"));
            }
        }
        Ok(())
    }

    /// The name that a service gets must be nobody's.
    fn check_generated(&self, service: &Service) -> Result<(), Problem> {
        let host = self.host_of(service);
        let refused = |owner: String| {
            let text = format!("its generated name `{host}` belongs to {owner}");
            Problem::new(Code::Conflict, text)
                .at("service")
                .hint("choose another name for this service, or take the host away from the other")
        };
        if let Some(other) = self.generated_for(&host, service.id) {
            return Err(refused(self.owner_name(other)));
        }
        let claim = self.claims.get(&host);
        let Some(claim) = claim.filter(|claim| !claim.is_free(self.time_ms)) else {
            return Ok(());
        };
        let mut there = self.served_at(&host);
        if there.any(|(_, owner)| owner.id == service.id) {
            return Ok(());
        }
        let is_own = Some(claim.project) == self.project_of(service);
        match claim.released_ms {
            Some(_) if is_own => Ok(()),
            _ => Err(refused(self.holder_of(claim))),
        }
    }

    /// A host that a service does not have yet; the `nth` new one of its specification.
    fn check_host(&self, host: &str, wanted: &Service, nth: usize) -> Result<(), Problem> {
        if let Some(other) = self.generated_for(host, wanted.id) {
            let owner = self.owner_name(other);
            let text = format!("`{host}` is the generated name of {owner}");
            return Err(Problem::new(Code::Conflict, text)
                .hint("another host; to share that one, give that service the routes"));
        }
        let project = self.project_of(wanted);
        let claim = self.claims.get(host);
        match claim.filter(|claim| !claim.is_free(self.time_ms)) {
            Some(claim) if Some(claim.project) == project => return Ok(()),
            Some(claim) => {
                let text = format!("`{host}` belongs to {}", self.holder_of(claim));
                let hint = match claim.free_ms() {
                    Some(_) => "wait until it is free, or let that project take it again",
                    None => {
                        "take its routes away there; that project keeps it for a day after that"
                    }
                };
                return Err(Problem::new(Code::Conflict, text).hint(hint));
            }
            None => {}
        }
        self.base_domains()
            .try_for_each(|base| check_claimable(host, base))?;
        let claims = self.claims.values();
        let held = claims
            .filter(|claim| Some(claim.project) == project)
            .count();
        if held + nth > MAX_PER_PROJECT {
            let text = format!("the project has {held} hosts, those given up lately included");
            return Err(Problem::new(Code::TooLarge, text).hint(format!(
                "at most {MAX_PER_PROJECT}; a wildcard counts as one"
            )));
        }
        Ok(())
    }

    fn check_place(&self, place: &Place<'_>, own: ServiceId) -> Result<(), Problem> {
        let path = if place.prefix.is_empty() {
            "/"
        } else {
            place.prefix
        };
        let mut there = self.served_at(place.host);
        let is_both = |at: &str| (at == BY_NAME) != (path == BY_NAME);
        let taken = there.find(|(at, owner)| owner.id != own && (*at == path || is_both(at)));
        let Some((at, owner)) = taken else {
            return Ok(());
        };
        let owner = self.owner_name(owner);
        if is_both(at) {
            let what = match at {
                BY_NAME => "a TCP route",
                _ => "routes of HTTP",
            };
            let text = format!("`{}` has {what} to {owner}", place.host);
            return Err(Problem::new(Code::Conflict, text)
                .at(place.field.clone())
                .hint("another host: one is for connections or for HTTP, never for both"));
        }
        if path == BY_NAME {
            let text = format!("connections to `{}` lead to {owner}", place.host);
            return Err(Problem::new(Code::Conflict, text)
                .at(place.field.clone())
                .hint("another host, or take the route away there first"));
        }
        let text = format!("`{}{path}` leads to {owner}", place.host);
        Err(Problem::new(Code::Conflict, text)
            .at(place.field.clone())
            .hint("another path, or take the route away there first"))
    }

    /// What a claim's holder is called: the services that use it, else its project and how long it waits.
    fn holder_of(&self, claim: &Claim) -> String {
        if let Some((_, owner)) = self.served_at(&claim.host).next() {
            return self.owner_name(owner);
        }
        let project = self.project(claim.project);
        let workspace = project.and_then(|project| self.workspace(project.workspace));
        let name = match (workspace, project) {
            (Some(workspace), Some(project)) => format!("{}/{}", workspace.name, project.name),
            _ => claim.project.to_string(),
        };
        let left_ms = claim.free_ms().unwrap_or(0).saturating_sub(self.time_ms);
        let hours = left_ms.div_ceil(HOUR_MS);
        format!("project {name}, which gave it up and keeps it for {hours} h more")
    }

    pub(crate) fn owner_name(&self, service: &Service) -> String {
        self.path_of(service).map_or_else(
            || format!("service {}", service.id),
            |path| {
                format!(
                    "service {}/{}/{}/{}",
                    path.workspace, path.project, path.environment, path.service
                )
            },
        )
    }

    /// The service, other than `own`, whose generated name this is.
    fn generated_for(&self, host: &str, own: ServiceId) -> Option<&Arc<Service>> {
        let first = (host.to_owned(), ServiceId::from_u128(0));
        self.generated
            .range(first..)
            .take_while(|(name, _)| name == host)
            .find(|(_, id)| *id != own)
            .and_then(|(_, id)| self.service(*id))
    }

    fn project_of(&self, service: &Service) -> Option<ProjectId> {
        Some(self.environment(service.environment)?.project)
    }

    /// What the specification of a service, as it is in the state now, makes of claims: `before` are the
    /// hosts that it had.
    pub(crate) fn settle_claims(&mut self, id: ServiceId, before: &BTreeSet<String>) {
        if self.feature_level() < LEVEL_SCHEDULING {
            return;
        }
        let mut now = BTreeSet::new();
        if let Some(service) = self.service(id).cloned() {
            now.extend(service.spec.hosts().into_iter().map(str::to_owned));
            self.claim_hosts(&service, self.time_ms);
        }
        for host in before.difference(&now) {
            self.give_up(host);
        }
    }

    /// Claims the hosts of a service for its project, where they are free or the project's own.
    fn claim_hosts(&mut self, service: &Service, since_ms: u64) {
        let hosts = service.spec.hosts();
        let Some(project) = self.project_of(service).filter(|_| !hosts.is_empty()) else {
            return;
        };
        let own = self.host_of(service);
        for host in hosts {
            let held = self.claims.get(host);
            let held = held.filter(|claim| !claim.is_free(self.time_ms));
            let claim = match held {
                Some(claim) if claim.project != project || claim.released_ms.is_none() => continue,
                Some(claim) => Claim {
                    released_ms: None,
                    ..(**claim).clone()
                },
                // A name that is generated needs no claim; one that is over is of the past.
                None if host == own => {
                    self.claims.remove(host);
                    continue;
                }
                None => Claim {
                    host: host.to_owned(),
                    project,
                    since_ms,
                    released_ms: None,
                },
            };
            self.claims.insert(host.to_owned(), Arc::new(claim));
        }
    }

    /// A service has no route on this host any more; perhaps nobody has.
    fn give_up(&mut self, host: &str) {
        let claim = self.claims.get(host).cloned();
        if let Some(claim) = claim.filter(|claim| claim.released_ms.is_none())
            && self.served_at(host).next().is_none()
        {
            let claim = Claim {
                released_ms: Some(self.time_ms),
                ..(*claim).clone()
            };
            self.claims.insert(host.to_owned(), Arc::new(claim));
        }
    }

    /// Claims of a state that knew none, out of its services, oldest first. Changes nothing where all
    /// have theirs.
    pub(crate) fn derive_claims(&mut self) {
        if self.feature_level() < LEVEL_SCHEDULING {
            return;
        }
        let services: Vec<Arc<Service>> = self.services.values().cloned().collect();
        for service in services {
            self.claim_hosts(&service, service.created_ms);
        }
    }

    /// Forgets those that anybody may take.
    pub(crate) fn prune_claims(&mut self) {
        let free: Vec<String> = self
            .claims
            .values()
            .filter(|claim| claim.is_free(self.time_ms))
            .map(|claim| claim.host.clone())
            .collect();
        for host in free {
            self.claims.remove(&host);
        }
    }

    // Indexes.

    /// Whatever a service names, as it is in the state now, is found by host, and its entries by port.
    pub(crate) fn index_hosts(&mut self, service: &Service) {
        for port in service.spec.tcp.iter().filter_map(|tcp| tcp.entry) {
            self.entries.insert(port, service.id);
        }
        for place in places(service) {
            self.hosts
                .insert((place.host.to_owned(), place.prefix.to_owned(), service.id));
        }
    }

    /// The reverse, for what it named before.
    pub(crate) fn unindex_hosts(&mut self, service: &Service) {
        for port in service.spec.tcp.iter().filter_map(|tcp| tcp.entry) {
            self.entries.remove(&port);
        }
        for place in places(service) {
            let key = (place.host.to_owned(), place.prefix.to_owned(), service.id);
            self.hosts.remove(&key);
        }
    }

    /// The generated name of every service, anew: once all that names are made of is there.
    pub(crate) fn index_generated(&mut self) {
        let names = self.services.values();
        self.generated = names
            .map(|service| (self.host_of(service), service.id))
            .collect();
    }
}

const _: () = assert!(GRACE_MS >= HOUR_MS, "a refusal tells the time in hours");
