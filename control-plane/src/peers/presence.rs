//! Who is there, told from server to server: what this server hears of its own nodes goes to every
//! other server, all of it first, then what changes, and heartbeats in a summary. So every server
//! knows where each node is, and whoever is elected has heard of all of them already.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::Stream;
use skep_identity::key_id::KeyId;
use skep_model::id::NodeId;
use skep_proto::convert::{id_bits, id_bytes};
use skep_proto::v1;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::directory::Contact;
use super::links::{Lane, Links};
use super::transport::reason;
use crate::agents::fleet::{Fleet, RouteStatus, Runtime, Word};

/// Heartbeats are told in a summary so often: a fraction of what makes a node lost.
const SUMMARY: Duration = Duration::from_secs(1);
/// Least time from one report to the next: a thousand nodes that come at once are a few reports.
const GAP: Duration = Duration::from_millis(50);
/// Nodes in one report; more go into the next.
const MAX_NODES: usize = 4_096;

/// Tells every other server until `shutdown`.
pub async fn report(links: Links, fleet: Fleet, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<u64, (Contact, AbortHandle)> = BTreeMap::new();
    let mut contacts = links.directory().watch();
    loop {
        contacts.mark_unchanged();
        let others = links.directory().others();
        running.retain(|_, (contact, task)| {
            let stays = others.contains(contact);
            if !stays {
                task.abort();
            }
            stays
        });
        for contact in others {
            running.entry(contact.member).or_insert_with(|| {
                let task = tell(links.clone(), fleet.clone(), contact.clone());
                (contact, tasks.spawn(task))
            });
        }
        tokio::select! {
            changed = contacts.changed() => if changed.is_err() { return },
            Some(_) = tasks.join_next() => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Tells one server, for ever.
async fn tell(links: Links, fleet: Fleet, contact: Contact) {
    let mut backoff = Backoff::default();
    loop {
        let begun = Instant::now();
        let told = async {
            let mut client = links.shared(&contact, Lane::Calls)?;
            let reports = Reporter::new(&fleet, links.directory().own()).stream();
            client.presence(reports).await
        };
        let why = match told.await {
            Ok(_) => "the server ended the stream".to_owned(),
            Err(status) => reason(&status),
        };
        if begun.elapsed() > SUMMARY {
            backoff.reset();
        }
        let pause = backoff.next();
        tracing::debug!(member = contact.member, %why, ?pause, "presence is not told");
        tokio::time::sleep(pause).await;
    }
}

/// What one other server was told.
struct Reporter {
    fleet: Fleet,
    changed: watch::Receiver<u64>,
    from: u64,
    version: u64,
    is_first: bool,
    last: Instant,
    rest: Vec<Word>,
}

impl Reporter {
    fn new(fleet: &Fleet, from: u64) -> Self {
        Self {
            fleet: fleet.clone(),
            changed: fleet.changed(),
            from,
            version: 0,
            is_first: true,
            last: Instant::now(),
            rest: Vec::new(),
        }
    }

    fn stream(self) -> impl Stream<Item = v1::PresenceReport> + Send {
        futures_util::stream::unfold(self, |mut reporter| async move {
            let report = reporter.next().await;
            Some((report, reporter))
        })
    }

    async fn next(&mut self) -> v1::PresenceReport {
        let full = std::mem::take(&mut self.is_first);
        while self.rest.is_empty() {
            if !full {
                self.news().await;
            }
            self.changed.mark_unchanged();
            (self.rest, self.version) = self.fleet.words_since(self.version);
            if full {
                break;
            }
        }
        self.last = Instant::now();
        let more = self.rest.split_off(self.rest.len().min(MAX_NODES));
        let words = std::mem::replace(&mut self.rest, more);
        v1::PresenceReport {
            full,
            nodes: words.iter().map(message).collect(),
            from: self.from,
        }
    }

    async fn news(&mut self) {
        let summary = sleep_until(self.last + SUMMARY);
        tokio::select! {
            () = summary => {}
            // An end means that the fleet is gone, and this task with it.
            _ = self.changed.changed() => sleep_until(self.last + GAP).await,
        }
        self.last = Instant::now();
    }
}

fn message(word: &Word) -> v1::NodePresence {
    v1::NodePresence {
        node: id_bytes(word.node.as_u128()),
        connected: word.connected,
        runtime_ok: word.runtime == Runtime::Ok,
        runtime_wedged: word.runtime == Runtime::Wedged,
        applied_revision: word.routes.applied,
        drained_revision: word.routes.drained,
        silent_ms: u64::try_from(word.silent.as_millis()).unwrap_or(u64::MAX),
        ca: word.ca.map_or_else(Vec::new, |ca| ca.as_bytes().to_vec()),
        broke: word.broke,
        challenge_revision: word.challenges,
    }
}

/// What another server says of a node.
///
/// # Errors
/// The node's id is none.
pub(super) fn word(message: &v1::NodePresence) -> Result<Word, skep_proto::convert::Error> {
    Ok(Word {
        node: NodeId::from_u128(id_bits("node", &message.node)?),
        connected: message.connected,
        runtime: Runtime::of(message.runtime_ok, message.runtime_wedged),
        routes: RouteStatus {
            applied: message.applied_revision,
            drained: message.drained_revision,
        },
        challenges: message.challenge_revision,
        silent: Duration::from_millis(message.silent_ms),
        ca: KeyId::from_bytes(&message.ca),
        broke: message.broke,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;

    #[tokio::test]
    async fn all_is_told_first_then_changes_and_heartbeats_in_a_summary() {
        let fleet = Fleet::default();
        let nodes: Vec<_> = (1..=MAX_NODES as u128 + 1).map(NodeId::from_u128).collect();
        for node in &nodes {
            fleet.connect(*node, 1);
        }
        let mut reports = std::pin::pin!(Reporter::new(&fleet, 7).stream());
        let first = reports.next().await.expect("endless");
        assert!(first.full && first.from == 7 && first.nodes.len() == MAX_NODES);
        let rest = reports.next().await.expect("endless");
        assert!(!rest.full && rest.nodes.len() == 1);

        let begun = Instant::now();
        fleet.heard(nodes[0], 1);
        let summary = reports.next().await.expect("endless");
        assert_eq!(summary.nodes.len(), 1);
        assert!(begun.elapsed() > SUMMARY / 2, "a heartbeat waits");

        let begun = Instant::now();
        fleet.challenges(nodes[0], 1, 5);
        let change = reports.next().await.expect("endless");
        assert!(begun.elapsed() < SUMMARY, "somebody waits for that");
        assert_eq!(word(&change.nodes[0]).expect("sound").challenges, 5);

        let begun = Instant::now();
        fleet.disconnect(nodes[1], 1, true);
        let change = reports.next().await.expect("endless");
        assert!(begun.elapsed() < SUMMARY, "a change does not wait");
        assert_eq!(word(&change.nodes[0]).expect("sound").node, nodes[1]);
        assert!(!change.nodes[0].connected && change.nodes[0].broke);
    }
}
