//! Specifications and their parts.

use skep_model::autoscale::Autoscale;
use skep_model::pushes::{Pushes, WaitForCi};
use skep_model::routing::RouteSpec;
use skep_model::run::{Mode, Overlap, Run};
use skep_model::spec::{
    ImagePolicy, Pull, Resources, Restart, ServiceSpec, ServiceType, Source, Update,
};
use skep_model::tcp::TcpSpec;

use super::{
    Error, build, container, enum_number, enum_value, error, need, placement, port, rollout,
};
use crate::v1;

/// Order of the stored numbers: append only.
pub(crate) const TYPES: [ServiceType; 2] = [ServiceType::Web, ServiceType::Worker];
/// The default is 0, as from a version that does not know of it.
pub(crate) fn pull_number(pull: Pull) -> u32 {
    enum_number(&Pull::ALL, &pull).saturating_sub(1)
}

pub(crate) fn pull(number: u32) -> Result<Pull, Error> {
    enum_value("pull", &Pull::ALL, number.saturating_add(1))
}

impl From<&Source> for v1::Source {
    fn from(source: &Source) -> Self {
        let kind = match source {
            Source::Git {
                repository,
                branch,
                directory,
            } => v1::source::Kind::Git(v1::source::Git {
                repository: repository.clone(),
                branch: branch.clone(),
                directory: directory.clone(),
            }),
            Source::Pushed { branch, directory } => v1::source::Kind::Pushed(v1::source::Pushed {
                branch: branch.clone(),
                directory: directory.clone(),
            }),
            Source::Image { reference } => v1::source::Kind::Image(reference.clone()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Source> for Source {
    type Error = Error;

    fn try_from(message: v1::Source) -> Result<Self, Error> {
        Ok(match message.kind.ok_or(error("source"))? {
            v1::source::Kind::Git(git) => Self::Git {
                repository: git.repository,
                branch: git.branch,
                directory: git.directory,
            },
            v1::source::Kind::Pushed(pushed) => Self::Pushed {
                branch: pushed.branch,
                directory: pushed.directory,
            },
            v1::source::Kind::Image(reference) => Self::Image { reference },
        })
    }
}

impl From<&Resources> for v1::Resources {
    fn from(resources: &Resources) -> Self {
        Self {
            cpu_millis: resources.cpu_millis,
            memory_bytes: resources.memory_bytes,
            cpu_limit_millis: resources.cpu_limit_millis,
            memory_limit_bytes: resources.memory_limit_bytes,
            disk_bytes: resources.disk_bytes,
        }
    }
}

impl TryFrom<v1::Resources> for Resources {
    type Error = Error;

    fn try_from(message: v1::Resources) -> Result<Self, Error> {
        Ok(Self {
            cpu_millis: message.cpu_millis,
            memory_bytes: message.memory_bytes,
            cpu_limit_millis: message.cpu_limit_millis,
            memory_limit_bytes: message.memory_limit_bytes,
            disk_bytes: message.disk_bytes,
        })
    }
}

impl From<&Update> for v1::Update {
    fn from(update: &Update) -> Self {
        Self {
            max_surge: update.max_surge,
            drain_ms: update.drain_ms,
        }
    }
}

impl TryFrom<v1::Update> for Update {
    type Error = Error;

    fn try_from(message: v1::Update) -> Result<Self, Error> {
        Ok(Self {
            max_surge: message.max_surge,
            drain_ms: message.drain_ms,
        })
    }
}

impl From<&Restart> for v1::Restart {
    fn from(restart: &Restart) -> Self {
        Self {
            attempts: restart.attempts,
            window_ms: restart.window_ms,
            delay_ms: restart.delay_ms,
            max_delay_ms: restart.max_delay_ms,
        }
    }
}

impl TryFrom<v1::Restart> for Restart {
    type Error = Error;

    fn try_from(message: v1::Restart) -> Result<Self, Error> {
        Ok(Self {
            attempts: message.attempts,
            window_ms: message.window_ms,
            delay_ms: message.delay_ms,
            max_delay_ms: message.max_delay_ms,
        })
    }
}

impl From<&Run> for v1::Run {
    fn from(run: &Run) -> Self {
        Self {
            mode: enum_number(&Mode::ALL, &run.mode),
            retries: run.retries,
            deadline_ms: run.deadline_ms,
            backoff_ms: run.backoff_ms,
            max_backoff_ms: run.max_backoff_ms,
            schedule: run.schedule.clone(),
            time_zone: run.time_zone.clone(),
            overlap: enum_number(&Overlap::ALL, &run.overlap),
            catch_up_ms: run.catch_up_ms,
            paused: run.paused,
        }
    }
}

impl TryFrom<v1::Run> for Run {
    type Error = Error;

    fn try_from(message: v1::Run) -> Result<Self, Error> {
        Ok(Self {
            mode: enum_value("mode", &Mode::ALL, message.mode)?,
            retries: message.retries,
            deadline_ms: message.deadline_ms,
            backoff_ms: message.backoff_ms,
            max_backoff_ms: message.max_backoff_ms,
            schedule: message.schedule,
            time_zone: message.time_zone,
            overlap: enum_value("overlap", &Overlap::ALL, message.overlap)?,
            catch_up_ms: message.catch_up_ms,
            paused: message.paused,
        })
    }
}

impl From<&ServiceSpec> for v1::ServiceSpec {
    fn from(spec: &ServiceSpec) -> Self {
        let (builder, builder_program) = build::builder_out(spec.builder.as_ref());
        Self {
            kind: enum_number(&TYPES, &spec.kind),
            source: spec.source.as_ref().map(Into::into),
            builder,
            dockerfile: spec.dockerfile.clone(),
            port: spec.port.map(u32::from),
            command: spec.command.clone(),
            replicas: spec.replicas,
            resources: Some((&spec.resources).into()),
            health: Some((&spec.health).into()),
            update: Some((&spec.update).into()),
            restart: Some((&spec.restart).into()),
            stop_grace_ms: spec.stop_grace_ms,
            domains: spec.domains.clone(),
            placement: placement::out(&spec.placement),
            // Absent where it says nothing: such bytes are those of an older level.
            run: (spec.run != Run::default()).then(|| (&spec.run).into()),
            autoscale: spec.autoscale.as_ref().map(Into::into),
            rollout: rollout::policy_out(&spec.rollout),
            storage: super::storage::optional(&spec.storage),
            container: container::container_out(&spec.container),
            hooks: container::hooks_out(&spec.hooks),
            pushes: pushes_out(&spec.pushes),
            pull: pull_number(spec.image.pull),
            routes: spec.routes.iter().map(Into::into).collect(),
            tcp: spec.tcp.iter().map(Into::into).collect(),
            build: build::build_out(&spec.build),
            nixpacks: build::nixpacks_out(&spec.nixpacks),
            site: build::site_out(&spec.site),
            fetch: build::fetch_out(&spec.fetch),
            builder_program,
        }
    }
}

impl TryFrom<v1::ServiceSpec> for ServiceSpec {
    type Error = Error;

    fn try_from(message: v1::ServiceSpec) -> Result<Self, Error> {
        Ok(Self {
            kind: enum_value("kind", &TYPES, message.kind)?,
            source: message.source.map(Source::try_from).transpose()?,
            builder: build::builder_in(message.builder, message.builder_program)?,
            dockerfile: message.dockerfile,
            port: port("port", message.port)?,
            command: message.command,
            replicas: message.replicas,
            resources: need!(message.resources),
            health: need!(message.health),
            update: need!(message.update),
            restart: need!(message.restart),
            stop_grace_ms: message.stop_grace_ms,
            domains: message.domains,
            routes: message
                .routes
                .into_iter()
                .map(RouteSpec::try_from)
                .collect::<Result<_, _>>()?,
            tcp: message
                .tcp
                .into_iter()
                .map(TcpSpec::try_from)
                .collect::<Result<_, _>>()?,
            placement: placement::read(message.placement)?,
            run: message
                .run
                .map(Run::try_from)
                .transpose()?
                .unwrap_or_default(),
            autoscale: message.autoscale.map(Autoscale::try_from).transpose()?,
            rollout: rollout::policy_in(message.rollout)?,
            storage: super::storage::or_empty(message.storage)?,
            container: container::container_in(message.container)?,
            hooks: container::hooks_in(message.hooks),
            pushes: pushes_in(message.pushes),
            image: ImagePolicy {
                pull: pull(message.pull)?,
            },
            build: build::build_in(message.build),
            nixpacks: build::nixpacks_in(message.nixpacks),
            site: build::site_in(message.site),
            fetch: build::fetch_in(message.fetch),
        })
    }
}

fn pushes_out(pushes: &Pushes) -> Option<v1::Pushes> {
    (!pushes.is_empty()).then(|| v1::Pushes {
        watch: pushes.watch.clone(),
        tags: pushes.tags.clone().unwrap_or_default(),
        poll_ms: pushes.poll_ms,
        statuses: pushes.statuses,
        wait_for_ci_ms: pushes.wait_for_ci.map(|wait| wait.deadline_ms),
    })
}

fn pushes_in(message: Option<v1::Pushes>) -> Pushes {
    message.map_or_else(Pushes::default, |message| Pushes {
        watch: message.watch,
        tags: Some(message.tags).filter(|tags| !tags.is_empty()),
        poll_ms: message.poll_ms,
        statuses: message.statuses,
        wait_for_ci: message
            .wait_for_ci_ms
            .map(|deadline_ms| WaitForCi { deadline_ms }),
    })
}
