//! Blobs from other nodes: whom to ask, several tried, gone on with where one stopped, and refused when
//! they are not what their name says. Each blob is fetched once, however many wait for it, and can be read
//! while it comes.

mod peer;
mod progress;
mod trouble;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use skep_model::assignment::ImagePeer;
use skep_model::id::NodeId;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::digest::Digest;
use super::manifest::MANIFEST_MAX_BYTES;
use super::store::{self, Store, Writer};
use crate::backoff::Backoff;
use crate::clock;
use crate::metrics::Metrics;
pub(crate) use peer::Peers;
use progress::Progress;
pub(crate) use progress::{Coming, PIECE_BYTES, piece};
use trouble::Troubles;

/// Blobs fetched at a time: more share the same network and disk.
const FETCHES_MAX: usize = 4;
/// A peer that says nothing for so long is left; the next round asks it again.
const SILENCE: Duration = Duration::from_secs(20);
/// How often all peers are asked.
const ROUNDS: u32 = 5;
/// First and longest pause between two rounds.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A blob does not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody that was asked has it.
    #[error("no node that could be asked has {digest}")]
    Nobody {
        /// What.
        digest: Digest,
    },
    /// Those who were asked did not give it.
    #[error("{digest} could not be fetched from {asked} other nodes; the last one: {last}")]
    Failed {
        /// What.
        digest: Digest,
        /// How many were asked.
        asked: usize,
        /// What the last one did.
        last: String,
    },
    /// This node's own disk.
    #[error("it cannot be written")]
    Disk(#[source] store::Error),
    /// The agent ends.
    #[error("the agent ends")]
    Closing,
}

impl Error {
    /// Whether this node's disk has no room.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Disk(error) if error.is_full())
    }
}

/// What a peer did not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// It does not have it.
    #[error("it does not have it")]
    Missing,
    /// It could not be reached, or broke off.
    #[error("{0}")]
    Broken(String),
}

/// A peer's answer.
pub(crate) struct Answer {
    /// Where the bytes begin: a peer may not know how to begin in the middle.
    pub(crate) start: u64,
    /// The bytes.
    pub(crate) bytes: BoxStream<'static, Result<Bytes, String>>,
}

/// How peers are asked.
pub(crate) trait Ask: Send + Sync {
    /// For the bytes of a blob from `start` on.
    fn ask(
        &self,
        peer: &ImagePeer,
        digest: Digest,
        start: u64,
    ) -> BoxFuture<'static, Result<Answer, Refusal>>;
}

/// Where blobs may be had from.
#[derive(Debug, Clone)]
struct Offered {
    peers: Arc<[ImagePeer]>,
    size: Option<u64>,
    offers: u32,
}

/// Fetches blobs.
pub(crate) struct Fetcher {
    store: Arc<Store>,
    ask: Arc<dyn Ask>,
    offered: Mutex<HashMap<Digest, Offered>>,
    running: Mutex<HashMap<Digest, Coming>>,
    troubles: Mutex<Troubles>,
    slots: Semaphore,
    /// How often the disk had no room.
    full: watch::Sender<u64>,
    metrics: Metrics,
}

/// While it lives these blobs may be fetched.
pub(crate) struct Offer {
    fetcher: Arc<Fetcher>,
    digests: Vec<Digest>,
}

impl Drop for Offer {
    fn drop(&mut self) {
        let mut offered = self.fetcher.offered.lock();
        for digest in &self.digests {
            if let Some(offer) = offered.get_mut(digest) {
                offer.offers -= 1;
                if offer.offers == 0 {
                    offered.remove(digest);
                }
            }
        }
    }
}

impl Fetcher {
    /// Into this store, from whom `ask` can ask.
    pub(crate) fn new(store: Arc<Store>, ask: Arc<dyn Ask>, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            store,
            ask,
            offered: Mutex::default(),
            running: Mutex::default(),
            troubles: Mutex::default(),
            slots: Semaphore::new(FETCHES_MAX),
            full: watch::Sender::new(0),
            metrics,
        })
    }

    /// Says who has these blobs, and how large they are where that is known.
    pub(crate) fn offer(
        self: &Arc<Self>,
        parts: &[(Digest, Option<u64>)],
        peers: &[ImagePeer],
    ) -> Offer {
        let peers: Arc<[ImagePeer]> = peers.into();
        let mut offered = self.offered.lock();
        for (digest, size) in parts {
            let offer = offered.entry(*digest).or_insert_with(|| Offered {
                peers: peers.clone(),
                size: None,
                offers: 0,
            });
            offer.peers = peers.clone();
            offer.size = size.or(offer.size);
            offer.offers += 1;
        }
        Offer {
            fetcher: self.clone(),
            digests: parts.iter().map(|(digest, _)| *digest).collect(),
        }
    }

    /// Changes when a blob finds no room on the disk.
    pub(crate) fn full(&self) -> watch::Receiver<u64> {
        self.full.subscribe()
    }

    /// The blob that is coming, or begins to; none: it is here, or nobody is said to have it.
    pub(crate) fn start(self: &Arc<Self>, digest: Digest) -> Option<Coming> {
        let mut running = self.running.lock();
        if let Some(coming) = running.get(&digest) {
            return Some(coming.clone());
        }
        if self.store.size(digest).is_some() {
            return None;
        }
        let offer = self.offered.lock().get(&digest).cloned()?;
        let (told, progress) = watch::channel(Progress::default());
        let coming = Coming {
            path: self.store.partial_path(digest),
            kept: self.store.path(digest),
            progress,
            size: offer.size,
        };
        running.insert(digest, coming.clone());
        let fetcher = self.clone();
        tokio::spawn(async move {
            let ended = fetcher.run(digest, &offer, &told).await;
            if let Err(error) = &ended {
                let why = crate::error_chain(error);
                tracing::warn!(%digest, %why, "a blob could not be fetched");
                if error.is_full() {
                    fetcher.full.send_modify(|times| *times += 1);
                }
            }
            // The store has it before nobody is said to fetch it.
            fetcher.running.lock().remove(&digest);
            told.send_modify(|now| now.end = Some(ended.map_err(Arc::new)));
        });
        Some(coming)
    }

    /// Fetches a blob where it is not here, and waits for it.
    ///
    /// # Errors
    /// Why it did not come.
    pub(crate) async fn fetch(self: &Arc<Self>, digest: Digest) -> Result<(), Arc<Error>> {
        match self.start(digest) {
            Some(coming) => coming.whole().await,
            None if self.store.size(digest).is_some() => Ok(()),
            None => Err(Arc::new(Error::Nobody { digest })),
        }
    }

    async fn run(
        &self,
        digest: Digest,
        offer: &Offered,
        told: &watch::Sender<Progress>,
    ) -> Result<(), Error> {
        let _slot = self.slots.acquire().await.expect("never closed");
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        let mut fetch = Fetch::begin(self, digest, offer.size, told).await?;
        let mut last = None;
        for round in 0..ROUNDS {
            if round > 0 {
                sleep(backoff.next()).await;
            }
            let order = self
                .troubles
                .lock()
                .order(&offer.peers, clock::now_ms())
                .into_iter()
                .cloned();
            let order: Vec<ImagePeer> = order.collect();
            let mut is_missing = true;
            for peer in &order {
                match fetch.take(peer).await? {
                    Took::All => match fetch.finish().await? {
                        Ok(()) => return Ok(()),
                        Err((again, why)) => {
                            fetch = again;
                            last = Some(why);
                            is_missing = false;
                        }
                    },
                    Took::Nothing => {}
                    Took::Part(why) => {
                        self.troubles.lock().failed(peer.node, clock::now_ms());
                        tracing::debug!(%digest, peer = %peer.address, %why, "a node did not give a blob");
                        last = Some(why);
                        is_missing = false;
                    }
                }
            }
            if is_missing {
                // Asking again those who say that they do not have it, and nobody else, gains nothing.
                break;
            }
        }
        match last {
            Some(last) => Err(Error::Failed {
                digest,
                asked: offer.peers.len(),
                last,
            }),
            None => Err(Error::Nobody { digest }),
        }
    }
}

/// What one peer gave.
enum Took {
    /// All that it had to give.
    All,
    /// It does not have it.
    Nothing,
    /// It broke off, or did not begin.
    Part(String),
}

/// One blob, as far as it is.
struct Fetch<'a> {
    fetcher: &'a Fetcher,
    digest: Digest,
    size: Option<u64>,
    told: &'a watch::Sender<Progress>,
    writer: Writer,
    /// Who gave what is there; none: somebody before this agent was started.
    givers: Vec<Option<NodeId>>,
}

impl<'a> Fetch<'a> {
    async fn begin(
        fetcher: &'a Fetcher,
        digest: Digest,
        size: Option<u64>,
        told: &'a watch::Sender<Progress>,
    ) -> Result<Self, Error> {
        let limit = size.unwrap_or(MANIFEST_MAX_BYTES);
        let disk = |error: std::io::Error| Error::Disk(error.into());
        let mut writer = fetcher.store.partial(digest, limit).await.map_err(disk)?;
        if writer.written() > limit {
            writer.discard().await;
            writer = fetcher.store.partial(digest, limit).await.map_err(disk)?;
        }
        let written = writer.written();
        told.send_modify(|now| {
            now.epoch += 1;
            now.written = written;
        });
        let givers = if written > 0 { vec![None] } else { Vec::new() };
        Ok(Self {
            fetcher,
            digest,
            size,
            told,
            writer,
            givers,
        })
    }

    fn is_whole(&self) -> bool {
        self.size == Some(self.writer.written())
    }

    /// Takes what a peer has from where it stopped.
    async fn take(&mut self, peer: &ImagePeer) -> Result<Took, Error> {
        if self.is_whole() {
            return Ok(Took::All);
        }
        let start = self.writer.written();
        let asked = self.fetcher.ask.ask(peer, self.digest, start);
        let answer = match timeout(SILENCE, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Refusal::Missing)) => return Ok(Took::Nothing),
            Ok(Err(refusal)) => return Ok(Took::Part(refusal.to_string())),
            Err(_) => return Ok(Took::Part("it does not answer".into())),
        };
        if answer.start > start {
            return Ok(Took::Part("it leaves something out".into()));
        }
        // What is there already is not taken twice.
        let mut skip = start - answer.start;
        let mut bytes = pin!(answer.bytes);
        let took = loop {
            let piece = match timeout(SILENCE, bytes.next()).await {
                Ok(None) => break Took::All,
                Ok(Some(Ok(piece))) => piece,
                Ok(Some(Err(why))) => break Took::Part(why),
                Err(_) => break Took::Part("it stopped in the middle".into()),
            };
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            let piece = &piece[skipped as usize..];
            if piece.is_empty() {
                continue;
            }
            if self.givers.last() != Some(&Some(peer.node)) {
                self.givers.push(Some(peer.node));
            }
            match self.writer.write(piece).await {
                Ok(()) => {}
                // More than its manifest says: the sum will tell.
                Err(store::Error::TooLong { .. }) => break Took::All,
                Err(error) => return Err(Error::Disk(error)),
            }
            self.fetcher.metrics.image_bytes("peer", piece.len() as u64);
            self.tell();
        };
        self.writer.flush().await.map_err(Error::Disk)?;
        self.tell();
        match (took, self.size) {
            (Took::All, Some(size)) if self.writer.written() < size => {
                Ok(Took::Part("it ended too early".into()))
            }
            (took, _) => Ok(took),
        }
    }

    /// Readers hear of what they can read.
    fn tell(&self) {
        let readable = self.writer.readable();
        self.told.send_if_modified(|now| {
            let is_more = now.written != readable;
            now.written = readable;
            is_more
        });
    }

    /// Keeps it if it is what it should be; else begins anew, and remembers who lied where that is
    /// certain: what several gave may be any one's fault.
    async fn finish(self) -> Result<Result<(), (Self, String)>, Error> {
        let Self {
            fetcher,
            digest,
            size,
            told,
            writer,
            givers,
        } = self;
        match fetcher.store.keep(writer, digest).await {
            Ok(()) => {
                let mut troubles = fetcher.troubles.lock();
                givers
                    .iter()
                    .flatten()
                    .for_each(|node| troubles.worked(*node));
                Ok(Ok(()))
            }
            Err(error @ store::Error::Mismatch { .. }) => {
                if let [Some(node)] = givers[..] {
                    tracing::warn!(%node, %digest, "a node gave something else: it is asked nothing for a while");
                    fetcher.metrics.image_liar();
                    fetcher.troubles.lock().lied(node, clock::now_ms());
                }
                let again = Self::begin(fetcher, digest, size, told).await?;
                Ok(Err((again, error.to_string())))
            }
            Err(error) => Err(Error::Disk(error)),
        }
    }
}

#[cfg(test)]
mod tests;
