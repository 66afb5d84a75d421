//! `skep.toml`: an app's own file, in the units that people write.

mod autoscale;
mod build;
mod container;
mod health;
mod restart;
mod routes;
mod size;
mod source;
mod storage;
mod write;

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::placement::Placement;
use crate::problem::Problem;
use crate::rollout::{CanaryStep, Policy, Promote, Strategy};
use crate::routing::labels;
use crate::run::{Mode, Overlap};
use crate::spec::{Builder, Pull, ServiceSpec, ServiceType};
use crate::storage::{HostPath, SecretFile};
use crate::tcp::TcpSpec;
use crate::{name, variable};

pub use autoscale::{AutoscaleTable, SizingTable};
pub use build::{BuildTable, NixpacksTable, StaticTable};
pub use container::{ContainerTable, HooksTable, InitTable};
pub use health::{HealthTable, ProbeTable};
pub use restart::RestartTable;
pub use routes::RouteTable;
pub use size::Size;
pub use source::SourceTable;
pub use storage::VolumeTable;

/// The file's name.
pub const FILE: &str = "skep.toml";
/// Largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 64 << 10;

/// The content of `skep.toml`. What it does not say stays as it is on the service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// Name of the service.
    pub name: Option<String>,
    /// Name of the project; where it is missing, the service's.
    pub project: Option<String>,
    /// `web` or `worker`.
    #[serde(rename = "type")]
    pub kind: Option<ServiceType>,
    /// Explicit builder.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub builder: Option<Builder>,
    /// Path of the Dockerfile.
    pub dockerfile: Option<String>,
    /// What a build is given, and how far it may go.
    #[serde(skip_serializing_if = "is_silent")]
    pub build: BuildTable,
    /// What Nixpacks is told.
    #[serde(skip_serializing_if = "is_silent")]
    pub nixpacks: NixpacksTable,
    /// A site of files.
    #[serde(rename = "static", skip_serializing_if = "is_silent")]
    pub site: StaticTable,
    /// How a ready image is had.
    #[serde(skip_serializing_if = "is_silent")]
    pub image: ImageTable,
    /// Port that the app listens on.
    #[cfg_attr(feature = "openapi", schema(maximum = 65535))]
    pub port: Option<u16>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// How many allocations.
    pub replicas: Option<u32>,
    /// Host names beside the generated one.
    pub domains: Option<Vec<String>>,
    /// Hosts and paths beside those: replaces all that were said.
    pub routes: Option<Vec<RouteTable>>,
    /// Labels as people have written them for Traefik, read as routes before those.
    #[serde(skip_serializing_if = "is_silent")]
    pub labels: BTreeMap<String, String>,
    /// How connections of any protocol come in: replaces all that were said.
    pub tcp: Option<Vec<TcpSpec>>,
    /// Time between SIGTERM and SIGKILL: `"10s"`.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub stop_grace: Option<Duration>,
    /// Needs.
    #[serde(skip_serializing_if = "is_silent")]
    pub resources: ResourcesTable,
    /// Health checks.
    #[serde(skip_serializing_if = "is_silent")]
    pub health: HealthTable,
    /// What happens when a container ends by itself.
    #[serde(skip_serializing_if = "is_silent")]
    pub restart: RestartTable,
    /// Rolling updates.
    #[serde(skip_serializing_if = "is_silent")]
    pub update: UpdateTable,
    /// Where it may run, and where rather: replaces all that was said of that.
    pub placement: Option<Placement>,
    /// Kept running, or run to completion.
    #[serde(skip_serializing_if = "is_silent")]
    pub run: RunTable,
    /// Who says how many allocations there are: replaces all that was said of that.
    pub autoscale: Option<AutoscaleTable>,
    /// How a release takes over from another.
    #[serde(skip_serializing_if = "is_silent")]
    pub rollout: RolloutTable,
    /// Folders that outlive containers: replaces all that were said.
    pub volumes: Option<Vec<VolumeTable>>,
    /// Folders and files of the node: replaces all that were said.
    pub host_paths: Option<Vec<HostPath>>,
    /// Variables as files: replaces all that were said.
    pub secrets: Option<Vec<SecretFile>>,
    /// How its containers are confined.
    #[serde(skip_serializing_if = "is_silent")]
    pub container: ContainerTable,
    /// What runs around them.
    #[serde(skip_serializing_if = "is_silent")]
    pub hooks: HooksTable,
    /// Which pushes of its repository deploy it, and how that is fetched.
    #[serde(skip_serializing_if = "is_silent")]
    pub source: SourceTable,
    /// Plain variables. Secrets do not belong into a repository: `skep env set --secret`.
    #[serde(skip_serializing_if = "is_silent")]
    pub env: BTreeMap<String, String>,
}

/// `[image]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ImageTable {
    /// `missing`, `always` or `never`.
    pub pull: Option<Pull>,
}

/// `[resources]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ResourcesTable {
    /// Requested CPU: `"250m"` (thousandths of a core) or `"1.5"` (cores).
    pub cpu: Option<String>,
    /// Ceiling on CPU, same units.
    pub cpu_limit: Option<String>,
    /// Memory: `"128MiB"`.
    pub memory: Option<Size>,
    /// Hard limit on memory, where it is above what is requested.
    pub memory_limit: Option<Size>,
    /// Requested disk.
    pub disk: Option<Size>,
}

/// `[update]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct UpdateTable {
    /// Allocations beyond `replicas` while updating.
    pub max_surge: Option<u32>,
    /// How long requests on an old allocation may go on.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub drain: Option<Duration>,
}

/// `[rollout]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RolloutTable {
    /// `rolling`, `blue_green` or `canary`.
    pub strategy: Option<Strategy>,
    /// So many fewer than `replicas` may be healthy while updating.
    pub max_unavailable: Option<u32>,
    /// `auto` or `manual`.
    pub promote: Option<Promote>,
    /// How long the old allocations are kept.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub keep: Option<Duration>,
    /// Steps of a canary: replaces all that were said.
    pub steps: Option<Vec<StepTable>>,
    /// When a canary goes back by itself.
    pub analysis: Option<AnalysisTable>,
}

/// `analysis`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct AnalysisTable {
    /// Nothing is compared.
    pub off: Option<bool>,
    /// So many of 100 requests more than of the live release's may fail.
    pub errors_percent: Option<u32>,
    /// So many of 100 requests more than of the live release's may be slow.
    pub slow_percent: Option<u32>,
}

/// One of `steps`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StepTable {
    /// Share of the allocations.
    pub percent: u32,
    /// How long they must have been healthy; none: until somebody says so.
    #[serde(with = "humantime_serde", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub pause: Option<Duration>,
}

impl RolloutTable {
    fn apply(&self, policy: &mut Policy) {
        set(&mut policy.strategy, self.strategy);
        set(&mut policy.max_unavailable, self.max_unavailable);
        set(&mut policy.promote, self.promote);
        set(&mut policy.keep_ms, self.keep.map(millis));
        let steps = self.steps.as_ref().map(|steps| {
            let step = |step: &StepTable| CanaryStep {
                percent: step.percent,
                pause_ms: step.pause.map(millis),
            };
            steps.iter().map(step).collect()
        });
        set(&mut policy.steps, steps);
        if let Some(said) = &self.analysis {
            let analysis = &mut policy.analysis;
            set(&mut analysis.off, said.off);
            set(&mut analysis.errors_percent, said.errors_percent);
            set(&mut analysis.slow_percent, said.slow_percent);
        }
    }
}

/// `[run]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RunTable {
    /// `service`, `system`, `batch` or `cron`.
    pub mode: Option<Mode>,
    /// Further attempts after a failed one.
    pub retries: Option<u32>,
    /// Time for a job, all attempts together.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub deadline: Option<Duration>,
    /// Pause before the second attempt.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub backoff: Option<Duration>,
    /// Longest pause between attempts.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub max_backoff: Option<Duration>,
    /// When a cron service is due.
    pub schedule: Option<String>,
    /// IANA name of its time zone.
    pub time_zone: Option<String>,
    /// `allow`, `forbid` or `replace`.
    pub overlap: Option<Overlap>,
    /// Oldest missed time that is made up for.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub catch_up: Option<Duration>,
}

impl RunTable {
    fn apply(&self, run: &mut crate::run::Run) {
        set(&mut run.mode, self.mode);
        set(&mut run.retries, self.retries);
        set(&mut run.deadline_ms, self.deadline.map(millis));
        set(&mut run.backoff_ms, self.backoff.map(millis));
        set(&mut run.max_backoff_ms, self.max_backoff.map(millis));
        run.schedule = self.schedule.clone().or(run.schedule.take());
        if self.mode.is_some_and(|mode| mode != Mode::Cron) && self.schedule.is_none() {
            // The file that made it something else no longer names one: it is gone with the mode.
            run.schedule = None;
        }
        set(&mut run.time_zone, self.time_zone.clone());
        set(&mut run.overlap, self.overlap);
        set(&mut run.catch_up_ms, self.catch_up.map(millis));
    }
}

impl Manifest {
    /// Reads and checks the text of a `skep.toml`.
    ///
    /// # Errors
    /// Not TOML, an unknown key, or a field that is not accepted; says where.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() as u64 > MAX_BYTES {
            return Err(Problem::invalid(
                FILE,
                format!("larger than {MAX_BYTES} bytes"),
            ));
        }
        let manifest: Self = toml::from_str(text).map_err(|error| {
            Problem::invalid(FILE, error.to_string().trim_end().to_owned())
                .hint("the keys are described in docs/skep-toml.md")
        })?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks names and variables, and that the units can be read.
    ///
    /// # Errors
    /// The first field that is not accepted.
    pub fn check(&self) -> Result<(), Problem> {
        for (field, given) in [("name", &self.name), ("project", &self.project)] {
            given
                .as_deref()
                .map_or(Ok(()), |text| name::check(field, text))?;
        }
        for (key, value) in &self.env {
            let input = variable::VariableInput {
                name: key.clone(),
                value: value.clone(),
                secret: false,
            };
            variable::check(&input).map_err(|problem| problem.at(format!("env.{key}")))?;
        }
        self.apply(&ServiceSpec::default())?.check_given()
    }

    /// The specification with what this file says in it.
    ///
    /// # Errors
    /// A CPU amount that cannot be read.
    pub fn apply(&self, base: &ServiceSpec) -> Result<ServiceSpec, Problem> {
        let mut spec = base.clone();
        set(&mut spec.kind, self.kind);
        spec.builder = self.builder.clone().or(spec.builder);
        spec.dockerfile = self.dockerfile.clone().or(spec.dockerfile);
        set(&mut spec.image.pull, self.image.pull);
        set(&mut spec.command, self.command.clone());
        set(&mut spec.replicas, self.replicas);
        set(&mut spec.domains, self.domains.clone());
        let labelled = labels::from_labels(&self.labels)?;
        spec.port = self.port.or(labelled.port).or(spec.port);
        if self.routes.is_some() || !self.labels.is_empty() {
            let said = self.routes.iter().flatten().map(RouteTable::read);
            spec.routes = labelled.routes.into_iter().chain(said).collect();
        }
        set(&mut spec.tcp, self.tcp.clone());
        set(&mut spec.stop_grace_ms, self.stop_grace.map(millis));
        if let Some(text) = &self.resources.cpu {
            spec.resources.cpu_millis = parse_cpu("resources.cpu", text)?;
        }
        if let Some(text) = &self.resources.cpu_limit {
            spec.resources.cpu_limit_millis = parse_cpu("resources.cpu_limit", text)?;
        }
        set(
            &mut spec.resources.memory_bytes,
            self.resources.memory.map(|size| size.as_u64()),
        );
        set(
            &mut spec.resources.memory_limit_bytes,
            self.resources.memory_limit.map(|size| size.as_u64()),
        );
        set(
            &mut spec.resources.disk_bytes,
            self.resources.disk.map(|size| size.as_u64()),
        );
        set(&mut spec.placement, self.placement.clone());
        self.health.apply(&mut spec.health);
        self.restart.apply(&mut spec.restart);
        set(&mut spec.update.max_surge, self.update.max_surge);
        set(&mut spec.update.drain_ms, self.update.drain.map(millis));
        self.run.apply(&mut spec.run);
        if let Some(table) = &self.autoscale {
            spec.autoscale = Some(table.read()?);
        }
        self.rollout.apply(&mut spec.rollout);
        let volumes = self.volumes.as_ref();
        let volumes = volumes.map(|all| all.iter().map(VolumeTable::read).collect());
        set(&mut spec.storage.volumes, volumes);
        set(&mut spec.storage.host_paths, self.host_paths.clone());
        set(&mut spec.storage.secrets, self.secrets.clone());
        self.container.apply(&mut spec.container);
        self.hooks.apply(&mut spec.hooks);
        self.build.apply(&mut spec.build)?;
        self.nixpacks.apply(&mut spec.nixpacks);
        self.site.apply(&mut spec.site);
        self.source.apply((&mut spec.pushes, &mut spec.fetch));
        Ok(spec)
    }
}

/// Whether a table says nothing: then it is not written.
fn is_silent<T: Default + PartialEq>(table: &T) -> bool {
    *table == T::default()
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads `250m` or `1.5` into thousandths of a core.
///
/// # Errors
/// Names the field when the text is neither.
pub fn parse_cpu(field: &str, text: &str) -> Result<u32, Problem> {
    let bad = || {
        Problem::invalid(
            field,
            format!("`{}` is not an amount of CPU", text.escape_debug()),
        )
        .hint("thousandths of a core like 250m, or cores like 1.5")
    };
    let text = text.trim();
    if let Some(number) = text.strip_suffix('m') {
        return number.parse().map_err(|_| bad());
    }
    let cores: f64 = text.parse().map_err(|_| bad())?;
    if !(0.0..=10_000.0).contains(&cores) {
        return Err(bad());
    }
    // In range, so the cast cannot cut.
    Ok((cores * 1_000.0).round() as u32)
}

/// Reads `128MiB` or `2GB` into bytes.
///
/// # Errors
/// Names the field when the text is no size.
pub fn parse_bytes(field: &str, text: &str) -> Result<u64, Problem> {
    let size = text.trim().parse::<ByteSize>().map_err(|_| {
        Problem::invalid(field, format!("`{}` is not a size", text.escape_debug()))
            .hint("for example 512MiB or 64GiB")
    })?;
    Ok(size.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_file_reads() {
        let text = r#"
            name = "hello"
            type = "web"
            replicas = 2
            stop_grace = "5s"
            [resources]
            cpu = "0.25"
            memory = "64MiB"
            [health]
            path = "/healthz"
            deadline = "1m 30s"
            [env]
            GREETING = "hi"
        "#;
        let manifest: Manifest = toml::from_str(text).expect("valid");
        manifest.check().expect("accepted");
        let spec = manifest
            .apply(&ServiceSpec {
                port: Some(3000),
                ..Default::default()
            })
            .expect("units");
        assert_eq!(
            (spec.replicas, spec.port, spec.stop_grace_ms),
            (2, Some(3000), 5_000)
        );
        assert_eq!(
            (spec.resources.cpu_millis, spec.resources.memory_bytes),
            (250, 64 << 20)
        );
        assert_eq!(
            (spec.health.path.as_deref(), spec.health.deadline_ms),
            (Some("/healthz"), 90_000)
        );
    }

    #[test]
    fn placement_is_written_as_people_say_it() {
        let text = r#"
            [placement]
            pool = "web"
            constraints = ["tier = pro", "zone in a, b", "kernel version >=5.10"]
            spread = ["host"]
            max_per = ["1 per host"]
            [resources]
            memory = "64MiB"
            memory_limit = "128MiB"
            disk = "1GiB"
        "#;
        let manifest = Manifest::parse(text).expect("accepted");
        let spec = manifest.apply(&ServiceSpec::default()).expect("units");
        assert_eq!(spec.placement.constraints.len(), 3);
        assert_eq!(spec.placement.pool.as_deref(), Some("web"));
        assert_eq!(spec.resources.memory_limit_bytes, 128 << 20);
        assert_eq!(spec.resources.disk_bytes, 1 << 30);
        // A file that says nothing of it leaves it as it is on the service.
        let silent = Manifest::parse("replicas = 2").expect("accepted");
        assert_eq!(
            silent.apply(&spec).expect("units").placement,
            spec.placement
        );
        let wrong =
            Manifest::parse("[placement]\nconstraints = [\"zone ~ a\"]").expect_err("no operator");
        assert!(wrong.to_string().contains("constraints"), "{wrong}");
    }

    #[test]
    fn a_rollout_is_written_as_people_say_it() {
        let text = r#"
            [rollout]
            strategy = "canary"
            max_unavailable = 1
            steps = [{ percent = 10, pause = "5m" }, { percent = 50 }]
        "#;
        let manifest = Manifest::parse(text).expect("accepted");
        let policy = manifest
            .apply(&ServiceSpec::default())
            .expect("units")
            .rollout;
        let pauses: Vec<_> = policy.steps.iter().map(|step| step.pause_ms).collect();
        assert_eq!(pauses, [Some(300_000), None]);
        assert_eq!(
            (policy.strategy, policy.max_unavailable),
            (Strategy::Canary, 1)
        );
        let wrong = Manifest::parse("[rollout]\nstrategy = \"canary\"").expect_err("no steps");
        assert_eq!(wrong.field.as_deref(), Some("rollout.steps"));
        let of_system = "[run]\nmode = \"system\"\n[rollout]\nstrategy = \"blue_green\"";
        let wrong = Manifest::parse(of_system).expect_err("one a node");
        assert_eq!(wrong.field.as_deref(), Some("rollout.strategy"));
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(parse_bytes("x", " 64GiB"), Ok(64 << 30));
        assert_eq!(parse_bytes("x", "2MB"), Ok(2_000_000));
        let problem = parse_bytes("--memory", "lots").expect_err("no size");
        assert_eq!(problem.field.as_deref(), Some("--memory"));
    }

    #[test]
    fn mistakes_name_the_field() {
        let unknown = toml::from_str::<Manifest>("prot = 80").expect_err("typo");
        assert!(unknown.to_string().contains("prot"), "{unknown}");
        let cases = [
            ("name = \"A B\"", "name"),
            ("[resources]\ncpu = \"lots\"", "resources.cpu"),
            ("[env]\n\"A=B\" = \"x\"", "env.A=B"),
            ("dockerfile = \"/etc/passwd\"", "dockerfile"),
        ];
        for (text, field) in cases {
            let manifest: Manifest = toml::from_str(text).expect(text);
            assert_eq!(
                manifest.check().expect_err(text).field.as_deref(),
                Some(field)
            );
        }
    }

    #[test]
    fn what_is_mounted_is_read_and_replaced_as_a_list() {
        let text = r#"
            [[volumes]]
            name = "data"
            path = "/data"
            owner = "1000:1000"
            size = "1GiB"
            [[host_paths]]
            host = "/srv/media"
            path = "/media"
            [[secrets]]
            variable = "KEY"
            path = "/run/secrets/key"
        "#;
        let manifest = Manifest::parse(text).expect("accepted");
        let spec = manifest.apply(&ServiceSpec::default()).expect("read");
        let storage = &spec.storage;
        assert_eq!(storage.size_bytes(), 1 << 30);
        assert!(storage.host_paths[0].read_only);
        assert_eq!(storage.secrets[0].mode.0, 0o444);
        let kept = Manifest::default().apply(&spec).expect("read");
        assert_eq!(kept.storage, spec.storage);
        let none = Manifest::parse("volumes = []").expect("accepted");
        let none = none.apply(&spec).expect("read").storage;
        assert_eq!((none.volumes.len(), none.secrets.len()), (0, 1));
        let problem = Manifest::parse("replicas = 2\n[[volumes]]\nname = \"a\"\npath = \"/a\"");
        assert_eq!(
            problem.expect_err("one writer").field.as_deref(),
            Some("replicas")
        );
    }
}
