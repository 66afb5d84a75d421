//! Copies the journals of the other servers' histories: asks each for what is missing here, keeps it,
//! asks again. The called server answers when it has something; so a change is here at once, and what
//! was missed comes with the next call. Nothing is copied where the history is shared.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_proto::convert::{id_bits, id_bytes};
use skep_proto::v1;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::backoff::Backoff;
use super::directory::Contact;
use super::history::{self, WAIT, place_messages, places};
use super::links::{Lane, Links};
use super::transport::reason;
use crate::history::journal::behind;
use crate::history::{Error, History};

/// What an answer may take beyond the time that the called server may wait.
const ANSWER: Duration = Duration::from_secs(10);
/// Until a server is asked again with which the history is shared, or which does not know the call.
const RARELY: Duration = Duration::from_secs(60);
/// Least time from one call to the next that brings nothing: a server that does not wait is not worn out.
const GAP: Duration = Duration::from_millis(200);
/// A call that took so long reached somebody: the next failure is a new one.
const REACHED: Duration = Duration::from_secs(1);

/// Copies from every other server until `shutdown`.
pub async fn copy(links: Links, history: History, shutdown: CancellationToken) {
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
                history.note_behind(contact.server, None);
            }
            stays
        });
        for contact in others {
            running.entry(contact.member).or_insert_with(|| {
                let task = copy_from(links.clone(), history.clone(), contact.clone());
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

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{}", reason(.0))]
    Call(Status),
    #[error("no answer")]
    Silent,
    #[error("the answer makes no sense: {0}")]
    Malformed(#[from] skep_proto::convert::Error),
    #[error(transparent)]
    Own(#[from] Error),
}

/// What a call brought.
enum Brought {
    /// So many entries.
    Entries(u64),
    /// The history is shared.
    Shared,
    /// The own history was opened anew meanwhile.
    Renewed,
}

/// Copies from one server, for ever.
async fn copy_from(links: Links, history: History, contact: Contact) {
    let mut backoff = Backoff::default();
    let mut is_older = false;
    loop {
        let begun = Instant::now();
        match ask(&links, &history, &contact).await {
            Ok(Brought::Entries(0)) => {
                backoff.reset();
                tokio::time::sleep_until(begun + GAP).await;
            }
            Ok(Brought::Entries(count)) => {
                backoff.reset();
                tracing::debug!(member = contact.member, count, "history copied");
            }
            Ok(Brought::Renewed) => {}
            Ok(Brought::Shared) => {
                history.note_behind(contact.server, None);
                renewed_within(&history, RARELY).await;
            }
            Err(Trouble::Call(status)) if status.code() == Code::Unimplemented => {
                if !std::mem::replace(&mut is_older, true) {
                    tracing::info!(
                        member = contact.member,
                        server = %contact.server,
                        "a server of an older version: its history is copied once it has been updated"
                    );
                }
                sleep(RARELY).await;
                continue;
            }
            Err(trouble) => {
                if begun.elapsed() > REACHED {
                    backoff.reset();
                }
                let pause = backoff.next();
                tracing::debug!(member = contact.member, why = %trouble, ?pause, "history is not copied");
                sleep(pause).await;
            }
        }
        is_older = false;
    }
}

async fn renewed_within(history: &History, time: Duration) {
    let mut renewed = history.renewed();
    // Whichever comes first.
    let _ = timeout(time, renewed.changed()).await;
}

async fn ask(links: &Links, history: &History, contact: &Contact) -> Result<Brought, Trouble> {
    let mut renewed = history.renewed();
    let (store, ours) = history.places().await?;
    let request = v1::FetchHistoryRequest {
        store: id_bytes(store.as_u128()),
        have: place_messages(&ours),
        wait_ms: u32::try_from(WAIT.as_millis()).unwrap_or(u32::MAX),
    };
    let mut client = links.shared(contact, Lane::Bulk).map_err(Trouble::Call)?;
    let call = timeout(WAIT + ANSWER, client.fetch_history(request));
    let reply = tokio::select! {
        reply = call => reply.map_err(|_| Trouble::Silent)?,
        _ = renewed.changed() => return Ok(Brought::Renewed),
    };
    let reply = reply.map_err(Trouble::Call)?.into_inner();
    if id_bits("store", &reply.store)? == store.as_u128() {
        return Ok(Brought::Shared);
    }
    let theirs = places(&reply.have)?;
    let parts = reply.parts.into_iter().map(history::part);
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let count = match parts.is_empty() {
        true => 0,
        false => history.take(parts).await?,
    };
    let (_, ours) = history.places().await?;
    history.note_behind(contact.server, Some(behind(&ours, &theirs)));
    Ok(Brought::Entries(count))
}
