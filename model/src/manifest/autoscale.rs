//! `[autoscale]`: who says how many allocations there are, in the units that people write.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Size, millis, parse_cpu, set};
use crate::autoscale::{Autoscale, Mode, Policy, ScaleToZero, Sizing, Target, Window};
use crate::problem::Problem;

/// The table: what it does not say is the default, so that the file says all there is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct AutoscaleTable {
    /// Fewest allocations while it runs.
    pub min: Option<u32>,
    /// Most allocations.
    pub max: Option<u32>,
    /// What each should have to do: `["cpu = 70%", "request_rate = 100"]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub targets: Vec<Target>,
    /// Bounds by the time of the day.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Window>,
    /// The last one goes when nothing was asked for so long.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub scale_to_zero: Option<Duration>,
    /// How fast it may grow: `"100% or 4/15s"`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub up: Option<Policy>,
    /// How fast it may shrink: `"50%/min"`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub down: Option<Policy>,
    /// How far above its target it may be, in percent.
    pub tolerance_up_percent: Option<u32>,
    /// How many percent fewer must do before one goes.
    pub tolerance_down_percent: Option<u32>,
    /// What the load is averaged over.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub stable_window: Option<Duration>,
    /// A clear rise is seen within this.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub burst_window: Option<Duration>,
    /// What was wanted within this stays.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub down_window: Option<Duration>,
    /// Recommended requests.
    pub sizing: Option<SizingTable>,
}

/// `[autoscale.sizing]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SizingTable {
    /// `advise` or `apply`.
    pub mode: Option<Mode>,
    /// Never below: `"50m"`.
    pub min_cpu: Option<String>,
    /// Never above.
    pub max_cpu: Option<String>,
    /// Never below: `"64MiB"`.
    pub min_memory: Option<Size>,
    /// Never above.
    pub max_memory: Option<Size>,
}

impl AutoscaleTable {
    /// What it says, in the units of the API.
    ///
    /// # Errors
    /// A CPU amount that cannot be read.
    pub fn read(&self) -> Result<Autoscale, Problem> {
        let mut made = Autoscale {
            targets: self.targets.clone(),
            schedules: self.schedules.clone(),
            scale_to_zero: self.scale_to_zero.map(|idle| ScaleToZero {
                idle_ms: millis(idle),
            }),
            ..Autoscale::default()
        };
        set(&mut made.min, self.min);
        set(&mut made.max, self.max);
        set(&mut made.up, self.up);
        set(&mut made.down, self.down);
        set(&mut made.tolerance_up_percent, self.tolerance_up_percent);
        set(
            &mut made.tolerance_down_percent,
            self.tolerance_down_percent,
        );
        set(&mut made.stable_window_ms, self.stable_window.map(millis));
        set(&mut made.burst_window_ms, self.burst_window.map(millis));
        set(&mut made.down_window_ms, self.down_window.map(millis));
        made.sizing = self.sizing.as_ref().map(SizingTable::read).transpose()?;
        Ok(made)
    }
}

impl SizingTable {
    fn read(&self) -> Result<Sizing, Problem> {
        let mut made = Sizing::default();
        let cpu = |name: &str, text: &Option<String>| {
            let field = format!("autoscale.sizing.{name}");
            text.as_deref()
                .map(|text| parse_cpu(&field, text))
                .transpose()
        };
        set(&mut made.mode, self.mode);
        set(&mut made.min_cpu_millis, cpu("min_cpu", &self.min_cpu)?);
        set(&mut made.max_cpu_millis, cpu("max_cpu", &self.max_cpu)?);
        let bytes = |size: Option<Size>| size.map(|size| size.as_u64());
        set(&mut made.min_memory_bytes, bytes(self.min_memory));
        set(&mut made.max_memory_bytes, bytes(self.max_memory));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Manifest;
    use crate::spec::ServiceSpec;

    #[test]
    fn the_table_says_all_there_is() {
        let text = r#"
            [autoscale]
            min = 2
            max = 12
            targets = ["cpu=70%", "request_rate=100"]
            scale_to_zero = "5m"
            down = "50%/min"
            stable_window = "30s"
            [[autoscale.schedules]]
            from = "0 8 * * 1-5"
            to = "0 18 * * 1-5"
            time_zone = "Europe/Berlin"
            min = 4
            [autoscale.sizing]
            mode = "apply"
            max_cpu = "1.5"
        "#;
        let manifest = Manifest::parse(text).expect("accepted");
        let spec = manifest.apply(&ServiceSpec::default()).expect("units");
        let made = spec.autoscale.expect("said");
        assert_eq!((made.min, made.max, made.targets.len()), (2, 12, 2));
        assert_eq!(made.scale_to_zero.map(|zero| zero.idle_ms), Some(300_000));
        assert_eq!(
            (made.stable_window_ms, made.burst_window_ms),
            (30_000, 6_000)
        );
        assert_eq!(made.sizing.map(|sizing| sizing.max_cpu_millis), Some(1_500));
        let kept = Manifest::default();
        let base = ServiceSpec {
            autoscale: Some(made),
            ..ServiceSpec::default()
        };
        assert_eq!(
            kept.apply(&base).expect("nothing said").autoscale,
            base.autoscale
        );
        let problem = Manifest::parse("[autoscale]\nmin = 0").expect_err("not 0");
        assert_eq!(problem.field.as_deref(), Some("autoscale.min"));
        let blind = "type = \"worker\"\n[autoscale]\ntargets = [\"in_flight=5\"]";
        let problem = Manifest::parse(blind).expect_err("gets no requests");
        assert_eq!(problem.field.as_deref(), Some("autoscale.targets[0]"));
        let wrong = "[[autoscale.schedules]]\nfrom = \"x\"\nto = \"0 1 * * *\"\nmin = 1";
        let problem = Manifest::parse(wrong).expect_err("no expression");
        assert_eq!(
            problem.field.as_deref(),
            Some("autoscale.schedules[0].from")
        );
    }
}
