//! A release that is tried beside the live one, and when its rollout goes on. Owns which of the two has
//! how many allocations in each phase; moving each to its number is the planner's part, of which each of
//! the two is a case of its own: the live one is repaired as if nothing were rolled out.

use skep_model::allocation::{Allocation, Desired};
use skep_model::id::AllocationId;
use skep_model::rollout::{Phase, Progress, Promote};
use skep_model::service::{Service, Target};

use super::{Input, plan_target};
use crate::draft::Draft;
use crate::plan::{Advance, Plan};

/// Two releases that run beside each other.
pub(super) struct Beside {
    target: Target,
    /// Allocations of whatever is not the target.
    live: u32,
    /// Allocations of the target.
    new: u32,
}

impl Beside {
    /// None: the target takes the place of whatever else there is.
    pub(super) fn of(input: &Input<'_>) -> Option<Self> {
        let service = input.service;
        let is_wanted = !service.stopped && !service.removing;
        let target = service.rollout.filter(|_| is_wanted)?;
        let wanted = service.wanted();
        let Progress { phase, paused, .. } = service.progress;
        let there = running(input).filter(|one| one.target == target).count();
        let there = u32::try_from(there).unwrap_or(u32::MAX).min(wanted);
        let (live, new) = match (phase, paused) {
            (Phase::Rolling, false) => return None,
            (Phase::Kept { until_ms }, false) if input.now_ms >= until_ms => return None,
            (Phase::Rolling, true) => (unmoved(input, target), there),
            // What serves is all there is.
            (Phase::Before, _) => (if service.live.is_some() { wanted } else { 0 }, 0),
            (Phase::Canary { .. } | Phase::Trial, true) => (wanted, there),
            (Phase::Canary { .. } | Phase::Trial, false) => {
                (wanted, service.spec.rollout.share(phase, wanted))
            }
            // What serves is kept whole, paused or not.
            (Phase::Kept { .. }, _) => (wanted, wanted),
        };
        Some(Self { target, live, new })
    }

    pub(super) fn plan(
        &self,
        draft: &mut Draft<'_>,
        input: &Input<'_>,
        ids: &mut dyn FnMut() -> AllocationId,
    ) -> Plan {
        let all = input.allocations.iter().copied();
        let (new, others): (Vec<_>, Vec<_>) = all.partition(|one| one.target == self.target);
        let (advance, wake_at_ms) = advance(input, &new);
        let live_service = with_replicas(input.service, self.live, None);
        let live = Input {
            service: &live_service,
            release: input.live_release,
            allocations: others,
            ..input.clone()
        };
        let live = plan_target(draft, &live, ids);
        let new_service = Service {
            live: None,
            ..with_replicas(input.service, self.new, Some(self.target))
        };
        let new = Input {
            service: &new_service,
            allocations: new,
            limit: input.limit - live.desires.len() - live.starts.len(),
            ..input.clone()
        };
        let new = plan_target(draft, &new, ids);
        let wakes = [live.wake_at_ms, new.wake_at_ms, wake_at_ms];
        Plan {
            advance,
            wake_at_ms: wakes.into_iter().flatten().min(),
            is_healthy: false,
            is_converged: false,
            ..merged(live, new)
        }
    }
}

/// Both as one. A plan starts allocations of one release: those of the live one come first, and while
/// they have no room nothing else gets any.
fn merged(mut live: Plan, mut new: Plan) -> Plan {
    let desires = std::mem::take(&mut live.desires).into_iter();
    let desires = desires.chain(std::mem::take(&mut new.desires)).collect();
    let is_partial = live.is_partial || new.is_partial;
    if live.starts.is_empty() && live.refusal.is_none() {
        return Plan {
            desires,
            is_partial,
            ..new
        };
    }
    Plan {
        desires,
        is_partial: is_partial || !(live.starts.is_empty() || new.starts.is_empty()),
        failed_new: new.failed_new,
        ..live
    }
}

/// The same service with so many allocations of one release.
fn with_replicas(service: &Service, replicas: u32, rollout: Option<Target>) -> Service {
    let mut service = Service {
        rollout,
        progress: Progress::default(),
        ..service.clone()
    };
    service.spec.autoscale = None;
    service.spec.replicas = replicas;
    service
}

fn running<'i>(input: &'i Input<'_>) -> impl Iterator<Item = &'i Allocation> {
    let all = input.allocations.iter().copied();
    all.filter(|one| one.is_live() && one.desired == Desired::Run)
}

/// How many allocations of the live release a paused rolling update keeps: those that are there, and as
/// many as the new release does not make up for.
fn unmoved(input: &Input<'_>, target: Target) -> u32 {
    let wanted = input.service.wanted() as usize;
    let others = running(input).filter(|one| one.target != target).count();
    let healthy = running(input)
        .filter(|one| one.target == target && one.is_routable())
        .count();
    let kept = others.min(wanted).max(wanted.saturating_sub(healthy));
    u32::try_from(kept).unwrap_or(u32::MAX)
}

/// Whether the next phase is due, and else when time alone makes it so.
fn advance(input: &Input<'_>, new: &[&Allocation]) -> (Option<Advance>, Option<u64>) {
    let service = input.service;
    let (
        policy,
        Progress {
            phase,
            since_ms,
            paused,
        },
    ) = (&service.spec.rollout, service.progress);
    match phase {
        _ if paused => return (None, None),
        Phase::Rolling => return (None, None),
        Phase::Kept { until_ms } => return (None, Some(until_ms)),
        Phase::Before if !input.around.prepared => return (None, None),
        Phase::Before | Phase::Canary { .. } | Phase::Trial => {}
    }
    let share = policy.share(phase, service.wanted());
    let healthy = new
        .iter()
        .filter(|one| one.desired == Desired::Run && one.is_routable());
    let mut healthy: Vec<u64> = healthy.map(|one| one.observed_ms).collect();
    healthy.sort_unstable();
    // When as many as are wanted of this phase had become healthy.
    let last = (share as usize).checked_sub(1);
    let Some(ready_ms) = last.map_or(Some(0), |last| healthy.get(last).copied()) else {
        return (None, None);
    };
    let due_ms = if let Phase::Canary { step } = phase {
        let step = policy.steps.get(step as usize);
        // A step that the policy no longer has is over.
        let pause_ms = step.map_or(Some(0), |step| step.pause_ms);
        pause_ms.map(|pause| ready_ms.max(since_ms).saturating_add(pause))
    } else {
        (phase == Phase::Before || policy.promote == Promote::Auto).then_some(0)
    };
    match due_ms {
        None => (None, None),
        Some(at) if input.now_ms < at => (None, Some(at)),
        Some(_) => {
            let next = policy.next_phase(phase, (service.live.is_some(), input.now_ms));
            let advance = next.map(|next| Advance {
                phase: next,
                reason: words(service, share, next),
            });
            (advance, None)
        }
    }
}

fn words(service: &Service, share: u32, next: Phase) -> String {
    let release = service.rollout.map_or(0, |target| target.release);
    let wanted = service.wanted();
    if service.progress.phase == Phase::Before {
        return format!("the release phase is done, release {release} is next");
    }
    match next {
        Phase::Kept { .. } => format!("all traffic goes to release {release}; the old one is kept"),
        Phase::Canary { .. } => {
            let more = service.spec.rollout.share(next, wanted);
            format!("canary: {share} of {wanted} were healthy, {more} are next")
        }
        Phase::Before | Phase::Rolling | Phase::Trial => {
            format!("canary: {share} of {wanted} were healthy, release {release} takes over")
        }
    }
}

/// The next phase as if everything that is waited for had come: for forecasts. None: there is no more.
pub(crate) fn next_without_waiting(service: &Service, now_ms: u64) -> Option<Phase> {
    let Progress { phase, paused, .. } = service.progress;
    if paused || service.rollout.is_none() {
        return None;
    }
    match phase {
        Phase::Kept { until_ms } => (now_ms < until_ms).then_some(Phase::Kept { until_ms: 0 }),
        phase => {
            let has_live = service.live.is_some();
            service.spec.rollout.next_phase(phase, (has_live, now_ms))
        }
    }
}
