//! Large clusters under load: a million allocations from empty, and the steady churn of a cluster
//! that is full of others. From fixed seeds.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::node::{Admin, Facts, Node, NodeStatus};
use skep_model::placement::Placement;
use skep_model::spec::Resources;
use skep_scheduler::cluster::Cluster;
use skep_scheduler::room::Needs;

use crate::nomad::Job;

/// SplitMix64, as published by Steele, Lea and Flood (2014).
pub struct Chance(u64);

impl Chance {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below the bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Nodes of three sizes in 100 racks and 10 zones, each on one of a quarter as many hosts.
pub fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::default();
    for index in 0..nodes {
        cluster.put_node(&node(index, nodes));
    }
    cluster
}

/// One of them.
pub fn node(index: usize, nodes: usize) -> Node {
    let size = [16, 32, 64][index % 3];
    let meta = [
        ("rack", format!("r{}", index % 100)),
        ("zone", format!("z{}", index % 10)),
        ("host", format!("h{}", index % (nodes / 4).max(1))),
        (
            "tier",
            (if index.is_multiple_of(5) {
                "pro"
            } else {
                "free"
            })
            .to_owned(),
        ),
    ];
    Node {
        id: NodeId::from_u128(index as u128 + 1),
        name: format!("node-{index}"),
        facts: Facts {
            architecture: "x86_64".into(),
            cpu_millis: size * 1_000,
            memory_bytes: u64::from(size) * (4 << 30),
            disk_bytes: 1 << 40,
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

/// Fifty shapes: 50 to 650 thousandths of a core, one to six GiB a core.
pub fn shape(number: u64) -> Resources {
    let cpu_millis = 50 + (number % 10) * 60;
    let per_core = 1 + number / 10;
    Resources {
        cpu_millis: cpu_millis as u32,
        memory_bytes: cpu_millis * per_core * (1 << 30) / 1_000,
        ..Resources::default()
    }
}

/// Puts what a plan starts into the cluster, as the leader's loop does once it is applied.
pub fn follow(cluster: &mut Cluster, job: &Job, plan: &skep_scheduler::plan::Plan) {
    let needs = Needs::of(&job.release);
    for start in &plan.starts {
        cluster.put_allocation(start.allocation, start.node, job.service.id, &needs);
    }
}

/// Fills a cluster with services of so many allocations each, shapes in turn; each is planned in
/// full and then followed.
///
/// # Errors
/// Something did not fit.
pub fn fill(cluster: &mut Cluster, services: u64, each: u32) -> Result<Duration> {
    let start = Instant::now();
    for number in 0..services {
        let job = Job::new(
            u128::from(number) + 1,
            each,
            shape(number % 50),
            Placement::default(),
        );
        let plan = job.plan(cluster, u128::from(number) * u128::from(each) + 1);
        ensure!(plan.refusal.is_none(), "{:?}", plan.refusal);
        follow(cluster, &job, &plan);
    }
    Ok(start.elapsed())
}

/// What placements of a churn ask for beside their shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Nothing.
    None,
    /// A constraint, a spread over zones, at most two per host, and a weight against others.
    Many,
}

impl Rules {
    fn placement(self) -> Result<Placement> {
        Ok(match self {
            Self::None => Placement::default(),
            Self::Many => Placement {
                constraints: vec!["tier = free".parse()?, "rack not in r1,r2".parse()?],
                spread: vec!["zone".parse()?],
                max_per: vec!["2 per host".parse()?],
                affinities: vec!["zone = z3 weight 10".parse()?],
                ..Placement::default()
            },
        })
    }
}

/// Steady churn: an allocation ends, and a service gets one more, so many times. Each decision is
/// timed with the upkeep of the view: one removal, one plan, one addition. In microseconds, by the
/// clock on the wall and by the thread's own, which stands still while others have the processor.
///
/// # Errors
/// Something did not fit.
pub fn churn(
    cluster: &mut Cluster,
    running: u64,
    changes: u64,
    rules: Rules,
) -> Result<[Vec<f64>; 2]> {
    let mut chance = Chance::new(7);
    let mut times = [Vec::new(), Vec::new()];
    let first = 1 << 60;
    for change in 0..changes {
        // Allocations of the fill are numbered from 2.
        let ended = AllocationId::from_u128(u128::from(2 + chance.below(running)));
        let shape = shape(chance.below(50));
        let mut job = Job::new(
            (1 << 40) + u128::from(change % 200),
            1,
            shape,
            rules.placement()?,
        );
        job.service.id = ServiceId::from_u128((1 << 40) + u128::from(change % 200));
        job.release.service = job.service.id;
        let (start, own_start) = (Instant::now(), own_time());
        cluster.remove_allocation(ended);
        let plan = job.plan(cluster, first + u128::from(change));
        follow(cluster, &job, &plan);
        times[0].push(start.elapsed().as_secs_f64() * 1e6);
        times[1].push((own_time() - own_start) * 1e6);
        ensure!(plan.starts.len() == 1, "{:?}", plan.refusal);
    }
    Ok(times)
}

/// Seconds that this thread has had the processor.
fn own_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
