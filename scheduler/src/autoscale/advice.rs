//! Recommended requests from observed usage: the 95th percentile and a margin, within a floor and a
//! ceiling, and never less than what an allocation was killed at.

use std::fmt;

use serde::{Deserialize, Serialize};
use skep_model::autoscale::{Mode, Sizing};
use skep_model::spec::Resources;

use super::usage::Usage;

/// Above the percentile, in percent.
const MARGIN_PERCENT: u64 = 15;
/// Nothing is said before so long, in ms: an hour has start-up and some work in it.
const MIN_KNOWN_MS: u64 = 3_600_000;
/// Nothing is taken away before so long, in ms: a day has its peak in it.
const DOWN_KNOWN_MS: u64 = 86_400_000;
/// A difference below this, in percent, is no reason to replace allocations.
const WORTH_PERCENT: u64 = 10;
/// CPU is recommended in steps of so many thousandths of a core.
const CPU_STEP_MILLIS: u64 = 5;
/// Memory in steps of so many bytes.
const MEMORY_STEP_BYTES: u64 = 1 << 20;

/// Requests that would fit, and what they come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// CPU now, and recommended, in thousandths of a core.
    pub cpu_millis: (u32, u32),
    /// Memory now, and recommended, in bytes.
    pub memory_bytes: (u64, u64),
    /// The percentiles that it comes from.
    pub p95: (u64, u64),
    /// An allocation was killed for want of memory.
    pub was_killed: bool,
    /// It is to be applied, not only shown.
    pub apply: bool,
}

/// What the requests should be; none: as they are, or too little is known.
pub fn advise(sizing: &Sizing, usage: &Usage, now: &Resources, now_ms: u64) -> Option<Advice> {
    let known_ms = usage.known_ms(now_ms);
    let killed_at = usage.oom_bytes(now_ms);
    let is_known = known_ms >= MIN_KNOWN_MS;
    if !is_known && killed_at.is_none() {
        return None;
    }
    let p95 = (usage.cpu_p95_millis()?, usage.memory_p95_bytes()?);
    let may_shrink = known_ms >= DOWN_KNOWN_MS;
    let judge = |current: u64, wanted: u64, low: u64, high: u64| {
        let wanted = wanted.clamp(low, high.max(low));
        let off = current.abs_diff(wanted).saturating_mul(100);
        // Outside the bounds even a small step is due.
        let is_out = !(low..=high).contains(&current);
        let is_worth = is_out || off >= current.saturating_mul(WORTH_PERCENT);
        if is_worth && (wanted > current || may_shrink) {
            wanted
        } else {
            current
        }
    };
    let cpu = if is_known {
        let wanted = with_margin(p95.0).next_multiple_of(CPU_STEP_MILLIS);
        let (low, high) = (sizing.min_cpu_millis, sizing.max_cpu_millis);
        let current = u64::from(now.cpu_millis);
        judge(current, wanted, u64::from(low), u64::from(high))
    } else {
        u64::from(now.cpu_millis)
    };
    let wanted = if is_known { with_margin(p95.1) } else { 0 };
    let wanted = wanted
        .max(killed_at.unwrap_or(0))
        .next_multiple_of(MEMORY_STEP_BYTES);
    let (low, high) = (sizing.min_memory_bytes, sizing.max_memory_bytes);
    let memory = judge(now.memory_bytes, wanted, low, high);
    // It came from 32 bits or was clamped into them.
    let cpu = u32::try_from(cpu).unwrap_or(u32::MAX);
    let is_change = cpu != now.cpu_millis || memory != now.memory_bytes;
    is_change.then_some(Advice {
        cpu_millis: (now.cpu_millis, cpu),
        memory_bytes: (now.memory_bytes, memory),
        p95,
        was_killed: killed_at.is_some(),
        apply: sizing.mode == Mode::Apply,
    })
}

fn with_margin(value: u64) -> u64 {
    value.saturating_add(value / 100 * MARGIN_PERCENT + value % 100 * MARGIN_PERCENT / 100)
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        let mut separator = "";
        if self.cpu_millis.0 != self.cpu_millis.1 {
            let (from, to) = self.cpu_millis;
            write!(f, "CPU {from}m -> {to}m (p95 {}m)", self.p95.0)?;
            separator = ", ";
        }
        if self.memory_bytes.0 != self.memory_bytes.1 {
            let (from, to) = (mib(self.memory_bytes.0), mib(self.memory_bytes.1));
            let p95 = mib(self.p95.1);
            write!(f, "{separator}memory {from} MiB -> {to} MiB (p95 {p95} MiB")?;
            if self.was_killed {
                f.write_str(", was killed for want of memory")?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn watched(hours: u64, cpu_millis: u64, memory_mib: u64) -> Usage {
        let mut usage = Usage::default();
        for minute in 0..=hours * 60 {
            usage.observe(minute * 60_000, cpu_millis, memory_mib << 20);
        }
        usage
    }

    fn now(cpu_millis: u32, memory_mib: u64) -> Resources {
        Resources {
            cpu_millis,
            memory_bytes: memory_mib << 20,
            ..Resources::default()
        }
    }

    fn said(hours: u64, usage: &Usage, resources: &Resources) -> String {
        advise(&Sizing::default(), usage, resources, hours * HOUR_MS)
            .map_or("as it is".into(), |advice| advice.to_string())
    }

    #[test]
    fn more_after_an_hour_less_after_a_day() {
        // A percentile is the upper bound of its bucket: up to 5% above the truth.
        assert_eq!(said(0, &Usage::default(), &now(100, 256)), "as it is");
        let busy = watched(1, 400, 300);
        assert_eq!(
            said(1, &busy, &now(100, 256)),
            "CPU 100m -> 470m (p95 407m), memory 256 MiB -> 347 MiB (p95 301 MiB)"
        );
        let idle = watched(23, 40, 60);
        assert_eq!(said(23, &idle, &now(1_000, 512)), "as it is");
        let idle = watched(24, 40, 60);
        assert!(said(24, &idle, &now(1_000, 512)).starts_with("CPU 1000m -> 50m"));
        assert_eq!(said(24, &watched(24, 85, 215), &now(100, 256)), "as it is");
    }

    #[test]
    fn who_was_killed_gets_more_at_once_and_keeps_it() {
        let mut usage = watched(0, 50, 200);
        usage.observe_oom(60_000, 256 << 20);
        assert_eq!(
            said(0, &usage, &now(100, 256)),
            "memory 256 MiB -> 356 MiB (p95 366 MiB, was killed for want of memory)"
        );
        for minute in 1..30 * 60 {
            usage.observe(minute * 60_000, 50, 200 << 20);
        }
        let advice = advise(&Sizing::default(), &usage, &now(100, 356), 30 * HOUR_MS);
        assert!(advice.is_none_or(|advice| advice.memory_bytes.1 >= 356 << 20));
    }

    #[test]
    fn floor_and_ceiling_hold() {
        let sizing = Sizing {
            mode: Mode::Apply,
            min_cpu_millis: 200,
            max_memory_bytes: 300 << 20,
            ..Sizing::default()
        };
        let usage = watched(30, 10, 4_000);
        let advice = advise(&sizing, &usage, &now(500, 256), 30 * HOUR_MS).unwrap();
        assert_eq!(
            (advice.cpu_millis.1, advice.memory_bytes.1 >> 20),
            (200, 300)
        );
        assert!(advice.apply);
    }
}
