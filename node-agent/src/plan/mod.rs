//! What has to be done for an allocation, from what is desired, what is there and the time. Pure:
//! no Docker, no clock, no disk. One step at a time: after each the allocation is planned again.

mod grant;
mod job;
mod observe;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use skep_model::allocation::{Desired, Observed, State};
use skep_model::assignment::Assignment;
use skep_model::id::ServiceId;
use skep_model::problem::{Code, Problem};
use skep_model::spec::Restart;

use crate::routes::Spot;
use crate::samples::Usual;

pub use grant::Devices;
pub(crate) use grant::{Grant, asks, grant};
pub(crate) use observe::{Fitness, Work, observe};

/// Grace of a container whose assignment is not known any more, in ms.
pub(crate) const ORPHAN_GRACE_MS: u64 = 10_000;
/// Pause before a start is tried again that failed for no fault of the app's, in ms.
pub(crate) const RETRY_MS: u64 = 1_000;

/// What the agent remembers of one allocation over its own restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Local {
    /// Number of the newest container that was begun; 0: none yet.
    pub(crate) attempt: u32,
    /// Containers begun after the first.
    pub(crate) restarts: u32,
    /// When restarts happened that count against the limit, ms since the epoch, oldest first.
    pub(crate) counted_ms: Vec<u64>,
    /// The newest container has been healthy.
    pub(crate) healthy: bool,
    /// How the allocation ended: never changed once set.
    pub(crate) verdict: Option<Observed>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Its exit code.
    pub(crate) code: i64,
    /// The kernel killed it for want of memory.
    pub(crate) oom: bool,
    /// How long it ran, in ms; none: not known.
    pub(crate) ran_ms: Option<u64>,
    /// When it ended, ms since the epoch.
    pub(crate) at_ms: u64,
    /// The agent saw it end by itself. False: it was found ended after the agent or Docker was
    /// away, which is held against nobody.
    pub(crate) witnessed: bool,
    /// The last lines it wrote.
    pub(crate) tail: String,
    /// The memory that it used in its last minutes; none: not known.
    pub(crate) usual: Option<Usual>,
}

/// Where a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Made, not started: left over from a start that failed.
    Created,
    /// It runs; or, of a bundle, its files are handed out.
    Running {
        /// Where it answers; none: it has no network.
        spot: Option<Spot>,
        /// Its first process, as the host numbers it; 0: it has none, or that is not known.
        pid: u32,
        /// Since when, ms since the epoch.
        started_ms: u64,
    },
    /// It is known to have ended, no more.
    Ended,
    /// It ended, and how is known.
    Exited(Exit),
}

/// A container of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Docker's id.
    pub(crate) id: String,
    /// Its number within the allocation.
    pub(crate) attempt: u32,
    /// Where it is.
    pub(crate) phase: Phase,
    /// What of the node it has for itself.
    pub(crate) grant: Grant,
    /// Which service's it is; none: it does not say, or it is no container and writes to no volume.
    pub(crate) service: Option<ServiceId>,
}

impl Seen {
    /// Whether it runs.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// Whether it is no container, but files that are handed out.
    pub(crate) fn is_bundle(&self) -> bool {
        let spot = match &self.phase {
            Phase::Running { spot, .. } => spot.as_ref(),
            _ => None,
        };
        matches!(spot, Some(Spot::Files(_)))
    }
}

/// A start that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Why.
    pub(crate) problem: Problem,
    /// When, ms since the epoch.
    pub(crate) at_ms: u64,
    /// The app's or image's own fault: counted like a crash. Else it is tried again for ever.
    pub(crate) counted: bool,
}

/// Everything that a step depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    /// What the leader wants; none: nothing is assigned.
    pub(crate) assignment: Option<&'a Assignment>,
    /// A full desired set is known, so that what is not assigned does not belong here.
    pub(crate) authoritative: bool,
    /// What is remembered.
    pub(crate) local: &'a Local,
    /// Its containers, by attempt.
    pub(crate) containers: &'a [Seen],
    /// The last start, if it failed.
    pub(crate) failure: Option<&'a Failure>,
    /// No server has been in reach for as long as the assignment allows.
    pub(crate) is_cut_off: bool,
    /// It has data that other nodes reach as well, and no server that is in reach has said that it is still to run here.
    pub(crate) is_unconfirmed: bool,
    /// Somebody who is assigned no more still has the volumes that it wants.
    pub(crate) is_left: bool,
    /// The container that runs is not alive, says its liveness check.
    pub(crate) is_dead: bool,
    /// How long the newest container has run, in ms, by a clock that nobody sets; none: not known.
    pub(crate) ran_ms: Option<u64>,
    /// The wall clock, ms since the epoch. It may be set at any moment, back and forth.
    pub(crate) now_ms: u64,
}

/// The next step of one allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: it is as it should be, or nobody knows yet how it should be.
    Rest,
    /// Nothing until then (ms since the epoch).
    Wait(u64),
    /// Find out which containers there are (never planned: for who does not know enough to plan).
    List,
    /// Find out how this container ended.
    Examine(String),
    /// Make and start container number `attempt`; `counted`: against the limit of restarts.
    Start { attempt: u32, counted: bool },
    /// Stop these, then remove them.
    Stop {
        containers: Vec<String>,
        grace_ms: u64,
    },
    /// Remove these; none of them runs.
    Remove(Vec<String>),
    /// It is over: remember that.
    Conclude(Observed),
    /// Nothing is left of it: forget it.
    Forget,
}

/// The next step of one allocation. What is not confirmed is never begun, after a boot as little as after a crash: it may
/// run elsewhere by now. What runs goes on until it is cut off. The cluster starts one after the other where they have the
/// same volumes; on a disk that is older than what it knows, as after a restore, both would be begun by one message.
pub(crate) fn plan(view: &View<'_>) -> Step {
    match plan_confirmed(view) {
        Step::Start { .. } if view.is_unconfirmed || view.is_left => Step::Rest,
        step => step,
    }
}

fn plan_confirmed(view: &View<'_>) -> Step {
    let Some(assignment) = view.assignment else {
        return match (view.authoritative, view.containers.is_empty()) {
            (false, _) => Step::Rest,
            (true, true) => Step::Forget,
            (true, false) => stop_all(view.containers, ORPHAN_GRACE_MS),
        };
    };
    if let Some(attempt) = &assignment.job {
        return job::plan(view, assignment, attempt);
    }
    let over = view.local.verdict.is_some() || assignment.desired == Desired::Stop;
    if over {
        if !view.containers.is_empty() {
            return stop_all(view.containers, assignment.stop_grace_ms);
        }
        return match view.local.verdict {
            Some(_) => Step::Rest,
            None => Step::Conclude(ended(view.local, State::Stopped, None, String::new())),
        };
    }
    if view.is_cut_off {
        // Another one may be started elsewhere; with a server in reach this one is begun again.
        return match view.containers.is_empty() {
            true => Step::Rest,
            false => stop_all(view.containers, assignment.stop_grace_ms),
        };
    }
    let Some((current, older)) = view.containers.split_last() else {
        return plan_absent(view, assignment);
    };
    // Two at once may be left by a start that Docker finished after its deadline.
    let doubles: Vec<_> = older.iter().filter(|seen| seen.is_running()).collect();
    if !doubles.is_empty() {
        return stop_all(doubles, assignment.stop_grace_ms);
    }
    match &current.phase {
        Phase::Created => Step::Remove(vec![current.id.clone()]),
        Phase::Ended => Step::Examine(current.id.clone()),
        Phase::Exited(exit) => plan_exited(view, assignment, exit),
        Phase::Running { .. } if view.is_dead => stop_all([current], assignment.stop_grace_ms),
        Phase::Running { .. } => plan_running(older),
    }
}

/// The container before the current one stays: its log tells why it ended.
fn plan_running(older: &[Seen]) -> Step {
    let stale = &older[..older.len().saturating_sub(1)];
    if stale.is_empty() {
        return Step::Rest;
    }
    Step::Remove(stale.iter().map(|seen| seen.id.clone()).collect())
}

fn plan_absent(view: &View<'_>, assignment: &Assignment) -> Step {
    if assignment.desired == Desired::Drain {
        return Step::Conclude(ended(view.local, State::Stopped, None, String::new()));
    }
    match view.failure {
        None => next_start(view, false),
        Some(failure) if failure.counted => {
            let over = || (failure.problem.clone(), String::new());
            retry(view, &assignment.restart, failure.at_ms, over)
        }
        Some(failure) => start_after(view, failure.at_ms, RETRY_MS, false),
    }
}

fn plan_exited(view: &View<'_>, assignment: &Assignment, exit: &Exit) -> Step {
    if assignment.desired == Desired::Drain {
        return Step::Conclude(ended(view.local, State::Stopped, None, String::new()));
    }
    // An exit in the future is one before the clock was set back: what failed since is later.
    let is_later = |failure: &&Failure| failure.at_ms >= exit.at_ms || exit.at_ms > view.now_ms;
    if let Some(failure) = view.failure.filter(is_later) {
        // The start after this exit failed in its turn.
        if failure.counted {
            let over = || (failure.problem.clone(), exit.tail.clone());
            return retry(view, &assignment.restart, failure.at_ms, over);
        }
        return start_after(view, failure.at_ms, RETRY_MS, false);
    }
    if !exit.witnessed {
        return next_start(view, false);
    }
    let over = || (explain_exit(exit, assignment), exit.tail.clone());
    retry(view, &assignment.restart, exit.at_ms, over)
}

/// Another attempt after a fault at `at_ms`, or the end where there have been enough.
fn retry(
    view: &View<'_>,
    restart: &Restart,
    at_ms: u64,
    over: impl FnOnce() -> (Problem, String),
) -> Step {
    let spent = counted_in_window(view.local, restart, view.now_ms);
    if spent >= restart.attempts {
        let (problem, tail) = over();
        return Step::Conclude(ended(view.local, State::Failed, Some(problem), tail));
    }
    start_after(view, at_ms, delay_ms(restart, spent), true)
}

/// A start so long after a fault at `at_ms`.
fn start_after(view: &View<'_>, at_ms: u64, delay_ms: u64, counted: bool) -> Step {
    let due_ms = at_ms.saturating_add(delay_ms);
    // A clock that was set back must not postpone a start by more than its delay.
    let is_far = due_ms.saturating_sub(view.now_ms) > delay_ms.saturating_add(CLOCKS_APART_MS);
    if view.now_ms < due_ms && !is_far {
        return Step::Wait(due_ms);
    }
    next_start(view, counted)
}

/// A fault that is so much in the future happened now, as Docker rounds its times; one that is further was
/// told before the clock was set back.
const CLOCKS_APART_MS: u64 = 1_000;

fn next_start(view: &View<'_>, counted: bool) -> Step {
    let newest = view.containers.last().map_or(0, |seen| seen.attempt);
    let attempt = view.local.attempt.max(newest) + 1;
    Step::Start { attempt, counted }
}

fn stop_all<'a>(seen: impl IntoIterator<Item = &'a Seen>, grace_ms: u64) -> Step {
    let containers = seen.into_iter().map(|seen| seen.id.clone()).collect();
    Step::Stop {
        containers,
        grace_ms,
    }
}

/// Restarts that count, at `now_ms`.
fn counted_in_window(local: &Local, restart: &Restart, now_ms: u64) -> u32 {
    let window = window(restart, now_ms);
    let counted = local.counted_ms.iter().filter(|at| window.contains(at));
    u32::try_from(counted.count()).unwrap_or(u32::MAX)
}

/// What lies in the future was counted before the clock was set back: it would count until the clock is there
/// again.
fn window(restart: &Restart, now_ms: u64) -> RangeInclusive<u64> {
    now_ms.saturating_sub(restart.window_ms)..=now_ms
}

/// Exponential: `delay_ms`, then twice as long each time, at most `max_delay_ms`.
fn delay_ms(restart: &Restart, spent: u32) -> u64 {
    let factor = 1_u64.checked_shl(spent).unwrap_or(u64::MAX);
    restart
        .delay_ms
        .saturating_mul(factor)
        .min(restart.max_delay_ms)
}

/// `local` after a start that was planned.
pub(crate) fn apply_start(
    local: &Local,
    attempt: u32,
    counted: bool,
    view: (&Restart, u64),
) -> Local {
    let (restart, now_ms) = view;
    let mut next = local.clone();
    let window = window(restart, now_ms);
    next.counted_ms.retain(|at| window.contains(at));
    if counted {
        next.counted_ms.push(now_ms);
    }
    if local.attempt > 0 {
        next.restarts = next.restarts.saturating_add(1);
    }
    next.attempt = attempt;
    next.healthy = false;
    next
}

/// The last word on an allocation.
pub(crate) fn ended(
    local: &Local,
    state: State,
    problem: Option<Problem>,
    log_tail: String,
) -> Observed {
    Observed {
        state,
        restarts: local.restarts,
        problem,
        log_tail,
        exit_code: None,
        ports: Vec::new(),
    }
}

/// An exit in words.
pub(crate) fn explain_exit(exit: &Exit, assignment: &Assignment) -> Problem {
    if exit.oom {
        let limit_mib = assignment.resources.memory_ceiling_bytes() >> 20;
        let usual = exit.usual.map_or(String::new(), |usual| {
            let (p95, peak) = (usual.p95_bytes >> 20, usual.peak_bytes >> 20);
            format!("; p95 was {p95} MiB, the most {peak} MiB")
        });
        return Problem::new(
            Code::Crashed,
            format!("killed: out of memory at {limit_mib} MiB{usual}"),
        )
        .hint("raise resources.memory_bytes, or make the app use less");
    }
    let after = exit.ran_ms.map_or(String::new(), |ran_ms| {
        format!(" after {}.{} s", ran_ms / 1_000, ran_ms % 1_000 / 100)
    });
    let message = match exit.code {
        // Shells and Docker give a process that a signal ended 128 and the signal's number.
        code @ 129..=159 => format!("ended by signal {}{after}", signal_name(code - 128)),
        code => format!("exited with code {code}{after}"),
    };
    let problem = Problem::new(Code::Crashed, message);
    match exit.code {
        0 => problem.hint("the command ended by itself: a service is expected to keep running"),
        // What shells and Docker's init say of a command that is not there or not executable.
        126 | 127 => problem.hint("the command is not an executable file of the image: check it"),
        _ => problem.hint("its last lines tell why"),
    }
}

fn signal_name(number: i64) -> String {
    let name = match number {
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return number.to_string(),
    };
    format!("{number} ({name})")
}
