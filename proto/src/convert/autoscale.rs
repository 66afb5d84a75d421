//! Autoscaling: what a service asks for, and what was decided. Targets and rates are stored as people
//! write them: their text form is theirs to keep.

use skep_model::autoscale::{Autoscale, Mode, Policy, ScaleToZero, Sizing, Target, Window};
use skep_model::service::{Scaling, ScalingChange};

use super::{Error, error};
use crate::v1;

impl From<&Autoscale> for v1::Autoscale {
    fn from(autoscale: &Autoscale) -> Self {
        let window = |window: &Window| v1::ScaleWindow {
            from: window.from.clone(),
            to: window.to.clone(),
            time_zone: window.time_zone.clone(),
            min: window.min,
            max: window.max,
        };
        Self {
            min: autoscale.min,
            max: autoscale.max,
            targets: autoscale.targets.iter().map(Target::to_string).collect(),
            schedules: autoscale.schedules.iter().map(window).collect(),
            zero_idle_ms: autoscale.scale_to_zero.map(|zero| zero.idle_ms),
            up: autoscale.up.to_string(),
            down: autoscale.down.to_string(),
            tolerance_up_percent: autoscale.tolerance_up_percent,
            tolerance_down_percent: autoscale.tolerance_down_percent,
            stable_window_ms: autoscale.stable_window_ms,
            burst_window_ms: autoscale.burst_window_ms,
            down_window_ms: autoscale.down_window_ms,
            sizing: autoscale.sizing.map(|sizing| v1::Sizing {
                apply: sizing.mode == Mode::Apply,
                min_cpu_millis: sizing.min_cpu_millis,
                max_cpu_millis: sizing.max_cpu_millis,
                min_memory_bytes: sizing.min_memory_bytes,
                max_memory_bytes: sizing.max_memory_bytes,
            }),
        }
    }
}

impl TryFrom<v1::Autoscale> for Autoscale {
    type Error = Error;

    fn try_from(message: v1::Autoscale) -> Result<Self, Error> {
        let targets = message.targets.iter().map(|text| text.parse::<Target>());
        let rate = |field, text: &str| text.parse::<Policy>().map_err(|_| error(field));
        let window = |window: v1::ScaleWindow| Window {
            from: window.from,
            to: window.to,
            time_zone: window.time_zone,
            min: window.min,
            max: window.max,
        };
        Ok(Self {
            min: message.min,
            max: message.max,
            targets: targets
                .collect::<Result<_, _>>()
                .map_err(|_| error("targets"))?,
            schedules: message.schedules.into_iter().map(window).collect(),
            scale_to_zero: message.zero_idle_ms.map(|idle_ms| ScaleToZero { idle_ms }),
            up: rate("up", &message.up)?,
            down: rate("down", &message.down)?,
            tolerance_up_percent: message.tolerance_up_percent,
            tolerance_down_percent: message.tolerance_down_percent,
            stable_window_ms: message.stable_window_ms,
            burst_window_ms: message.burst_window_ms,
            down_window_ms: message.down_window_ms,
            sizing: message.sizing.map(|sizing| Sizing {
                mode: if sizing.apply {
                    Mode::Apply
                } else {
                    Mode::Advise
                },
                min_cpu_millis: sizing.min_cpu_millis,
                max_cpu_millis: sizing.max_cpu_millis,
                min_memory_bytes: sizing.min_memory_bytes,
                max_memory_bytes: sizing.max_memory_bytes,
            }),
        })
    }
}

impl From<&Scaling> for v1::Scaling {
    fn from(scaling: &Scaling) -> Self {
        let change = |change: &ScalingChange| v1::ScalingChange {
            at_ms: change.at_ms,
            from: change.from,
            to: change.to,
            reason: change.reason.clone(),
        };
        Self {
            replicas: scaling.replicas,
            changes: scaling.changes.iter().map(change).collect(),
        }
    }
}

impl From<v1::Scaling> for Scaling {
    fn from(message: v1::Scaling) -> Self {
        let change = |change: v1::ScalingChange| ScalingChange {
            at_ms: change.at_ms,
            from: change.from,
            to: change.to,
            reason: change.reason,
        };
        Self {
            replicas: message.replicas,
            changes: message.changes.into_iter().map(change).collect(),
        }
    }
}
