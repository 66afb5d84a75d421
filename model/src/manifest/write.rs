//! What a specification says, as its file would say it: the way back of `Manifest::apply`.

use std::time::Duration;

use super::source::{Checks, Poll};
use super::{
    AnalysisTable, AutoscaleTable, BuildTable, ContainerTable, HealthTable, HooksTable, ImageTable,
    InitTable, Manifest, NixpacksTable, ProbeTable, ResourcesTable, RestartTable, RolloutTable,
    RouteTable, RunTable, SizingTable, SourceTable, StaticTable, StepTable, UpdateTable,
    VolumeTable,
};
use crate::autoscale::{Autoscale, Sizing};
use crate::build::{Build, Fetch, Nixpacks, StaticSite};
use crate::container::Container;
use crate::health::{Health, Probe};
use crate::hooks::{Hooks, Init};
use crate::pushes::Pushes;
use crate::rollout::{Analysis, CanaryStep, Policy};
use crate::run::Run;
use crate::spec::{Resources, Restart, ServiceSpec, Update};

impl Manifest {
    /// The file that makes `spec` out of the default one. Not in it, since no such file says that: where the
    /// service comes from, who may read that, and whether its schedule is paused.
    pub fn of(spec: &ServiceSpec) -> Self {
        // Taken apart in full, here and below: a new field does not compile until it is written.
        let ServiceSpec {
            kind,
            source: _,
            builder,
            dockerfile,
            image,
            port,
            command,
            replicas,
            resources,
            health,
            update,
            restart,
            stop_grace_ms,
            domains,
            routes,
            tcp,
            placement,
            run,
            autoscale,
            rollout,
            storage,
            container,
            hooks,
            pushes,
            build,
            nixpacks,
            site,
            fetch,
        } = spec;
        let usual = ServiceSpec::default();
        Self {
            name: None,
            project: None,
            kind: said(kind, &usual.kind),
            builder: builder.clone(),
            dockerfile: dockerfile.clone(),
            build: BuildTable::of(build),
            nixpacks: NixpacksTable::of(nixpacks),
            site: StaticTable::of(site),
            image: ImageTable {
                pull: said(&image.pull, &usual.image.pull),
            },
            port: *port,
            command: said(command, &usual.command),
            // Always said: what people look for first.
            replicas: Some(*replicas),
            domains: said(domains, &usual.domains),
            routes: all(routes, RouteTable::of),
            labels: Default::default(),
            tcp: said(tcp, &usual.tcp),
            stop_grace: time(*stop_grace_ms, usual.stop_grace_ms),
            resources: ResourcesTable::of(resources),
            health: HealthTable::of(health),
            restart: RestartTable::of(restart),
            update: UpdateTable::of(update),
            placement: said(placement, &usual.placement),
            run: RunTable::of(run),
            autoscale: autoscale.as_ref().map(AutoscaleTable::of),
            rollout: RolloutTable::of(rollout),
            volumes: all(&storage.volumes, VolumeTable::of),
            host_paths: said(&storage.host_paths, &Vec::new()),
            secrets: said(&storage.secrets, &Vec::new()),
            container: ContainerTable::of(container),
            hooks: HooksTable::of(hooks),
            source: SourceTable::of(pushes, fetch),
            env: Default::default(),
        }
    }
}

/// A value, where it is not the usual one.
fn said<T: Clone + PartialEq>(value: &T, usual: &T) -> Option<T> {
    (value != usual).then(|| value.clone())
}

/// A list, where there is something in it.
fn all<T, U>(values: &[T], of: fn(&T) -> U) -> Option<Vec<U>> {
    (!values.is_empty()).then(|| values.iter().map(of).collect())
}

fn time(ms: u64, usual_ms: u64) -> Option<Duration> {
    (ms != usual_ms).then(|| Duration::from_millis(ms))
}

fn amount<T: From<u64>>(bytes: u64, usual: u64) -> Option<T> {
    (bytes != usual).then(|| bytes.into())
}

fn cpu(millis: u32, usual: u32) -> Option<String> {
    (millis != usual).then(|| format!("{millis}m"))
}

impl ResourcesTable {
    fn of(it: &Resources) -> Self {
        let Resources {
            cpu_millis,
            memory_bytes,
            cpu_limit_millis,
            memory_limit_bytes,
            disk_bytes,
        } = *it;
        let usual = Resources::default();
        Self {
            cpu: cpu(cpu_millis, usual.cpu_millis),
            cpu_limit: cpu(cpu_limit_millis, usual.cpu_limit_millis),
            memory: amount(memory_bytes, usual.memory_bytes),
            memory_limit: amount(memory_limit_bytes, usual.memory_limit_bytes),
            disk: amount(disk_bytes, usual.disk_bytes),
        }
    }
}

impl UpdateTable {
    fn of(it: &Update) -> Self {
        let Update {
            max_surge,
            drain_ms,
        } = it;
        let usual = Update::default();
        Self {
            max_surge: said(max_surge, &usual.max_surge),
            drain: time(*drain_ms, usual.drain_ms),
        }
    }
}

impl RestartTable {
    fn of(it: &Restart) -> Self {
        let Restart {
            attempts,
            window_ms,
            delay_ms,
            max_delay_ms,
        } = *it;
        let usual = Restart::default();
        Self {
            attempts: said(&attempts, &usual.attempts),
            window: time(window_ms, usual.window_ms),
            delay: time(delay_ms, usual.delay_ms),
            max_delay: time(max_delay_ms, usual.max_delay_ms),
        }
    }
}

impl HealthTable {
    fn of(it: &Health) -> Self {
        let Health {
            path,
            check,
            port,
            interval_ms,
            timeout_ms,
            deadline_ms,
            failures,
            startup,
            liveness,
        } = it;
        let usual = Health::default();
        Self {
            path: path.clone(),
            check: check.clone(),
            port: *port,
            interval: time(*interval_ms, usual.interval_ms),
            timeout: time(*timeout_ms, usual.timeout_ms),
            deadline: time(*deadline_ms, usual.deadline_ms),
            failures: said(failures, &usual.failures),
            startup: startup.as_ref().map(ProbeTable::of),
            liveness: liveness.as_ref().map(ProbeTable::of),
        }
    }
}

impl ProbeTable {
    fn of(it: &Probe) -> Self {
        let Probe {
            check,
            port,
            interval_ms,
            timeout_ms,
            failures,
        } = it;
        let usual = Probe::new(check.clone());
        Self {
            check: check.clone(),
            port: *port,
            interval: time(*interval_ms, usual.interval_ms),
            timeout: time(*timeout_ms, usual.timeout_ms),
            failures: said(failures, &usual.failures),
        }
    }
}

impl RunTable {
    fn of(it: &Run) -> Self {
        let Run {
            mode,
            retries,
            deadline_ms,
            backoff_ms,
            max_backoff_ms,
            schedule,
            time_zone,
            overlap,
            catch_up_ms,
            paused: _,
        } = it;
        let usual = Run::default();
        Self {
            mode: said(mode, &usual.mode),
            retries: said(retries, &usual.retries),
            deadline: time(*deadline_ms, usual.deadline_ms),
            backoff: time(*backoff_ms, usual.backoff_ms),
            max_backoff: time(*max_backoff_ms, usual.max_backoff_ms),
            schedule: schedule.clone(),
            time_zone: said(time_zone, &usual.time_zone),
            overlap: said(overlap, &usual.overlap),
            catch_up: time(*catch_up_ms, usual.catch_up_ms),
        }
    }
}

impl AutoscaleTable {
    fn of(it: &Autoscale) -> Self {
        let Autoscale {
            min,
            max,
            targets,
            schedules,
            scale_to_zero,
            up,
            down,
            tolerance_up_percent,
            tolerance_down_percent,
            stable_window_ms,
            burst_window_ms,
            down_window_ms,
            sizing,
        } = it;
        let usual = Autoscale::default();
        let idle = scale_to_zero.map(|zero| Duration::from_millis(zero.idle_ms));
        Self {
            // Always said: a table with nothing in it would not be there.
            min: Some(*min),
            max: Some(*max),
            targets: targets.clone(),
            schedules: schedules.clone(),
            scale_to_zero: idle,
            up: said(up, &usual.up),
            down: said(down, &usual.down),
            tolerance_up_percent: said(tolerance_up_percent, &usual.tolerance_up_percent),
            tolerance_down_percent: said(tolerance_down_percent, &usual.tolerance_down_percent),
            stable_window: time(*stable_window_ms, usual.stable_window_ms),
            burst_window: time(*burst_window_ms, usual.burst_window_ms),
            down_window: time(*down_window_ms, usual.down_window_ms),
            sizing: sizing.as_ref().map(SizingTable::of),
        }
    }
}

impl SizingTable {
    fn of(it: &Sizing) -> Self {
        let Sizing {
            mode,
            min_cpu_millis,
            max_cpu_millis,
            min_memory_bytes,
            max_memory_bytes,
        } = *it;
        let usual = Sizing::default();
        Self {
            mode: Some(mode),
            min_cpu: cpu(min_cpu_millis, usual.min_cpu_millis),
            max_cpu: cpu(max_cpu_millis, usual.max_cpu_millis),
            min_memory: amount(min_memory_bytes, usual.min_memory_bytes),
            max_memory: amount(max_memory_bytes, usual.max_memory_bytes),
        }
    }
}

impl RolloutTable {
    fn of(it: &Policy) -> Self {
        let Policy {
            strategy,
            max_unavailable,
            promote,
            keep_ms,
            steps,
            analysis,
        } = it;
        let usual = Policy::default();
        let step = |step: &CanaryStep| StepTable {
            percent: step.percent,
            pause: step.pause_ms.map(Duration::from_millis),
        };
        Self {
            strategy: said(strategy, &usual.strategy),
            max_unavailable: said(max_unavailable, &usual.max_unavailable),
            promote: said(promote, &usual.promote),
            keep: time(*keep_ms, usual.keep_ms),
            steps: all(steps, step),
            analysis: AnalysisTable::of(*analysis),
        }
    }
}

impl AnalysisTable {
    fn of(it: Analysis) -> Option<Self> {
        let Analysis {
            off,
            errors_percent,
            slow_percent,
        } = it;
        let usual = Analysis::default();
        (it != usual).then(|| Self {
            off: said(&off, &usual.off),
            errors_percent: said(&errors_percent, &usual.errors_percent),
            slow_percent: said(&slow_percent, &usual.slow_percent),
        })
    }
}

impl ContainerTable {
    fn of(it: &Container) -> Self {
        let Container {
            user,
            read_only,
            cap_add,
            cap_drop,
            pids,
            swap_bytes,
            ulimits,
            tmpfs,
            shm_bytes,
            sysctls,
            init,
            stop_signal,
        } = it;
        let usual = Container::default();
        let sized = |(path, bytes): (&String, &u64)| (path.clone(), (*bytes).into());
        Self {
            user: user.clone(),
            read_only: said(read_only, &usual.read_only),
            cap_add: said(cap_add, &usual.cap_add),
            cap_drop: said(cap_drop, &usual.cap_drop),
            pids: said(pids, &usual.pids),
            swap: amount(*swap_bytes, usual.swap_bytes),
            ulimits: said(ulimits, &usual.ulimits),
            tmpfs: (*tmpfs != usual.tmpfs).then(|| tmpfs.iter().map(sized).collect()),
            shm: amount(*shm_bytes, usual.shm_bytes),
            sysctls: said(sysctls, &usual.sysctls),
            init: said(init, &usual.init),
            stop_signal: stop_signal.clone(),
        }
    }
}

impl HooksTable {
    fn of(it: &Hooks) -> Self {
        let Hooks {
            release,
            release_timeout_ms,
            init,
            pre_stop,
        } = it;
        let usual = Hooks::default();
        let one = |init: &Init| InitTable {
            command: init.command.clone(),
            timeout: time(init.timeout_ms, Init::DEFAULT_TIMEOUT_MS),
        };
        Self {
            release: said(release, &usual.release),
            release_timeout: time(*release_timeout_ms, usual.release_timeout_ms),
            init: all(init, one),
            pre_stop: pre_stop.clone(),
        }
    }
}

impl SourceTable {
    fn of(pushes: &Pushes, fetch: &Fetch) -> Self {
        let Pushes {
            watch,
            tags,
            poll_ms,
            statuses,
            wait_for_ci,
        } = pushes;
        Self {
            watch: said(watch, &Vec::new()),
            tags: tags.clone(),
            poll: poll_ms.map(Poll::of),
            statuses: *statuses,
            wait_for_ci: wait_for_ci.map(Checks::of),
            submodules: said(&fetch.submodules, &false),
            lfs: said(&fetch.lfs, &false),
        }
    }
}

impl BuildTable {
    fn of(it: &Build) -> Self {
        let Build {
            target,
            args,
            secrets,
            timeout_ms,
            memory_bytes,
            cpu_millis,
            pids,
        } = it;
        let usual = Build::default();
        Self {
            target: target.clone(),
            args: said(args, &usual.args),
            secrets: said(secrets, &usual.secrets),
            timeout: time(*timeout_ms, usual.timeout_ms),
            memory: amount(*memory_bytes, usual.memory_bytes),
            cpu: cpu(*cpu_millis, usual.cpu_millis),
            pids: said(pids, &usual.pids),
        }
    }
}

impl NixpacksTable {
    fn of(it: &Nixpacks) -> Self {
        let Nixpacks {
            install,
            build,
            start,
            packages,
            apt,
            versions,
        } = it.clone();
        let usual = Nixpacks::default();
        Self {
            install,
            build,
            start,
            packages: said(&packages, &usual.packages),
            apt: said(&apt, &usual.apt),
            versions: said(&versions, &usual.versions),
        }
    }
}

impl StaticTable {
    fn of(it: &StaticSite) -> Self {
        let StaticSite {
            install,
            build,
            output,
            spa,
            not_found,
            headers,
            image,
            server,
        } = it.clone();
        let usual = StaticSite::default();
        Self {
            install,
            build,
            output,
            spa,
            not_found,
            headers: said(&headers, &usual.headers),
            image,
            server,
        }
    }
}
