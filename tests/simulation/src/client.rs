//! Clients: each writes rising values into a register of its own and reads everybody's. A write
//! whose fate is unknown is sent again with the same idempotency key, until it is answered.

/// Register values start here: nothing written.
pub(crate) const NOTHING: u64 = 0;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Put a value into the own register.
    Write { value: u64 },
    /// Read somebody's register.
    Read { register: usize },
    /// An agent's word: the exclusive service's allocation has failed.
    Fail { allocation: u128 },
}

/// One attempt of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) client: usize,
    /// Tells answers of earlier attempts apart.
    pub(crate) attempt: u64,
    /// The idempotency key: the same for all attempts of one operation.
    pub(crate) key: u128,
    pub(crate) operation: Operation,
    /// Index of a state that the operation was surely not in.
    pub(crate) since: u64,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) attempt: u64,
    pub(crate) result: Outcome,
}

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The write is in.
    Written,
    /// The register holds this.
    Value(u64),
    /// The state refused it: that is an answer, and nothing was written.
    Refused,
    /// Not now; nothing has happened, or nobody knows.
    Again,
}

/// A client and the operation that it is at.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) id: usize,
    pub(crate) current: Option<Open>,
    pub(crate) next_value: u64,
    pub(crate) next_attempt: u64,
}

/// An operation under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    pub(crate) request: Request,
    /// For a read: the least value that it may answer.
    pub(crate) at_least: u64,
}

impl Client {
    pub(crate) fn new(id: usize) -> Self {
        Self {
            id,
            current: None,
            next_value: NOTHING + 1,
            next_attempt: 1,
        }
    }

    /// The newest value that was ever sent.
    pub(crate) fn newest_sent(&self) -> u64 {
        self.next_value - 1
    }

    pub(crate) fn choose(&mut self, rng: &mut fastrand::Rng, registers: usize) -> Operation {
        if rng.u32(..100) < 55 {
            let value = self.next_value;
            self.next_value += 1;
            return Operation::Write { value };
        }
        Operation::Read {
            register: rng.usize(..registers),
        }
    }

    pub(crate) fn attempt(&mut self) -> u64 {
        self.next_attempt += 1;
        self.next_attempt
    }
}
