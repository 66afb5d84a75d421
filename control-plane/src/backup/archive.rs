//! The file: written as pieces that can be streamed, read back whole, and checked in every byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use bytes::Bytes;
use serde::Deserialize;
use skep_identity::digest;
use skep_model::problem::{Code, Problem};
use skep_state::{Cluster, SnapshotError, State};

use super::{Error, FORMAT, Manifest};

const MANIFEST: &str = "manifest.json";
const STATE: &str = "state.bin";
const SUMS: &str = "SHA256SUMS";
/// A manifest and its sums have some hundred bytes.
const MAX_SMALL_BYTES: u64 = 64 << 10;
/// Far above the state of the largest cluster that is planned for.
const MAX_STATE_BYTES: u64 = 8 << 30;
/// A tar archive consists of blocks of this size, the last two of which are empty.
const BLOCK: usize = 512;
/// Compared at a time.
const COMPARE_BYTES: usize = 64 << 10;

/// Who makes a backup, and when.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a> {
    /// The server's name.
    pub server: &'a str,
    /// Its clock, ms since the epoch.
    pub created_ms: u64,
    /// The data key as its operator's key wraps it.
    pub wrapped_data_key: &'a [u8],
}

/// A backup in memory.
#[derive(Debug, Clone)]
pub struct Backup {
    /// What it says of itself.
    pub manifest: Manifest,
    manifest_json: Bytes,
    state: Bytes,
}

impl Backup {
    /// Of `state`, all of which is encoded: not for an async worker thread.
    ///
    /// # Errors
    /// There is no cluster yet.
    pub fn make(state: &State, maker: &Maker<'_>) -> Result<Self, Problem> {
        let cluster = state.cluster().ok_or_else(|| {
            Problem::new(Code::Unavailable, "the cluster is not initialised yet").hint("try again")
        })?;
        let bytes = Bytes::from(state.encode());
        let sum = digest::sha256_hex(&bytes);
        let manifest = Manifest::of((state, cluster), (bytes.len() as u64, sum), maker);
        let json = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        Ok(Self {
            manifest,
            manifest_json: json.into(),
            state: bytes,
        })
    }

    /// Reads and checks a file: sums, format, and that there is nothing else in it. Blocks on the disk.
    ///
    /// # Errors
    /// It cannot be read, is damaged, of a newer format, or something else.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut entries = entries(&file, (path, length))?;
        let sums = entries.remove(SUMS).ok_or_else(|| missing(SUMS))?;
        check_sums(&sums, &entries)?;
        let mut take = |name| entries.remove(name).ok_or_else(|| missing(name));
        let backup = Self::of_parts(take(MANIFEST)?, take(STATE)?)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        backup.compare(BufReader::new(file)).map_err(failed)??;
        Ok(backup)
    }

    fn of_parts(manifest_json: Bytes, state: Bytes) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |error| Error::Damaged(format!("{MANIFEST} cannot be read ({error})"));
        // First: whatever else a newer format says may mean nothing here.
        let Format { format } = serde_json::from_slice(&manifest_json).map_err(unreadable)?;
        if format > FORMAT {
            return Err(Error::Newer { found: format });
        }
        let manifest: Manifest = serde_json::from_slice(&manifest_json).map_err(unreadable)?;
        let is_its_own = manifest.state_bytes == state.len() as u64
            && manifest.state_sha256 == digest::sha256_hex(&state);
        if !is_its_own {
            let text = format!("{MANIFEST} belongs to another {STATE}");
            return Err(Error::Damaged(text));
        }
        Ok(Self {
            manifest,
            manifest_json,
            state,
        })
    }

    /// Restores the state into a scratch one, and checks that encoding it again gives the same bytes and
    /// that the manifest is true.
    ///
    /// # Errors
    /// What is wrong, by name.
    pub fn verify(&self) -> Result<State, Error> {
        let state = State::decode(&self.state).map_err(|error| match error {
            newer @ SnapshotError::Newer { .. } => Error::State(newer),
            other => Error::Damaged(format!("{STATE} is no state ({other})")),
        })?;
        if state.encode() != self.state {
            let text = format!("{STATE} does not encode to the same bytes again");
            return Err(Error::Damaged(text));
        }
        let cluster = cluster_of(&state)?;
        if let Some(what) = self.manifest.difference(&state, cluster) {
            let text = format!("{what} in {MANIFEST} is not the one in {STATE}");
            return Err(Error::Damaged(text));
        }
        Ok(state)
    }

    /// The state's bytes.
    pub(super) fn state(&self) -> &Bytes {
        &self.state
    }

    /// The file, piece by piece.
    pub fn pieces(&self) -> Vec<Bytes> {
        let mut sums = String::new();
        for (name, content) in [(MANIFEST, &self.manifest_json), (STATE, &self.state)] {
            sums.push_str(&format!("{}  {name}\n", digest::sha256_hex(content)));
        }
        let sums = Bytes::from(sums);
        let mut pieces = Vec::new();
        let all = [
            (MANIFEST, &self.manifest_json),
            (STATE, &self.state),
            (SUMS, &sums),
        ];
        for (name, content) in all {
            pieces.push(self.header(name, content.len()));
            pieces.push(content.clone());
            pieces.push(zeros(content.len().next_multiple_of(BLOCK) - content.len()));
        }
        pieces.push(zeros(2 * BLOCK));
        pieces
    }

    /// Size of the file, in bytes.
    pub fn bytes(&self) -> u64 {
        self.pieces().iter().map(|piece| piece.len() as u64).sum()
    }

    fn header(&self, name: &str, size: usize) -> Bytes {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).expect("a short name");
        header.set_size(size as u64);
        header.set_mode(0o600);
        header.set_mtime(self.manifest.created_ms / 1_000);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        Bytes::copy_from_slice(header.as_bytes())
    }

    /// What the sums do not cover (headers, gaps, the end) must be as it was written, too.
    fn compare(&self, mut file: impl Read) -> std::io::Result<Result<(), Error>> {
        let mut buffer = vec![0; COMPARE_BYTES];
        for piece in self.pieces() {
            for wanted in piece.chunks(COMPARE_BYTES) {
                let found = &mut buffer[..wanted.len()];
                match file.read_exact(found) {
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                        let text = "the end of the archive is missing".to_owned();
                        return Ok(Err(Error::Damaged(text)));
                    }
                    other => other?,
                }
                if found != wanted {
                    let text = "bytes between its parts are not as they were written".to_owned();
                    return Ok(Err(Error::Damaged(text)));
                }
            }
        }
        if file.read(&mut buffer[..1])? != 0 {
            let text = "there is something behind its end".to_owned();
            return Ok(Err(Error::Damaged(text)));
        }
        Ok(Ok(()))
    }
}

pub(super) fn cluster_of(state: &State) -> Result<&Cluster, Error> {
    let missing = || Error::Damaged(format!("there is no cluster in {STATE}"));
    Ok(state.cluster().ok_or_else(missing)?)
}

fn missing(name: &str) -> Error {
    Error::Damaged(format!("it ends before {name}"))
}

fn zeros(count: usize) -> Bytes {
    Bytes::from_static(&[0; 2 * BLOCK]).slice(..count)
}

/// The parts that are known here, by name.
fn entries(file: &File, (path, length): (&Path, u64)) -> Result<BTreeMap<String, Bytes>, Error> {
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut found = BTreeMap::new();
    let damaged = |error: std::io::Error| Error::Damaged(format!("it cannot be read on ({error})"));
    let not_one = |why: String| Error::NotOne {
        path: path.to_owned(),
        why,
    };
    for entry in archive.entries().map_err(damaged)? {
        // The first header tells an archive from anything else.
        let entry = match (entry, found.is_empty()) {
            (Err(error), true) => return Err(not_one(error.to_string())),
            (entry, _) => entry.map_err(damaged)?,
        };
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let limit = match name.as_str() {
            MANIFEST | SUMS => MAX_SMALL_BYTES,
            STATE => MAX_STATE_BYTES,
            _ if found.is_empty() => return Err(not_one(format!("it begins with `{name}`"))),
            // A newer format may have more; what it is, the manifest says.
            _ => continue,
        };
        let size = entry.size();
        if size > limit {
            return Err(Error::Damaged(format!("{name} has {size} bytes")));
        }
        if size > length {
            return Err(Error::Damaged(format!("it ends within {name}")));
        }
        let mut content = Vec::with_capacity(size as usize);
        entry
            .take(limit)
            .read_to_end(&mut content)
            .map_err(damaged)?;
        if content.len() as u64 != size {
            return Err(Error::Damaged(format!("it ends within {name}")));
        }
        found.insert(name, content.into());
    }
    match found.is_empty() {
        true => Err(not_one("it is empty".to_owned())),
        false => Ok(found),
    }
}

/// Each part under its sum, as `sha256sum` writes them.
fn check_sums(sums: &Bytes, entries: &BTreeMap<String, Bytes>) -> Result<(), Error> {
    let text = String::from_utf8_lossy(sums);
    let told: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once("  ").map(|(sum, name)| (name, sum)))
        .collect();
    for name in [MANIFEST, STATE] {
        let content = entries.get(name).ok_or_else(|| missing(name))?;
        let sum = told.get(name).copied().unwrap_or_default();
        if sum != digest::sha256_hex(content) {
            let text = format!("{name} does not match its sum in {SUMS}");
            return Err(Error::Damaged(text));
        }
    }
    Ok(())
}
