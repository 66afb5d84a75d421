//! What a node was told, and therefore what it has to be told next: the whole desired set first,
//! differences after. Decides only; sending is the session's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_identity::key_id::KeyId;
use skep_model::allocation::Desired;
use skep_model::assignment::{Assignment, DesiredSet, Generation};
use skep_model::id::{AllocationId, DeploymentId, EnvironmentId, NodeId};
use skep_model::image_push::PushRegistry;
use skep_model::network::Names;
use skep_model::registry::{RegistryAccess, RegistryLogin};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::to_agent::Kind;
use skep_state::{Cluster, State};

use super::certified::Certified;
use super::desired::{assignment, build_orders, desired_set, generation};
use super::fetching::{BuildLogins, Wanting};
use super::notices::{Concern, Touched};
use super::service::Shared;
use crate::secrets::Secrets;

/// Logins at registries, as the state has them: the cluster's, and those of workspaces.
type Logins = (Vec<Arc<RegistryLogin>>, Vec<Arc<PushRegistry>>);

/// What one node was told last: the base of the next delta.
pub(super) struct Told {
    node: NodeId,
    /// The node has an ingress; else the route table is nothing to it.
    has_routes: bool,
    /// The newest generation on the node's disk: it takes nothing older.
    held: Option<Generation>,
    is_waiting: bool,
    generation: Option<Generation>,
    allocations: BTreeMap<AllocationId, Desired>,
    /// Of the node, and not to be resolved when they were last looked at.
    unresolved: BTreeSet<AllocationId>,
    builds: BTreeSet<DeploymentId>,
    dismissed: Vec<AllocationId>,
    routes: Option<u64>,
    /// Index of the view that the table was made of.
    told_at: u64,
    /// The environments of which the node has containers, and what it was told of each.
    environments: BTreeSet<EnvironmentId>,
    names: Vec<Names>,
    servers: Option<v1::ServerList>,
    /// What the node was told of them; none: nothing yet.
    registries: Option<Logins>,
    certified: Certified,
    /// As whom builds are fetched.
    logins: BuildLogins,
}

impl Told {
    /// Nothing yet; `held` is on the node's disk.
    pub(super) fn new(node: NodeId, held: Option<Generation>, has_routes: bool) -> Self {
        Self {
            node,
            has_routes,
            held,
            is_waiting: false,
            generation: None,
            allocations: BTreeMap::new(),
            unresolved: BTreeSet::new(),
            builds: BTreeSet::new(),
            dismissed: Vec::new(),
            routes: None,
            told_at: 0,
            environments: BTreeSet::new(),
            names: Vec::new(),
            servers: None,
            registries: None,
            certified: Certified::default(),
            logins: BuildLogins::default(),
        }
    }

    /// Whether this replica has yet to reach what the node holds: another server, further on, has
    /// told it. Until then nothing here is news.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Tokens that builds wait for which the node has not been told of, and nobody has asked for. To be asked for before
    /// the node is told of its work, as what is left out of the first set has ended.
    pub(super) fn wanting(&mut self, view: &State, secrets: &Secrets) -> Vec<Wanting> {
        if view.forge_apps().next().is_none() {
            return Vec::new();
        }
        let orders = build_orders(view, self.node, secrets);
        let open = orders
            .iter()
            .filter(|it| !self.builds.contains(&it.deployment));
        self.logins.wanting(view, open)
    }

    /// Whether the node was told of its work at all.
    pub(super) fn has_begun(&self) -> bool {
        self.generation.is_some()
    }

    /// What to say now; afterwards it counts as told.
    pub(super) fn tell(&mut self, view: &State, concern: &Concern, shared: &Shared) -> Vec<Kind> {
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
        if concern.registries || concern.work {
            all.extend(self.tell_registries(view, &shared.secrets));
        }
        // Before the work: an allocation is out of the routes before its container hears of it.
        all.extend(self.tell_routes(view, cluster, (concern, shared)));
        if concern.certificates && self.has_routes {
            all.extend(self.certified.tell(view, cluster, &shared.secrets));
        }
        if concern.work {
            let touched = &concern.allocations;
            all.extend(self.tell_work(view, cluster, &shared.secrets, touched));
        }
        all
    }

    /// The environments of which the node has containers, as it was told last.
    pub(super) fn environments(&self) -> &BTreeSet<EnvironmentId> {
        &self.environments
    }

    /// The route table with the names that this node needs, where one of them is another than before.
    fn tell_routes(
        &mut self,
        view: &State,
        cluster: &Cluster,
        (concern, shared): (&Concern, &Shared),
    ) -> Option<Kind> {
        if !self.has_routes {
            return None;
        }
        let is_newer = concern.routes && self.routes != Some(view.routes_revision());
        let environments = match concern.work {
            true => view.environments_on(self.node),
            false => self.environments.clone(),
        };
        let is_named = concern.names || environments != self.environments;
        if !is_newer && !is_named {
            return None;
        }
        self.environments = environments;
        let here = self.environments.iter().map(|id| view.names_of(*id));
        let names: Vec<Names> = here.filter(|it| !it.services.is_empty()).collect();
        // Acknowledged by this node it may be stopped, whether or not it ever was among the names.
        let withdrawn = self.environments.iter().map(|id| view.withdrawn_in(*id));
        let is_awaited = withdrawn.max().unwrap_or(0) > self.told_at;
        if !is_newer && !is_awaited && names == self.names {
            return None;
        }
        self.told_at = view.index();
        self.routes = Some(view.routes_revision());
        let table = shared.notices.routes(view, cluster.incarnation);
        let mut table = v1::RouteTable::clone(&table);
        // Names have no revision of their own: what is acknowledged is all of this view.
        table.revision = view.index();
        table.names = names.iter().map(Into::into).collect();
        for peer in view.peers_in(names.iter()) {
            let node = id_bytes(peer.node.as_u128());
            if !table.peers.iter().any(|known| known.node == node) {
                let address = peer.address;
                table.peers.push(v1::RoutePeer { node, address });
            }
        }
        self.names = names;
        Some(Kind::Routes(table))
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

    /// All logins that the node may need, where they are others than before: the cluster's, and those of workspaces
    /// that it has something of. One that cannot be opened is left out: images that need it say that a login is
    /// missing.
    fn tell_registries(&mut self, view: &State, secrets: &Secrets) -> Option<Kind> {
        let logins: Vec<_> = view.registries().cloned().collect();
        let now = (logins, self.push_registries(view));
        let is_same = match &self.registries {
            None => now.0.is_empty() && now.1.is_empty(),
            Some(told) => *told == now,
        };
        if is_same {
            return None;
        }
        let of_cluster = now.0.iter().map(|login| {
            let password = secrets.open_registry(&login.host, &login.password);
            let access = |password| RegistryAccess {
                workspace: None,
                host: login.host.clone(),
                user: login.user.clone(),
                password,
                bucket: None,
            };
            (&login.host, password.map(access))
        });
        let of_workspaces = now.1.iter();
        let of_workspaces = of_workspaces.map(|it| (&it.host, secrets.pull_access(it)));
        let opened = of_cluster
            .chain(of_workspaces)
            .filter_map(|(host, access)| {
                let access = access.inspect_err(|problem| {
                    tracing::error!(host, %problem, "a login cannot be sent to a node");
                });
                access.ok().map(Into::into)
            });
        let list = v1::RegistryList {
            registries: opened.collect(),
        };
        self.registries = Some(now);
        Some(Kind::Registries(list))
    }

    /// Those of workspaces that the node has an allocation or a build of.
    fn push_registries(&self, view: &State) -> Vec<Arc<PushRegistry>> {
        if view.push_registries().next().is_none() {
            return Vec::new();
        }
        let allocations = view.allocations_on(self.node);
        let allocations = allocations
            .filter(|it| it.is_assigned())
            .map(|it| it.service);
        let builds = view.builds_on(self.node).map(|it| it.service);
        let workspaces: BTreeSet<_> = allocations
            .chain(builds)
            .filter_map(|id| view.workspace_of(view.service(id)?.environment))
            .collect();
        let known = workspaces.into_iter();
        known
            .filter_map(|id| view.push_registry(id).cloned())
            .collect()
    }

    fn tell_work(
        &mut self,
        view: &State,
        cluster: &Cluster,
        secrets: &Secrets,
        touched: &Touched,
    ) -> Option<Kind> {
        let dismissed: Vec<_> = view.dismissed_on(self.node).collect();
        let mut message = match self.generation {
            None => self.whole(view, cluster, secrets),
            Some(base) => {
                let has_more = dismissed != self.dismissed;
                self.delta((base, cluster), view, secrets, (touched, has_more))?
            }
        };
        let ids = dismissed.iter().map(|id| id_bytes(id.as_u128()));
        message.dismissed = ids.collect();
        self.dismissed = dismissed;
        self.generation = Some(generation(cluster, view));
        Some(Kind::Desired(message))
    }

    fn whole(&mut self, view: &State, cluster: &Cluster, secrets: &Secrets) -> v1::Desired {
        let mut set = desired_set(view, cluster, self.node, secrets);
        set.builds.retain_mut(|build| self.logins.complete(build));
        let assignments = set.assignments.iter();
        self.allocations = assignments.map(|a| (a.allocation, a.desired)).collect();
        self.builds = set.builds.iter().map(|build| build.deployment).collect();
        let assigned = view.allocations_on(self.node).filter(|a| a.is_assigned());
        let unresolved = assigned.filter(|a| !self.allocations.contains_key(&a.id));
        self.unresolved = unresolved.map(|a| a.id).collect();
        v1::Desired {
            full: true,
            set: Some((&set).into()),
            ..v1::Desired::default()
        }
    }

    /// What changed since the node was told; none: nothing, where nothing else has either. Costs what was
    /// touched, not what the node has.
    fn delta(
        &mut self,
        (base, cluster): (Generation, &Cluster),
        view: &State,
        secrets: &Secrets,
        (touched, has_more): (&Touched, bool),
    ) -> Option<v1::Desired> {
        let mut ids = std::mem::take(&mut self.unresolved);
        match touched {
            Touched::These(these) => ids.extend(these),
            Touched::All => {
                ids.extend(self.allocations.keys());
                ids.extend(view.allocations_on(self.node).map(|a| a.id));
            }
        }
        let (mut assignments, mut removed_allocations) = (Vec::new(), Vec::new());
        for id in ids {
            match self.look_at(view, id, secrets) {
                Look::Same => {}
                Look::Told(assignment) => assignments.push(*assignment),
                Look::Gone => removed_allocations.push(id_bytes(id.as_u128())),
            }
        }
        let mut builds = build_orders(view, self.node, secrets);
        // What waits for its login is not told of yet, and is looked at again when that is known.
        builds.retain_mut(|build| {
            self.builds.contains(&build.deployment) || self.logins.complete(build)
        });
        let now: BTreeSet<_> = builds.iter().map(|build| build.deployment).collect();
        let ended = self.builds.difference(&now);
        let removed_builds: Vec<_> = ended.map(|id| id_bytes(id.as_u128())).collect();
        builds.retain(|build| !self.builds.contains(&build.deployment));
        self.builds = now;
        let is_same = !has_more
            && removed_allocations.is_empty()
            && removed_builds.is_empty()
            && assignments.is_empty()
            && builds.is_empty();
        let set = DesiredSet {
            cluster: cluster.id,
            generation: generation(cluster, view),
            assignments,
            builds,
        };
        (!is_same).then(|| v1::Desired {
            full: false,
            base: Some(base.into()),
            set: Some((&set).into()),
            removed_allocations,
            removed_builds,
            dismissed: Vec::new(),
        })
    }

    /// One allocation, against what the node was told of it; afterwards it counts as told.
    fn look_at(&mut self, view: &State, id: AllocationId, secrets: &Secrets) -> Look {
        let told = self.allocations.get(&id).copied();
        let wanted = view
            .allocation(id)
            .filter(|allocation| allocation.node == self.node && allocation.is_assigned());
        if wanted.is_some_and(|allocation| told == Some(allocation.desired)) {
            return Look::Same;
        }
        match wanted.map(|it| (it, assignment(view, it, secrets))) {
            Some((allocation, Ok(Some(assignment)))) => {
                self.allocations.insert(id, allocation.desired);
                Look::Told(Box::new(assignment))
            }
            Some((_, Err(problem))) => {
                // Left as the node has it, and looked at again whenever the session wakes.
                tracing::error!(allocation = %id, %problem, "an allocation cannot be sent to its node");
                self.unresolved.insert(id);
                Look::Same
            }
            None | Some((_, Ok(None))) => match self.allocations.remove(&id) {
                Some(_) => Look::Gone,
                None => Look::Same,
            },
        }
    }
}

/// What there is to say of one allocation.
enum Look {
    /// Nothing.
    Same,
    /// It is new, or is to become something else.
    Told(Box<Assignment>),
    /// The node has nothing to do with it any more.
    Gone,
}
