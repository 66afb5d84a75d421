//! What this server alone knows and must not forget: its id, and that its log was begun. A small
//! sled map; each write is followed by a real fdatasync (sled's own flush does not wait for the
//! disk).

use std::fs::File;
use std::path::{Path, PathBuf};

use skep_model::id::ServerId;

/// Cache of the map: it holds a handful of keys.
const CACHE_BYTES: u64 = 1 << 20;
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
        let open = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .open();
        let db = open.map_err(|source| Error::Open {
            path: dir.to_owned(),
            source,
        })?;
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
        self.db.flush()?;
        File::open(self.dir.join("db"))?.sync_data()?;
        Ok(())
    }
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
}
