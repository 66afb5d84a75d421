//! What is copied between histories: entries that never change, known by the store that wrote them and
//! their number there. Decides what somebody lacks and what of a part is new; touches no database.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use skep_model::id::{DeploymentId, Error as IdError, ServerId, UploadId};

use super::event::AuditEntry;

/// Most entries in one answer.
pub const MAX_ENTRIES: usize = 1_000;
/// Text in one answer, about: a gRPC message takes far more.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;

/// One history: a file or a database, from its making to its loss. A file that is made anew is another
/// store, so that no number is given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreId(u128);

impl StoreId {
    /// The id with these bits.
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written as every other id is.
        UploadId::from_u128(self.0).fmt(f)
    }
}

impl FromStr for StoreId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse::<UploadId>().map(|id| Self(id.as_u128()))
    }
}

/// How far each store's entries are held.
pub type Places = BTreeMap<StoreId, u64>;

/// One entry of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// 1, 2, 3, ... within its store.
    pub seq: u64,
    /// When, ms since the epoch.
    pub at_ms: u64,
    /// What it says.
    pub what: What,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Somebody did something.
    Audit {
        /// Who.
        principal: String,
        /// What.
        action: String,
        /// To what.
        resource: String,
        /// How it went.
        outcome: String,
    },
    /// A step of a timeline.
    Step {
        /// Whose.
        deployment: DeploymentId,
        /// Its place in the timeline, from 0.
        position: u64,
        /// For a person.
        text: String,
    },
    /// Lines of a build's log are in this store.
    Log {
        /// Of which deployment.
        deployment: DeploymentId,
        /// The server that wrote the first of them.
        server: ServerId,
    },
}

impl What {
    /// Bytes of its text.
    fn len(&self) -> usize {
        match self {
            Self::Audit {
                principal,
                action,
                resource,
                outcome,
            } => principal.len() + action.len() + resource.len() + outcome.len(),
            Self::Step { text, .. } => text.len(),
            Self::Log { .. } => 0,
        }
    }

    /// The deployment that it is about.
    pub fn deployment(&self) -> Option<DeploymentId> {
        match self {
            Self::Audit { .. } => None,
            Self::Step { deployment, .. } | Self::Log { deployment, .. } => Some(*deployment),
        }
    }
}

impl From<AuditEntry> for Entry {
    fn from(entry: AuditEntry) -> Self {
        Self {
            seq: 0,
            at_ms: entry.at_ms,
            what: What::Audit {
                principal: entry.principal,
                action: entry.action,
                resource: entry.resource,
                outcome: entry.outcome,
            },
        }
    }
}

/// Entries of one store in order: all that there still are after `after`, up to `upto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Who wrote them.
    pub store: StoreId,
    /// The number before the first that may be in it.
    pub after: u64,
    /// The last number that it speaks of.
    pub upto: u64,
    /// What is still kept between the two.
    pub entries: Vec<Entry>,
}

impl Part {
    /// Keeps as many entries as fit into `room` bytes, one at least; gives what room is left.
    pub(super) fn cut(&mut self, room: usize) -> usize {
        let mut left = room;
        for (at, entry) in self.entries.iter().enumerate() {
            let bytes = entry.what.len();
            if bytes > left && at > 0 {
                self.upto = self.entries[at - 1].seq;
                self.entries.truncate(at);
                return 0;
            }
            left = left.saturating_sub(bytes);
        }
        left
    }
}

/// What `theirs` lacks of `ours`: the store, and the number after which.
pub(super) fn lacking(ours: &Places, theirs: &Places) -> Vec<(StoreId, u64)> {
    let held = |store| theirs.get(store).copied().unwrap_or(0);
    let missing = ours.iter().filter(|(store, upto)| **upto > held(store));
    missing.map(|(store, _)| (*store, held(store))).collect()
}

/// How many entries `theirs` has and `ours` has not.
pub fn behind(ours: &Places, theirs: &Places) -> u64 {
    let held = |store| ours.get(store).copied().unwrap_or(0);
    let missing = theirs
        .iter()
        .map(|(store, upto)| upto.saturating_sub(held(store)));
    missing.fold(0, u64::saturating_add)
}

/// What of a part is to be kept where entries up to `kept` are held already and what is older than
/// `cutoff_ms` is forgotten; none where it would leave a hole, or brings nothing.
pub(super) fn fresh(part: &Part, kept: u64, cutoff_ms: u64) -> Option<Vec<&Entry>> {
    if part.after > kept || part.upto <= kept {
        return None;
    }
    let mut last = kept;
    let mut new = Vec::new();
    for entry in &part.entries {
        if entry.seq <= last || entry.seq > part.upto {
            continue;
        }
        last = entry.seq;
        if entry.at_ms >= cutoff_ms {
            new.push(entry);
        }
    }
    Some(new)
}

/// Who holds lines of a deployment's build log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The server that wrote them.
    pub server: ServerId,
    /// When it began, ms since the epoch.
    pub since_ms: u64,
    /// They are in this store, too.
    pub is_here: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(n: u128) -> StoreId {
        StoreId::from_u128(n)
    }

    fn entry(seq: u64, at_ms: u64) -> Entry {
        let what = What::Step {
            deployment: DeploymentId::from_u128(1),
            position: seq,
            text: "0123456789".into(),
        };
        Entry { seq, at_ms, what }
    }

    fn part(after: u64, upto: u64, seqs: &[u64]) -> Part {
        Part {
            store: store(1),
            after,
            upto,
            entries: seqs.iter().map(|seq| entry(*seq, *seq)).collect(),
        }
    }

    fn seqs(part: &Part, kept: u64, cutoff: u64) -> Option<Vec<u64>> {
        let new = fresh(part, kept, cutoff)?;
        Some(new.iter().map(|entry| entry.seq).collect())
    }

    #[test]
    fn a_part_is_taken_once_and_never_over_a_hole() {
        let part = part(2, 6, &[3, 4, 6]);
        for (kept, wanted) in [
            (0, None),
            (1, None),
            (2, Some(vec![3, 4, 6])),
            (3, Some(vec![4, 6])),
            (5, Some(vec![6])),
            (6, None),
            (9, None),
        ] {
            assert_eq!(seqs(&part, kept, 0), wanted, "kept up to {kept}");
        }
    }

    #[test]
    fn what_is_old_is_passed_and_what_is_out_of_order_is_not_believed() {
        assert_eq!(seqs(&part(0, 3, &[1, 2, 3]), 0, 3), Some(vec![3]));
        // All of it is gone there: the place goes on all the same.
        assert_eq!(seqs(&part(0, 3, &[]), 0, 0), Some(vec![]));
        assert_eq!(seqs(&part(0, 3, &[2, 1, 2, 9]), 0, 0), Some(vec![2]));
    }

    #[test]
    fn each_is_given_what_it_lacks() {
        let ours = Places::from([(store(1), 5), (store(2), 3), (store(3), 1)]);
        let theirs = Places::from([(store(1), 4), (store(2), 3), (store(4), 7)]);
        assert_eq!(lacking(&ours, &theirs), [(store(1), 4), (store(3), 0)]);
        assert_eq!(behind(&ours, &theirs), 7);
        assert_eq!(behind(&theirs, &ours), 2);
        assert!(lacking(&ours, &ours).is_empty());
    }

    #[test]
    fn an_answer_is_cut_where_it_is_large_and_says_so() {
        let mut whole = part(0, 9, &[1, 2, 4]);
        assert_eq!(whole.cut(30), 0);
        assert_eq!((whole.upto, whole.entries.len()), (9, 3));
        let mut cut = part(0, 9, &[1, 2, 4]);
        assert_eq!(cut.cut(29), 0);
        assert_eq!((cut.upto, cut.entries.len()), (2, 2));
        // One at least, or it would never go on.
        let mut large = part(0, 9, &[1, 2]);
        large.cut(1);
        assert_eq!((large.upto, large.entries.len()), (1, 1));
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = store(0x0123_4567_89ab_cdef);
        assert_eq!(id.to_string().parse::<StoreId>().expect("an id"), id);
    }
}
