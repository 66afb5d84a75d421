//! Folders on their way from a client to the building node: the two streams meet here and nothing
//! is stored. Where the client is at another server, the node's stream goes on to there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{Stream, StreamExt as _};
use parking_lot::Mutex;
use skep_model::id::UploadId;
use skep_model::problem::{Code, Problem};
use tokio::sync::{mpsc, oneshot};

use super::elsewhere::{Chunks, Elsewhere};

/// How long one side waits for the other.
const MEET_DEADLINE: Duration = Duration::from_secs(120);
/// How long a stalled transfer is kept.
pub(crate) const STALL_DEADLINE: Duration = Duration::from_secs(60);
/// Chunks under way: back-pressure from node to client.
pub(crate) const CHUNKS: usize = 16;
/// Uploads that can wait at once.
const MAX_WAITING: usize = 256;
/// Uploads that were begun and are remembered: each can be taken once.
const MAX_BEGUN: usize = 4_096;

type Chunk = Result<Bytes, Problem>;

#[derive(Default)]
struct Waiting {
    /// Clients that wait for their node: where to send.
    offers: BTreeMap<UploadId, oneshot::Sender<mpsc::Sender<Chunk>>>,
    /// Nodes that wait for their client; a later one takes the place of an earlier one.
    takes: BTreeMap<UploadId, (u64, oneshot::Sender<Chunks>)>,
    next_take: u64,
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
    elsewhere: Option<Arc<dyn Elsewhere>>,
}

/// A node's wait; over when dropped.
struct Take<'a> {
    uploads: &'a Uploads,
    upload: UploadId,
    number: u64,
}

impl Drop for Take<'_> {
    fn drop(&mut self) {
        let mut waiting = self.uploads.waiting.lock();
        let is_own = |(number, _): &(u64, _)| *number == self.number;
        if waiting.takes.get(&self.upload).is_some_and(is_own) {
            waiting.takes.remove(&self.upload);
        }
    }
}

impl Uploads {
    /// One that looks at the other servers, too.
    pub fn reaching(elsewhere: Arc<dyn Elsewhere>) -> Self {
        Self {
            waiting: Arc::default(),
            elsewhere: Some(elsewhere),
        }
    }

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
            if let Some((_, node)) = waiting.takes.remove(&upload) {
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
            let (sender, receiver) = oneshot::channel();
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

    /// The chunks of `upload`, as soon as its client is here, or at another server.
    ///
    /// # Errors
    /// The client did not come in time, or came once and its bytes are lost.
    pub async fn take(&self, upload: UploadId) -> Result<Chunks, Problem> {
        let Some(elsewhere) = &self.elsewhere else {
            return self.take_here(upload).await;
        };
        let (here, there) = (self.take_here(upload), elsewhere.upload(upload));
        let (first, other) = match select(Box::pin(here), there).await {
            Either::Left((first, other)) => (first, Either::Left(other)),
            Either::Right((first, other)) => (first, Either::Right(other)),
        };
        match first {
            // Not there, which says nothing of the other places.
            Err(problem) if problem.code != Code::SourceFailed => other.await,
            found => found,
        }
    }

    /// The chunks of `upload`, as soon as its client is at this server.
    ///
    /// # Errors
    /// `Timeout`: the client did not come in time; `SourceFailed`: it came once and its bytes are lost.
    pub async fn take_here(&self, upload: UploadId) -> Result<Chunks, Problem> {
        let (take, receiver) = {
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
            if waiting.takes.len() >= MAX_WAITING {
                return Err(Problem::new(Code::Busy, "too many builds wait for uploads"));
            }
            let (sender, receiver) = oneshot::channel();
            let number = waiting.next_take;
            waiting.next_take += 1;
            waiting.takes.insert(upload, (number, sender));
            let take = Take {
                uploads: self,
                upload,
                number,
            };
            (take, receiver)
        };
        let met = tokio::time::timeout(MEET_DEADLINE, receiver).await;
        drop(take);
        if let Ok(Ok(chunks)) = met {
            return Ok(chunks);
        }
        let missing = Problem::new(Code::Timeout, "the client did not send the folder");
        Err(missing.hint("upload again: `skep up`"))
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
