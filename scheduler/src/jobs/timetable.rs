//! What a schedule asks for at a moment: which time is due, which were missed, when to look again. Knows
//! nothing of jobs.
//!
//! What has been decided on is a point in time: everything at or before it is settled, so a time is
//! never run twice, whoever leads and wherever clocks go. A clock that was set back waits until it
//! has caught up; one that was set back by more than [`MAX_AHEAD_MS`] begins anew from where it is.

use skep_model::job::JobBook;
use skep_model::problem::Problem;
use skep_model::run::{Mode, Run};
use skep_model::schedule::Schedule;
use skep_model::service::Service;

use super::Following;

/// A point this far ahead of the clock is the trace of a clock that was wrong: longer than any step
/// that time synchronisation makes, and than a leap between two servers' clocks.
const MAX_AHEAD_MS: u64 = 3_600_000;
/// So many missed times are counted; beyond it is "at least".
const COUNT_MAX: u64 = 100;

/// What is due.
#[derive(Debug, Default)]
pub(super) struct Timetable {
    /// The newest time that is due and fresh enough to be run.
    pub(super) due_ms: Option<u64>,
    /// The newest of those that were missed, and why.
    pub(super) missed: Option<(u64, String)>,
    /// How far the schedule is decided on from now; none: as before.
    pub(super) following: Option<Following>,
    /// When the next time comes.
    pub(super) wake_at_ms: Option<u64>,
    /// Why the schedule is not followed.
    pub(super) refusal: Option<Problem>,
}

/// Reads the schedule at `now_ms`.
pub(super) fn read(service: &Service, book: &JobBook, now_ms: u64) -> Timetable {
    let run = &service.spec.run;
    let is_wanted = run.mode == Mode::Cron
        && !run.paused
        && !service.stopped
        && !service.removing
        && service.live.is_some();
    if !is_wanted {
        // What falls into the pause is not made up for after it.
        let following = (!book.following.is_empty()).then(|| Following {
            schedule: String::new(),
            // Not forgotten: a clock that was set back would make these times due again.
            until_ms: book.until_ms,
        });
        return Timetable {
            following,
            ..Timetable::default()
        };
    }
    match run.parse_schedule() {
        Ok(Some(schedule)) => follow(run, &schedule, book, now_ms),
        Ok(None) => Timetable::default(),
        Err(problem) => Timetable {
            refusal: Some(problem),
            ..Timetable::default()
        },
    }
}

fn follow(run: &Run, schedule: &Schedule, book: &JobBook, now_ms: u64) -> Timetable {
    let name = format!(
        "{} ({})",
        run.schedule.as_deref().unwrap_or_default(),
        run.time_zone
    );
    let following = |until_ms| {
        Some(Following {
            schedule: name.clone(),
            until_ms,
        })
    };
    let is_new = book.following != name;
    let is_wrong = book.until_ms > now_ms.saturating_add(MAX_AHEAD_MS);
    if is_new || is_wrong {
        let from_ms = if is_wrong {
            now_ms
        } else {
            now_ms.max(book.until_ms)
        };
        return Timetable {
            following: following(from_ms),
            wake_at_ms: schedule.next_after(from_ms),
            ..Timetable::default()
        };
    }
    let wake_at_ms = schedule.next_after(now_ms.max(book.until_ms));
    let last = schedule.last_until(now_ms).filter(|at| *at > book.until_ms);
    let Some(last) = last else {
        return Timetable {
            wake_at_ms,
            ..Timetable::default()
        };
    };
    let is_fresh = now_ms - last <= run.catch_up_ms;
    // The times that will not be run: all before the last one, and that one where it is too old.
    let until = if is_fresh { last - 1 } else { last };
    let newest = schedule.last_until(until).filter(|at| *at > book.until_ms);
    Timetable {
        due_ms: is_fresh.then_some(last),
        missed: newest.map(|newest| (newest, words(schedule, book.until_ms, newest))),
        following: following(last),
        wake_at_ms,
        refusal: None,
    }
}

fn words(schedule: &Schedule, from_ms: u64, newest: u64) -> String {
    let mut at = from_ms;
    let mut count = 0;
    while count < COUNT_MAX
        && let Some(next) = schedule.next_after(at).filter(|next| *next <= newest)
    {
        at = next;
        count += 1;
    }
    let newest = schedule.text(newest);
    match count {
        1 => format!("it was due at {newest}, and no server led or kept the time then"),
        COUNT_MAX => {
            format!("at least {COUNT_MAX} times up to {newest} passed without a server that led")
        }
        count => format!("{count} times up to {newest} passed without a server that led"),
    }
}
