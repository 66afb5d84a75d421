//! Raft messages on their way out: consensus puts them into a mailbox for each peer, and one task a
//! peer keeps one stream to it up. A peer that is away or slow costs itself only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::Stream;
use parking_lot::Mutex;
use skep_proto::v1;
use skep_raft_core::Outgoing;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::backoff::Backoff;
use super::directory::Contact;
use super::links::Links;
use super::mailbox::Mailbox;
use super::metrics::{Counters, Metrics, add};
use super::send;
use crate::consensus::transport::SnapshotSend;
use crate::consensus::{Handle, Transport};
use crate::machine::Machine;

/// A peer that answers nothing for so long is dialed anew: a path that was cut and has healed may
/// leave a connection whose next retransmission is far away. Above the longest election timeout.
const SILENCE: Duration = Duration::from_secs(3);
/// How often silence is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Where the caller of Messages says where it is reached itself.
pub(super) const ADDRESS_HEADER: &str = "skep-cluster-address";

/// What both ends of this process' Raft traffic share.
#[derive(Default)]
pub(super) struct Post {
    mailboxes: Mutex<BTreeMap<u64, Arc<Mailbox>>>,
    snapshots: Mutex<Vec<SnapshotSend>>,
    fresh: Notify,
    pub(super) counters: Counters,
}

impl Post {
    fn mailbox(&self, member: u64) -> Arc<Mailbox> {
        let mut mailboxes = self.mailboxes.lock();
        let mailbox = mailboxes.entry(member).or_insert_with(|| {
            self.fresh.notify_one();
            Arc::new(Mailbox::new())
        });
        Arc::clone(mailbox)
    }

    /// A peer has said something: it is there.
    pub(super) fn note_heard(&self, member: u64, messages: usize) {
        add(&self.counters.received, messages);
        if let Some(mailbox) = self.mailboxes.lock().get(&member) {
            mailbox.note_heard();
        }
    }
}

/// The way out that consensus is given. It never blocks.
pub struct PeerTransport {
    post: Arc<Post>,
}

/// The other half of a [`PeerTransport`]: it runs as soon as this server has a certificate.
#[derive(Clone)]
pub struct Outbox {
    pub(super) post: Arc<Post>,
}

impl PeerTransport {
    /// Both halves. Until the outbox runs, messages wait, the oldest being dropped.
    pub fn new() -> (Self, Outbox) {
        let post = Arc::<Post>::default();
        let outbox = Outbox {
            post: Arc::clone(&post),
        };
        (Self { post }, outbox)
    }
}

impl Transport for PeerTransport {
    fn send(&mut self, messages: Vec<Outgoing>) {
        let mut last: Option<(u64, Arc<Mailbox>)> = None;
        for Outgoing { to, bytes } in messages {
            let mailbox = match &last {
                Some((member, mailbox)) if *member == to => mailbox,
                _ => &last.insert((to, self.post.mailbox(to))).1,
            };
            let dropped = mailbox.put(bytes);
            add(&self.post.counters.dropped, dropped);
        }
    }

    fn send_snapshot(&mut self, job: SnapshotSend) {
        let mut waiting = self.post.snapshots.lock();
        waiting.retain(|old| old.to != job.to);
        waiting.push(job);
        drop(waiting);
        self.post.fresh.notify_one();
    }
}

impl Outbox {
    /// Numbers for operators.
    pub fn metrics(&self) -> Metrics {
        self.post.counters.read()
    }

    /// Carries messages and snapshots until `shutdown`.
    pub async fn run(self, links: Links, consensus: Handle<Machine>, shutdown: CancellationToken) {
        let mut senders = JoinSet::new();
        let mut running: BTreeMap<u64, AbortHandle> = BTreeMap::new();
        let mut snapshots: BTreeMap<u64, AbortHandle> = BTreeMap::new();
        loop {
            for job in std::mem::take(&mut *self.post.snapshots.lock()) {
                let to = job.to;
                let sending = send::run(links.clone(), consensus.clone(), self.post.clone(), job);
                // The newest is the one that its receiver still needs.
                if let Some(older) = snapshots.insert(to, senders.spawn(sending)) {
                    older.abort();
                }
            }
            for (member, mailbox) in &*self.post.mailboxes.lock() {
                if running.get(member).is_none_or(AbortHandle::is_finished) {
                    let sender = Sender {
                        member: *member,
                        mailbox: mailbox.clone(),
                        links: links.clone(),
                        post: self.post.clone(),
                        consensus: consensus.clone(),
                    };
                    running.insert(*member, senders.spawn(sender.run()));
                }
            }
            snapshots.retain(|_, task| !task.is_finished());
            running.retain(|_, task| !task.is_finished());
            tokio::select! {
                () = self.post.fresh.notified() => {}
                Some(_) = senders.join_next() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}

/// Keeps the stream to one peer.
struct Sender {
    member: u64,
    mailbox: Arc<Mailbox>,
    links: Links,
    post: Arc<Post>,
    consensus: Handle<Machine>,
}

impl Sender {
    /// Until the peer is no server of the cluster any more.
    async fn run(self) {
        let mut backoff = Backoff::default();
        let mut was_known = false;
        loop {
            self.mailbox.filled().await;
            let Some(contact) = self.contact(was_known).await else {
                self.post.mailboxes.lock().remove(&self.member);
                return;
            };
            was_known = true;
            let begun = Instant::now();
            let why = self.stream(&contact).await;
            if self.mailbox.silence().0.is_some_and(|heard| heard > begun) {
                backoff.reset();
            }
            add(&self.post.counters.broken_streams, 1);
            self.consensus.unreachable(self.member);
            let pause = backoff.next();
            tracing::debug!(member = self.member, %why, ?pause, "no stream to a server");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // It speaks, so it can be reached: there is no reason to wait any longer.
                () = self.mailbox.heard() => backoff.reset(),
            }
        }
    }

    /// Where the peer is; waits until that is known for the first time. None: it was removed.
    async fn contact(&self, was_known: bool) -> Option<Contact> {
        let mut contacts = self.links.directory().watch();
        if was_known {
            return contacts.borrow().get(&self.member).cloned();
        }
        let known = contacts.wait_for(|contacts| contacts.contains_key(&self.member));
        known.await.ok()?.get(&self.member).cloned()
    }

    /// Keeps one stream for as long as it works; answers why it does not any more.
    async fn stream(&self, contact: &Contact) -> String {
        let directory = self.links.directory();
        let mut client = match self.links.fresh(contact) {
            Ok(client) => client,
            Err(status) => return status.message().to_owned(),
        };
        let mut request = Request::new(self.batches());
        let own = directory.get(directory.own());
        if let Some(address) = own.and_then(|own| own.address.parse().ok()) {
            request.metadata_mut().insert(ADDRESS_HEADER, address);
        }
        tokio::select! {
            ended = client.messages(request) => match ended {
                Ok(_) => "the server ended the stream".to_owned(),
                Err(status) => reason(&status),
            },
            () = self.silence() => "the server answers nothing".to_owned(),
            () = directory.until_changed(contact) => "the server has moved".to_owned(),
        }
    }

    /// Everything that waits goes into one message, made at the moment when the connection takes it.
    fn batches(&self) -> impl Stream<Item = v1::RaftMessages> + Send + use<> {
        let from = self.links.directory().own();
        let place = (self.mailbox.clone(), self.post.clone());
        futures_util::stream::unfold(place, move |(mailbox, post)| async move {
            let messages = mailbox.next_batch().await;
            add(&post.counters.sent, messages.len());
            Some((v1::RaftMessages { from, messages }, (mailbox, post)))
        })
    }

    /// Returns when the peer has answered nothing for too long, though it was spoken to.
    async fn silence(&self) {
        let begun = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let (heard_at, was_spoken_to) = self.mailbox.silence();
            let since = heard_at.unwrap_or(begun).max(begun);
            if was_spoken_to && since.elapsed() >= SILENCE {
                return;
            }
        }
    }
}

/// A status with what lies under it: "transport error" alone says nothing.
pub(super) fn reason(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
