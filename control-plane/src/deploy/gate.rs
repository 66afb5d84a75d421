//! Whether a deployment is through the gates of its environment. Pure: what is known in, one word out. In this order: a
//! pinned service, the checks of the commit, somebody's yes, freezes.

use skep_model::deployment::{Deployment, Origin, Status};
use skep_model::gate::Held;
use skep_model::problem::{Code, Problem};
use skep_model::schedule;
use skep_model::service::Service;
use skep_state::State;

use crate::checks::Seen;

/// What a gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may begin.
    Open,
    /// Somebody has to say yes.
    Approval(Problem),
    /// Not now, and why; when the clock alone changes that.
    Closed {
        /// Why.
        why: Problem,
        /// Until when, ms since the epoch; none: until something changes.
        until_ms: Option<u64>,
    },
    /// Never.
    Shut(Problem),
}

/// What the gates of its environment say to a deployment that waits at them.
pub fn judge(
    (view, service): (&State, &Service),
    (deployment, held): (&Deployment, Held),
    (checks, now_ms): (Option<&Seen>, u64),
) -> Verdict {
    if let Some(pin) = &service.pinned {
        let reason = match pin.reason.is_empty() {
            true => String::new(),
            false => format!(": {}", pin.reason),
        };
        let text = format!("the service is pinned to what is live{reason}");
        let why = Problem::new(Code::Conflict, text).hint(format!("`skep unpin {}`", service.name));
        return Verdict::Closed {
            why,
            until_ms: None,
        };
    }
    if let Some(verdict) = judge_checks(service, deployment, (checks, now_ms)) {
        return verdict;
    }
    let gates = view.gates_of(service.environment);
    if gates.approval && held.approved_ms.is_none() {
        let name = view.environment(service.environment);
        let name = name.map_or_else(String::new, |it| format!("`{}` ", it.name));
        let text = format!("what is new in {name}has to be approved");
        let hint = format!("`skep approve {}`", service.name);
        return Verdict::Approval(Problem::new(Code::Conflict, text).hint(hint));
    }
    match gates.frozen(now_ms) {
        Some((freeze, until_ms)) if !held.despite_freeze => {
            let reason = match freeze.reason.is_empty() {
                true => String::new(),
                false => format!(": {}", freeze.reason),
            };
            let until = schedule::utc(until_ms);
            let text = format!("frozen until {until} (`{}`{reason})", freeze.name);
            let hint = format!(
                "it begins by itself then; `skep approve {} --despite-freeze` begins it now",
                service.name
            );
            Verdict::Closed {
                why: Problem::new(Code::Conflict, text).hint(hint),
                until_ms: Some(until_ms),
            }
        }
        _ => Verdict::Open,
    }
}

/// None: nothing is waited for, or all is green.
fn judge_checks(
    service: &Service,
    deployment: &Deployment,
    (checks, now_ms): (Option<&Seen>, u64),
) -> Option<Verdict> {
    let wait = service.spec.pushes.wait_for_ci?;
    if !waits_for_checks(service, deployment) {
        return None;
    }
    let until_ms = deployment.created_ms.saturating_add(wait.deadline_ms);
    let why = match checks {
        Some(Seen::Green) => return None,
        Some(Seen::Red(why)) => {
            let text = format!("the checks of its commit failed: {why}");
            return Some(Verdict::Shut(Problem::new(Code::SourceFailed, text).hint(
                "push what mends them; `skep deploy --commit` does not wait for checks",
            )));
        }
        Some(Seen::Pending(why) | Seen::Unknown(why)) => why.as_str(),
        None => "the forge is asked",
    };
    let text = format!("waits for the checks of its commit: {why}");
    // A new leader knows nothing of what was green: it asks before it says that time is over.
    let is_known = matches!(checks, Some(Seen::Pending(_)));
    if now_ms >= until_ms && is_known {
        let text = format!("gave up: {text}");
        return Some(Verdict::Shut(Problem::new(Code::Timeout, text).hint(
            "`wait_for_ci` under [source] says how long; `skep deploy --commit` does not wait",
        )));
    }
    Some(Verdict::Closed {
        why: Problem::new(Code::Conflict, text).hint("it begins by itself when they are green"),
        until_ms: Some(until_ms).filter(|_| is_known),
    })
}

/// Whether a deployment is of a commit whose checks are waited for.
pub fn waits_for_checks(service: &Service, deployment: &Deployment) -> bool {
    use skep_model::deployment::Trigger::{Poll, Webhook};

    service.spec.pushes.wait_for_ci.is_some()
        && deployment.held.is_some()
        && matches!(deployment.trigger, Webhook | Poll)
        && matches!(
            deployment.origin,
            Origin::Git {
                commit: Some(_),
                ..
            }
        )
        && matches!(deployment.status, Status::Queued)
}
