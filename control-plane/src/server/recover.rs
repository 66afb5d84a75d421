//! Making the last survivor the whole cluster: for when most servers are gone for good, and nothing
//! else helps. Offline, and loud: what the lost servers alone had acknowledged is lost with them.

use std::path::{Path, PathBuf};

use super::{Error as ServerError, standing};
use crate::consensus::{self, offline};
use crate::local::Note;

/// The last survivor could not be made the whole group.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no server's data.
    #[error("{} holds no server's data", .0.display())]
    Nothing(PathBuf),
    /// The log.
    #[error(transparent)]
    Log(#[from] consensus::service::Error),
}

/// What a stopped server's data holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Its member id.
    pub member: u64,
    /// Index of its newest entry: compare the survivors, and take the one with the newest.
    pub last_index: u64,
    /// Index of the newest entry that it knows to be committed.
    pub commit: u64,
    /// Term of its newest entry.
    pub term: u64,
    /// Member ids of the group as it knows it.
    pub voters: Vec<u64>,
}

/// Looks at a stopped server's data. Blocks on the disk.
///
/// # Errors
/// There is none, a server runs on it, or it is damaged.
pub fn inspect(data_dir: &Path) -> Result<Survivor, ServerError> {
    let member = member(data_dir)?;
    let found = offline::inspect(&standing::raft_dir(data_dir)).map_err(Error::from)?;
    Ok(Survivor {
        member,
        last_index: found.last.index,
        commit: found.commit,
        term: found.last.term,
        voters: found.members.voters,
    })
}

/// Makes a stopped server the only member of its group; at its next start it raises the incarnation and
/// forgets the other servers. Blocks on the disk.
///
/// # Errors
/// As [`inspect`], or the disk.
pub fn make_sole_member(data_dir: &Path) -> Result<(), ServerError> {
    member(data_dir)?;
    // Noted first: after a crash between the two it waits in vain to lead, and the command is given again.
    standing::open_local(data_dir)?.set(Note::Survivor, true)?;
    offline::make_sole_member(&standing::raft_dir(data_dir)).map_err(Error::from)?;
    Ok(())
}

fn member(data_dir: &Path) -> Result<u64, ServerError> {
    let nothing = || Error::Nothing(data_dir.to_owned());
    if !standing::raft_dir(data_dir).exists() {
        return Err(nothing().into());
    }
    let local = standing::open_local(data_dir)?;
    let member = local.member()?;
    let begun = local.has_begun()?.then_some(skep_state::FIRST_MEMBER);
    Ok(member.or(begun).ok_or_else(nothing)?)
}
