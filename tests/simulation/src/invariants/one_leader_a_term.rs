//! A term has at most one leader.

use std::collections::BTreeMap;

use super::{Held, broken};

#[derive(Default)]
pub(crate) struct Leaders {
    by_term: BTreeMap<u64, u64>,
}

impl Leaders {
    pub(crate) fn leads(&mut self, member: u64, term: u64) -> Held {
        let first = *self.by_term.entry(term).or_insert(member);
        if first != member {
            return broken(
                "one-leader-a-term",
                format!("members {first} and {member} both lead term {term}"),
            );
        }
        Ok(())
    }
}
