//! The format of a snapshot file.
//!
//! Owns the bytes around the state. Never decodes the state inside, and removes nothing.
//!
//! ```text
//! magic 8 | format u32 | index u64 | term u64 | members length u32 | state length u64
//!         | crc32 of all but itself u32 | members | state          (integers little endian)
//! ```

use super::{Error, Loaded, Sum, failed};
use protobuf::Message as _;
use skep_raft_core::{ConfState, Position, Taken};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

const MAGIC: &[u8; 8] = b"SKEPSNAP";
/// Format of the file around the state.
pub const FORMAT_VERSION: u32 = 1;
const FIXED_BYTES: usize = 8 + 4 + 8 + 8 + 4 + 8;
const HEADER_BYTES: usize = FIXED_BYTES + 4;
/// A membership of some servers has tens of bytes; more is damage.
const MAX_MEMBERS_BYTES: usize = 64 << 10;

/// What the snapshot in a file is of, by its header alone.
///
/// # Errors
/// See [`Error`].
pub fn taken(path: &Path) -> Result<Taken, Error> {
    open_header(path).map(|(taken, ..)| taken)
}

/// Everything before the state.
pub(super) fn encode_header(taken: &Taken, state: &[u8]) -> io::Result<Vec<u8>> {
    let members = taken.members.write_to_bytes().map_err(io::Error::other)?;
    let mut header = Vec::with_capacity(HEADER_BYTES + members.len());
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    header.extend_from_slice(&taken.position.index.to_le_bytes());
    header.extend_from_slice(&taken.position.term.to_le_bytes());
    header.extend_from_slice(&(members.len() as u32).to_le_bytes());
    header.extend_from_slice(&(state.len() as u64).to_le_bytes());
    let sum = checksum(&header, &members, state);
    header.extend_from_slice(&sum.to_le_bytes());
    header.extend_from_slice(&members);
    Ok(header)
}

fn checksum(fixed: &[u8], members: &[u8], state: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    [fixed, members, state]
        .iter()
        .for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// Reads and verifies a whole file.
pub(super) fn read(path: &Path) -> Result<Loaded, Error> {
    let (taken, mut file, header) = open_header(path)?;
    let length = file
        .metadata()
        .map_err(|source| failed("read", path, source))?
        .len();
    let before = (HEADER_BYTES + header.members.len()) as u64;
    if length.checked_sub(before) != Some(header.state_bytes) {
        let what = format!(
            "it has {length} bytes, its header says {} and {before} before them",
            header.state_bytes
        );
        return Err(Error::Damaged {
            path: path.to_owned(),
            what,
        });
    }
    let mut state = Vec::with_capacity(header.state_bytes as usize);
    file.read_to_end(&mut state)
        .map_err(|source| failed("read", path, source))?;
    if checksum(&header.fixed, &header.members, &state) != header.checksum {
        let what = "its checksum does not match".to_owned();
        return Err(Error::Damaged {
            path: path.to_owned(),
            what,
        });
    }
    let mut whole = crc32fast::Hasher::new();
    let sum_bytes = header.checksum.to_le_bytes();
    for part in [&header.fixed[..], &sum_bytes, &header.members, &state] {
        whole.update(part);
    }
    let sum = Sum {
        bytes: length,
        crc32: whole.finalize(),
    };
    Ok(Loaded { taken, state, sum })
}

struct Header {
    fixed: [u8; FIXED_BYTES],
    members: Vec<u8>,
    state_bytes: u64,
    checksum: u32,
}

fn open_header(path: &Path) -> Result<(Taken, File, Header), Error> {
    let damaged = |what: &str| Error::Damaged {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let short = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends inside its header"),
        _ => failed("read", path, source),
    };
    let mut file = File::open(path).map_err(|source| failed("open", path, source))?;
    let mut fixed = [0; FIXED_BYTES];
    file.read_exact(&mut fixed).map_err(short)?;
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| fixed[at + i]));
    let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| fixed[at + i]));
    if !fixed.starts_with(MAGIC) {
        return Err(damaged("it does not begin like a snapshot"));
    }
    if half(8) > FORMAT_VERSION {
        return Err(Error::NewerFormat {
            path: path.to_owned(),
            found: half(8),
        });
    }
    let members_bytes = half(28) as usize;
    if half(8) == 0 || members_bytes > MAX_MEMBERS_BYTES {
        return Err(damaged("its header makes no sense"));
    }
    let mut sum = [0; 4];
    file.read_exact(&mut sum).map_err(short)?;
    let mut members = vec![0; members_bytes];
    file.read_exact(&mut members).map_err(short)?;
    let mut decoded = ConfState::default();
    decoded
        .merge_from_bytes(&members)
        .map_err(|_| damaged("its membership does not decode"))?;
    let position = Position {
        index: word(12),
        term: word(20),
    };
    let checksum = u32::from_le_bytes(sum);
    let header = Header {
        fixed,
        members,
        state_bytes: word(32),
        checksum,
    };
    Ok((
        Taken {
            position,
            members: decoded,
        },
        file,
        header,
    ))
}
