//! Whether a desired set may replace the one held. Pure.

use skep_model::assignment::{DesiredSet, Generation};
use skep_model::id::{AllocationId, ClusterId, DeploymentId};
use skep_proto::convert::{self, id_bits};
use skep_proto::v1;

use super::DesiredChange;

/// Why it is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It is older.
    #[error("its generation {theirs:?} is older than the held {held:?}")]
    Older {
        /// Of the refused set.
        theirs: Generation,
        /// On disk.
        held: Generation,
    },
    /// It is a delta on another set.
    #[error("it builds on generation {base:?}, held is {held:?}")]
    Base {
        /// What it builds on.
        base: Generation,
        /// On disk.
        held: Option<Generation>,
    },
    /// Another cluster's.
    #[error("it belongs to cluster {0}")]
    Cluster(ClusterId),
    /// It means nothing.
    #[error("it is not readable")]
    Malformed(#[from] convert::Error),
}

/// Reads a desired set that may be taken where `held` is on disk.
pub(super) fn judge(
    cluster: ClusterId,
    held: Option<Generation>,
    message: v1::Desired,
) -> Result<DesiredChange, Refused> {
    let set = message.set.ok_or(convert::Error { field: "set" })?;
    let set = DesiredSet::try_from(set)?;
    if set.cluster != cluster {
        return Err(Refused::Cluster(set.cluster));
    }
    if let Some(held) = held.filter(|held| set.generation < *held) {
        let theirs = set.generation;
        return Err(Refused::Older { theirs, held });
    }
    if !message.full {
        let base = message.base.map(Generation::from).unwrap_or_default();
        if held != Some(base) {
            return Err(Refused::Base { base, held });
        }
    }
    let allocation =
        |bytes: &Vec<u8>| id_bits("removed_allocations", bytes).map(AllocationId::from_u128);
    let dismissed = |bytes: &Vec<u8>| id_bits("dismissed", bytes).map(AllocationId::from_u128);
    let build = |bytes: &Vec<u8>| id_bits("removed_builds", bytes).map(DeploymentId::from_u128);
    Ok(DesiredChange {
        full: message.full,
        removed_allocations: message
            .removed_allocations
            .iter()
            .map(allocation)
            .collect::<Result<_, _>>()?,
        removed_builds: message
            .removed_builds
            .iter()
            .map(build)
            .collect::<Result<_, _>>()?,
        dismissed: message
            .dismissed
            .iter()
            .map(dismissed)
            .collect::<Result<_, _>>()?,
        set,
    })
}
