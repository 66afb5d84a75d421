//! A linearizable read shows every write acknowledged before it began, and nothing older than any
//! read that had ended by then. Each register has one writer, whose values rise: so this is all of
//! linearizability.

use std::collections::BTreeMap;

use super::{Held, broken};

#[derive(Default)]
pub(crate) struct Reads {
    newest: BTreeMap<usize, u64>,
}

impl Reads {
    /// The least value that a read which begins now may answer.
    pub(crate) fn at_least(&self, register: usize) -> u64 {
        self.newest.get(&register).copied().unwrap_or_default()
    }

    /// A write was acknowledged, or a read answered: nobody may see less from now on.
    pub(crate) fn seen(&mut self, register: usize, value: u64) {
        let newest = self.newest.entry(register).or_default();
        *newest = (*newest).max(value);
    }

    /// A read that began when `at_least` was the least ended with `value`; `sent` is the newest
    /// value that was ever written.
    pub(crate) fn answered(
        &mut self,
        register: usize,
        value: u64,
        (at_least, sent): (u64, u64),
    ) -> Held {
        if value < at_least || value > sent {
            return broken(
                "reads-never-go-back",
                format!(
                    "register {register} was read as {value}; {at_least} was there before the read \
                     began, and {sent} is the newest ever sent"
                ),
            );
        }
        self.seen(register, value);
        Ok(())
    }
}
