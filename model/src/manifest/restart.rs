//! `[restart]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{millis, set};
use crate::spec::Restart;

/// `[restart]`: of a container that ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RestartTable {
    /// Restarts within `window` after which the allocation has failed.
    pub attempts: Option<u32>,
    /// The window in which restarts are counted.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub window: Option<Duration>,
    /// Pause before the first restart; doubles with each.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub delay: Option<Duration>,
    /// Longest pause.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub max_delay: Option<Duration>,
}

impl RestartTable {
    pub(super) fn apply(&self, to: &mut Restart) {
        set(&mut to.attempts, self.attempts);
        set(&mut to.window_ms, self.window.map(millis));
        set(&mut to.delay_ms, self.delay.map(millis));
        set(&mut to.max_delay_ms, self.max_delay.map(millis));
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::Manifest;
    use crate::spec::ServiceSpec;

    #[test]
    fn restarts_are_read_in_the_units_that_people_write() {
        let text = "[restart]\nattempts = 5\nwindow = \"5m\"\ndelay = \"1s\"\nmax_delay = \"10s\"";
        let manifest = Manifest::parse(text).expect("accepted");
        let spec = manifest.apply(&ServiceSpec::default()).expect("units");
        let it = spec.restart;
        assert_eq!(
            (it.attempts, it.window_ms, it.delay_ms, it.max_delay_ms),
            (5, 300_000, 1_000, 10_000)
        );
        let kept = Manifest::default().apply(&spec).expect("nothing said");
        assert_eq!(kept.restart, it);
        let wrong = Manifest::parse("[restart]\ndelay = \"1ms\"").expect_err("too short");
        assert_eq!(wrong.field.as_deref(), Some("restart.delay_ms"));
    }
}
