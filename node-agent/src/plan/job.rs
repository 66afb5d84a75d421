//! The next step of a job's attempt: one container, begun once and never again, run to its end. What
//! it exited with is the last word, however long the agent was away; whether there is another
//! attempt is the leader's to say.

use skep_model::allocation::{Desired, Observed, State};
use skep_model::assignment::Assignment;
use skep_model::job::Attempt;
use skep_model::problem::{Code, Problem};

use super::{Exit, Phase, RETRY_MS, Seen, Step, View, ended, explain_exit, stop_all};

/// The next step of an attempt.
pub(super) fn plan(view: &View<'_>, assignment: &Assignment, attempt: &Attempt) -> Step {
    let is_wanted = assignment.desired != Desired::Stop;
    if view.local.verdict.is_some() {
        let running: Vec<&Seen> = view
            .containers
            .iter()
            .filter(|seen| seen.is_running())
            .collect();
        return match (is_wanted, view.containers.is_empty()) {
            (_, true) => Step::Rest,
            (false, false) => stop_all(view.containers, assignment.stop_grace_ms),
            (true, false) if running.is_empty() => Step::Rest,
            (true, false) => stop_all(running, assignment.stop_grace_ms),
        };
    }
    if view.is_cut_off && is_wanted {
        let has_begun = view.local.attempt > 0;
        return match has_begun {
            // Not yet: whether it still is to, a server has to say.
            false => Step::Rest,
            true => Step::Conclude(cut_off(view)),
        };
    }
    let Some((current, older)) = view.containers.split_last() else {
        return match is_wanted {
            true => plan_absent(view),
            false => Step::Conclude(ended(view.local, State::Stopped, None, String::new())),
        };
    };
    if older.iter().any(Seen::is_running) {
        return stop_all(older, assignment.stop_grace_ms);
    }
    match &current.phase {
        // Never started: nothing of the job was done in it.
        Phase::Created => Step::Remove(vec![current.id.clone()]),
        Phase::Ended => Step::Examine(current.id.clone()),
        // Found ended after the agent or Docker was away: with what, Docker still knows.
        Phase::Exited(exit) if !exit.witnessed => Step::Examine(current.id.clone()),
        // Also where it was to stop: it was done before.
        Phase::Exited(exit) => Step::Conclude(verdict(view, assignment, exit)),
        Phase::Running { .. } if !is_wanted => stop_all(view.containers, assignment.stop_grace_ms),
        Phase::Running { started_ms, .. } => plan_running(view, attempt, *started_ms),
    }
}

fn plan_running(view: &View<'_>, attempt: &Attempt, started_ms: u64) -> Step {
    if attempt.limit_ms == 0 {
        return Step::Rest;
    }
    // By the wall clock alone where nothing better is known.
    let by_wall = || view.now_ms.saturating_sub(started_ms);
    let left_ms = attempt
        .limit_ms
        .saturating_sub(view.ran_ms.unwrap_or_else(by_wall));
    if left_ms > 0 {
        return Step::Wait(view.now_ms.saturating_add(left_ms));
    }
    // The leader says the same; this holds where it cannot be heard.
    let problem = Problem::new(Code::Timeout, "stopped: the job's deadline has passed");
    Step::Conclude(ended(
        view.local,
        State::Failed,
        Some(problem),
        String::new(),
    ))
}

fn cut_off(view: &View<'_>) -> Observed {
    let text = "stopped: no server was in reach, and another attempt may be made elsewhere";
    let problem =
        Problem::new(Code::Unavailable, text).hint("`placement.cut_off` says after what time");
    ended(view.local, State::Failed, Some(problem), String::new())
}

fn plan_absent(view: &View<'_>) -> Step {
    let attempt = view.local.attempt + 1;
    match view.failure {
        Some(failure) if failure.counted => Step::Conclude(ended(
            view.local,
            State::Failed,
            Some(failure.problem.clone()),
            String::new(),
        )),
        Some(failure) => {
            let due_ms = failure.at_ms.saturating_add(RETRY_MS);
            let is_far = due_ms.saturating_sub(view.now_ms) > RETRY_MS;
            match view.now_ms < due_ms && !is_far {
                true => Step::Wait(due_ms),
                false => start(attempt),
            }
        }
        None if view.local.attempt == 0 => start(attempt),
        // Begun before, and nothing left to ask: it may have done its work.
        None => {
            let text = "its container is gone; whether it ran to its end is not known";
            let problem = Problem::new(Code::Runtime, text)
                .hint("it was removed by somebody, or the agent ended while it was being started");
            Step::Conclude(ended(
                view.local,
                State::Failed,
                Some(problem),
                String::new(),
            ))
        }
    }
}

fn start(attempt: u32) -> Step {
    Step::Start {
        attempt,
        counted: false,
    }
}

fn verdict(view: &View<'_>, assignment: &Assignment, exit: &Exit) -> Observed {
    let is_well = exit.code == 0 && !exit.oom;
    let state = if is_well {
        State::Stopped
    } else {
        State::Failed
    };
    let problem = (!is_well).then(|| explain_exit(exit, assignment));
    Observed {
        exit_code: i32::try_from(exit.code).ok(),
        ..ended(view.local, state, problem, exit.tail.clone())
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
