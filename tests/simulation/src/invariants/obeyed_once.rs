//! A command with an idempotency key is obeyed at one index only, however often it is sent.

use std::collections::BTreeMap;

use super::{Applied, Held, broken};
use crate::member::digest;

#[derive(Default)]
pub(crate) struct Obeyed {
    at: BTreeMap<u64, u64>,
    by_index: BTreeMap<u64, bool>,
}

impl Obeyed {
    pub(crate) fn applied(&mut self, applied: &Applied<'_>) -> Held {
        let index = applied.position.index;
        let Some(key) = applied.command.and_then(key_of) else {
            return Ok(());
        };
        let first = *self.by_index.entry(index).or_insert(applied.is_first);
        if first != applied.is_first {
            return broken(
                "obeyed-once",
                format!("the command at index {index} is new to some members and old to others"),
            );
        }
        if !applied.is_first {
            return Ok(());
        }
        let at = *self.at.entry(key).or_insert(index);
        if at != index {
            return broken(
                "obeyed-once",
                format!("one command was obeyed at index {at} and again at {index}"),
            );
        }
        Ok(())
    }
}

/// The key, by its digest.
fn key_of(command: &[u8]) -> Option<u64> {
    let message: skep_proto::v1::Command = prost::Message::decode(command).ok()?;
    (!message.key.is_empty()).then(|| digest(&message.key))
}
