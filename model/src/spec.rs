//! What a user asks for: the specification of a service, and its validation.

mod check;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::autoscale::{Autoscale, Metric};
use crate::build::{Build, Fetch, Nixpacks, StaticSite};
use crate::container::Container;
use crate::health::Health;
use crate::hooks::Hooks;
use crate::name;
use crate::placement::Placement;
use crate::problem::Problem;
use crate::pushed;
use crate::pushes::Pushes;
use crate::rollout;
use crate::routing::{self, RouteSpec};
use crate::run::{Mode, Run};
use crate::storage::{self, Storage};
use crate::tcp::{self, TcpSpec, TlsMode};
pub(crate) use check::between;
pub(crate) use check::check_git;
pub use check::{check_image, inside};

pub use crate::build::Builder;

/// Smallest memory limit that Docker accepts.
pub const MIN_MEMORY_BYTES: u64 = 6 << 20;
/// Most replicas of one service: a typing error should not fill a cluster.
pub const MAX_REPLICAS: u32 = 1_000;
/// Most custom domains of one service.
pub const MAX_DOMAINS: usize = 100;
/// The port where neither the user nor the image says one.
pub const DEFAULT_PORT: u16 = 8080;

/// The user's word for what a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ServiceType {
    /// Answers HTTP on a port and gets a route.
    #[default]
    Web,
    /// Runs without a port.
    Worker,
}

/// Where the service comes from, for deployments that nobody uploads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Source {
    /// A git repository; a push to `branch` deploys.
    Git {
        /// Anything `git clone` takes: https, ssh, or a path on the building node.
        repository: String,
        /// The branch that is deployed.
        branch: String,
        /// Folder inside the repository that holds the app; empty: its root.
        #[serde(default)]
        directory: String,
    },
    /// What is pushed to the cluster itself (`git push skep main`); a push to `branch` deploys.
    Pushed {
        /// The branch that is deployed.
        branch: String,
        /// Folder inside the repository that holds the app; empty: its root.
        #[serde(default)]
        directory: String,
    },
    /// A ready image.
    Image {
        /// `name[:tag][@digest]`.
        reference: String,
    },
}

impl Source {
    /// The branch that is deployed, where it has any.
    pub fn branch(&self) -> Option<&str> {
        match self {
            Self::Git { branch, .. } | Self::Pushed { branch, .. } => Some(branch),
            Self::Image { .. } => None,
        }
    }
}

/// Whether a deployment of a ready image asks its registry. A release names the image's digest: only a
/// deployment asks, and nodes fetch by digest what they lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    /// Where the node that is asked has no image of that name.
    #[default]
    Missing,
    /// Each time: a tag that has moved is noticed.
    Always,
    /// Never: it is on the node that is asked, and the others get it from there.
    Never,
}

impl Pull {
    /// In the order of the stored format: append only.
    pub const ALL: [Self; 3] = [Self::Missing, Self::Always, Self::Never];
}

/// How a ready image is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ImagePolicy {
    /// Whether its registry is asked.
    pub pull: Pull,
}

/// What one allocation needs and may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Requested CPU in thousandths of a core: what the scheduler counts, and the container's
    /// share when the node is busy.
    pub cpu_millis: u32,
    /// Requested memory in bytes: what the scheduler counts, and the container's hard limit unless
    /// `memory_limit_bytes` says otherwise.
    pub memory_bytes: u64,
    /// Ceiling on CPU in thousandths of a core; 0: none.
    pub cpu_limit_millis: u32,
    /// Ceiling on memory in bytes, beyond the request; 0: the request.
    pub memory_limit_bytes: u64,
    /// Requested disk under Docker's data root in bytes; 0: none is counted.
    pub disk_bytes: u64,
}

impl Resources {
    /// The container's hard limit on memory, in bytes.
    pub fn memory_ceiling_bytes(&self) -> u64 {
        match self.memory_limit_bytes {
            0 => self.memory_bytes,
            limit => limit,
        }
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_millis: 100,
            memory_bytes: 256 << 20,
            cpu_limit_millis: 0,
            memory_limit_bytes: 0,
            disk_bytes: 0,
        }
    }
}

/// How a release replaces another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    /// Allocations beyond `replicas` while updating. 0: an old one has ended before a new one starts,
    /// `rollout.max_unavailable` at a time and at least one.
    pub max_surge: u32,
    /// How long requests on an old allocation may go on after it left the routes, in ms.
    pub drain_ms: u64,
}

impl Default for Update {
    fn default() -> Self {
        Self {
            max_surge: 1,
            drain_ms: 30_000,
        }
    }
}

/// What the agent does when a container ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Restart {
    /// Restarts within `window_ms` after which the allocation is `failed`.
    pub attempts: u32,
    /// The window in which restarts are counted, in ms.
    pub window_ms: u64,
    /// Pause before the first restart, in ms; doubles with each.
    pub delay_ms: u64,
    /// Longest pause, in ms.
    pub max_delay_ms: u64,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            attempts: 3,
            window_ms: 600_000,
            delay_ms: 250,
            max_delay_ms: 30_000,
        }
    }
}

/// Everything a user says about a service, variables apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ServiceSpec {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// Where it comes from, unless folders are uploaded.
    pub source: Option<Source>,
    /// The builder, where it is not left to detection: `dockerfile`, `image`, `nixpacks`, `static`, or
    /// `exec:NAME` for a program of the node.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub builder: Option<Builder>,
    /// Path of the Dockerfile inside the app's folder; none: `Dockerfile`.
    pub dockerfile: Option<String>,
    /// How a ready image is had.
    pub image: ImagePolicy,
    /// The port that a web service listens on; none: the image's single EXPOSE, else 8080.
    pub port: Option<u16>,
    /// Replaces the image's command; empty: the image's own.
    pub command: Vec<String>,
    /// How many allocations.
    pub replicas: u32,
    /// What each needs.
    pub resources: Resources,
    /// When each is fit for traffic.
    pub health: Health,
    /// How releases follow each other.
    pub update: Update,
    /// What happens when a container ends.
    pub restart: Restart,
    /// Time between SIGTERM and SIGKILL, in ms.
    pub stop_grace_ms: u64,
    /// Host names beside the generated one: each is a route for `/` that says nothing else.
    pub domains: Vec<String>,
    /// Hosts and paths where it answers, beside `domains`, and what is done to requests on their way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSpec>,
    /// How connections of any protocol come in, beside HTTP or in its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tcp: Vec<TcpSpec>,
    /// Where it may run, and where rather.
    pub placement: Placement,
    /// Kept running, or run to completion, and when.
    pub run: Run,
    /// Who says how many allocations there are: none: `replicas`; else its autoscaler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,
    /// How a release takes over from another.
    pub rollout: rollout::Policy,
    /// Volumes, paths of the node, and secrets as files.
    #[serde(skip_serializing_if = "Storage::is_empty")]
    pub storage: Storage,
    /// How its containers are confined.
    pub container: Container,
    /// What runs around them.
    pub hooks: Hooks,
    /// Which pushes of its repository deploy it.
    #[serde(skip_serializing_if = "Pushes::is_empty")]
    pub pushes: Pushes,
    /// What a build is given, and how far it may go.
    #[serde(skip_serializing_if = "Build::is_silent")]
    pub build: Build,
    /// What Nixpacks is told.
    #[serde(skip_serializing_if = "Nixpacks::is_silent")]
    pub nixpacks: Nixpacks,
    /// A site of files.
    #[serde(rename = "static", skip_serializing_if = "StaticSite::is_silent")]
    pub site: StaticSite,
    /// How its repository is fetched.
    #[serde(skip_serializing_if = "Fetch::is_silent")]
    pub fetch: Fetch,
}

impl Default for ServiceSpec {
    fn default() -> Self {
        Self {
            kind: ServiceType::Web,
            source: None,
            builder: None,
            dockerfile: None,
            image: ImagePolicy::default(),
            port: None,
            command: Vec::new(),
            replicas: 1,
            resources: Resources::default(),
            health: Health::default(),
            update: Update::default(),
            restart: Restart::default(),
            stop_grace_ms: 10_000,
            domains: Vec::new(),
            routes: Vec::new(),
            tcp: Vec::new(),
            placement: Placement::default(),
            run: Run::default(),
            autoscale: None,
            rollout: rollout::Policy::default(),
            storage: Storage::default(),
            container: Container::default(),
            hooks: Hooks::default(),
            pushes: Pushes::default(),
            build: Build::default(),
            nixpacks: Nixpacks::default(),
            site: StaticSite::default(),
            fetch: Fetch::default(),
        }
    }
}

impl ServiceSpec {
    /// Checks every field, and what depends on libraries and time zones: for what people say, before
    /// it is proposed.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check_given(&self) -> Result<(), Problem> {
        self.check()?;
        self.run.check_given()?;
        self.pushes.check_given()?;
        self.autoscale
            .as_ref()
            .map_or(Ok(()), Autoscale::check_given)
    }

    /// Checks every field by rules that every server agrees on, whatever its version.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        between(
            "replicas",
            u64::from(self.replicas),
            0,
            u64::from(MAX_REPLICAS),
        )?;
        between(
            "resources.cpu_millis",
            u64::from(self.resources.cpu_millis),
            1,
            1_000_000,
        )?;
        between(
            "resources.memory_bytes",
            self.resources.memory_bytes,
            MIN_MEMORY_BYTES,
            1 << 50,
        )?;
        let limit = self.resources.cpu_limit_millis;
        if limit != 0 && limit < self.resources.cpu_millis {
            return Err(Problem::invalid(
                "resources.cpu_limit_millis",
                "the limit is below the request",
            )
            .hint("0 for no limit, or at least cpu_millis"));
        }
        let limit = self.resources.memory_limit_bytes;
        if limit != 0 && limit < self.resources.memory_bytes {
            return Err(Problem::invalid(
                "resources.memory_limit_bytes",
                "the limit is below the request",
            )
            .hint("0 for the request itself, or at least memory_bytes"));
        }
        between(
            "resources.disk_bytes",
            self.resources.disk_bytes,
            0,
            1 << 60,
        )?;
        between(
            "update.max_surge",
            u64::from(self.update.max_surge),
            0,
            u64::from(MAX_REPLICAS),
        )?;
        between("update.drain_ms", self.update.drain_ms, 0, 3_600_000)?;
        between(
            "restart.attempts",
            u64::from(self.restart.attempts),
            0,
            1_000,
        )?;
        between(
            "restart.window_ms",
            self.restart.window_ms,
            1_000,
            86_400_000,
        )?;
        between(
            "restart.delay_ms",
            self.restart.delay_ms,
            10,
            self.restart.max_delay_ms,
        )?;
        between(
            "restart.max_delay_ms",
            self.restart.max_delay_ms,
            10,
            3_600_000,
        )?;
        between("stop_grace_ms", self.stop_grace_ms, 0, 600_000)?;
        if self.port == Some(0) {
            return Err(Problem::invalid("port", "0 is not a port").hint("1 to 65535"));
        }
        self.health.check(self.takes_traffic())?;
        self.container.check()?;
        self.check_hooks()?;
        self.pushes.check()?;
        self.check_build()?;
        if self.domains.len() > MAX_DOMAINS {
            return Err(Problem::invalid(
                "domains",
                format!("more than {MAX_DOMAINS}"),
            ));
        }
        self.domains
            .iter()
            .try_for_each(|host| name::check_host("domains", host))?;
        self.check_routes()?;
        self.placement.check("placement")?;
        self.placement.check_carried_out("placement")?;
        self.run.check()?;
        self.check_autoscale()?;
        self.check_rollout()?;
        self.storage.check()?;
        storage::check_bound(self)?;
        self.check_source()
    }

    fn check_routes(&self) -> Result<(), Problem> {
        if !self.routes.is_empty() && !self.is_routed() {
            let text = "a worker or a job gets no requests";
            return Err(Problem::invalid("routes", text)
                .hint("leave them out, or make it a `web` service that is kept running"));
        }
        if !self.tcp.is_empty() && self.run.mode.runs_jobs() {
            let text = "a job takes no connections";
            return Err(Problem::invalid("tcp", text)
                .hint("leave it out, or make it a service that is kept running"));
        }
        // Of `domains` alone nothing more is asked than ever was.
        if !self.routes.is_empty() {
            routing::check_all(&self.routes, &self.domains)?;
        }
        tcp::check_all(&self.tcp, (&self.routes, &self.domains))
    }

    fn check_autoscale(&self) -> Result<(), Problem> {
        let Some(autoscale) = &self.autoscale else {
            return Ok(());
        };
        if self.run.mode != Mode::Service {
            let text = format!(
                "a service of the mode `{}` has no replicas",
                self.run.mode.as_str()
            );
            return Err(Problem::invalid("autoscale", text).hint("leave it out"));
        }
        autoscale.check()?;
        let unseen = autoscale.targets.iter().position(|target| {
            let metric = &target.metric;
            matches!(
                metric,
                Metric::RequestRate | Metric::InFlight | Metric::LatencyP95
            )
        });
        if let (false, Some(number)) = (self.is_routed(), unseen) {
            let metric = &autoscale.targets[number].metric;
            let text = format!("a worker gets no requests, so `{metric}` is never known");
            return Err(
                Problem::invalid(format!("autoscale.targets[{number}]"), text)
                    .hint("cpu, memory, queue_length or custom:NAME; or `type` = `web`"),
            );
        }
        if autoscale.scale_to_zero.is_some() && !autoscale.can_wake(self.is_routed()) {
            let text = "nothing would tell that it is wanted again";
            return Err(Problem::invalid("autoscale.scale_to_zero", text)
                .hint("a web service, or a target on queue_length or custom:NAME"));
        }
        Ok(())
    }

    /// Checks what is said about builds alone: where the rest is not known.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check_build(&self) -> Result<(), Problem> {
        if let Some(path) = &self.dockerfile {
            inside("dockerfile", path)?;
        }
        self.build.check()?;
        self.nixpacks.check()?;
        self.site.check()?;
        self.fetch.check()
    }

    fn check_hooks(&self) -> Result<(), Problem> {
        self.hooks.check(self.takes_traffic())?;
        let mode = self.run.mode;
        if mode != Mode::Service && !self.hooks.release.is_empty() {
            let text = format!(
                "a service of the mode `{}` has no release phase",
                mode.as_str()
            );
            return Err(Problem::invalid("hooks.release", text)
                .hint("begin its own command with it, or make it a service of the mode `batch`"));
        }
        Ok(())
    }

    fn check_rollout(&self) -> Result<(), Problem> {
        self.rollout.check()?;
        let mode = self.run.mode;
        if mode != Mode::Service && self.rollout.strategy != rollout::Strategy::Rolling {
            let text = format!("a service of the mode `{}` has no replicas", mode.as_str());
            return Err(Problem::invalid("rollout.strategy", text).hint("`rolling`"));
        }
        Ok(())
    }

    fn check_source(&self) -> Result<(), Problem> {
        match &self.source {
            Some(Source::Git {
                repository,
                branch,
                directory,
            }) => {
                check_git("source.repository", repository)?;
                check_git("source.branch", branch)?;
                inside("source.directory", directory)
            }
            Some(Source::Pushed { branch, directory }) => {
                pushed::check_reference("source.branch", &pushed::branch_name(branch))?;
                inside("source.directory", directory)
            }
            Some(Source::Image { reference }) => check_image("source.reference", reference),
            None => Ok(()),
        }
    }

    /// What the rollout of a new release begins with.
    pub fn first_phase(&self, has_live: bool) -> rollout::Phase {
        match self.hooks.release.is_empty() {
            true => self.rollout.first_phase(has_live),
            false => rollout::Phase::Before,
        }
    }

    /// The hosts that it names, each once: what its project claims.
    pub fn hosts(&self) -> BTreeSet<&str> {
        let routes = self.routes.iter().filter_map(|route| route.host.as_deref());
        let names = self.tcp.iter().filter_map(|tcp| tcp.sni.as_deref());
        self.domains
            .iter()
            .map(String::as_str)
            .chain(routes)
            .chain(names)
            .collect()
    }

    /// The hosts that the ingress shows a certificate for.
    pub fn shown_hosts(&self) -> BTreeSet<&str> {
        let mut hosts = self.hosts();
        for tcp in self.tcp.iter().filter(|it| it.tls == TlsMode::Passthrough) {
            hosts.remove(tcp.sni.as_deref().unwrap_or_default());
        }
        hosts
    }

    /// Whether the service gets routes.
    pub fn is_routed(&self) -> bool {
        self.kind == ServiceType::Web && !self.run.mode.runs_jobs()
    }

    /// Whether connections or requests come to it.
    pub fn takes_traffic(&self) -> bool {
        self.is_routed() || !self.tcp.is_empty()
    }

    /// Allocations beyond `replicas` while updating: none where a volume has one writer.
    pub fn surge(&self) -> u32 {
        match self.storage.is_bound() {
            true => 0,
            false => self.update.max_surge,
        }
    }

    /// Whether it has one allocation a node.
    pub fn is_system(&self) -> bool {
        self.run.mode == Mode::System
    }
}

#[cfg(test)]
mod tests;
