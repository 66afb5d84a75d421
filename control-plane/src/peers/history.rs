//! What a server's history answers to the others: entries of its journal, and a deployment's events.
//! Both wait for news where there are none. Owns the words; what they mean the history knows.

use std::time::Duration;

use skep_model::id::{DeploymentId, ServerId};
use skep_proto::convert::{Error as Malformed, id_bits, id_bytes};
use skep_proto::v1;
use skep_proto::v1::history_entry::Kind;
use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::history::journal::{Entry, Part, Places, StoreId, What};
use crate::history::{Ask, Error, Event, EventKind, History, Offer, Page};
use crate::store::Store;

/// Longest that a call waits for news: below what proxies and people take for a hang.
pub(super) const WAIT: Duration = Duration::from_secs(20);
/// How long the own replica gets to reach the asker's, so that its steps are in the answer.
const CATCH_UP: Duration = Duration::from_secs(3);
/// Most events in one answer: with texts of the largest size half of what a message may have.
pub(super) const MAX_EVENTS: u32 = 500;

/// Answers what the caller lacks, once there is something, or when it has waited long enough.
pub(super) async fn offer(
    history: &History,
    request: v1::FetchHistoryRequest,
) -> Result<v1::FetchHistoryReply, Status> {
    let theirs = places(&request.have).map_err(|error| malformed(&error))?;
    let caller = id_bits("store", &request.store).map_err(|error| malformed(&error))?;
    let wait = Duration::from_millis(request.wait_ms.into()).min(WAIT);
    let until = Instant::now() + wait;
    let mut told = history.told();
    loop {
        told.mark_unchanged();
        let offer = history.offer(&theirs).await.map_err(|error| away(&error))?;
        let is_shared = offer.store.as_u128() == caller;
        if is_shared || !offer.parts.is_empty() {
            return Ok(reply(offer, is_shared));
        }
        // Woken by what this server wrote. What it copied from others the caller gets from them, or
        // the next time.
        let news = tokio::time::timeout_at(until, told.changed()).await;
        if !matches!(news, Ok(Ok(()))) {
            return Ok(reply(offer, false));
        }
    }
}

fn reply(offer: Offer, is_shared: bool) -> v1::FetchHistoryReply {
    let parts = if is_shared { Vec::new() } else { offer.parts };
    v1::FetchHistoryReply {
        store: id_bytes(offer.store.as_u128()),
        parts: parts.into_iter().map(part_message).collect(),
        have: place_messages(&offer.places),
    }
}

/// Answers a deployment's events as they are here.
pub(super) async fn events(
    history: &History,
    store: &Store,
    request: v1::FetchEventsRequest,
) -> Result<v1::FetchEventsReply, Status> {
    let id = id_bits("deployment", &request.deployment).map_err(|error| malformed(&error))?;
    let id = DeploymentId::from_u128(id);
    // A replica that cannot follow gives fewer steps; the asker has its own.
    let _ = store
        .consensus()
        .wait_applied(request.index, CATCH_UP)
        .await;
    if let Some(deployment) = store.view().deployment(id) {
        // A history that cannot be written is counted there.
        let _ = history.flush_steps(id, &deployment.steps).await;
    }
    let limit = request.limit.clamp(1, MAX_EVENTS);
    let mut fresh = history.watch(id);
    let mut page = history.page(id, request.after, limit).await;
    if request.wait && page.as_ref().is_ok_and(|page| page.events.is_empty()) {
        // Whether it was woken or has waited long enough: it looks again.
        let _ = timeout(WAIT, fresh.changed()).await;
        page = history.page(id, request.after, limit).await;
    }
    let page = page.map_err(|error| away(&error))?;
    Ok(v1::FetchEventsReply {
        events: page.events.into_iter().map(event_message).collect(),
        steps_before: page.steps_before,
        holds_log: page.holds_log,
    })
}

fn away(error: &Error) -> Status {
    Status::unavailable(error.to_string())
}

fn malformed(error: &Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(super) fn places(messages: &[v1::HistoryPlace]) -> Result<Places, Malformed> {
    messages
        .iter()
        .map(|place| {
            let store = id_bits("store", &place.store)?;
            Ok((StoreId::from_u128(store), place.upto))
        })
        .collect()
}

pub(super) fn place_messages(places: &Places) -> Vec<v1::HistoryPlace> {
    let message = |(store, upto): (&StoreId, &u64)| v1::HistoryPlace {
        store: id_bytes(store.as_u128()),
        upto: *upto,
    };
    places.iter().map(message).collect()
}

fn part_message(part: Part) -> v1::HistoryPart {
    v1::HistoryPart {
        store: id_bytes(part.store.as_u128()),
        after: part.after,
        upto: part.upto,
        entries: part.entries.into_iter().map(entry_message).collect(),
    }
}

fn entry_message(entry: Entry) -> v1::HistoryEntry {
    let kind = match entry.what {
        What::Audit {
            principal,
            action,
            resource,
            outcome,
        } => Kind::Audit(v1::AuditRecord {
            principal,
            action,
            resource,
            outcome,
        }),
        What::Step {
            deployment,
            position,
            text,
        } => Kind::Step(v1::TimelineStep {
            deployment: id_bytes(deployment.as_u128()),
            position,
            text,
        }),
        What::Log { deployment, server } => Kind::Log(v1::BuildLogAt {
            deployment: id_bytes(deployment.as_u128()),
            server: id_bytes(server.as_u128()),
        }),
    };
    v1::HistoryEntry {
        seq: entry.seq,
        at_ms: entry.at_ms,
        kind: Some(kind),
    }
}

/// A part out of its message. It ends before the first entry of a kind that only newer servers know:
/// that one is taken when this server is newer, too.
pub(super) fn part(message: v1::HistoryPart) -> Result<Part, Malformed> {
    let mut part = Part {
        store: StoreId::from_u128(id_bits("store", &message.store)?),
        after: message.after,
        upto: message.upto,
        entries: Vec::with_capacity(message.entries.len()),
    };
    for entry in message.entries {
        let Some(kind) = entry.kind else {
            part.upto = entry.seq.saturating_sub(1);
            break;
        };
        part.entries.push(Entry {
            seq: entry.seq,
            at_ms: entry.at_ms,
            what: what(kind)?,
        });
    }
    Ok(part)
}

fn what(kind: Kind) -> Result<What, Malformed> {
    Ok(match kind {
        Kind::Audit(record) => What::Audit {
            principal: record.principal,
            action: record.action,
            resource: record.resource,
            outcome: record.outcome,
        },
        Kind::Step(step) => What::Step {
            deployment: DeploymentId::from_u128(id_bits("deployment", &step.deployment)?),
            position: step.position,
            text: step.text,
        },
        Kind::Log(log) => What::Log {
            deployment: DeploymentId::from_u128(id_bits("deployment", &log.deployment)?),
            server: ServerId::from_u128(id_bits("server", &log.server)?),
        },
    })
}

pub(super) fn ask_message(ask: &Ask) -> v1::FetchEventsRequest {
    v1::FetchEventsRequest {
        deployment: id_bytes(ask.deployment.as_u128()),
        after: ask.after,
        limit: ask.limit.min(MAX_EVENTS),
        wait: ask.wait,
        index: ask.index,
    }
}

fn event_message(event: Event) -> v1::DeploymentEvent {
    v1::DeploymentEvent {
        seq: event.seq,
        at_ms: event.at_ms,
        log: event.kind == EventKind::Log,
        text: event.text,
    }
}

pub(super) fn page(reply: v1::FetchEventsReply) -> Page {
    let event = |event: v1::DeploymentEvent| Event {
        seq: event.seq,
        at_ms: event.at_ms,
        kind: if event.log {
            EventKind::Log
        } else {
            EventKind::Step
        },
        text: event.text,
    };
    Page {
        events: reply.events.into_iter().map(event).collect(),
        steps_before: reply.steps_before,
        holds_log: reply.holds_log,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn sample() -> Part {
        let deployment = DeploymentId::from_u128(5);
        let whats = [
            What::Audit {
                principal: "admin".into(),
                action: "put_service".into(),
                resource: "services/web".into(),
                outcome: "200".into(),
            },
            What::Step {
                deployment,
                position: 3,
                text: "live".into(),
            },
            What::Log {
                deployment,
                server: ServerId::from_u128(9),
            },
        ];
        let entries = whats.into_iter().zip(1..);
        Part {
            store: StoreId::from_u128(7),
            after: 0,
            upto: 4,
            entries: entries
                .map(|(what, seq)| Entry {
                    seq,
                    at_ms: 100 + seq,
                    what,
                })
                .collect(),
        }
    }

    #[test]
    fn parts_arrive_as_they_were_sent() {
        let bytes = part_message(sample()).encode_to_vec();
        let message = v1::HistoryPart::decode(bytes.as_slice()).expect("decodes");
        assert_eq!(part(message).expect("sound"), sample());
    }

    #[test]
    fn what_a_newer_server_wrote_is_left_for_later() {
        let mut message = part_message(sample());
        message.entries[1].kind = None;
        let part = part(message).expect("sound");
        assert_eq!((part.upto, part.entries.len()), (1, 1));
    }

    #[test]
    fn entries_as_they_are_written_today_are_read_for_ever() {
        let hex = "\
             0a10000000000000000000000000000000071804222d0801106552270a0561646d696e12\
             0b7075745f736572766963651a0c73657276696365732f77656222033230302220080210\
             665a1a0a100000000000000000000000000000000510031a046c697665222a0803106762\
             240a10000000000000000000000000000000051210000000000000000000000000000000\
             09";
        let bytes = hex::decode(hex).expect("hex");
        let message = v1::HistoryPart::decode(bytes.as_slice()).expect("decodes");
        assert_eq!(part(message).expect("sound"), sample());
        assert_eq!(part_message(sample()).encode_to_vec(), bytes);
    }
}
