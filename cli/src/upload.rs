//! An app's folder on its way to the building node: packed on a thread of its own, compressed, and
//! streamed as fast as the other end reads. Keeps nothing on disk.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use skep_model::problem::{Code, Problem};
use skep_node_agent::build::context::pack;
use tokio::sync::{mpsc, oneshot};

use crate::client::{Body, Client};
use crate::failure::Failure;

/// Compressed chunks of this size are sent on, in bytes.
const CHUNK: usize = 64 << 10;
/// Chunks that wait for the connection.
const CHUNKS: usize = 8;
/// All of an upload: a slow line and a large folder.
const DEADLINE: Duration = Duration::from_secs(3_600);
/// A reader of a broken body: the true reason is told beside it.
const GONE: &str = "the folder could not be read to its end";

/// Streams `folder` to `path` of the API.
///
/// # Errors
/// A file cannot be read, or the server or the building node broke off.
pub(crate) async fn send(client: &Client, path: &str, folder: PathBuf) -> Result<(), Failure> {
    let (chunks, body) = body();
    let (packed, outcome) = oneshot::channel();
    // Ends by itself: when the body is dropped, the next chunk finds nobody.
    tokio::task::spawn_blocking(move || {
        let _ = packed.send(pack_into(&folder, chunks));
    });
    let sent = client
        .put_stream(path, "application/gzip", body, DEADLINE)
        .await;
    match (sent, outcome.await) {
        (_, Ok(Err(Some(problem)))) => Err(problem.into()),
        (sent, _) => Ok(sent?),
    }
}

/// A body fed by the sender beside it. It ends well only by an explicit end: a packer that is
/// gone must never look like a complete folder.
fn body() -> (mpsc::Sender<Chunk>, Body) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let frames = stream::unfold(Some(receiver), |receiver| async {
        let mut receiver: mpsc::Receiver<Chunk> = receiver?;
        match receiver.recv().await {
            Some(Chunk::Data(data)) => Some((Ok(Frame::data(data)), Some(receiver))),
            Some(Chunk::End) => None,
            None => Some((Err(io::Error::other(GONE)), None)),
        }
    });
    (sender, StreamBody::new(frames).boxed())
}

enum Chunk {
    Data(Bytes),
    End,
}

/// Packs and compresses. `None` as an error: nobody reads any more, and the reader knows why.
fn pack_into(folder: &std::path::Path, chunks: mpsc::Sender<Chunk>) -> Result<(), Option<Problem>> {
    let writer = ChunkWriter {
        chunks: chunks.clone(),
        buffer: BytesMut::with_capacity(CHUNK),
    };
    let mut gzip = GzEncoder::new(writer, Compression::fast());
    let packed = pack(folder, &mut gzip);
    if chunks.is_closed() {
        return Err(None);
    }
    packed.map_err(Some)?;
    let ended = gzip.finish().and_then(|mut writer| writer.flush());
    ended.map_err(|error| Some(Problem::new(Code::SourceFailed, format!("{GONE}: {error}"))))?;
    chunks.blocking_send(Chunk::End).map_err(|_| None)
}

/// Hands full chunks to the connection; waits while it has enough.
struct ChunkWriter {
    chunks: mpsc::Sender<Chunk>,
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
        let chunk = Chunk::Data(self.buffer.split().freeze());
        self.chunks
            .blocking_send(chunk)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload ended"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn a_folder_arrives_whole_and_a_broken_one_breaks_the_body() {
        let folder = tempfile::tempdir().expect("a folder");
        let content = "skep ".repeat(100_000);
        std::fs::write(folder.path().join("a.txt"), &content).expect("written");
        let (chunks, arrived) = body();
        let path = folder.path().to_owned();
        let packing = tokio::task::spawn_blocking(move || pack_into(&path, chunks));
        let bytes = arrived.collect().await.expect("whole").to_bytes();
        packing.await.expect("no panic").expect("packed");
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*bytes)
            .read_to_end(&mut plain)
            .expect("gzip");
        let has_content = plain
            .windows(content.len())
            .any(|part| part == content.as_bytes());
        assert!(has_content);

        let (chunks, broken) = body();
        drop(chunks);
        broken.collect().await.expect_err("never a complete folder");
    }
}
