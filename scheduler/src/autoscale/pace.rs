//! How far a number of replicas may go in one step, by the rate policies and what was changed
//! lately. As Kubernetes' HPA counts it: shares are of the number at the beginning of the period.

use skep_model::autoscale::Policy;

use super::history::History;

/// The most it may grow to; never below `from`.
pub(super) fn highest(policy: &Policy, history: &History, from: u32, now_ms: u64) -> u32 {
    let recent = history
        .changes()
        .filter(|c| within(policy, c.at_ms, now_ms));
    let added: u32 = recent.fold(0, |sum, change| sum.saturating_add(change.added));
    let start = from.saturating_sub(added);
    start.saturating_add(step(policy, start)).max(from)
}

/// The least it may shrink to; never above `from`.
pub(super) fn lowest(policy: &Policy, history: &History, from: u32, now_ms: u64) -> u32 {
    let recent = history
        .changes()
        .filter(|c| within(policy, c.at_ms, now_ms));
    let removed: u32 = recent.fold(0, |sum, change| sum.saturating_add(change.removed));
    let start = from.saturating_add(removed);
    start.saturating_sub(step(policy, start)).min(from)
}

fn within(policy: &Policy, at_ms: u64, now_ms: u64) -> bool {
    at_ms.saturating_add(policy.period_ms) > now_ms
}

fn step(policy: &Policy, start: u32) -> u32 {
    let share = u64::from(start) * u64::from(policy.percent) / 100;
    u32::try_from(share).unwrap_or(u32::MAX).max(policy.count)
}
