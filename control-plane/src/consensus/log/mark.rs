//! The high-water mark: how much of the log has been acknowledged.
//!
//! After a crash the log's last file ends in a torn record, and its reader cuts there. Whether
//! that record had been acknowledged only a second witness can tell. The mark is written after
//! each durable append and synced at intervals, so it never claims more than the log holds, and
//! misses at most what was written in the last moments before a power cut.

use super::Error;
use crate::consensus::files;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MAGIC: &[u8; 8] = b"SKEPMARK";
const VERSION: u32 = 1;
const RECORD_BYTES: usize = 8 + 4 + 8 + 8 + 4;
/// Two records in turn, each in a sector of its own: a torn write leaves the other.
const SLOT_BYTES: u64 = 512;
/// An fsync a second is not felt beside the log's own, and bounds what a power cut can hide.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How far the log has been acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Number of the batch.
    pub batch: u64,
    /// Last index of the log then.
    pub index: u64,
}

/// The open mark file.
#[derive(Debug)]
pub struct Mark {
    file: File,
    path: PathBuf,
    slot: u64,
    synced: Instant,
}

impl Mark {
    /// Opens or makes the file and reads what it says.
    ///
    /// # Errors
    /// [`Error::Damaged`] when neither record is readable, [`Error::NewerFormat`].
    pub fn open(path: &Path) -> Result<(Self, Option<Acknowledged>), Error> {
        let fail = |action, source| Error::File {
            action,
            path: path.to_owned(),
            source,
        };
        let is_new = !path.exists();
        let file = files::open_rw(path).map_err(|error| fail("open", error))?;
        if is_new && let Some(dir) = path.parent() {
            files::sync_dir(dir).map_err(|error| fail("sync the directory of", error))?;
        }
        let length = file.metadata().map_err(|error| fail("read", error))?.len();
        let mut records = Vec::new();
        for slot in 0..2 {
            let mut bytes = [0; RECORD_BYTES];
            if length >= slot * SLOT_BYTES + RECORD_BYTES as u64 {
                file.read_exact_at(&mut bytes, slot * SLOT_BYTES)
                    .map_err(|error| fail("read", error))?;
            }
            records.push((slot, decode(&bytes, path)?));
        }
        let newest = records
            .into_iter()
            .filter_map(|(slot, record)| record.map(|record| (slot, record)))
            .max_by_key(|(_, record)| record.batch);
        if newest.is_none() && length > 0 {
            return Err(Error::Damaged {
                path: path.to_owned(),
                what: "the high-water mark has no readable record".to_owned(),
            });
        }
        let slot = newest.map_or(0, |(slot, _)| 1 - slot);
        let mark = Self {
            file,
            path: path.to_owned(),
            slot,
            synced: Instant::now(),
        };
        Ok((mark, newest.map(|(_, record)| record)))
    }

    /// Notes what has just become durable in the log.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn note(&mut self, acknowledged: Acknowledged) -> Result<(), Error> {
        let fail = |action, source| Error::File {
            action,
            path: self.path.clone(),
            source,
        };
        self.file
            .write_all_at(&encode(acknowledged), self.slot * SLOT_BYTES)
            .map_err(|error| fail("write", error))?;
        self.slot = 1 - self.slot;
        if self.synced.elapsed() >= SYNC_INTERVAL {
            self.file.sync_data().map_err(|error| fail("sync", error))?;
            self.synced = Instant::now();
        }
        Ok(())
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Err(error) = self.file.sync_data() {
            tracing::warn!(path = %self.path.display(), %error, "cannot sync the high-water mark");
        }
    }
}

fn encode(acknowledged: Acknowledged) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&acknowledged.batch.to_le_bytes());
    bytes.extend_from_slice(&acknowledged.index.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; RECORD_BYTES], path: &Path) -> Result<Option<Acknowledged>, Error> {
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    if !bytes.starts_with(MAGIC) || half(28) != crc32fast::hash(&bytes[..28]) {
        return Ok(None);
    }
    if half(8) > VERSION {
        let what = format!("the high-water mark {}", path.display());
        return Err(Error::NewerFormat {
            what,
            found: half(8),
            known: VERSION,
        });
    }
    Ok(Some(Acknowledged {
        batch: word(12),
        index: word(20),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_record_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let (mut mark, found) = Mark::open(&path).unwrap();
        assert_eq!(found, None);
        for batch in 1..=3 {
            mark.note(Acknowledged {
                batch,
                index: batch * 10,
            })
            .unwrap();
        }
        drop(mark);
        assert_eq!(
            Mark::open(&path).unwrap().1,
            Some(Acknowledged {
                batch: 3,
                index: 30
            })
        );
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[14] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (mut mark, found) = Mark::open(&path).unwrap();
        assert_eq!(
            found,
            Some(Acknowledged {
                batch: 2,
                index: 20
            })
        );
        mark.note(Acknowledged {
            batch: 4,
            index: 40,
        })
        .unwrap();
        drop(mark);
        assert_eq!(
            Mark::open(&path).unwrap().1,
            Some(Acknowledged {
                batch: 4,
                index: 40
            })
        );
        std::fs::write(&path, vec![0xaa; bytes.len()]).unwrap();
        let error = Mark::open(&path).unwrap_err();
        assert!(error.to_string().contains("mark"), "{error}");
    }
}
