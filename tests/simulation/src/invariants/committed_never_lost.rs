//! What one member has applied at an index is what every member applies there, for ever.

use std::collections::BTreeMap;

use super::{Applied, Held, broken};
use crate::member::digest;

#[derive(Default)]
pub(crate) struct Committed {
    entries: BTreeMap<u64, (u64, u64, u64)>,
}

impl Committed {
    pub(crate) fn applied(&mut self, applied: &Applied<'_>) -> Held {
        let index = applied.position.index;
        let here = (
            applied.position.term,
            digest(applied.command.unwrap_or_default()),
        );
        let (term, command, first) =
            *self
                .entries
                .entry(index)
                .or_insert((here.0, here.1, applied.member));
        if (term, command) != here {
            return broken(
                "committed-never-lost",
                format!(
                    "index {index} was applied with term {term} by member {first}, and otherwise \
                     with term {} by member {}",
                    here.0, applied.member
                ),
            );
        }
        Ok(())
    }
}
