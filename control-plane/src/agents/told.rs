//! What a node was told, and therefore what it has to be told next: the whole desired set first,
//! differences after. Decides only; sending is the session's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_identity::key_id::KeyId;
use skep_model::allocation::Desired;
use skep_model::assignment::{DesiredSet, Generation};
use skep_model::id::{AllocationId, DeploymentId, NodeId};
use skep_model::registry::RegistryLogin;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::to_agent::Kind;
use skep_state::{Cluster, State};

use super::desired::{desired_set, generation};
use super::notices::Concern;
use super::service::Shared;
use crate::secrets::Secrets;

/// What one node was told last: the base of the next delta.
pub(super) struct Told {
    node: NodeId,
    /// The newest generation on the node's disk: it takes nothing older.
    held: Option<Generation>,
    is_waiting: bool,
    generation: Option<Generation>,
    allocations: BTreeMap<AllocationId, Desired>,
    builds: BTreeSet<DeploymentId>,
    dismissed: Vec<AllocationId>,
    routes: Option<u64>,
    servers: Option<v1::ServerList>,
    /// When the logins at registries were said, as the state had them.
    registries: Option<Vec<Arc<RegistryLogin>>>,
}

impl Told {
    /// Nothing yet; `held` is on the node's disk.
    pub(super) fn new(node: NodeId, held: Option<Generation>) -> Self {
        Self {
            node,
            held,
            is_waiting: false,
            generation: None,
            allocations: BTreeMap::new(),
            builds: BTreeSet::new(),
            dismissed: Vec::new(),
            routes: None,
            servers: None,
            registries: None,
        }
    }

    /// Whether this replica has yet to reach what the node holds: another server, further on, has
    /// told it. Until then nothing here is news.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// What to say now; afterwards it counts as told.
    pub(super) fn tell(&mut self, view: &State, concern: Concern, shared: &Shared) -> Vec<Kind> {
        let Some(cluster) = view.cluster() else {
            self.is_waiting = true;
            return Vec::new();
        };
        let mut all = Vec::new();
        if concern.servers {
            all.extend(self.tell_servers(view, cluster));
        }
        let now = generation(cluster, view);
        self.is_waiting = self.held.is_some_and(|held| now < held);
        if self.is_waiting {
            return all;
        }
        // Before the work, which may need them.
        if concern.registries {
            all.extend(self.tell_registries(view, &shared.secrets));
        }
        // Before the work: an allocation is out of the routes before its container hears of it.
        if concern.routes && self.routes != Some(view.routes_revision()) {
            self.routes = Some(view.routes_revision());
            let table = shared.notices.routes(view, cluster.incarnation);
            all.push(Kind::Routes(v1::RouteTable::clone(&table)));
        }
        if concern.work {
            all.extend(self.tell_work(view, cluster, &shared.secrets));
        }
        all
    }

    fn tell_servers(&mut self, view: &State, cluster: &Cluster) -> Option<Kind> {
        let servers = v1::ServerList {
            addresses: view
                .servers()
                .map(|server| server.cluster_address.clone())
                .collect(),
            ca_pem: cluster.trusted_ca_pem(),
            ca: KeyId::of_ca(&cluster.ca_cert_pem)
                .map_or_else(Vec::new, |ca| ca.as_bytes().to_vec()),
        };
        if servers.addresses.is_empty() || self.servers.as_ref() == Some(&servers) {
            return None;
        }
        self.servers = Some(servers.clone());
        Some(Kind::Servers(servers))
    }

    /// All logins, where they are others than before. One that cannot be opened is left out: images that need
    /// it say that a login is missing.
    fn tell_registries(&mut self, view: &State, secrets: &Secrets) -> Option<Kind> {
        let logins: Vec<_> = view.registries().cloned().collect();
        let is_same = match &self.registries {
            None => logins.is_empty(),
            Some(told) => *told == logins,
        };
        if is_same {
            return None;
        }
        let opened = logins.iter().filter_map(|login| {
            let password = secrets.open_registry(&login.host, &login.password);
            let password = password.inspect_err(|problem| {
                tracing::error!(host = %login.host, %problem, "a login cannot be sent to a node");
            });
            Some(v1::RegistryAccess {
                host: login.host.clone(),
                user: login.user.clone(),
                password: password.ok()?,
            })
        });
        let list = v1::RegistryList {
            registries: opened.collect(),
        };
        self.registries = Some(logins);
        Some(Kind::Registries(list))
    }

    fn tell_work(&mut self, view: &State, cluster: &Cluster, secrets: &Secrets) -> Option<Kind> {
        let set = desired_set(view, cluster, self.node, secrets);
        let assignments = set.assignments.iter();
        let allocations = assignments.map(|a| (a.allocation, a.desired)).collect();
        let builds = set.builds.iter().map(|build| build.deployment).collect();
        let generation = set.generation;
        let dismissed: Vec<_> = view.dismissed_on(self.node).collect();
        let mut message = match self.generation {
            None => v1::Desired {
                full: true,
                set: Some((&set).into()),
                ..v1::Desired::default()
            },
            Some(base) => self.delta(base, set, dismissed != self.dismissed)?,
        };
        let ids = dismissed.iter().map(|id| id_bytes(id.as_u128()));
        message.dismissed = ids.collect();
        self.dismissed = dismissed;
        self.generation = Some(generation);
        self.allocations = allocations;
        self.builds = builds;
        Some(Kind::Desired(message))
    }

    /// What changed since the node was told; none: nothing, where nothing else has either.
    fn delta(&self, base: Generation, set: DesiredSet, has_more: bool) -> Option<v1::Desired> {
        let now: BTreeSet<_> = set.assignments.iter().map(|a| a.allocation).collect();
        let gone = self.allocations.keys().filter(|id| !now.contains(id));
        let removed_allocations: Vec<_> = gone.map(|id| id_bytes(id.as_u128())).collect();
        let now: BTreeSet<_> = set.builds.iter().map(|build| build.deployment).collect();
        let ended = self.builds.difference(&now);
        let removed_builds: Vec<_> = ended.map(|id| id_bytes(id.as_u128())).collect();
        let mut changed = set;
        changed
            .assignments
            .retain(|a| self.allocations.get(&a.allocation) != Some(&a.desired));
        changed
            .builds
            .retain(|build| !self.builds.contains(&build.deployment));
        let is_same = !has_more
            && removed_allocations.is_empty()
            && removed_builds.is_empty()
            && changed.assignments.is_empty()
            && changed.builds.is_empty();
        (!is_same).then(|| v1::Desired {
            full: false,
            base: Some(base.into()),
            set: Some((&changed).into()),
            removed_allocations,
            removed_builds,
            dismissed: Vec::new(),
        })
    }
}
