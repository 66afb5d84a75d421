//! A snapshot on its way to a peer that is too far behind for the log: over a connection of its own,
//! so that no heartbeat waits for it, as fast as the receiver takes it, and from where it broke off.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use skep_proto::v1;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use super::links::Links;
use super::metrics::add;
use super::transport::{Post, reason};
use crate::consensus::Handle;
use crate::consensus::transport::SnapshotSend;
use crate::machine::Machine;

/// Bytes of one chunk.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// A transfer that moves nothing for so long has broken off.
const STALL: Duration = Duration::from_secs(15);
/// The receiver verifies, syncs and installs the whole after the last chunk.
const INSTALL: Duration = Duration::from_secs(120);
/// Attempts in a row that bring nothing over.
const MAX_FRUITLESS: usize = 4;
/// Pause before the next attempt: nothing tells when a broken path is whole again.
const RETRY: Duration = Duration::from_millis(500);

/// Sends one snapshot and tells consensus how it went.
pub(super) async fn run(
    links: Links,
    consensus: Handle<Machine>,
    post: Arc<Post>,
    job: SnapshotSend,
) {
    let to = job.to;
    let sent = attempts(&links, &job).await;
    match &sent {
        Ok(()) => {
            add(&post.counters.snapshots_sent, 1);
            tracing::info!(member = to, bytes = job.bytes, "snapshot sent");
        }
        Err(status) => {
            add(&post.counters.snapshots_failed, 1);
            tracing::warn!(member = to, why = %reason(status), "snapshot not sent");
        }
    }
    consensus.snapshot_sent(to, sent.is_ok());
}

async fn attempts(links: &Links, job: &SnapshotSend) -> Result<(), Status> {
    // One open file: it stays readable when a newer snapshot takes its place on disk.
    let file = File::open(&job.path)
        .await
        .map_err(|error| Status::data_loss(format!("{}: {error}", job.path.display())))?;
    let (mut furthest, mut fruitless) = (0, 0);
    loop {
        let moved = watch::Sender::new(0);
        let mut progress = moved.subscribe();
        let file = file.try_clone().await.map_err(disk)?;
        let failed = match attempt(links, job, file, moved).await {
            Ok(()) => return Ok(()),
            Err(status) => status,
        };
        let reached = *progress.borrow_and_update();
        fruitless = if reached > furthest { 0 } else { fruitless + 1 };
        furthest = furthest.max(reached);
        // What the receiver refuses, it refuses again.
        let is_final = matches!(failed.code(), Code::FailedPrecondition | Code::DataLoss);
        if is_final || fruitless >= MAX_FRUITLESS {
            return Err(failed);
        }
        tracing::debug!(member = job.to, reached, why = %reason(&failed), "snapshot broke off");
        sleep(RETRY).await;
    }
}

async fn attempt(
    links: &Links,
    job: &SnapshotSend,
    mut file: File,
    moved: watch::Sender<u64>,
) -> Result<(), Status> {
    let directory = links.directory();
    let contact = directory
        .get(job.to)
        .ok_or_else(|| Status::failed_precondition("the server was removed from the cluster"))?;
    let mut client = links.fresh(&contact)?;
    let offer = v1::SnapshotOffer {
        from: directory.own(),
        index: job.meta.position.index,
        term: job.meta.position.term,
        bytes: job.bytes,
        crc32: job.crc32,
    };
    let place = timeout(STALL, client.offer_snapshot(offer))
        .await
        .map_err(|_| Status::deadline_exceeded("no answer to the offer of a snapshot"))??;
    let offset = place.into_inner().offset.min(job.bytes);
    file.seek(std::io::SeekFrom::Start(offset))
        .await
        .map_err(disk)?;
    let watched = moved.subscribe();
    moved.send_replace(offset);
    let chunks = Chunks {
        file,
        first: Some((offer, job.message.clone())),
        offset,
        bytes: job.bytes,
        moved,
    };
    tokio::select! {
        sent = client.send_snapshot(chunks.stream()) => sent.map(|_| ()),
        () = stalled(watched) => Err(Status::deadline_exceeded("the receiver takes nothing more")),
        () = directory.until_removed(&contact) => Err(Status::failed_precondition("the server was removed from the cluster")),
    }
}

/// Returns when nothing moves any more, or when the receiver needs too long for the end.
async fn stalled(mut moved: watch::Receiver<u64>) {
    loop {
        match timeout(STALL, moved.changed()).await {
            Ok(Ok(())) => {}
            // The last chunk is out of hand.
            Ok(Err(_)) => return sleep(INSTALL).await,
            Err(_) => return,
        }
    }
}

/// What is still to be read.
struct Chunks {
    file: File,
    first: Option<(v1::SnapshotOffer, Vec<u8>)>,
    offset: u64,
    bytes: u64,
    moved: watch::Sender<u64>,
}

impl Chunks {
    fn stream(self) -> impl Stream<Item = v1::SnapshotChunk> + Send {
        futures_util::stream::unfold(self, |mut chunks| async move {
            let chunk = chunks.next().await?;
            Some((chunk, chunks))
        })
    }

    /// None: all is read, or the file is shorter than it was: the receiver finds that out by the
    /// size that it was offered.
    async fn next(&mut self) -> Option<v1::SnapshotChunk> {
        let left = usize::try_from(self.bytes - self.offset).unwrap_or(usize::MAX);
        // The first chunk carries the offer, even if the receiver has all of the bytes.
        if left == 0 && self.first.is_none() {
            return None;
        }
        let mut data = vec![0; left.min(CHUNK_BYTES)];
        if let Err(error) = self.file.read_exact(&mut data).await {
            tracing::error!(%error, "a snapshot cannot be read");
            return None;
        }
        let (offer, message) = self.first.take().unzip();
        let chunk = v1::SnapshotChunk {
            offer,
            message: message.unwrap_or_default(),
            offset: self.offset,
            data,
        };
        self.offset += chunk.data.len() as u64;
        self.moved.send_replace(self.offset);
        Some(chunk)
    }
}

fn disk(error: std::io::Error) -> Status {
    Status::data_loss(format!("a snapshot cannot be read: {error}"))
}
