//! A service and its releases: what should run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::gate::Pin;
use crate::health::Health;
use crate::hooks::Hooks;
use crate::id::{DeploymentId, EnvironmentId, NodeId, ServiceId};
use crate::placement::{CutOff, Placement};
use crate::rollout::{Phase, Progress, Strategy};
use crate::run::Mode;
use crate::spec::{Resources, Restart, ServiceType};
use crate::storage::{Storage, VOLUME_STOP_AFTER_MS};
use crate::variable::{Sealed, Variable};

/// One deployable thing in an environment. Written by API commands and by deployments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Identity.
    pub id: ServiceId,
    /// Owner.
    pub environment: EnvironmentId,
    /// Unique in the environment.
    pub name: String,
    /// What the user asked for.
    pub spec: crate::spec::ServiceSpec,
    /// Variables, by name.
    pub variables: BTreeMap<String, Variable>,
    /// Secret that its webhook deliveries are signed with; none: no webhook yet.
    pub webhook_secret: Option<Sealed>,
    /// What serves: the last deployment that became live.
    pub live: Option<Target>,
    /// What is being rolled out, if anything.
    pub rollout: Option<Target>,
    /// How far that is; where nothing is rolled out what the last phase left, see `Progress::ended`.
    pub progress: Progress,
    /// Number of the newest release; 0: none yet.
    pub last_release: u64,
    /// Wanted without allocations (`skep stop`).
    pub stopped: bool,
    /// Being removed: gone when its last allocation has ended.
    pub removing: bool,
    /// Raised by every change: the base of compare-and-set.
    pub generation: u64,
    /// Cluster time of creation, ms since the epoch.
    pub created_ms: u64,
    /// What its autoscaler decided; none: nothing yet, or it has none.
    pub scaling: Option<Scaling>,
    /// Nothing new comes here until somebody takes that back.
    pub pinned: Option<Pin>,
}

/// Decisions of an autoscaler that are remembered.
pub const MAX_SCALINGS: usize = 20;
/// Longest reason of one, in bytes.
pub const MAX_SCALING_REASON: usize = 512;

/// How many allocations a service's autoscaler wants, and how that came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaling {
    /// So many.
    pub replicas: u32,
    /// Its last changes, oldest first.
    pub changes: Vec<ScalingChange>,
}

/// One change that an autoscaler made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScalingChange {
    /// Cluster time, ms since the epoch.
    pub at_ms: u64,
    /// As many as there were to be.
    pub from: u32,
    /// As many as there are to be since then.
    pub to: u32,
    /// Why, for a person.
    pub reason: String,
}

/// After so long without a server an attempt of a job is stopped, where nothing else is said, in ms.
pub const JOB_STOP_AFTER_MS: u64 = 60_000;

impl Release {
    /// After how long without a server an agent stops an allocation of it, in ms; none: it runs on. An
    /// attempt of a job always stops, so that the next one never runs beside it; so does what writes to
    /// a volume.
    pub fn stop_after_ms(&self, is_job: bool) -> Option<u64> {
        match self.cut_off() {
            CutOff::Stop { after_ms } => Some(after_ms),
            CutOff::Keep => is_job.then_some(JOB_STOP_AFTER_MS),
        }
    }

    /// What becomes of it when its node has no server in reach: with a volume it never runs on.
    pub fn cut_off(&self) -> CutOff {
        match self.placement.cut_off {
            CutOff::Keep if self.storage.is_bound() => CutOff::Stop {
                after_ms: VOLUME_STOP_AFTER_MS,
            },
            said => said,
        }
    }

    /// What is counted of its node: its requests, and the size of its volumes as disk. Files that are handed out
    /// run nowhere.
    pub fn requests(&self) -> Resources {
        let mut requests = self.resources;
        if self.image.bundle {
            (requests.cpu_millis, requests.memory_bytes) = (0, 0);
        }
        requests.disk_bytes = requests
            .disk_bytes
            .saturating_add(self.storage.size_bytes());
        requests
    }
}

impl Service {
    /// What the scheduler works towards.
    pub fn target(&self) -> Option<Target> {
        self.rollout.or(self.live)
    }

    /// Whether requests may go to allocations of this target: not to a release that is on trial, and
    /// to no other than one that has taken over. That holds on when the rollout has ended, or what is about
    /// to be stopped would get some for a moment.
    pub fn serves(&self, target: Target) -> bool {
        match (self.rollout, self.progress.phase) {
            (Some(new), Phase::Before | Phase::Trial) => target != new,
            (Some(new), Phase::Kept { .. }) => target == new,
            (None, Phase::Trial | Phase::Kept { .. }) => self.live == Some(target),
            _ => true,
        }
    }

    /// The release of a canary, while its requests are compared with those of the live one.
    pub fn compared(&self) -> Option<Target> {
        let policy = &self.spec.rollout;
        let is_compared = policy.strategy == Strategy::Canary
            && !policy.analysis.off
            && self.progress.phase != Phase::Before
            && self.live.is_some_and(|live| Some(live) != self.rollout);
        self.rollout.filter(|_| is_compared)
    }

    /// Whether nothing of it is to run until somebody asks for it.
    pub fn is_asleep(&self) -> bool {
        let scales = self.spec.autoscale.as_ref();
        scales.is_some_and(|it| it.scale_to_zero.is_some())
            && !self.stopped
            && !self.removing
            && self.wanted() == 0
    }

    /// How many allocations there should be: none where jobs are run; a system service has as many
    /// as there are nodes for it, which this does not know.
    pub fn wanted(&self) -> u32 {
        if self.stopped || self.removing || self.spec.run.mode != Mode::Service {
            return 0;
        }
        let decided = self.scaling.as_ref().map(|scaling| scaling.replicas);
        match &self.spec.autoscale {
            Some(autoscale) => {
                let wanted = autoscale.wanted(self.spec.replicas, decided);
                // What is deployed is tried, also where it would sleep.
                wanted.max(u32::from(self.rollout.is_some()))
            }
            None => self.spec.replicas,
        }
    }
}

/// A release as brought by one deployment: deploying the same release again makes new allocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Target {
    /// Number of the release.
    pub release: u64,
    /// The deployment that brought it.
    pub deployment: DeploymentId,
}

/// An image that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Image {
    /// What people call it.
    pub reference: String,
    /// What it is: `sha256:...`. What runs is this, whatever the reference means by then.
    pub digest: String,
    /// The node that built it or had it first; none: a registry has it.
    pub node: Option<NodeId>,
    /// Nodes hand it to each other: `digest` is its manifest's, and any node with a store gets it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// It is the files of a static site: nodes hand them out themselves, and no container is made of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bundle: bool,
    /// The same manifest in the workspace's push registry, `host/repository@sha256:...`; none: it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed: Option<String>,
}

impl Image {
    /// The node that alone has it; none: others can get it.
    pub fn only_on(&self) -> Option<NodeId> {
        self.node.filter(|_| !self.shared)
    }
}

/// Immutable: an image and the configuration it runs with, numbered within its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Whose.
    pub service: ServiceId,
    /// 1, 2, 3, ...
    pub number: u64,
    /// The deployment that made it.
    pub deployment: DeploymentId,
    /// What runs.
    pub image: Image,
    /// Web or worker.
    pub kind: ServiceType,
    /// The port it listens on; none for a worker.
    pub port: Option<u16>,
    /// Replaces the image's command; empty: the image's own.
    pub command: Vec<String>,
    /// Variables at the time, with all in them that they refer to.
    pub variables: BTreeMap<String, Variable>,
    /// Needs.
    pub resources: Resources,
    /// Where it may run.
    pub placement: Placement,
    /// Fitness for traffic.
    pub health: Health,
    /// Restarts.
    pub restart: Restart,
    /// Time between SIGTERM and SIGKILL, in ms.
    pub stop_grace_ms: u64,
    /// What is mounted into it.
    pub storage: Storage,
    /// How its containers are confined.
    pub container: Container,
    /// What runs around them.
    pub hooks: Hooks,
    /// The commit it was built from.
    pub commit: Option<String>,
    /// Cluster time of creation, ms since the epoch.
    pub created_ms: u64,
    /// The branch that it was built from.
    pub branch: Option<String>,
    /// Where it answered when it was made; none for a worker.
    pub public_url: Option<String>,
    /// What the app's own file said, before references in it were resolved: it stays with the image.
    pub file_variables: BTreeMap<String, Variable>,
}
