//! A snapshot on its way in: chunks go to disk as they come, off the async threads, and what has
//! arrived stays for the next attempt when the stream breaks off.

use std::time::Duration;

use skep_proto::v1;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::consensus::Handle;
use crate::consensus::incoming::{Error, Incoming, SnapshotOffer};
use crate::machine::Machine;

/// A sender that sends nothing for so long has gone; above its own deadline.
const STALL: Duration = Duration::from_secs(20);

/// The next chunk, in time.
pub(super) async fn next(
    chunks: &mut Streaming<v1::SnapshotChunk>,
) -> Result<Option<v1::SnapshotChunk>, Status> {
    timeout(STALL, chunks.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the snapshot stalled"))?
}

/// How much of an offered snapshot is here already.
pub(super) async fn place(
    consensus: Handle<Machine>,
    offer: v1::SnapshotOffer,
) -> Result<u64, Status> {
    Ok(open(consensus, offer).await?.offset())
}

/// Takes a snapshot in, of which `first` is here; returns when it is verified and on disk.
pub(super) async fn whole(
    consensus: Handle<Machine>,
    first: v1::SnapshotChunk,
    mut chunks: Streaming<v1::SnapshotChunk>,
) -> Result<(), Status> {
    let offer = first
        .offer
        .ok_or_else(|| Status::invalid_argument("a snapshot begins with its offer"))?;
    let mut incoming = open(consensus, offer).await?;
    let message = first.message.clone();
    let mut chunk = first;
    loop {
        if chunk.offset != incoming.offset() {
            return Err(Status::aborted("the chunk is not the next one"));
        }
        incoming = blocking(move || incoming.write(&chunk.data).map(|()| incoming)).await?;
        if incoming.offset() == offer.bytes {
            return blocking(move || incoming.finish(message)).await;
        }
        chunk = next(&mut chunks)
            .await?
            .ok_or_else(|| Status::aborted("the snapshot broke off"))?;
    }
}

async fn open(consensus: Handle<Machine>, offer: v1::SnapshotOffer) -> Result<Incoming, Status> {
    let offer = SnapshotOffer {
        from: offer.from,
        index: offer.index,
        term: offer.term,
        bytes: offer.bytes,
        crc32: offer.crc32,
    };
    blocking(move || consensus.receive_snapshot(offer)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Status> {
    match spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| refused(&error)),
        Err(_) => Err(Status::internal("a worker thread ended")),
    }
}

/// What the sender is to make of it: `FailedPrecondition` alone is final.
fn refused(error: &Error) -> Status {
    let text = error.to_string();
    match error {
        Error::TooLarge { .. } => Status::failed_precondition(text),
        Error::Length { .. } | Error::Corrupt { .. } | Error::Superseded => Status::aborted(text),
        Error::Busy | Error::Stopped => Status::unavailable(text),
        Error::File { .. } | Error::Snapshot(_) => {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "a snapshot cannot be taken in"
            );
            Status::internal(text)
        }
    }
}
