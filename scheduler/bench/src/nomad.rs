//! The inputs of Nomad's own scheduler benchmark, `BenchmarkServiceScheduler`: nodes, racks,
//! constraints, asks and counts as published in its source, the same work timed, and what the
//! results must look like. Written from the description of the inputs; no code of Nomad's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use skep_model::id::{AllocationId, DeploymentId, EnvironmentId, NodeId, ServiceId};
use skep_model::node::{Admin, Facts, Node, NodeStatus};
use skep_model::placement::{Placement, PoolPolicy};
use skep_model::service::{Image, Release, Service, Target};
use skep_model::spec::{Resources, ServiceSpec, ServiceType};
use skep_scheduler::cluster::Cluster;
use skep_scheduler::draft::Draft;
use skep_scheduler::filter::Surroundings;
use skep_scheduler::plan::{self, Plan};
use skep_scheduler::rollout::{self, Input};

const MB: u64 = 1_000_000;

/// One case of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Nodes in the cluster.
    pub nodes: usize,
    /// Racks that they are in; the job may use the first half of them.
    pub racks: usize,
    /// Allocations wanted.
    pub allocations: usize,
    /// Whether they are spread over the racks.
    pub spread: bool,
}

/// Nomad's seconds for one evaluation at 50 racks on a machine with two virtual cores, by nodes,
/// spread and count: measured by running its benchmark, elsewhere.
const RECORDED_MS: [(usize, bool, [f64; 5]); 8] = [
    (500, false, [8.0, 52.0, 236.0, 243.0, 247.0]),
    (1_000, false, [9.2, 56.0, 125.0, 282.0, 645.0]),
    (5_000, false, [17.3, 81.0, 170.0, 224.0, 273.0]),
    (10_000, false, [17.8, 81.0, 166.0, 207.0, 314.0]),
    (500, true, [93.0, 1_855.0, 2_999.0, 3_062.0, 2_867.0]),
    (1_000, true, [98.0, 2_291.0, 6_764.0, 10_931.0, 13_108.0]),
    (5_000, true, [133.0, 2_261.0, 9_827.0, 21_621.0, 41_798.0]),
    (10_000, true, [103.0, 2_442.0, 12_297.0, 22_658.0, 43_679.0]),
];

/// The counts of the benchmark.
pub const COUNTS: [usize; 5] = [50, 300, 600, 900, 1_200];

impl Case {
    /// Every case of the benchmark.
    pub fn all() -> impl Iterator<Item = Self> {
        let spreads = [false, true].into_iter();
        spreads.flat_map(|spread| {
            [500, 1_000, 5_000, 10_000]
                .into_iter()
                .flat_map(move |nodes| {
                    [25, 50, 75].into_iter().flat_map(move |racks| {
                        COUNTS.into_iter().map(move |allocations| Self {
                            nodes,
                            racks,
                            allocations,
                            spread,
                        })
                    })
                })
        })
    }

    /// What fits: two on each node of an eligible rack.
    pub fn capacity(&self) -> usize {
        let eligible = (0..self.nodes).filter(|node| node % self.racks < self.racks / 2);
        2 * eligible.count()
    }

    /// What Nomad took, in ms, where that was recorded.
    pub fn recorded_ms(&self) -> Option<f64> {
        let column = COUNTS.iter().position(|count| *count == self.allocations)?;
        let row = RECORDED_MS
            .iter()
            .find(|(nodes, spread, _)| (*nodes, *spread) == (self.nodes, self.spread));
        row.filter(|_| self.racks == 50)
            .map(|(.., times)| times[column])
    }

    /// The nodes, which the benchmark does not time.
    pub fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::default();
        // The reserves that Nomad's nodes have, in the terms of a pool.
        let policy = PoolPolicy {
            reserved_cpu_millis: 100,
            reserved_memory_percent: 0,
            reserved_disk_percent: 4,
            ..PoolPolicy::default()
        };
        cluster.put_policy("", Some(policy));
        for index in 0..self.nodes {
            cluster.put_node(&self.node(index));
        }
        cluster
    }

    fn node(&self, index: usize) -> Node {
        let meta = [
            ("rack", format!("r{}", index % self.racks)),
            ("datacenter", format!("dc-{}", 1 + index % 2)),
            ("driver.exec", "1".to_owned()),
            ("consul.version", "1.8.0".to_owned()),
        ];
        Node {
            id: node_id(index),
            name: format!("node-{index}"),
            facts: Facts {
                architecture: "x86_64".into(),
                cpu_millis: 14_000,
                // As many are kept as its nodes keep: 256 MB.
                memory_bytes: (32_000 - 256) * MB + (64 << 20),
                disk_bytes: 102_400 * MB,
                ..Facts::default()
            },
            status: NodeStatus::Ready,
            status_ms: 0,
            generation: 1,
            joined_ms: 0,
            meta: meta.map(|(key, value)| (key.to_owned(), value)).into(),
            admin: Admin::Eligible,
            seat: 0,
            witnesses: Vec::new(),
            fencing: Default::default(),
        }
    }

    /// The job: one group, its constraints and its spread.
    ///
    /// # Errors
    /// A rule is not understood: then the benchmark is wrong.
    pub fn job(&self) -> Result<Job> {
        let racks: Vec<String> = (0..self.racks / 2).map(|rack| format!("r{rack}")).collect();
        let rules = [
            format!("rack in {}", racks.join(",")),
            "datacenter in dc-1,dc-2".to_owned(),
            "driver.exec exists".to_owned(),
            "consul.version version >=1.8.0".to_owned(),
        ];
        let constraints = rules
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()?;
        let spread = match self.spread {
            true => vec!["rack".parse()?],
            false => Vec::new(),
        };
        let placement = Placement {
            constraints,
            spread,
            ..Placement::default()
        };
        let resources = Resources {
            cpu_millis: 6_000,
            memory_bytes: 6_000 * MB,
            disk_bytes: 150 * MB,
            ..Resources::default()
        };
        Ok(Job::new(1, self.allocations as u32, resources, placement))
    }

    /// Whether the plan is what the job asks for: all that fits is placed, at most two on a node,
    /// only in eligible racks, and evenly where they are spread.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, cluster: &Cluster, plan: &Plan) -> Result<()> {
        let wanted = self.allocations.min(self.capacity());
        ensure!(
            plan.starts.len() == wanted,
            "{} of {wanted}",
            plan.starts.len()
        );
        ensure!(
            plan.refusal.is_some() == (wanted < self.allocations),
            "refusal"
        );
        ensure!(plan::fits(cluster, plan).is_ok(), "the leader's check");
        let mut by_node: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut by_rack = vec![0_usize; self.racks];
        for start in &plan.starts {
            *by_node.entry(start.node).or_default() += 1;
            by_rack[(start.node.as_u128() - 1) as usize % self.racks] += 1;
        }
        ensure!(
            by_node.values().all(|count| *count <= 2),
            "more than two on a node"
        );
        let (eligible, others) = by_rack.split_at(self.racks / 2);
        ensure!(
            others.iter().all(|count| *count == 0),
            "a rack that is not eligible"
        );
        if self.spread {
            let least = eligible.iter().min().copied().unwrap_or(0);
            let most = eligible.iter().max().copied().unwrap_or(0);
            // Racks differ by one node where the count of racks does not divide the nodes.
            let slack = if wanted == self.allocations { 1 } else { 2 };
            ensure!(most - least <= slack, "skew {}", most - least);
        }
        Ok(())
    }
}

fn node_id(index: usize) -> NodeId {
    NodeId::from_u128(index as u128 + 1)
}

/// A service with its release, as the state would hold them.
#[derive(Debug, Clone)]
pub struct Job {
    /// The service.
    pub service: Service,
    /// What it runs.
    pub release: Release,
}

impl Job {
    /// A job of equal allocations that is live and has none yet.
    pub fn new(id: u128, count: u32, resources: Resources, placement: Placement) -> Self {
        let target = Target {
            release: 1,
            deployment: DeploymentId::from_u128(1),
        };
        let service = Service {
            id: ServiceId::from_u128(id),
            environment: EnvironmentId::from_u128(1),
            name: "job".into(),
            spec: ServiceSpec {
                kind: ServiceType::Worker,
                replicas: count,
                resources,
                placement,
                ..ServiceSpec::default()
            },
            variables: BTreeMap::new(),
            webhook_secret: None,
            live: Some(target),
            rollout: None,
            progress: Default::default(),
            last_release: 1,
            stopped: false,
            removing: false,
            generation: 1,
            created_ms: 0,
            scaling: None,
            pinned: None,
        };
        let release = Release {
            service: service.id,
            number: 1,
            deployment: target.deployment,
            image: Image {
                reference: "job".into(),
                digest: "sha256:0".into(),
                node: None,
                shared: false,
                bundle: false,
                pushed: None,
            },
            kind: ServiceType::Worker,
            port: None,
            command: Vec::new(),
            variables: BTreeMap::new(),
            resources,
            placement: service.spec.placement.clone(),
            container: service.spec.container.clone(),
            hooks: service.spec.hooks.clone(),
            health: Default::default(),
            restart: Default::default(),
            stop_grace_ms: 10_000,
            storage: Default::default(),
            commit: None,
            branch: None,
            public_url: None,
            file_variables: Default::default(),
            created_ms: 0,
        };
        Self { service, release }
    }

    /// A whole plan from nothing, over a fresh draft; ids count up from `first_id`.
    pub fn plan(&self, cluster: &Cluster, first_id: u128) -> Plan {
        let input = Input {
            service: &self.service,
            release: Some(&self.release),
            live_release: None,
            allocations: Vec::new(),
            now_ms: 0,
            drained: &|_| true,
            around: &Surroundings::default(),
            quotas: &[],
            limit: usize::MAX,
        };
        let mut next = first_id;
        let mut ids = || {
            next += 1;
            AllocationId::from_u128(next)
        };
        rollout::plan(&mut Draft::new(cluster), &input, &mut ids)
    }
}

/// The least time of several plans of the same case, and the last plan.
pub fn time(cluster: &Cluster, job: &Job, rounds: usize) -> (Duration, Plan) {
    let mut best = Duration::MAX;
    let mut last = job.plan(cluster, 0);
    for _ in 0..rounds {
        let start = Instant::now();
        let plan = job.plan(cluster, 0);
        best = best.min(start.elapsed());
        last = plan;
    }
    (best, last)
}
