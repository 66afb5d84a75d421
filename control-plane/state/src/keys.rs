//! Idempotency keys and what came of the commands that carried them: a command that is sent again
//! changes nothing again, and gets the first one's outcome.
//!
//! Keys of two kinds, each with a window of its own so that neither drives the other out. A caller's key
//! stands for a request of somebody outside. A server's own key makes its retries safe: the command says
//! how new the state was before it was first sent, and where the window has moved past that, it is
//! refused rather than perhaps obeyed twice.

use std::sync::Arc;

use imbl::OrdMap;
use skep_model::problem::{Code, Problem};
use skep_proto::convert;
use skep_proto::v1;

use crate::answer::{Outcome, outcome_in, outcome_out};

/// Size of a key: enough that no two are drawn alike.
pub const KEY_BYTES: usize = 16;
/// Size of the digest of what a caller's key was used for.
pub const DIGEST_BYTES: usize = 16;
/// The field that a refusal of a key names; nothing else of the state's refusals does.
pub const KEY_FIELD: &str = "Idempotency-Key";
/// How long a key is remembered, in cluster time.
const TTL_MS: u64 = 24 * 3_600_000;
/// Most keys remembered, of each kind: some MiB, and minutes of a busy cluster.
const MAX_KEYS: usize = 10_000;

pub(crate) type Key = [u8; KEY_BYTES];

/// The outcome of a command with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Remembered {
    key: Key,
    at_ms: u64,
    /// Of a caller's key: what it was used for.
    digest: Option<[u8; DIGEST_BYTES]>,
    outcome: Outcome,
}

/// Those of one kind, by the index of their commands, and where each key is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Window {
    by_index: OrdMap<u64, Arc<Remembered>>,
    indexes: OrdMap<Key, u64>,
}

/// All keys that are remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    callers: Window,
    own: Window,
    /// Index of the newest of the servers' own that is forgotten.
    forgotten: u64,
}

/// A command's key, checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag {
    key: Key,
    digest: Option<[u8; DIGEST_BYTES]>,
    since: u64,
}

/// What the keys say to a command.
pub(crate) enum Verdict {
    /// Never seen.
    New,
    /// Seen: its outcome.
    Seen(Outcome),
    /// Perhaps seen, and forgotten.
    TooLate,
}

impl Tag {
    /// The key that a command carries, if it does.
    pub(crate) fn of(message: &v1::Command) -> Result<Option<Self>, Problem> {
        if message.key.is_empty() {
            return Ok(None);
        }
        let wrong = |what: &str, size: usize| {
            Problem::new(Code::Internal, format!("a {what} has {size} bytes"))
        };
        let key = Key::try_from(&*message.key).map_err(|_| wrong("key", KEY_BYTES))?;
        let digest = match &*message.digest {
            [] => None,
            bytes => Some(
                bytes
                    .try_into()
                    .map_err(|_| wrong("digest", DIGEST_BYTES))?,
            ),
        };
        let since = message.since;
        Ok(Some(Self { key, digest, since }))
    }
}

impl Keys {
    pub(crate) fn judge(&self, tag: &Tag) -> Verdict {
        let window = match tag.digest {
            Some(_) => &self.callers,
            None => &self.own,
        };
        let index = window.indexes.get(&tag.key);
        match index.and_then(|index| window.by_index.get(index)) {
            Some(known) if known.digest == tag.digest => Verdict::Seen(known.outcome.clone()),
            Some(_) => Verdict::Seen(Err(Problem::new(
                Code::Conflict,
                "this idempotency key was used for another request",
            )
            .at(KEY_FIELD)
            .hint("a key belongs to one request: draw a new one for each"))),
            None if tag.digest.is_none() && self.forgotten > tag.since => Verdict::TooLate,
            None => Verdict::New,
        }
    }

    pub(crate) fn remember(&mut self, tag: &Tag, index: u64, now_ms: u64, outcome: &Outcome) {
        let remembered = Remembered {
            key: tag.key,
            at_ms: now_ms,
            digest: tag.digest,
            outcome: outcome.clone(),
        };
        self.put(index, remembered);
        self.callers.forget_old(now_ms);
        if let Some(index) = self.own.forget_old(now_ms) {
            self.forgotten = self.forgotten.max(index);
        }
    }

    fn put(&mut self, index: u64, remembered: Remembered) {
        let window = match remembered.digest {
            Some(_) => &mut self.callers,
            None => &mut self.own,
        };
        window.indexes.insert(remembered.key, index);
        window.by_index.insert(index, Arc::new(remembered));
    }

    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// For the snapshot: callers' keys first, each kind by index.
    pub(crate) fn messages(&self) -> impl Iterator<Item = v1::Remembered> + '_ {
        [&self.callers, &self.own].into_iter().flat_map(|window| {
            window
                .by_index
                .iter()
                .map(|(index, remembered)| v1::Remembered {
                    key: remembered.key.to_vec(),
                    at_ms: remembered.at_ms,
                    digest: remembered.digest.map(Vec::from).unwrap_or_default(),
                    outcome: Some(outcome_out(&remembered.outcome)),
                    index: *index,
                })
        })
    }

    pub(crate) fn restore(&mut self, message: v1::Remembered) -> Result<(), convert::Error> {
        let error = |field| convert::Error { field };
        let key = Key::try_from(&*message.key).map_err(|_| error("key"))?;
        let digest = match &*message.digest {
            [] => None,
            bytes => Some(bytes.try_into().map_err(|_| error("digest"))?),
        };
        let outcome = outcome_in(message.outcome.ok_or(error("outcome"))?)?;
        let remembered = Remembered {
            key,
            at_ms: message.at_ms,
            digest,
            outcome,
        };
        self.put(message.index, remembered);
        Ok(())
    }

    pub(crate) fn restore_forgotten(&mut self, index: u64) {
        self.forgotten = index;
    }
}

impl Window {
    /// Makes room; tells the newest index that went.
    fn forget_old(&mut self, now_ms: u64) -> Option<u64> {
        let mut newest = None;
        while let Some((index, oldest)) = self.by_index.get_min().map(|(i, r)| (*i, Arc::clone(r)))
        {
            let is_old = oldest.at_ms.saturating_add(TTL_MS) < now_ms;
            if !is_old && self.by_index.len() <= MAX_KEYS {
                break;
            }
            self.by_index.remove(&index);
            self.indexes.remove(&oldest.key);
            newest = Some(index);
        }
        newest
    }
}
