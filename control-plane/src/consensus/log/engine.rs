//! [`EngineLog`]: the log in raft-engine, the log store that TiKV keeps for the same library.
//!
//! Owns the directory `log/` and the mark beside it. Each batch holds entries and one state
//! record with the batch's number; opening compares it with the mark, so a log that lost an
//! acknowledged end is told from one whose last, unacknowledged write was torn.

use super::mark::{Acknowledged, Mark};
use super::{Error, FORMAT_VERSION, Loaded, LogStore, Origin};
use crate::consensus::files;
use parking_lot::Mutex;
use protobuf::Message as _;
use raft_engine::{Command, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};
use skep_raft_core::{ConfState, Entry, HardState, Position};
use std::path::{Path, PathBuf};

/// The one Raft group in the engine.
const GROUP: u64 = 1;
const STATE_KEY: &[u8] = b"state";
const ORIGIN_KEY: &[u8] = b"origin";

/// Small files, so that space comes back soon after a compaction.
const FILE_BYTES: u64 = 16 << 20;
/// Files are purged above this; two snapshot intervals of ordinary commands fit below it.
const PURGE_BYTES: u64 = 64 << 20;
/// Batches above this are compressed; a single small command is not worth it.
const COMPRESS_BYTES: u64 = 8 << 10;
/// Enough to read a log of `PURGE_BYTES` at the disk's pace.
const RECOVERY_THREADS: usize = 2;

/// The log in a directory.
pub struct EngineLog {
    engine: Engine,
    dir: PathBuf,
    written: Mutex<Written>,
}

struct Written {
    mark: Mark,
    batch: u64,
    last_index: u64,
}

/// Entries are stored inside an envelope of the same shape, whose data begins with the format.
struct Envelope;

impl MessageExt for Envelope {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

impl EngineLog {
    /// Opens or creates the log in `dir`, with its mark in `mark_path`.
    ///
    /// # Errors
    /// [`Error::Damaged`] when anything acknowledged is missing, [`Error::NewerFormat`], or what
    /// the file system said.
    pub fn open(dir: &Path, mark_path: &Path) -> Result<Self, Error> {
        files::ensure_dir(dir).map_err(|source| Error::File {
            action: "create",
            path: dir.to_owned(),
            source,
        })?;
        let (mark, acknowledged) = Mark::open(mark_path)?;
        let engine = Engine::open(config(dir)).map_err(|error| open_error(dir, error))?;
        let state = engine
            .get(GROUP, STATE_KEY)
            .map(|bytes| decode_state(&bytes, dir));
        let (batch, _) = state.transpose()?.unwrap_or_default();
        if let Some(acknowledged) = acknowledged
            && batch < acknowledged.batch
        {
            return Err(Error::Damaged {
                path: last_file(dir),
                what: format!(
                    "batch {} (up to log index {}) was acknowledged, but the readable part ends \
                     with batch {batch}",
                    acknowledged.batch, acknowledged.index
                ),
            });
        }
        let last_index = engine.last_index(GROUP).unwrap_or(0);
        let written = Mutex::new(Written {
            mark,
            batch,
            last_index,
        });
        Ok(Self {
            engine,
            dir: dir.to_owned(),
            written,
        })
    }

    fn damaged(&self, what: String) -> Error {
        Error::Damaged {
            path: self.dir.clone(),
            what,
        }
    }

    fn fail(&self, action: &'static str) -> impl Fn(raft_engine::Error) -> Error + '_ {
        move |source| Error::Engine {
            action,
            path: self.dir.clone(),
            source,
        }
    }

    fn load_entries(&self, origin: u64) -> Result<Vec<Entry>, Error> {
        let Some(first) = self.engine.first_index(GROUP) else {
            return Ok(Vec::new());
        };
        let last = self.engine.last_index(GROUP).unwrap_or(first);
        let mut envelopes = Vec::new();
        // The engine keeps the last block read for each thread, whichever engine it was of: a
        // thread of its own never meets a block of another directory.
        let read = std::thread::scope(|scope| {
            let engine = &self.engine;
            let envelopes = &mut envelopes;
            scope
                .spawn(move || {
                    engine.fetch_entries_to::<Envelope>(GROUP, first, last + 1, None, envelopes)
                })
                .join()
        });
        let read = match read {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        if let Err(error) = read {
            let index = first + envelopes.len() as u64;
            return Err(self.damaged(format!("entry {index} cannot be read ({error})")));
        }
        let mut entries = Vec::with_capacity(envelopes.len());
        // Each envelope is let go as it is opened: a long log need not be in memory twice.
        for (envelope, index) in envelopes.into_iter().zip(first..) {
            let entry = open_envelope(&envelope, index, &self.dir)?;
            if index > origin {
                entries.push(entry);
            }
        }
        match entries.first() {
            Some(entry) if entry.index != origin + 1 => Err(self.damaged(format!(
                "entries {} to {} are missing",
                origin + 1,
                entry.index - 1
            ))),
            _ => Ok(entries),
        }
    }

    /// The one way to write: numbers the batch, makes it durable, then marks it as such.
    fn write(&self, mut batch: LogBatch, hard_state: &HardState) -> Result<(), Error> {
        let mut written = self.written.lock();
        let number = written.batch + 1;
        batch
            .put(GROUP, STATE_KEY.to_vec(), encode_state(number, hard_state))
            .map_err(self.fail("write to"))?;
        self.engine
            .write(&mut batch, true)
            .map_err(self.fail("write to"))?;
        written.batch = number;
        written.last_index = self.engine.last_index(GROUP).unwrap_or(written.last_index);
        let index = written.last_index;
        written.mark.note(Acknowledged {
            batch: number,
            index,
        })
    }
}

impl LogStore for EngineLog {
    fn load(&self) -> Result<Option<Loaded>, Error> {
        let state = self.engine.get(GROUP, STATE_KEY);
        let origin = self.engine.get(GROUP, ORIGIN_KEY);
        let (state, origin) = match (state, origin) {
            (Some(state), Some(origin)) => (state, origin),
            (None, None) if self.engine.first_index(GROUP).is_none() => return Ok(None),
            (state, _) => {
                let lost = if state.is_some() { "origin" } else { "state" };
                return Err(self.damaged(format!("the {lost} record is missing")));
            }
        };
        let (_, hard_state) = decode_state(&state, &self.dir)?;
        let origin = decode_origin(&origin, &self.dir)?;
        let entries = self.load_entries(origin.position.index)?;
        Ok(Some(Loaded {
            origin,
            hard_state,
            entries,
        }))
    }

    fn append(&self, entries: &[Entry], hard_state: &HardState) -> Result<(), Error> {
        let mut batch = LogBatch::default();
        let envelopes: Vec<Entry> = entries.iter().map(seal_envelope).collect();
        batch
            .add_entries::<Envelope>(GROUP, &envelopes)
            .map_err(self.fail("write to"))?;
        self.write(batch, hard_state)
    }

    fn compact(&self, origin: &Origin, hard_state: &HardState) -> Result<(), Error> {
        let mut batch = LogBatch::default();
        batch
            .put(GROUP, ORIGIN_KEY.to_vec(), encode_origin(origin))
            .map_err(self.fail("compact"))?;
        if self.engine.first_index(GROUP).is_some() {
            let index = origin.position.index + 1;
            batch.add_command(GROUP, Command::Compact { index });
        }
        self.write(batch, hard_state)
    }

    fn reset(&self, origin: &Origin, hard_state: &HardState) -> Result<(), Error> {
        let mut batch = LogBatch::default();
        batch.add_command(GROUP, Command::Clean);
        batch
            .put(GROUP, ORIGIN_KEY.to_vec(), encode_origin(origin))
            .map_err(self.fail("reset"))?;
        self.write(batch, hard_state)
    }

    fn purge(&self) -> Result<(), Error> {
        self.engine
            .purge_expired_files()
            .map(drop)
            .map_err(self.fail("purge"))
    }
}

fn config(dir: &Path) -> raft_engine::Config {
    raft_engine::Config {
        dir: dir.to_string_lossy().into_owned(),
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        recovery_threads: RECOVERY_THREADS,
        batch_compression_threshold: ReadableSize(COMPRESS_BYTES),
        target_file_size: ReadableSize(FILE_BYTES),
        purge_threshold: ReadableSize(PURGE_BYTES),
        // A recycled file holds old records behind the new ones, which would look like damage.
        enable_log_recycle: false,
        ..raft_engine::Config::default()
    }
}

fn open_error(dir: &Path, source: raft_engine::Error) -> Error {
    match source {
        raft_engine::Error::Corruption(_) | raft_engine::Error::Codec(_) => {
            let (path, what) = first_unreadable(dir)
                .unwrap_or_else(|| (dir.to_owned(), format!("a file cannot be read ({source})")));
            Error::Damaged { path, what }
        }
        source => Error::Engine {
            action: "open",
            path: dir.to_owned(),
            source,
        },
    }
}

/// The engine's error does not name its file: reading file by file does. The last file may end
/// in a torn record, so it is looked at last.
fn first_unreadable(dir: &Path) -> Option<(PathBuf, String)> {
    log_files(dir).into_iter().find_map(|path| {
        let records = match Engine::dump(&path) {
            Ok(records) => records,
            Err(error) => return Some((path, format!("the file cannot be read ({error})"))),
        };
        for (number, record) in records.enumerate() {
            if let Err(error) = record {
                return Some((
                    path,
                    format!("the record after {number} good ones: {error}"),
                ));
            }
        }
        None
    })
}

/// Files of appended and of rewritten records, each kind oldest first.
fn log_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(listing) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = listing
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|kind| kind == "raftlog" || kind == "rewrite")
        })
        .collect();
    files.sort();
    files
}

fn last_file(dir: &Path) -> PathBuf {
    log_files(dir)
        .into_iter()
        .rfind(|path| path.extension().is_some_and(|kind| kind == "raftlog"))
        .unwrap_or_else(|| dir.to_owned())
}

fn seal_envelope(entry: &Entry) -> Entry {
    let mut data = vec![FORMAT_VERSION];
    entry
        .write_to_vec(&mut data)
        .expect("an entry has all its required fields");
    Entry {
        index: entry.index,
        term: entry.term,
        data: data.into(),
        ..Entry::default()
    }
}

fn open_envelope(envelope: &Entry, index: u64, dir: &Path) -> Result<Entry, Error> {
    let what = || format!("entry {index}");
    let mut entry = Entry::default();
    entry
        .merge_from_bytes(payload(&envelope.data, &what(), dir)?)
        .map_err(|error| undecodable(dir, &what(), &error))?;
    if entry.index != index || entry.term != envelope.term {
        let what = format!(
            "entry {index} holds (index {}, term {})",
            entry.index, entry.term
        );
        return Err(Error::Damaged {
            path: dir.to_owned(),
            what,
        });
    }
    Ok(entry)
}

fn encode_state(batch: u64, hard_state: &HardState) -> Vec<u8> {
    let mut bytes = vec![FORMAT_VERSION];
    bytes.extend_from_slice(&batch.to_le_bytes());
    hard_state
        .write_to_vec(&mut bytes)
        .expect("a hard state has all its required fields");
    bytes
}

fn decode_state(bytes: &[u8], dir: &Path) -> Result<(u64, HardState), Error> {
    let what = "the state record";
    let (batch, rest) = word(payload(bytes, what, dir)?, what, dir)?;
    let mut hard_state = HardState::default();
    hard_state
        .merge_from_bytes(rest)
        .map_err(|error| undecodable(dir, what, &error))?;
    Ok((batch, hard_state))
}

fn encode_origin(origin: &Origin) -> Vec<u8> {
    let mut bytes = vec![FORMAT_VERSION];
    for value in [origin.server, origin.position.index, origin.position.term] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    origin
        .members
        .write_to_vec(&mut bytes)
        .expect("a membership has all its required fields");
    bytes
}

fn decode_origin(bytes: &[u8], dir: &Path) -> Result<Origin, Error> {
    let what = "the origin record";
    let (server, rest) = word(payload(bytes, what, dir)?, what, dir)?;
    let (index, rest) = word(rest, what, dir)?;
    let (term, rest) = word(rest, what, dir)?;
    let mut members = ConfState::default();
    members
        .merge_from_bytes(rest)
        .map_err(|error| undecodable(dir, what, &error))?;
    Ok(Origin {
        server,
        position: Position { index, term },
        members,
    })
}

fn undecodable(dir: &Path, what: &str, why: &dyn std::fmt::Display) -> Error {
    Error::Damaged {
        path: dir.to_owned(),
        what: format!("{what} does not decode ({why})"),
    }
}

/// What follows the format byte, if this release knows the format.
fn payload<'a>(bytes: &'a [u8], what: &str, dir: &Path) -> Result<&'a [u8], Error> {
    match bytes.split_first() {
        Some((&FORMAT_VERSION, rest)) => Ok(rest),
        Some((&found, _)) if found > FORMAT_VERSION => Err(Error::NewerFormat {
            what: format!("{what} in {}", dir.display()),
            found: u32::from(found),
            known: u32::from(FORMAT_VERSION),
        }),
        _ => Err(undecodable(dir, what, &"no known format")),
    }
}

fn word<'a>(bytes: &'a [u8], what: &str, dir: &Path) -> Result<(u64, &'a [u8]), Error> {
    let (head, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or_else(|| undecodable(dir, what, &"too short"))?;
    Ok((u64::from_le_bytes(*head), rest))
}

#[cfg(test)]
mod tests;
