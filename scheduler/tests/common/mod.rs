//! A small world for the tests of the scheduler: entities with short names, and the effect that a
//! plan has on the state. Written apart from the crate: it shares nothing with what it checks.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod jobs;

use std::collections::BTreeMap;

use skep_model::allocation::{Allocation, Desired, Observed, State};
use skep_model::id::{AllocationId, DeploymentId, EnvironmentId, NodeId, ServiceId};
use skep_model::node::{Admin, Facts, Node, NodeStatus};
use skep_model::placement::{CutOff, Placement};
use skep_model::service::{Image, Release, Service, Target};
use skep_model::spec::{Resources, ServiceSpec, ServiceType};
use skep_scheduler::cluster::Cluster;
use skep_scheduler::draft::Draft;
use skep_scheduler::filter::{Ask, Surroundings};
use skep_scheduler::plan::{MAX_CHANGES, Plan};
use skep_scheduler::rollout::{self, Input};
use skep_scheduler::room::Needs;

pub(crate) mod oracle;

pub(crate) const MIB: u64 = 1 << 20;
/// The service that everybody else belongs to.
pub(crate) const OTHER: ServiceId = ServiceId::from_u128(2);
/// As the state does: so many ended allocations of a service are remembered.
const KEEP_ENDED: usize = 5;

pub(crate) fn node(id: u128, cpu_millis: u32, memory_mib: u64) -> Node {
    let letter = char::from(b'a' + u8::try_from((id - 1) % 26).unwrap());
    Node {
        id: NodeId::from_u128(id),
        name: if id <= 26 {
            letter.to_string()
        } else {
            format!("{letter}{id}")
        },
        facts: Facts {
            cpu_millis,
            memory_bytes: memory_mib * MIB,
            ..Facts::default()
        },
        status: NodeStatus::Ready,
        status_ms: 0,
        generation: 1,
        joined_ms: 0,
        meta: std::collections::BTreeMap::new(),
        admin: Admin::Eligible,
        seat: 0,
        witnesses: Vec::new(),
        fencing: Default::default(),
    }
}

pub(crate) fn resources(cpu_millis: u32, memory_mib: u64) -> Resources {
    Resources {
        cpu_millis,
        memory_bytes: memory_mib * MIB,
        ..Resources::default()
    }
}

pub(crate) fn target(release: u64, deployment: u128) -> Target {
    Target {
        release,
        deployment: DeploymentId::from_u128(deployment),
    }
}

pub(crate) fn service(id: u128, replicas: u32) -> Service {
    Service {
        id: ServiceId::from_u128(id),
        environment: EnvironmentId::from_u128(1),
        name: "web".into(),
        spec: ServiceSpec {
            replicas,
            ..ServiceSpec::default()
        },
        variables: BTreeMap::new(),
        webhook_secret: None,
        live: None,
        rollout: None,
        progress: Default::default(),
        last_release: 0,
        stopped: false,
        removing: false,
        generation: 1,
        created_ms: 0,
        scaling: None,
        pinned: None,
    }
}

pub(crate) fn release(service: &Service, number: u64, resources: Resources) -> Release {
    Release {
        service: service.id,
        number,
        deployment: DeploymentId::from_u128(number.into()),
        image: Image {
            reference: "web".into(),
            digest: "sha256:0".into(),
            node: None,
            shared: false,
            bundle: false,
            pushed: None,
        },
        kind: service.spec.kind,
        port: (service.spec.kind == ServiceType::Web).then_some(8080),
        command: Vec::new(),
        variables: BTreeMap::new(),
        resources,
        placement: service.spec.placement.clone(),
        container: service.spec.container.clone(),
        hooks: service.spec.hooks.clone(),
        health: Default::default(),
        restart: Default::default(),
        stop_grace_ms: 10_000,
        storage: service.spec.storage.clone(),
        commit: None,
        branch: None,
        public_url: None,
        file_variables: Default::default(),
        created_ms: 0,
    }
}

pub(crate) fn allocation(id: u128, target: Target, node: NodeId) -> Allocation {
    Allocation {
        id: AllocationId::from_u128(id),
        service: ServiceId::from_u128(1),
        target,
        node,
        desired: Desired::Run,
        reason: String::new(),
        desired_ms: 0,
        desired_index: 0,
        observed: Observed::pending(),
        observed_ms: 0,
        created_ms: 0,
        job: None,
    }
}

/// One service on a cluster that others use too.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) service: Service,
    /// Needs of every release, and the node that alone has their image.
    pub(crate) needs: Resources,
    pub(crate) only_on: Option<NodeId>,
    pub(crate) has_release: bool,
    pub(crate) allocations: BTreeMap<AllocationId, Allocation>,
    pub(crate) others: BTreeMap<AllocationId, (NodeId, Resources)>,
    pub(crate) around: Surroundings,
    /// For the oracle: what is on nodes that are drained or given up is not spread.
    pub(crate) spreads_staying: bool,
    /// What is there stays, and keeps apart.
    pub(crate) keeps_apart: bool,
    pub(crate) now_ms: u64,
    pub(crate) index: u64,
    pub(crate) next_id: u128,
}

impl World {
    pub(crate) fn new(service: Service) -> Self {
        Self {
            nodes: BTreeMap::new(),
            service,
            needs: resources(100, 256),
            only_on: None,
            has_release: true,
            allocations: BTreeMap::new(),
            others: BTreeMap::new(),
            around: Surroundings::default(),
            spreads_staying: false,
            keeps_apart: false,
            now_ms: 0,
            index: 1,
            next_id: 1_000_000,
        }
    }

    /// Whether others take the place of what is on this node: as the rule is written, node by node.
    pub(crate) fn is_given_up(&self, node: &Node) -> bool {
        let has = |status, node: &&Node| node.status == status;
        let lost = || {
            self.nodes
                .values()
                .filter(|node| has(NodeStatus::Lost, node))
        };
        let old = lost()
            .filter(|node| self.now_ms >= node.status_ms + 60_000)
            .count();
        let is_outage = 2 * (lost().count() - old) > self.nodes.len() - old;
        let release = self.release();
        let cut_off = release.as_ref().map(|release| release.placement.cut_off);
        let patience_ms = match (node.status, cut_off.unwrap_or_default()) {
            (NodeStatus::Lost, CutOff::Stop { after_ms }) => {
                after_ms + release.map_or(0, |release| release.stop_grace_ms) + 30_000
            }
            (NodeStatus::Lost, CutOff::Keep) if is_outage => 60_000,
            (NodeStatus::Lost, CutOff::Keep) => 0,
            (NodeStatus::RuntimeWedged, CutOff::Keep) => 60_000,
            _ => return false,
        };
        self.now_ms >= node.status_ms + patience_ms
    }

    pub(crate) fn release(&self) -> Option<Release> {
        let target = self.service.target().filter(|_| self.has_release)?;
        let mut release = release(&self.service, target.release, self.needs);
        release.image.node = self.only_on;
        Some(release)
    }

    /// What one more allocation of the service asks for.
    pub(crate) fn ask(&self) -> Ask {
        Ask {
            service: self.service.id,
            resources: self.needs,
            placement: self.service.spec.placement.clone(),
            only_on: self.only_on,
            storage: self.service.spec.storage.clone(),
            shares_image: false,
            around: self.around.clone(),
            staying: self.keeps_apart.then(|| {
                let there = self.allocations.values().filter(|a| a.is_live());
                there.map(|allocation| allocation.node).collect()
            }),
        }
    }

    /// The view, made anew: what a view that was kept up must equal.
    pub(crate) fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::default();
        for node in self.nodes.values() {
            cluster.put_node(node);
        }
        for allocation in self.allocations.values().filter(|a| a.is_live()) {
            cluster.put_allocation(
                allocation.id,
                allocation.node,
                allocation.service,
                &Needs::new(self.needs, &self.service.spec.placement),
            );
        }
        for (id, (node, resources)) in &self.others {
            let needs = Needs::new(*resources, &Placement::default());
            cluster.put_allocation(*id, *node, OTHER, &needs);
        }
        cluster
    }

    pub(crate) fn plan(&self, drained: &dyn Fn(&Allocation) -> bool) -> Plan {
        self.plan_on(
            &self.cluster(),
            drained,
            self.allocations.values().collect(),
        )
    }

    pub(crate) fn plan_on(
        &self,
        cluster: &Cluster,
        drained: &dyn Fn(&Allocation) -> bool,
        allocations: Vec<&Allocation>,
    ) -> Plan {
        let release = self.release();
        let live = self.service.live;
        let live = live.map(|live| self::release(&self.service, live.release, self.needs));
        let input = Input {
            service: &self.service,
            release: release.as_ref(),
            live_release: live.as_ref(),
            allocations,
            now_ms: self.now_ms,
            drained,
            around: &self.around,
            quotas: &[],
            limit: MAX_CHANGES,
        };
        let mut next = self.next_id;
        let mut ids = || {
            next += 1;
            AllocationId::from_u128(next)
        };
        rollout::plan(&mut Draft::new(cluster), &input, &mut ids)
    }

    /// What the state makes of an accepted plan.
    pub(crate) fn apply(&mut self, plan: &Plan) {
        assert_eq!(plan.service_generation, self.service.generation);
        self.index += 1;
        for (id, generation) in &plan.nodes {
            assert_eq!(self.nodes[id].generation, *generation, "compare-and-set");
        }
        for started in plan.allocations() {
            self.next_id = self.next_id.max(started.id.as_u128());
            self.nodes.get_mut(&started.node).unwrap().generation += 1;
            let allocation = Allocation {
                desired_ms: self.now_ms,
                desired_index: self.index,
                observed_ms: self.now_ms,
                created_ms: self.now_ms,
                ..started
            };
            assert!(self.allocations.insert(allocation.id, allocation).is_none());
        }
        for desire in &plan.desires {
            let allocation = self.allocations.get_mut(&desire.allocation).unwrap();
            assert!(
                allocation.desired < desire.desired,
                "desired only goes forward"
            );
            allocation.desired = desire.desired;
            allocation.desired_ms = self.now_ms;
            allocation.desired_index = self.index;
        }
        self.prune();
    }

    /// What an agent says of one of its allocations.
    pub(crate) fn observe(&mut self, id: AllocationId, state: State) {
        self.index += 1;
        let allocation = self.allocations.get_mut(&id).unwrap();
        assert!(allocation.is_live(), "what ended stays so");
        allocation.observed.state = state;
        allocation.observed_ms = self.now_ms;
        if state.is_terminal() {
            if let Some(node) = self.nodes.get_mut(&allocation.node) {
                node.generation += 1;
            }
            self.prune();
        }
    }

    fn prune(&mut self) {
        let is_over = |a: &Allocation| !a.is_live() && a.desired == Desired::Stop;
        let ended: Vec<_> = self
            .allocations
            .values()
            .filter(|a| is_over(a))
            .map(|a| a.id)
            .collect();
        for id in ended.iter().take(ended.len().saturating_sub(KEEP_ENDED)) {
            self.allocations.remove(id);
        }
    }
}
