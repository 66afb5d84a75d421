//! `[health]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{millis, set};
use crate::health::{Check, Health, Probe};

/// `[health]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HealthTable {
    /// GET this path.
    pub path: Option<String>,
    /// Another kind of check.
    pub check: Option<Check>,
    /// On another port than the app's.
    #[cfg_attr(feature = "openapi", schema(maximum = 65535))]
    pub port: Option<u16>,
    /// Pause between checks.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub interval: Option<Duration>,
    /// Longest wait for one answer.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub timeout: Option<Duration>,
    /// How long a new allocation may take to become healthy.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub deadline: Option<Duration>,
    /// Failed checks in a row that make it unhealthy.
    pub failures: Option<u32>,
    /// What has to succeed before the other checks begin: replaces all that was said of that.
    pub startup: Option<ProbeTable>,
    /// What restarts the container where it fails: replaces all that was said of that.
    pub liveness: Option<ProbeTable>,
}

/// `[health.startup]` or `[health.liveness]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ProbeTable {
    /// What is asked.
    pub check: Check,
    /// On another port than the app's.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 65535))]
    pub port: Option<u16>,
    /// Pause between checks.
    #[serde(with = "humantime_serde", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub interval: Option<Duration>,
    /// Longest wait for one answer.
    #[serde(with = "humantime_serde", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub timeout: Option<Duration>,
    /// Failed checks in a row that count.
    #[serde(default)]
    pub failures: Option<u32>,
}

impl ProbeTable {
    fn read(&self) -> Probe {
        let mut probe = Probe::new(self.check.clone());
        probe.port = self.port;
        set(&mut probe.interval_ms, self.interval.map(millis));
        set(&mut probe.timeout_ms, self.timeout.map(millis));
        set(&mut probe.failures, self.failures);
        probe
    }
}

impl HealthTable {
    pub(super) fn apply(&self, health: &mut Health) {
        // One of the two, as the file says it now.
        if self.path.is_some() || self.check.is_some() {
            health.path.clone_from(&self.path);
            health.check.clone_from(&self.check);
        }
        health.port = self.port.or(health.port);
        set(&mut health.interval_ms, self.interval.map(millis));
        set(&mut health.timeout_ms, self.timeout.map(millis));
        set(&mut health.deadline_ms, self.deadline.map(millis));
        set(&mut health.failures, self.failures);
        let read = |table: &Option<ProbeTable>| table.as_ref().map(ProbeTable::read);
        health.startup = read(&self.startup).or(health.startup.take());
        health.liveness = read(&self.liveness).or(health.liveness.take());
    }
}
