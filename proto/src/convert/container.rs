//! How containers are confined, how they are asked whether they are well, what runs around them. The
//! default of each is no message: such bytes are those of an older level.

use skep_model::container::Container;
use skep_model::health::{Check, Health, Probe};
use skep_model::hooks::{Hooks, Init, PreStop};

use super::{Error, error, need, port};
use crate::v1;
use crate::v1::health_check::Kind;
use crate::v1::hooks;

pub(crate) fn container_out(container: &Container) -> Option<v1::Container> {
    if *container == Container::default() {
        return None;
    }
    let ulimits = container.ulimits.iter();
    Some(v1::Container {
        user: container.user.clone(),
        read_only: container.read_only,
        cap_add: container.cap_add.iter().cloned().collect(),
        cap_drop: container.cap_drop.iter().cloned().collect(),
        pids: container.pids,
        swap_bytes: container.swap_bytes,
        ulimits: ulimits
            .map(|(name, limit)| (name.clone(), limit.to_string()))
            .collect(),
        tmpfs: container.tmpfs.clone(),
        shm_bytes: container.shm_bytes,
        sysctls: container.sysctls.clone(),
        no_init: !container.init,
        stop_signal: container.stop_signal.clone(),
    })
}

pub(crate) fn container_in(message: Option<v1::Container>) -> Result<Container, Error> {
    let Some(message) = message else {
        return Ok(Container::default());
    };
    let ulimit = |(name, text): (String, String)| match text.parse() {
        Ok(limit) => Ok((name, limit)),
        Err(_) => Err(error("ulimits")),
    };
    Ok(Container {
        user: message.user,
        read_only: message.read_only,
        cap_add: message.cap_add.into_iter().collect(),
        cap_drop: message.cap_drop.into_iter().collect(),
        pids: message.pids,
        swap_bytes: message.swap_bytes,
        ulimits: message
            .ulimits
            .into_iter()
            .map(ulimit)
            .collect::<Result<_, _>>()?,
        tmpfs: message.tmpfs,
        shm_bytes: message.shm_bytes,
        sysctls: message.sysctls,
        init: !message.no_init,
        stop_signal: message.stop_signal,
    })
}

fn words(words: &[String]) -> v1::Words {
    v1::Words {
        words: words.to_vec(),
    }
}

pub(crate) fn hooks_out(hooks: &Hooks) -> Option<v1::Hooks> {
    if *hooks == Hooks::default() {
        return None;
    }
    let init = hooks.init.iter().map(|init| hooks::Init {
        command: init.command.clone(),
        timeout_ms: init.timeout_ms,
    });
    Some(v1::Hooks {
        release: hooks.release.clone(),
        release_timeout_ms: hooks.release_timeout_ms,
        init: init.collect(),
        pre_stop: hooks.pre_stop.as_ref().map(|hook| match hook {
            PreStop::Exec(command) => hooks::PreStop::Exec(words(command)),
            PreStop::Http(path) => hooks::PreStop::Http(path.clone()),
        }),
    })
}

pub(crate) fn hooks_in(message: Option<v1::Hooks>) -> Hooks {
    let Some(message) = message else {
        return Hooks::default();
    };
    let init = message.init.into_iter().map(|init| Init {
        command: init.command,
        timeout_ms: init.timeout_ms,
    });
    Hooks {
        release: message.release,
        release_timeout_ms: message.release_timeout_ms,
        init: init.collect(),
        pre_stop: message.pre_stop.map(|hook| match hook {
            hooks::PreStop::Exec(command) => PreStop::Exec(command.words),
            hooks::PreStop::Http(path) => PreStop::Http(path),
        }),
    }
}

impl From<&Check> for v1::HealthCheck {
    fn from(check: &Check) -> Self {
        let kind = match check {
            Check::Http(path) => Kind::Http(path.clone()),
            Check::Https(path) => Kind::Https(path.clone()),
            Check::Tcp => Kind::Tcp(true),
            Check::Grpc(service) => Kind::Grpc(service.clone()),
            Check::Exec(command) => Kind::Exec(words(command)),
            Check::Log(text) => Kind::Log(text.clone()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::HealthCheck> for Check {
    type Error = Error;

    fn try_from(message: v1::HealthCheck) -> Result<Self, Error> {
        Ok(match message.kind.ok_or(error("check"))? {
            Kind::Http(path) => Self::Http(path),
            Kind::Https(path) => Self::Https(path),
            Kind::Tcp(_) => Self::Tcp,
            Kind::Grpc(service) => Self::Grpc(service),
            Kind::Exec(command) => Self::Exec(command.words),
            Kind::Log(text) => Self::Log(text),
        })
    }
}

impl From<&Probe> for v1::HealthProbe {
    fn from(probe: &Probe) -> Self {
        Self {
            check: Some((&probe.check).into()),
            port: probe.port.map(u32::from),
            interval_ms: probe.interval_ms,
            timeout_ms: probe.timeout_ms,
            failures: probe.failures,
        }
    }
}

impl TryFrom<v1::HealthProbe> for Probe {
    type Error = Error;

    fn try_from(message: v1::HealthProbe) -> Result<Self, Error> {
        Ok(Self {
            check: need!(message.check),
            port: port("port", message.port)?,
            interval_ms: message.interval_ms,
            timeout_ms: message.timeout_ms,
            failures: message.failures,
        })
    }
}

impl From<&Health> for v1::Health {
    fn from(health: &Health) -> Self {
        Self {
            path: health.path.clone(),
            interval_ms: health.interval_ms,
            timeout_ms: health.timeout_ms,
            deadline_ms: health.deadline_ms,
            failures: health.failures,
            check: health.check.as_ref().map(Into::into),
            port: health.port.map(u32::from),
            startup: health.startup.as_ref().map(Into::into),
            liveness: health.liveness.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::Health> for Health {
    type Error = Error;

    fn try_from(message: v1::Health) -> Result<Self, Error> {
        let probe = |message: Option<v1::HealthProbe>| message.map(Probe::try_from).transpose();
        Ok(Self {
            path: message.path,
            check: message.check.map(Check::try_from).transpose()?,
            port: port("port", message.port)?,
            interval_ms: message.interval_ms,
            timeout_ms: message.timeout_ms,
            deadline_ms: message.deadline_ms,
            failures: message.failures,
            startup: probe(message.startup)?,
            liveness: probe(message.liveness)?,
        })
    }
}
