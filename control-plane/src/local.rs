//! What this server alone knows and must not forget: its id and member id, that its log was begun, and
//! what must be done at the next start. A small sled map; each write is followed by a real fdatasync (sled's own flush does not wait for the
//! disk).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use skep_model::id::ServerId;

/// Cache of the map: it holds a handful of keys.
const CACHE_BYTES: u64 = 1 << 20;
/// sled frees its lock on a thread of its own some time after the last handle is dropped, and tells
/// nobody: whoever opens it again soon has to look again.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Format of the values: first byte of each.
const FORMAT: u8 = 1;

/// Local facts could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store does not open.
    #[error("the server's local facts at {path} cannot be opened", path = .path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// Why.
        source: sled::Error,
    },
    /// A read or write failed.
    #[error("the server's local facts cannot be read or written")]
    Access(#[from] sled::Error),
    /// The disk did not take it.
    #[error("the server's local facts could not be synced to disk")]
    Sync(#[from] std::io::Error),
    /// A value that this build does not understand.
    #[error("local fact `{key}` has an unknown format: was it written by a newer skep?")]
    Format {
        /// Which.
        key: &'static str,
    },
}

/// What must be remembered from one start to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The cluster has removed this server: it does not start again as it is.
    Removed,
    /// This server was made the whole group: the incarnation is to be raised.
    Survivor,
    /// This server's data was restored from a backup: the incarnation is to be raised.
    Restored,
}

impl Note {
    const fn key(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Survivor => "survivor",
            Self::Restored => "restored",
        }
    }
}

/// The facts.
pub struct Local {
    db: sled::Db,
    dir: PathBuf,
}

impl Local {
    /// Opens or makes the store. Blocks on the disk.
    ///
    /// # Errors
    /// It does not open.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let mut tries = 1;
        let db = loop {
            match config.open() {
                Ok(db) => break db,
                Err(error) if is_locked(&error) && tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(source) => {
                    let path = dir.to_owned();
                    return Err(Error::Open { path, source });
                }
            }
        };
        Ok(Self {
            db,
            dir: dir.to_owned(),
        })
    }

    /// This server's identity; `fresh` becomes it where there is none yet.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn server_id(&self, fresh: ServerId) -> Result<ServerId, Error> {
        const KEY: &str = "server_id";
        if let Some(value) = self.get(KEY)? {
            let bytes = <[u8; 16]>::try_from(&*value).map_err(|_| Error::Format { key: KEY })?;
            return Ok(ServerId::from_u128(u128::from_be_bytes(bytes)));
        }
        self.put(KEY, &fresh.as_u128().to_be_bytes())?;
        Ok(fresh)
    }

    /// Whether the log was begun here before: then an empty log directory is a loss.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn has_begun(&self) -> Result<bool, Error> {
        Ok(self.get("begun")?.is_some())
    }

    /// Remembers that the log was begun.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn set_begun(&self) -> Result<(), Error> {
        self.put("begun", &[])
    }

    /// This server's member id in the Raft group; none: it has not been given one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn member(&self) -> Result<Option<u64>, Error> {
        const KEY: &str = "member";
        let Some(value) = self.get(KEY)? else {
            return Ok(None);
        };
        let bytes = <[u8; 8]>::try_from(&*value).map_err(|_| Error::Format { key: KEY })?;
        Ok(Some(u64::from_be_bytes(bytes)))
    }

    /// Begins a life under this member id: whatever log there was belonged to another one.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn begin_as(&self, member: u64) -> Result<(), Error> {
        let mut value = vec![FORMAT];
        value.extend_from_slice(&member.to_be_bytes());
        let mut batch = sled::Batch::default();
        batch.insert("member", value);
        batch.remove("begun");
        batch.remove(Note::Removed.key());
        self.db.apply_batch(batch)?;
        self.sync()
    }

    /// Whether this is noted.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn has(&self, note: Note) -> Result<bool, Error> {
        Ok(self.get(note.key())?.is_some())
    }

    /// Notes it, or takes the note away.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn set(&self, note: Note, is_true: bool) -> Result<(), Error> {
        if is_true {
            return self.put(note.key(), &[]);
        }
        self.db.remove(note.key())?;
        self.sync()
    }

    fn get(&self, key: &'static str) -> Result<Option<Vec<u8>>, Error> {
        let Some(value) = self.db.get(key)? else {
            return Ok(None);
        };
        match value.split_first() {
            Some((&FORMAT, rest)) => Ok(Some(rest.to_vec())),
            _ => Err(Error::Format { key }),
        }
    }

    fn put(&self, key: &'static str, value: &[u8]) -> Result<(), Error> {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(value);
        self.db.insert(key, bytes)?;
        self.sync()
    }

    fn sync(&self) -> Result<(), Error> {
        self.db.flush()?;
        File::open(self.dir.join("db"))?.sync_data()?;
        Ok(())
    }
}

/// Whether another holder of the map's lock is in the way. sled has no kind of its own for that.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_survive_a_reopen() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (first, second) = (ServerId::from_u128(1), ServerId::from_u128(2));
        {
            let local = Local::open(dir.path()).expect("opens");
            assert!(!local.has_begun().expect("reads"));
            assert_eq!(local.server_id(first).expect("writes"), first);
            local.set_begun().expect("writes");
        }
        let local = Local::open(dir.path()).expect("opens again");
        assert_eq!(local.server_id(second).expect("reads"), first);
        assert!(local.has_begun().expect("reads"));
    }

    #[test]
    fn a_new_member_id_is_a_new_life() {
        let dir = tempfile::tempdir().expect("temporary folder");
        {
            let local = Local::open(dir.path()).expect("opens");
            assert_eq!(local.member().expect("reads"), None);
            local.set_begun().expect("writes");
            local.set(Note::Removed, true).expect("writes");
            local.set(Note::Survivor, true).expect("writes");
            local.begin_as(7).expect("writes");
        }
        let local = Local::open(dir.path()).expect("opens again");
        assert_eq!(local.member().expect("reads"), Some(7));
        assert!(!local.has_begun().expect("reads"));
        assert!(!local.has(Note::Removed).expect("reads"));
        assert!(local.has(Note::Survivor).expect("reads"));
        local.set(Note::Survivor, false).expect("writes");
        assert!(!local.has(Note::Survivor).expect("reads"));
    }
}
