//! What is said of an allocation, from what is known of it. Pure.

use skep_model::allocation::{Desired, Observed, State};
use skep_model::assignment::Assignment;
use skep_model::problem::Problem;

use super::{Failure, Local, Phase, Seen, explain_exit};

/// Fitness for traffic of the container that runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Fitness {
    /// Not yet.
    #[default]
    Unknown,
    /// Fit.
    Healthy,
    /// It was, and is not now.
    Unhealthy(Problem),
    /// It has to begin anew.
    Dead(Problem),
}

/// What is under way for an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Its image is fetched.
    Pulling,
    /// A container is made and started.
    Starting,
    /// Containers are stopped or removed.
    Stopping,
    /// A container is looked at.
    Examining,
}

/// The agent's word on an allocation.
pub(crate) fn observe(
    assignment: &Assignment,
    local: &Local,
    containers: &[Seen],
    (failure, fitness, work): (Option<&Failure>, &Fitness, Option<Work>),
) -> Observed {
    let busy_or_there = work.is_some() || !containers.is_empty();
    let say = |state, problem| Observed {
        state,
        restarts: local.restarts,
        problem,
        log_tail: String::new(),
        exit_code: None,
        ports: Vec::new(),
    };
    if let Some(verdict) = &local.verdict {
        // Final only when nothing of it is left: until then it takes up room.
        // A job's container stays for its log once it has ended: it takes up no room.
        let is_kept =
            assignment.job.is_some() && work.is_none() && !containers.iter().any(Seen::is_running);
        let state = if busy_or_there && !is_kept {
            State::Stopping
        } else {
            verdict.state
        };
        return Observed {
            state,
            ..verdict.clone()
        };
    }
    if assignment.desired == Desired::Stop {
        return say(State::Stopping, None);
    }
    let current = containers.last();
    let is_begun = |seen: &Seen| !matches!(seen.phase, Phase::Created);
    if assignment.job.is_some() && current.is_some_and(is_begun) {
        // Until it is known how it ended.
        return say(State::Running, None);
    }
    match (work, current.map(|seen| &seen.phase)) {
        (Some(Work::Pulling), _) => say(State::Pulling, None),
        (_, Some(Phase::Running { .. })) => {
            let observed = match fitness {
                Fitness::Unknown => say(State::Running, None),
                Fitness::Healthy => say(State::Healthy, None),
                Fitness::Unhealthy(problem) | Fitness::Dead(problem) => {
                    say(State::Unhealthy, Some(problem.clone()))
                }
            };
            let ports = current.map(|seen| seen.grant.ports.clone());
            Observed {
                ports: ports.unwrap_or_default(),
                ..observed
            }
        }
        (_, Some(Phase::Exited(exit))) => Observed {
            log_tail: exit.tail.clone(),
            ..say(
                State::Starting,
                why(failure).or_else(|| crash(exit, assignment)),
            )
        },
        (Some(_), _) | (None, Some(Phase::Created | Phase::Ended)) => {
            say(State::Starting, why(failure))
        }
        (None, None) if failure.is_some() => say(State::Starting, why(failure)),
        (None, None) => say(State::Pending, None),
    }
}

fn why(failure: Option<&Failure>) -> Option<Problem> {
    failure.map(|failure| failure.problem.clone())
}

fn crash(exit: &super::Exit, assignment: &Assignment) -> Option<Problem> {
    exit.witnessed.then(|| explain_exit(exit, assignment))
}
