//! How many replicas a service may have and what the number follows: the user's words, and their
//! validation. Decides nothing: that is the scheduler's `autoscale`.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::spec::MAX_REPLICAS;

mod metric;
mod policy;
mod sizing;
#[cfg(test)]
mod tests;
mod text;
mod window;

pub use metric::{Metric, Target};
pub use policy::Policy;
pub use sizing::{Mode, Sizing};
pub use window::Window;

/// Most targets of one service: each has a series of samples in the leader's memory.
pub const MAX_TARGETS: usize = 8;
/// Most schedules of one service.
pub const MAX_SCHEDULES: usize = 16;

/// When a service without work loses its last replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ScaleToZero {
    /// How long nothing was asked of it, in ms. Never less than twice the measured start: a
    /// service that takes longer to come back than it stays away would only ever start.
    pub idle_ms: u64,
}

impl Default for ScaleToZero {
    fn default() -> Self {
        Self { idle_ms: 300_000 }
    }
}

/// Autoscaling of one service: bounds, what is aimed at, and how fast it may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Autoscale {
    /// Fewest replicas while the service runs; at least 1, since only `scale_to_zero` takes the
    /// last one away.
    pub min: u32,
    /// Most replicas, whatever any target or schedule says.
    pub max: u32,
    /// What each replica should have to do, such as `cpu=70%`; with several, the one that wants
    /// most replicas wins. None: only bounds and schedules act.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub targets: Vec<Target>,
    /// Bounds by the time of the day.
    pub schedules: Vec<Window>,
    /// Takes the last replica away when nothing is asked of it; none: never.
    pub scale_to_zero: Option<ScaleToZero>,
    /// How fast it may grow.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub up: Policy,
    /// How fast it may shrink.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub down: Policy,
    /// How far above its target the load may be before replicas are added, in percent.
    pub tolerance_up_percent: u32,
    /// How many percent fewer replicas must do before any is taken away.
    pub tolerance_down_percent: u32,
    /// What the load is averaged over, in ms.
    pub stable_window_ms: u64,
    /// A rise that chance does not explain is seen within this, in ms.
    pub burst_window_ms: u64,
    /// Replicas stay that were wanted at any time within this, in ms.
    pub down_window_ms: u64,
    /// Requests from observed usage; none: they are left alone.
    pub sizing: Option<Sizing>,
}

impl Default for Autoscale {
    fn default() -> Self {
        Self {
            min: 1,
            max: 10,
            targets: Vec::new(),
            schedules: Vec::new(),
            scale_to_zero: None,
            up: Policy::UP,
            down: Policy::DOWN,
            // Measured: docs/adr/0016-autoscaler.md.
            tolerance_up_percent: 5,
            tolerance_down_percent: 10,
            stable_window_ms: 60_000,
            burst_window_ms: 6_000,
            down_window_ms: 150_000,
            sizing: None,
        }
    }
}

impl Autoscale {
    /// As many replicas as a service should have: what the autoscaler decided, else its own `replicas`
    /// within the bounds.
    pub fn wanted(&self, replicas: u32, decided: Option<u32>) -> u32 {
        let low = self.min.max(1);
        decided.unwrap_or_else(|| replicas.clamp(low, self.max.max(low)))
    }

    /// The same decision under other bounds than those that it was made in.
    pub fn within(&self, decided: u32) -> u32 {
        if decided == 0 && self.scale_to_zero.is_some() {
            return 0;
        }
        // A schedule may have a ceiling below `min`; the next decision knows.
        decided.clamp(1, self.max.max(1))
    }

    /// Checks every field, and what depends on a library: for what people say.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check_given(&self) -> Result<(), Problem> {
        self.check()?;
        let mut windows = self.schedules.iter().enumerate();
        windows.try_for_each(|(number, window)| window.check_given(number))
    }

    /// Whether something of it tells that a service without replicas is wanted.
    pub fn can_wake(&self, is_routed: bool) -> bool {
        let mut targets = self.targets.iter();
        is_routed
            || targets
                .any(|target| matches!(target.metric, Metric::QueueLength | Metric::Custom(_)))
    }

    /// Checks every field by rules that every server agrees on. Names begin with `autoscale.`.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        let most = u64::from(MAX_REPLICAS);
        between("autoscale.max", u64::from(self.max), 1, most)?;
        between("autoscale.min", u64::from(self.min), 0, most)?;
        if self.min == 0 {
            return Err(Problem::invalid("autoscale.min", "0 is out of range").hint(
                "at least 1; autoscale.scale_to_zero takes the last replica away when idle",
            ));
        }
        if self.min > self.max {
            let text = format!("{} is above autoscale.max ({})", self.min, self.max);
            return Err(Problem::invalid("autoscale.min", text).hint(format!("1 to {}", self.max)));
        }
        self.check_targets()?;
        if self.schedules.len() > MAX_SCHEDULES {
            let text = format!("more than {MAX_SCHEDULES}");
            return Err(Problem::invalid("autoscale.schedules", text));
        }
        for (number, window) in self.schedules.iter().enumerate() {
            window.check(number, self.max)?;
        }
        if let Some(zero) = &self.scale_to_zero {
            let field = "autoscale.scale_to_zero.idle_ms";
            between(field, zero.idle_ms, 1_000, 7 * 86_400_000)?;
        }
        self.up.check("autoscale.up")?;
        self.down.check("autoscale.down")?;
        self.check_windows()?;
        self.sizing.as_ref().map_or(Ok(()), Sizing::check)
    }

    fn check_targets(&self) -> Result<(), Problem> {
        if self.targets.len() > MAX_TARGETS {
            let text = format!("more than {MAX_TARGETS}");
            return Err(Problem::invalid("autoscale.targets", text));
        }
        for (number, target) in self.targets.iter().enumerate() {
            let field = format!("autoscale.targets[{number}]");
            target.check(&field)?;
            let before = &self.targets[..number];
            if before.iter().any(|other| other.metric == target.metric) {
                let text = format!("`{}` has two targets", target.metric);
                return Err(Problem::invalid(field, text).hint("one for each metric"));
            }
        }
        Ok(())
    }

    fn check_windows(&self) -> Result<(), Problem> {
        let percents = [
            ("autoscale.tolerance_up_percent", self.tolerance_up_percent),
            (
                "autoscale.tolerance_down_percent",
                self.tolerance_down_percent,
            ),
        ];
        for (field, percent) in percents {
            between(field, u64::from(percent), 0, 50)?;
        }
        let stable = self.stable_window_ms;
        between("autoscale.stable_window_ms", stable, 10_000, 3_600_000)?;
        let burst = self.burst_window_ms;
        between("autoscale.burst_window_ms", burst, 1_000, stable)?;
        between(
            "autoscale.down_window_ms",
            self.down_window_ms,
            0,
            86_400_000,
        )
    }
}

fn between(field: &str, value: u64, low: u64, high: u64) -> Result<(), Problem> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Problem::invalid(field, format!("{value} is out of range"))
        .hint(format!("{low} to {high}")))
}
