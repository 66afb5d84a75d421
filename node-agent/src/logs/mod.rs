//! Logs of the apps: read where somebody asks for them and streamed to the server, and shipped to
//! where operators keep theirs. Keeps nothing: Docker's log files are the store, read as files, or
//! through Docker where they are out of reach.

mod docker;
pub(crate) mod files;
mod filter;
mod lines;
mod places;
mod read;
pub(crate) mod ship;
mod spooled;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use skep_model::id::AllocationId;
use skep_model::problem::{Code, Problem};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::runtime::Runtime;
use crate::servers::Servers;

/// Requests served at a time.
const REQUESTS_MAX: usize = 64;
/// Chunks between Docker and the connection.
const CHUNKS_MAX: usize = 4;

pub(crate) use files::Watcher;
pub(crate) use places::{Container, Place, Places};
use read::Stop;

/// What somebody wants to read.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Names it within the session.
    pub(crate) request: u64,
    /// Whose log.
    pub(crate) allocation: AllocationId,
    /// Go on when the end is reached.
    pub(crate) follow: bool,
    /// Newest lines to begin with; 0: all.
    pub(crate) tail: u32,
    /// Only lines after this, ns since the epoch; 0: all.
    pub(crate) after_ns: u64,
    /// Only lines before this, ns since the epoch; 0: all.
    pub(crate) until_ns: u64,
    /// Only lines that this regular expression is found in; empty: all.
    pub(crate) grep: String,
}

/// Serves requests for logs, each in a task of its own.
#[derive(Clone)]
pub(crate) struct Logs {
    runtime: Runtime,
    places: watch::Receiver<Places>,
    servers: Servers,
    watcher: Watcher,
    open: Arc<Mutex<HashMap<u64, CancellationToken>>>,
}

impl Logs {
    /// Reads from `runtime` what `places` names, and sends it to the server of the session.
    pub(crate) fn new(
        runtime: Runtime,
        places: watch::Receiver<Places>,
        servers: Servers,
        watcher: Watcher,
    ) -> Self {
        Self {
            runtime,
            places,
            servers,
            watcher,
            open: Arc::default(),
        }
    }

    /// Begins to serve a request; one of the same number is ended by it.
    pub(crate) fn open(&self, request: Request) {
        let number = request.request;
        let cancel = CancellationToken::new();
        let busy = {
            let mut open = self.open.lock();
            if let Some(older) = open.insert(number, cancel.clone()) {
                older.cancel();
            }
            open.len() > REQUESTS_MAX
        };
        let logs = self.clone();
        tokio::spawn(async move {
            let served = logs.serve(request, busy);
            if let Some(Err(status)) = cancel.run_until_cancelled(served).await {
                tracing::debug!(%status, "a log could not be sent");
            }
            if !cancel.is_cancelled() {
                logs.open.lock().remove(&number);
            }
        });
    }

    /// Ends a request.
    pub(crate) fn cancel(&self, request: u64) {
        if let Some(cancel) = self.open.lock().remove(&request) {
            cancel.cancel();
        }
    }

    /// Ends all: the session that asked is gone.
    pub(crate) fn cancel_all(&self) {
        self.open
            .lock()
            .drain()
            .for_each(|(_, cancel)| cancel.cancel());
    }

    async fn serve(&self, request: Request, busy: bool) -> Result<(), tonic::Status> {
        let (chunks, queue) = mpsc::channel(CHUNKS_MAX);
        let mut client = AgentsClient::new(self.servers.channel());
        let sent = client.send_logs(ReceiverStream::new(queue));
        let read = self.read(request, busy, chunks);
        let (sent, ()) = tokio::join!(sent, read);
        sent.map(|_| ())
    }

    async fn read(&self, request: Request, busy: bool, chunks: mpsc::Sender<v1::LogChunk>) {
        let empty = v1::LogChunk {
            request: request.request,
            allocation: id_bytes(request.allocation.as_u128()),
            ..Default::default()
        };
        // Tells the server which request this stream answers, however long the log keeps silent.
        if chunks.send(empty.clone()).await.is_err() {
            return;
        }
        let result = if busy {
            let message = format!("{REQUESTS_MAX} logs are being read on this node already");
            Err(Problem::new(Code::Busy, message).hint("close some, or try again later"))
        } else {
            read::read(self, &request, &chunks, &empty).await
        };
        if let Err(problem) = result {
            let problem = Some((&problem).into());
            // Fails only when nobody waits for it any more.
            let _ = chunks.send(v1::LogChunk { problem, ..empty }).await;
        }
    }

    /// The files of a container's log; none: they are out of reach, and Docker has to be asked.
    async fn spool(&self, container: &str) -> Result<Option<files::Spool>, Stop> {
        self.runtime.spool(container).await.map_err(|error| {
            let why = crate::error_chain(&error);
            Stop::Problem(Problem::new(Code::Runtime, why))
        })
    }
}
