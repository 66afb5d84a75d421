//! What a data folder says of the server that lives in it: who it is, whether it has begun, and what is
//! left from joining. Blocks on the disk; never speaks to anybody.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use skep_identity::seal::SealingKey;
use skep_identity::{key_file, random, secret_file};
use skep_model::id::ServerId;
use skep_state::FIRST_MEMBER;

use super::joining::{self, Kept};
use super::{Error, Options, Start};
use crate::local::{Local, Note};

/// Log and snapshots within the data folder.
pub(crate) const RAFT: &str = "raft";
/// Local facts within the data folder.
pub(crate) const LOCAL: &str = "local";

/// A server as its data folder knows it.
pub(super) struct Standing {
    pub(super) operator: SealingKey,
    pub(super) server: ServerId,
    /// None: it has neither founded nor joined anything.
    pub(super) member: Option<u64>,
    pub(super) has_begun: bool,
    /// Why the incarnation is to be raised, where it is.
    pub(super) raises: Option<Note>,
    /// What it was given when it joined.
    pub(super) kept: Option<Kept>,
}

impl Standing {
    /// Reads it, and makes what is missing of folder, key and identity.
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        secret_file::ensure_private_dir(&options.data_dir)?;
        let operator = key_file::load_or_create(&options.key_file, &options.data_dir)?;
        let local = open_local(&options.data_dir)?;
        let is_rebuild = matches!(options.start, Start::Rebuild(_));
        if local.has(Note::Removed)? && !is_rebuild {
            return Err(Error::Removed(options.data_dir.clone()));
        }
        let has_begun = local.has_begun()?;
        let member = match local.member()? {
            Some(member) => Some(member),
            // Begun before there were member ids to remember: the founder of a cluster of one.
            None => has_begun.then_some(FIRST_MEMBER),
        };
        let standing = Self {
            server: local.server_id(ServerId::from_u128(random::new_id()))?,
            member,
            has_begun,
            raises: raises(&local)?,
            kept: joining::load(&options.data_dir, &operator)?,
            operator,
        };
        match options.start {
            Start::Init if standing.member.is_some() => {
                Err(Error::Occupied(options.data_dir.clone()))
            }
            Start::Join(_) if standing.member.is_some() && standing.kept.is_none() => {
                Err(Error::Occupied(options.data_dir.clone()))
            }
            Start::Rebuild(_) if standing.member.is_none() => {
                Err(Error::NothingToRebuild(options.data_dir.clone()))
            }
            _ => Ok(standing),
        }
    }

    /// Whether the options ask for joining, and that has not been done.
    pub(super) fn is_to_join(&self, start: &Start) -> bool {
        match start {
            Start::Run | Start::Init => false,
            Start::Join(_) => self.member.is_none(),
            Start::Rebuild(_) => true,
        }
    }
}

fn raises(local: &Local) -> Result<Option<Note>, Error> {
    for note in [Note::Restored, Note::Survivor] {
        if local.has(note)? {
            return Ok(Some(note));
        }
    }
    Ok(None)
}

/// Begins a life under `member`: an old log goes aside, and what is kept comes into force.
pub(super) fn begin(
    data_dir: &Path,
    member: u64,
    kept: Option<(&Kept, &SealingKey)>,
) -> Result<(), Error> {
    if let Some((kept, operator)) = kept {
        joining::save(data_dir, kept, operator)?;
    }
    let raft = raft_dir(data_dir);
    if raft.exists() {
        let aside = aside(&raft);
        std::fs::rename(&raft, &aside).map_err(|source| Error::Aside {
            path: raft.clone(),
            source,
        })?;
        tracing::warn!(path = %aside.display(), "the old log is set aside; remove it when the rebuilt server is well");
    }
    open_local(data_dir)?.begin_as(member)?;
    Ok(())
}

fn aside(path: &Path) -> PathBuf {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.unwrap_or_default().as_secs();
    path.with_extension(format!("damaged-{seconds}"))
}

/// Log and snapshots.
pub(super) fn raft_dir(data_dir: &Path) -> PathBuf {
    data_dir.join(RAFT)
}

pub(super) fn open_local(data_dir: &Path) -> Result<Local, Error> {
    Ok(Local::open(&data_dir.join(LOCAL))?)
}

/// Remembers that the log was begun.
pub(super) fn note_begun(data_dir: &Path) -> Result<(), Error> {
    Ok(open_local(data_dir)?.set_begun()?)
}

/// Writes or takes away a note, off the async threads.
pub(super) async fn note(data_dir: &Path, note: Note, is_true: bool) -> Result<(), Error> {
    let data_dir = data_dir.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        open_local(&data_dir)?.set(note, is_true)?;
        Ok(())
    });
    written
        .await
        .map_err(|error| Error::Part(error.to_string()))?
}
