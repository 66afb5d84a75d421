//! State machines are equal, byte for byte, at equal index.

use std::collections::BTreeMap;

use super::{Applied, Held, broken};

#[derive(Default)]
pub(crate) struct States {
    by_index: BTreeMap<u64, (u64, u64)>,
}

impl States {
    pub(crate) fn applied(&mut self, applied: &Applied<'_>) -> Held {
        let Some(digest) = applied.digest else {
            return Ok(());
        };
        let index = applied.position.index;
        let (first, member) = *self
            .by_index
            .entry(index)
            .or_insert((digest, applied.member));
        if first != digest {
            return broken(
                "same-state-at-same-index",
                format!(
                    "members {member} and {} have different states at index {index}",
                    applied.member
                ),
            );
        }
        Ok(())
    }
}
