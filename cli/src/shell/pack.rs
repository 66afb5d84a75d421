//! A file or folder as a tar on its way into a container: packed on a thread of its own, sent as fast
//! as the other end takes it. Links are packed as links, and never followed below the top.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use skep_model::problem::{Code, Problem};
use tar::{Builder, EntryType, Header, HeaderMode};
use tokio::sync::mpsc;

/// Chunks of this size are sent on, in bytes.
const CHUNK: usize = 32 << 10;
/// Chunks that wait for the connection.
pub(crate) const CHUNKS: usize = 4;

/// What was packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Files, folders and links.
    pub(crate) entries: u64,
    /// Content, in bytes.
    pub(crate) bytes: u64,
}

/// Packs `from` under the name `name` into `chunks`. Blocks. `None` as an error: nobody reads any
/// more, and the reader knows why.
pub(crate) fn pack(
    from: &Path,
    name: &Path,
    chunks: mpsc::Sender<Bytes>,
) -> Result<Summary, Option<Problem>> {
    let writer = ChunkWriter {
        chunks: chunks.clone(),
        buffer: BytesMut::with_capacity(CHUNK),
    };
    let mut builder = Builder::new(writer);
    let mut summary = Summary::default();
    let packed = fs::metadata(from)
        .map_err(|error| unreadable(from, &error))
        .and_then(|found| add_all(&mut builder, (from, &found), name, &mut summary));
    if chunks.is_closed() {
        return Err(None);
    }
    packed.map_err(Some)?;
    let ended = builder.into_inner().and_then(|mut writer| writer.flush());
    ended.map(|()| summary).map_err(|_| None)
}

/// Adds one thing and all below it.
fn add_all<W: Write>(
    builder: &mut Builder<W>,
    (from, found): (&Path, &Metadata),
    name: &Path,
    summary: &mut Summary,
) -> Result<(), Problem> {
    let mut todo: Vec<(PathBuf, Metadata, PathBuf)> =
        vec![(from.to_owned(), found.clone(), name.to_owned())];
    while let Some((from, found, name)) = todo.pop() {
        let failed = |error: io::Error| unreadable(&from, &error);
        add(builder, (&from, &found), &name).map_err(failed)?;
        summary.entries += 1;
        if found.is_file() {
            summary.bytes += found.len();
        }
        if !found.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let found = entry.metadata().map_err(failed)?;
            todo.push((entry.path(), found, name.join(entry.file_name())));
        }
    }
    Ok(())
}

fn add<W: Write>(
    builder: &mut Builder<W>,
    (from, found): (&Path, &Metadata),
    name: &Path,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_metadata_in_mode(found, HeaderMode::Complete);
    // Who owns it here means nobody there.
    header.set_uid(0);
    header.set_gid(0);
    let kind = found.file_type();
    if kind.is_dir() {
        header.set_size(0);
        builder.append_data(&mut header, name, io::empty())
    } else if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, name, fs::read_link(from)?)
    } else if kind.is_file() {
        let file = File::open(from)?;
        // As much as the header says, however the file grows or shrinks meanwhile.
        let mut counted = Counted {
            left: found.len(),
            file,
        };
        builder.append_data(&mut header, name, &mut counted)?;
        match counted.left {
            0 => Ok(()),
            _ => Err(io::Error::other("it became shorter while it was read")),
        }
    } else {
        Err(io::Error::other(
            "it is neither a file, a folder nor a link",
        ))
    }
}

struct Counted {
    left: u64,
    file: File,
}

impl io::Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = io::Read::take(&mut self.file, self.left).read(buffer)?;
        self.left -= read as u64;
        Ok(read)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let text = format!("`{}` cannot be copied: {error}", path.display());
    Problem::new(Code::Invalid, text)
}

/// Hands full chunks to the connection; waits while it has enough.
struct ChunkWriter {
    chunks: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.chunks
            .blocking_send(self.buffer.split().freeze())
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
