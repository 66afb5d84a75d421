//! Folders on their way from a client to the building node: the two streams meet here and nothing
//! is stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use parking_lot::Mutex;
use skep_model::id::UploadId;
use skep_model::problem::{Code, Problem};
use tokio::sync::mpsc;

/// How long one side waits for the other.
const MEET_DEADLINE: Duration = Duration::from_secs(120);
/// How long a stalled transfer is kept.
const STALL_DEADLINE: Duration = Duration::from_secs(60);
/// Chunks under way: back-pressure from node to client.
const CHUNKS: usize = 16;
/// Uploads that can wait at once.
const MAX_WAITING: usize = 256;
/// Uploads that were begun and are remembered: each can be taken once.
const MAX_BEGUN: usize = 4_096;

type Chunk = Result<Bytes, Problem>;

#[derive(Default)]
struct Waiting {
    /// Clients that wait for their node: where to send.
    offers: BTreeMap<UploadId, tokio::sync::oneshot::Sender<mpsc::Sender<Chunk>>>,
    /// Nodes that wait for their client.
    takes: BTreeMap<UploadId, tokio::sync::oneshot::Sender<mpsc::Receiver<Chunk>>>,
    /// Uploads whose two sides have met. Ids rise with time: the oldest is forgotten first.
    begun: std::collections::BTreeSet<UploadId>,
}

impl Waiting {
    fn begin(&mut self, upload: UploadId) {
        self.begun.insert(upload);
        if self.begun.len() > MAX_BEGUN {
            self.begun.pop_first();
        }
    }
}

/// Where uploads meet. Cheap to clone.
#[derive(Clone, Default)]
pub struct Uploads {
    waiting: Arc<Mutex<Waiting>>,
}

impl Uploads {
    /// Streams `body` to the node that takes `upload`; returns when the node has all of it.
    ///
    /// # Errors
    /// No node came for it in time, the node went away, or the body broke off.
    pub async fn offer<S, E>(&self, upload: UploadId, body: S) -> Result<(), Problem>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::fmt::Display,
    {
        let sender = self.meet_node(upload).await?;
        let mut body = std::pin::pin!(body);
        loop {
            let next = tokio::time::timeout(STALL_DEADLINE, body.next()).await;
            let chunk = match next {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(chunk))) => Ok(chunk),
                Ok(Some(Err(error))) => Err(broken(&format!("the upload broke off: {error}"))),
                Err(_) => Err(broken("the upload stalled")),
            };
            let failed = chunk.as_ref().err().cloned();
            let sent = tokio::time::timeout(STALL_DEADLINE, sender.send(chunk)).await;
            if let Some(problem) = failed {
                return Err(problem);
            }
            if !matches!(sent, Ok(Ok(()))) {
                return Err(broken("the building node stopped reading"));
            }
        }
    }

    async fn meet_node(&self, upload: UploadId) -> Result<mpsc::Sender<Chunk>, Problem> {
        let receiver = {
            let mut waiting = self.waiting.lock();
            if let Some(node) = waiting.takes.remove(&upload) {
                let (sender, chunks) = mpsc::channel(CHUNKS);
                if node.send(chunks).is_ok() {
                    waiting.begin(upload);
                    return Ok(sender);
                }
            }
            if waiting.offers.len() >= MAX_WAITING {
                return Err(Problem::new(Code::Busy, "too many uploads are waiting")
                    .hint("try again in a minute"));
            }
            let (sender, receiver) = tokio::sync::oneshot::channel();
            waiting.offers.insert(upload, sender);
            receiver
        };
        let met = tokio::time::timeout(MEET_DEADLINE, receiver).await;
        match met {
            Ok(Ok(sender)) => Ok(sender),
            Ok(Err(_)) => Err(Problem::new(
                Code::Conflict,
                "the same upload was begun twice",
            )),
            Err(_) => {
                self.waiting.lock().offers.remove(&upload);
                Err(Problem::new(Code::Timeout, "no node came for the upload")
                    .hint("`skep node ls` tells whether a builder is ready; then upload again"))
            }
        }
    }

    /// The chunks of `upload`, as soon as its client is here.
    ///
    /// # Errors
    /// The client did not come in time.
    pub async fn take(&self, upload: UploadId) -> Result<mpsc::Receiver<Chunk>, Problem> {
        let receiver = {
            let mut waiting = self.waiting.lock();
            if waiting.begun.contains(&upload) {
                // Its bytes went to a node that is gone, or has forgotten: nothing is stored.
                return Err(broken("the folder was sent once and the build has lost it"));
            }
            if let Some(client) = waiting.offers.remove(&upload) {
                let (sender, chunks) = mpsc::channel(CHUNKS);
                if client.send(sender).is_ok() {
                    waiting.begin(upload);
                    return Ok(chunks);
                }
            }
            let (sender, receiver) = tokio::sync::oneshot::channel();
            waiting.takes.insert(upload, sender);
            receiver
        };
        let met = tokio::time::timeout(MEET_DEADLINE, receiver).await;
        if let Ok(Ok(chunks)) = met {
            return Ok(chunks);
        }
        self.waiting.lock().takes.remove(&upload);
        Err(broken("the client did not send the folder"))
    }
}

fn broken(text: &str) -> Problem {
    Problem::new(Code::SourceFailed, text).hint("upload again: `skep up`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(
        chunks: &[&'static str],
    ) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + use<> {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|text| Ok(Bytes::from_static(text.as_bytes())))
            .collect();
        futures_util::stream::iter(chunks)
    }

    #[tokio::test]
    async fn both_orders_meet_and_bytes_arrive_in_order() {
        for client_first in [true, false] {
            let uploads = Uploads::default();
            let id = UploadId::from_u128(1);
            let other = uploads.clone();
            let offer = tokio::spawn(async move { other.offer(id, body(&["a", "b"])).await });
            if client_first {
                tokio::task::yield_now().await;
            }
            let mut chunks = uploads.take(id).await.expect("met");
            let mut all = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                all.extend_from_slice(&chunk.expect("whole"));
            }
            assert_eq!(all, b"ab");
            offer.await.expect("no panic").expect("taken");
        }
    }

    #[tokio::test]
    async fn a_node_that_goes_away_is_told_to_the_client() {
        let uploads = Uploads::default();
        let id = UploadId::from_u128(1);
        let other = uploads.clone();
        let many: Vec<&'static str> = vec!["x"; CHUNKS * 4];
        let offer = tokio::spawn(async move { other.offer(id, body(&many)).await });
        drop(uploads.take(id).await.expect("met"));
        let again = uploads.take(id).await.expect_err("an upload is taken once");
        assert_eq!(again.code, Code::SourceFailed);
        let problem = offer.await.expect("no panic").expect_err("node is gone");
        assert_eq!(problem.code, Code::SourceFailed);
        assert!(problem.hint.expect("advice").contains("upload again"));
    }
}
