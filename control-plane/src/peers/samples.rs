//! What the nodes measure, on its way to the leader: all that this server's own nodes said first, then
//! what changed, in bounded reports. A leader that is slow gets fewer and newer reports, never a queue.
//! Judges nothing.

use std::time::Duration;

use skep_model::id::NodeId;
use skep_proto::convert::{id_bits, id_bytes};
use skep_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::backoff::Backoff;
use super::directory::Contact;
use super::links::{Lane, Links};
use super::transport::reason;
use crate::samples::{Samples, Word};
use crate::store::Store;

/// Between two reports: half of the nodes' own period, so that samples are late by little.
const PERIOD: Duration = Duration::from_secs(1);
/// Between two that are told at once, at least.
const HURRY_PERIOD: Duration = Duration::from_millis(20);
/// Allocations and services in one report, of about 100 bytes each: a report stays well below what a
/// message may hold, with the one node on top that is always told as a whole.
const MAX_ITEMS: usize = 20_000;
/// Reports on their way: the next one has all that one more would have.
const QUEUE: usize = 1;
/// Until a leader that does not know the call is asked again: it has to be updated first.
const RETRY_OLDER: Duration = Duration::from_secs(60);
/// Reports between two looks for what has ended.
const SWEEP_EVERY: u32 = 10;

/// Relays to whoever leads, this server included, until `shutdown`.
pub async fn relay(links: Links, samples: Samples, store: Store, shutdown: CancellationToken) {
    let mut leadership = store.consensus().leadership();
    loop {
        let now = *leadership.borrow_and_update();
        let who = (now.is_leader, now.leader);
        samples.lead(now.is_leader);
        samples.rewind();
        let term = async {
            match now.leader {
                _ if now.is_leader => keep(&samples, &store).await,
                Some(leader) => tell(&links, &samples, leader).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = term => {}
            moved = leadership.wait_for(|now| (now.is_leader, now.leader) != who) => {
                if moved.is_err() { return }
            }
            () = shutdown.cancelled() => return,
        }
    }
}

/// When it is told: every period, and at once where a service that sleeps is asked for.
struct Turns {
    tick: Interval,
    hurry: watch::Receiver<u64>,
    last: Instant,
}

impl Turns {
    fn new(samples: &Samples) -> Self {
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            tick,
            hurry: samples.hurry(),
            last: Instant::now(),
        }
    }

    /// Whether it is a regular one.
    async fn next(&mut self) -> bool {
        let is_regular = tokio::select! {
            _ = self.tick.tick() => true,
            Ok(()) = self.hurry.changed() => false,
        };
        if !is_regular {
            sleep_until(self.last + HURRY_PERIOD).await;
        }
        self.hurry.mark_unchanged();
        self.last = Instant::now();
        is_regular
    }
}

/// The leader's own end: its own nodes' words go the same way.
async fn keep(samples: &Samples, store: &Store) {
    let mut turns = Turns::new(samples);
    let mut count = 0_u32;
    loop {
        let is_regular = turns.next().await;
        samples.learn(samples.take(usize::MAX));
        count += u32::from(is_regular);
        if is_regular && count.is_multiple_of(SWEEP_EVERY) {
            samples.sweep(&store.view());
        }
    }
}

/// Tells the leader until leadership moves on.
async fn tell(links: &Links, samples: &Samples, leader: u64) {
    let mut backoff = Backoff::default();
    let mut contacts = links.directory().watch();
    loop {
        contacts.mark_unchanged();
        let Some(contact) = links.directory().get(leader) else {
            if contacts.changed().await.is_err() {
                return;
            }
            continue;
        };
        samples.rewind();
        let begun = Instant::now();
        let status = stream(links, samples, &contact).await;
        let is_older = status.code() == Code::Unimplemented;
        if is_older {
            tracing::info!(member = leader, "the leader is older and takes no samples");
        }
        if begun.elapsed() > PERIOD {
            backoff.reset();
        }
        let pause = if is_older {
            RETRY_OLDER
        } else {
            backoff.next()
        };
        tracing::debug!(member = leader, why = %reason(&status), ?pause, "samples are not told");
        tokio::time::sleep(pause).await;
    }
}

/// One stream to its end.
async fn stream(links: &Links, samples: &Samples, contact: &Contact) -> Status {
    let mut client = match links.shared(contact, Lane::Bulk) {
        Ok(client) => client,
        Err(status) => return status,
    };
    let (sender, reports) = mpsc::channel(QUEUE);
    let told = client.samples(ReceiverStream::new(reports));
    tokio::select! {
        ended = told => match ended {
            Ok(_) => Status::unavailable("the leader ended the stream"),
            Err(status) => status,
        },
        () = pump(samples, sender) => Status::unavailable("the stream ended"),
    }
}

async fn pump(samples: &Samples, sender: mpsc::Sender<v1::SampleReport>) {
    let mut turns = Turns::new(samples);
    loop {
        turns.next().await;
        // As much as goes at once; what does not is told when there is room, and newer then.
        while let Ok(place) = sender.try_reserve() {
            let words = samples.take(MAX_ITEMS);
            if words.is_empty() {
                break;
            }
            place.send(v1::SampleReport {
                nodes: words.iter().map(message).collect(),
            });
        }
        if sender.is_closed() {
            return;
        }
    }
}

fn message(word: &Word) -> v1::NodeSamples {
    v1::NodeSamples {
        node: id_bytes(word.node.as_u128()),
        held_ms: u64::try_from(word.held.as_millis()).unwrap_or(u64::MAX),
        samples: Some((&word.said).into()),
    }
}

/// What another server says of its nodes.
///
/// # Errors
/// A field means nothing.
pub(super) fn words(report: v1::SampleReport) -> Result<Vec<Word>, skep_proto::convert::Error> {
    let word = |of: v1::NodeSamples| {
        Ok(Word {
            node: NodeId::from_u128(id_bits("node", &of.node)?),
            held: Duration::from_millis(of.held_ms),
            said: of.samples.unwrap_or_default().try_into()?,
        })
    };
    report.nodes.into_iter().map(word).collect()
}
