//! Judges a window of calls: by a checker of linearizability that others wrote (Wing and Gong, with
//! Lowe's memory of what was tried: `todc-utils`), and by one plain question of our own: is there an
//! acknowledged write that a later read did not see?
//!
//! A call whose fate is unknown may take effect at any moment after it was asked, even in a later
//! window, or never. As values are unique, one that no read saw can always be put behind everything
//! else, so only those that were seen are given to the checker, as calls that end last.

use std::fmt;

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use super::recorder::{Ask, Call, Moment, Told, Value, Window};

/// What was found in a window.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Registers whose calls no order explains.
    pub violations: Vec<usize>,
    /// Acknowledged writes that are gone: register and value.
    pub lost: Vec<(usize, Value)>,
    /// Calls that were judged.
    pub calls: usize,
}

impl Verdict {
    /// Adds what another window had.
    pub fn add(&mut self, other: Self) {
        self.violations.extend(other.violations);
        self.lost.extend(other.lost);
        self.calls += other.calls;
    }

    /// Nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.lost.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (violations, lost) = (self.violations.len(), self.lost.len());
        write!(
            f,
            "{} calls, {violations} violations of linearizability, {lost} acknowledged writes lost",
            self.calls
        )
    }
}

/// Judges a window.
pub fn judge(window: &Window) -> Verdict {
    let mut verdict = Verdict {
        calls: window.calls.len(),
        ..Verdict::default()
    };
    for register in 0..window.begun.len() {
        if !is_linearizable(window, register) {
            verdict.violations.push(register);
        }
        let gone = lost(window, register).into_iter();
        verdict.lost.extend(gone.map(|value| (register, value)));
    }
    verdict
}

/// The calls of a register, as a person reads them when they are not explained.
pub fn told(window: &Window, register: usize) -> String {
    let own = window.calls.iter().filter(|call| call.register == register);
    let lines = own.map(|call| format!("{:>6} {:?} {:?}\n", call.asked, call.ask, call.told));
    let begun = window.begun[register];
    format!("register {register}, begun with {begun}\n") + &lines.collect::<String>()
}

/// One register.
struct Register;

#[derive(Debug, Clone, Copy)]
enum Operation {
    Read(Value),
    Write(Value),
}

impl Specification for Register {
    type State = Value;
    type Operation = Operation;

    fn init() -> Value {
        0
    }

    fn apply(operation: &Operation, state: &Value) -> (bool, Value) {
        match *operation {
            Operation::Read(value) => (value == *state, *state),
            Operation::Write(value) => (true, value),
        }
    }
}

/// What the checker has to explain: an operation from a moment to a moment.
fn operations(window: &Window, register: usize) -> Vec<(Moment, Moment, Operation)> {
    let seen = window.seen(register);
    let begun = window.begun[register];
    let mut all = vec![(0, 0, Operation::Write(begun))];
    let late = window.open[register].intersection(&seen);
    all.extend(late.map(|value| (0, Moment::MAX, Operation::Write(*value))));
    for call in window.calls.iter().filter(|call| call.register == register) {
        let operation = match (call.ask, call.told) {
            (Ask::Read, Some((_, Told::Holds(value)))) => Operation::Read(value),
            (Ask::Write(value), Some((_, Told::Written))) => Operation::Write(value),
            (Ask::Write(value), None | Some((_, Told::Nothing))) if seen.contains(&value) => {
                Operation::Write(value)
            }
            _ => continue,
        };
        all.push((call.asked, call.ended(), operation));
    }
    all
}

fn is_linearizable(window: &Window, register: usize) -> bool {
    let operations = operations(window, register);
    let mut actions = Vec::with_capacity(2 * operations.len());
    // Each operation is a process of its own: what a client did one after the other is in the
    // moments. At equal moments a beginning comes first, except for what the register begun with.
    for (process, (asked, ended, operation)) in operations.into_iter().enumerate() {
        let order = if process == 0 { [0, 1] } else { [2, 3] };
        actions.push(((asked, order[0]), process, Action::Call(operation)));
        actions.push(((ended, order[1]), process, Action::Response(operation)));
    }
    actions.sort_by_key(|(at, _, _)| *at);
    let actions = actions
        .into_iter()
        .map(|(_, process, action)| (process, action));
    WGLChecker::<Register>::is_linearizable(History::from_actions(actions.collect()))
}

/// Acknowledged writes that the last read, at rest, shows to be gone: it saw something that was over
/// before they were asked. (What an earlier read did not see may only be late: a violation, no loss.)
fn lost(window: &Window, register: usize) -> Vec<Value> {
    let own = || window.calls.iter().filter(|call| call.register == register);
    let last = own().rev().find_map(|call| match call.told {
        Some((_, Told::Holds(value))) => Some((call, value)),
        _ => None,
    });
    let Some((read, value)) = last else {
        return Vec::new();
    };
    // When the write of that value was over; what may still happen never is.
    let over = if value == window.begun[register] {
        0
    } else {
        own()
            .find(|call| call.ask == Ask::Write(value))
            .map_or(Moment::MAX, Call::ended)
    };
    let newer = own().filter(|call| call.asked > over && call.ended() < read.asked);
    newer
        .filter_map(|call| match call.ask {
            Ask::Write(newer) if newer != value => Some(newer),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::recorder::Recorder;
    use super::*;

    fn call(recorder: &Recorder, ask: Ask, told: Told) {
        let ticket = recorder.ask(0, ask);
        recorder.tell(ticket, told);
    }

    fn verdict(calls: &[(Ask, Told)]) -> Verdict {
        let recorder = Recorder::new(1);
        for (ask, told) in calls {
            call(&recorder, *ask, *told);
        }
        judge(&recorder.close())
    }

    use Ask::{Read, Write};
    use Told::{Holds, Nothing, Refused, Written};

    #[test]
    fn what_can_be_explained_is_good() {
        for calls in [
            &[(Read, Holds(0)), (Write(1), Written), (Read, Holds(1))][..],
            &[(Write(1), Nothing), (Read, Holds(0)), (Read, Holds(1))],
            &[(Write(1), Nothing), (Write(2), Written), (Read, Holds(1))],
            &[(Write(1), Nothing), (Write(2), Written), (Read, Holds(2))],
            &[(Write(1), Refused), (Read, Holds(0)), (Read, Nothing)],
        ] {
            assert!(verdict(calls).is_good(), "{calls:?}");
        }
    }

    #[test]
    fn what_cannot_be_explained_is_named() {
        // Never written, a step back, happened after it was refused, happened twice.
        for calls in [
            &[(Write(1), Written), (Read, Holds(9))][..],
            &[(Write(1), Nothing), (Read, Holds(1)), (Read, Holds(0))],
            &[(Write(1), Refused), (Read, Holds(1))],
            &[
                (Write(1), Nothing),
                (Read, Holds(1)),
                (Write(2), Written),
                (Read, Holds(2)),
                (Read, Holds(1)),
            ],
        ] {
            assert_eq!(verdict(calls).violations, [0], "{calls:?}");
        }
    }

    #[test]
    fn an_acknowledged_write_that_is_gone_is_counted() {
        let found = verdict(&[
            (Write(1), Written),
            (Write(2), Written),
            (Read, Holds(1)),
            (Read, Holds(1)),
        ]);
        assert_eq!((found.violations, found.lost), (vec![0], vec![(0, 2)]));
        let found = verdict(&[(Write(1), Written), (Read, Holds(0))]);
        assert_eq!(found.lost, [(0, 1)]);
        let late = verdict(&[(Write(1), Written), (Read, Holds(0)), (Read, Holds(1))]);
        assert_eq!((late.violations, late.lost), (vec![0], vec![]));
    }

    #[test]
    fn concurrent_writes_may_come_in_either_order() {
        let recorder = Recorder::new(1);
        let (one, two) = (recorder.ask(0, Write(1)), recorder.ask(0, Write(2)));
        recorder.tell(two, Written);
        recorder.tell(one, Written);
        call(&recorder, Read, Holds(2));
        assert!(judge(&recorder.close()).is_good());
    }

    #[test]
    fn an_open_write_may_happen_in_a_later_window_and_only_once() {
        let recorder = Recorder::new(1);
        call(&recorder, Write(1), Nothing);
        call(&recorder, Write(2), Written);
        call(&recorder, Read, Holds(2));
        assert!(judge(&recorder.close()).is_good());
        call(&recorder, Read, Holds(1));
        call(&recorder, Write(3), Written);
        call(&recorder, Read, Holds(3));
        assert!(judge(&recorder.close()).is_good());
        call(&recorder, Read, Holds(1));
        let found = judge(&recorder.close());
        assert_eq!(found.violations, [0]);
    }
}
