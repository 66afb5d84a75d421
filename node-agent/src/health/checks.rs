//! Which questions a container is asked. Pure.

use std::time::Duration;

use skep_model::health::{Check, Health, Probe};

/// A question that is asked again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// What.
    pub(super) check: Check,
    /// On which port, where it needs one.
    pub(super) port: Option<u16>,
    /// Pause between two.
    pub(super) interval: Duration,
    /// Longest wait for one answer.
    pub(super) limit: Duration,
    /// So many failures in a row count.
    pub(super) failures: u32,
}

/// Everything that one container is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Checks {
    /// Has to succeed once before the others begin.
    pub(super) startup: Option<Asked>,
    /// Decides on traffic; none: it is fit as soon as it has started.
    pub(super) readiness: Option<Asked>,
    /// Its failure restarts the container.
    pub(super) liveness: Option<Asked>,
}

impl Checks {
    /// What `health` says, of an app with this port.
    pub(crate) fn of(health: &Health, port: Option<u16>) -> Self {
        let probe = |probe: &Probe| Asked {
            check: probe.check.clone(),
            port: probe.port.or(port),
            interval: Duration::from_millis(probe.interval_ms),
            limit: Duration::from_millis(probe.timeout_ms),
            failures: probe.failures,
        };
        let readiness = health.readiness(port.is_some()).map(|check| Asked {
            check,
            port: health.port.or(port),
            interval: Duration::from_millis(health.interval_ms),
            limit: Duration::from_millis(health.timeout_ms),
            failures: health.failures,
        });
        Self {
            startup: health.startup.as_ref().map(probe),
            readiness,
            liveness: health.liveness.as_ref().map(probe),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Asked> {
        let all = [&self.startup, &self.readiness, &self.liveness];
        all.into_iter().flatten()
    }

    /// Nothing is asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// A port that has to be reached for one of them.
    pub(crate) fn port(&self) -> Option<u16> {
        let mut needing = self.all().filter(|asked| asked.check.needs_port());
        needing.find_map(|asked| asked.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_word_a_port_is_connected_to_and_a_worker_just_runs() {
        let plain = Checks::of(&Health::default(), Some(8_080));
        let readiness = plain.readiness.as_ref().expect("a port");
        assert_eq!(
            (&readiness.check, readiness.port),
            (&Check::Tcp, Some(8_080))
        );
        assert_eq!(plain.port(), Some(8_080));
        assert!(Checks::of(&Health::default(), None).is_empty());
    }

    #[test]
    fn checks_have_ports_of_their_own_and_some_need_none() {
        let health = Health {
            path: Some("/up".into()),
            liveness: Some(Probe {
                port: Some(9),
                ..Probe::new(Check::Tcp)
            }),
            ..Health::default()
        };
        let checks = Checks::of(&health, Some(80));
        let ports = checks.all().map(|asked| asked.port).collect::<Vec<_>>();
        assert_eq!(ports, [Some(80), Some(9)]);
        let worker = Checks::of(
            &Health {
                check: Some(Check::Log("up".into())),
                ..Health::default()
            },
            None,
        );
        assert!(!worker.is_empty());
        assert_eq!(worker.port(), None);
    }
}
