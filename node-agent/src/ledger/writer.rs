//! The one thread that writes the ledger. Changes that come while it syncs share the next sync.

use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::{Change, Error, Ledger};
use crate::metrics::Metrics;

/// Batches that may wait; whoever has more waits for room.
const QUEUE_MAX: usize = 256;
/// Changes in one batch of sled: larger ones cost it far more than their size.
const BATCH_MAX: usize = 4_000;

struct Request {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), Error>>,
}

/// Hands changes to the writing thread. The thread ends when every handle is gone.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Request>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request({})", self.changes.len())
    }
}

impl Writer {
    /// Starts the thread, which owns `ledger` from now on.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn start(
        ledger: impl Ledger,
        metrics: Metrics,
    ) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let thread = thread::Builder::new()
            .name("ledger".into())
            .spawn(move || write(ledger, requests, &metrics))?;
        Ok((Self { queue }, thread))
    }

    /// Writes `changes`; durable when it answers. Order is kept.
    ///
    /// # Errors
    /// What the disk said.
    pub(crate) async fn write(&self, changes: Vec<Change>) -> Result<(), Error> {
        self.queue(changes)
            .await?
            .await
            .map_err(|_| Error::Closed)?
    }

    /// Queues `changes` and answers with a receiver of the result.
    async fn queue(
        &self,
        changes: Vec<Change>,
    ) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
        let (done, result) = oneshot::channel();
        let request = Request { changes, done };
        self.queue.send(request).await.map_err(|_| Error::Closed)?;
        Ok(result)
    }

    /// Writes `changes` soon: after a crash they may be missing. A failure is logged.
    pub(crate) async fn write_soon(&self, changes: Vec<Change>) {
        // The thread logs what it cannot write: the result is of interest to nobody else.
        let _ = self.queue(changes).await;
    }
}

fn write(mut ledger: impl Ledger, mut requests: mpsc::Receiver<Request>, metrics: &Metrics) {
    while let Some(first) = requests.blocking_recv() {
        let mut group = vec![first];
        while group
            .iter()
            .map(|request| request.changes.len())
            .sum::<usize>()
            < BATCH_MAX
        {
            match requests.try_recv() {
                Ok(next) => group.push(next),
                Err(_) => break,
            }
        }
        let changes: Vec<Change> = group.iter_mut().flat_map(|r| r.changes.drain(..)).collect();
        metrics.ledger_write();
        let mut result = Ok(());
        for part in changes.chunks(BATCH_MAX) {
            result = ledger.apply(part);
            if result.is_err() {
                break;
            }
        }
        match result {
            Ok(()) => group.into_iter().for_each(|request| {
                let _ = request.done.send(Ok(()));
            }),
            Err(error) => {
                let why = crate::error_chain(&error);
                tracing::error!(%why, "cannot write the ledger");
                // One error, several that wait for it: the first gets it whole.
                let mut error = Some(error);
                for request in group {
                    let _ = request
                        .done
                        .send(Err(error.take().unwrap_or(Error::Closed)));
                }
            }
        }
    }
}
