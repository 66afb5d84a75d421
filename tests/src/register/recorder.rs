//! What clients asked and what they were told, in the order of one clock. Judges nothing.

use std::collections::BTreeSet;
use std::sync::Mutex;

/// What a register holds; 0: nothing was ever written.
pub type Value = u64;
/// A moment: a position in the order of all moments.
pub type Moment = u64;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// What is in it?
    Read,
    /// Put this in.
    Write(Value),
}

/// What was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// This is in it.
    Holds(Value),
    /// It is in.
    Written,
    /// It has not happened and never will.
    Refused,
    /// Nothing: it may have happened, or may still happen.
    Nothing,
}

/// One call of a client.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Which register.
    pub register: usize,
    /// What was asked.
    pub ask: Ask,
    /// When.
    pub asked: Moment,
    /// When the answer was there, and what it was.
    pub told: Option<(Moment, Told)>,
}

impl Call {
    /// When it was over; a call whose fate is unknown never is.
    pub fn ended(&self) -> Moment {
        match self.told {
            Some((at, Told::Holds(_) | Told::Written)) => at,
            _ => Moment::MAX,
        }
    }
}

/// All calls between two moments of rest.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// The calls, in the order in which they were asked.
    pub calls: Vec<Call>,
    /// What each register held at its beginning.
    pub begun: Vec<Value>,
    /// Writes of earlier windows whose fate is unknown, by register: they may happen in this one.
    pub open: Vec<BTreeSet<Value>>,
}

impl Window {
    /// Values that reads of this register saw.
    pub fn seen(&self, register: usize) -> BTreeSet<Value> {
        let own = self.calls.iter().filter(|call| call.register == register);
        own.filter_map(|call| match call.told {
            Some((_, Told::Holds(value))) => Some(value),
            _ => None,
        })
        .collect()
    }

    /// What the last read of this register saw.
    fn last_seen(&self, register: usize) -> Option<Value> {
        let own = self.calls.iter().filter(|call| call.register == register);
        own.rev().find_map(|call| match call.told {
            Some((_, Told::Holds(value))) => Some(value),
            _ => None,
        })
    }

    /// The window after this one, which ended at rest: nobody asks, and the last call of each
    /// register was a read that was answered.
    fn next(&self) -> Self {
        let registers = self.begun.len();
        let mut next = Self {
            calls: Vec::new(),
            begun: self.begun.clone(),
            open: self.open.clone(),
        };
        for call in &self.calls {
            let is_open = matches!(call.told, None | Some((_, Told::Nothing)));
            if let (Ask::Write(value), true) = (call.ask, is_open) {
                next.open[call.register].insert(value);
            }
        }
        for register in 0..registers {
            // What was seen has happened, and never happens twice.
            let seen = self.seen(register);
            next.open[register].retain(|value| !seen.contains(value));
            if let Some(value) = self.last_seen(register) {
                next.begun[register] = value;
            }
        }
        next
    }
}

#[derive(Debug)]
struct Inner {
    window: Window,
    now: Moment,
    last_value: Value,
    acknowledged: u64,
}

/// Where clients write down what they do.
#[derive(Debug)]
pub struct Recorder {
    inner: Mutex<Inner>,
}

/// A call under way.
#[derive(Debug, Clone, Copy)]
pub struct Ticket(usize);

impl Recorder {
    /// For so many registers, all empty.
    pub fn new(registers: usize) -> Self {
        let window = Window {
            calls: Vec::new(),
            begun: vec![0; registers],
            open: vec![BTreeSet::new(); registers],
        };
        Self {
            inner: Mutex::new(Inner {
                window,
                now: 0,
                last_value: 0,
                acknowledged: 0,
            }),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().expect("nobody panics while holding it"))
    }

    /// A value that was never written before.
    pub fn fresh(&self) -> Value {
        self.with(|inner| {
            inner.last_value += 1;
            inner.last_value
        })
    }

    /// Before a call is sent.
    pub fn ask(&self, register: usize, ask: Ask) -> Ticket {
        self.with(|inner| {
            inner.now += 1;
            inner.window.calls.push(Call {
                register,
                ask,
                asked: inner.now,
                told: None,
            });
            Ticket(inner.window.calls.len() - 1)
        })
    }

    /// After its answer came, or is not waited for any more.
    pub fn tell(&self, ticket: Ticket, told: Told) {
        self.with(|inner| {
            inner.now += 1;
            if told == Told::Written {
                inner.acknowledged += 1;
            }
            if let Some(call) = inner.window.calls.get_mut(ticket.0) {
                call.told = Some((inner.now, told));
            }
        });
    }

    /// Writes that were acknowledged since the beginning.
    pub fn acknowledged(&self) -> u64 {
        self.with(|inner| inner.acknowledged)
    }

    /// Takes what was recorded. At rest only: every call has been told about, and each register
    /// was read last.
    pub fn close(&self) -> Window {
        self.with(|inner| {
            let next = inner.window.next();
            std::mem::replace(&mut inner.window, next)
        })
    }
}
