//! A write that was acknowledged is in the state of every member once all have caught up.

use std::collections::BTreeMap;

use super::{Held, broken};

#[derive(Default)]
pub(crate) struct Acknowledged {
    newest: BTreeMap<usize, u64>,
}

impl Acknowledged {
    pub(crate) fn wrote(&mut self, register: usize, value: u64) {
        let newest = self.newest.entry(register).or_default();
        *newest = (*newest).max(value);
    }

    /// After the run: what a member's state holds.
    pub(crate) fn holds(&self, member: u64, read: impl Fn(usize) -> u64) -> Held {
        for (&register, &value) in &self.newest {
            let found = read(register);
            if found < value {
                return broken(
                    "acknowledged-survives",
                    format!(
                        "register {register} of member {member} is at {found}, {value} was acknowledged"
                    ),
                );
            }
        }
        Ok(())
    }
}
