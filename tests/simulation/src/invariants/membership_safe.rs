//! Voters are odd in number outside of joint changes (even only where a group of one replaces its
//! leader), a group is never without voters, and a member id that was taken out never comes back.

use std::collections::BTreeSet;

use skep_raft_core::ConfState;

use super::{Held, broken};

#[derive(Default)]
pub(crate) struct Members {
    seen: BTreeSet<u64>,
    newest: BTreeSet<u64>,
    gone: BTreeSet<u64>,
}

impl Members {
    /// A membership that some member has applied; older ones are seen again on members behind.
    pub(crate) fn now(&mut self, members: &ConfState) -> Held {
        let name = "membership-safe";
        if members.voters.is_empty() {
            return broken(name, "a group without voters".to_owned());
        }
        let is_joint = !members.voters_outgoing.is_empty();
        if !is_joint && members.voters.len() > 2 && members.voters.len().is_multiple_of(2) {
            return broken(
                name,
                format!("an even group of voters {:?}", members.voters),
            );
        }
        let all: BTreeSet<u64> = members
            .voters
            .iter()
            .chain(&members.learners)
            .chain(&members.voters_outgoing)
            .chain(&members.learners_next)
            .copied()
            .collect();
        let is_news = all.iter().any(|id| !self.seen.contains(id));
        if is_news {
            if let Some(id) = all.iter().find(|id| self.gone.contains(id)) {
                return broken(name, format!("member {id} is back after it was taken out"));
            }
            self.gone.extend(self.newest.difference(&all));
            self.seen.extend(&all);
            self.newest = all;
        }
        Ok(())
    }
}
