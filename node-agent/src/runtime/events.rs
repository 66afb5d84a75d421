//! Docker's events, with everything that was missed: after each new connection the containers are
//! listed before the events since then are told.

use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures_util::StreamExt;
use skep_model::id::AllocationId;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use super::{Error, Runtime, inspect};
use crate::backoff::Backoff;
use crate::clock;
use crate::plan::Seen;

/// First and longest pause before Docker is asked again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often the daemon is asked whether it works.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Actions that matter; `oom` comes before the end that it causes.
const ACTIONS: [&str; 3] = ["die", "oom", "destroy"];

/// What Docker tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// All that is there now: at the start, and after each time that Docker was away.
    All(Vec<(AllocationId, Seen)>),
    /// Docker does not answer, or answers a ping alone.
    Away {
        /// The latter.
        wedged: bool,
    },
    /// A container ended, ran out of memory or was removed.
    Changed {
        /// Whose.
        allocation: AllocationId,
        /// Which.
        container: String,
        /// The kernel killed something in it for want of memory.
        oom: bool,
    },
}

/// Tells everything until `cancel`.
pub(crate) async fn watch(runtime: Runtime, told: mpsc::Sender<Told>, cancel: CancellationToken) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let (mut is_away, mut was_wedged) = (false, false);
    loop {
        let watched = cancel
            .run_until_cancelled(follow(&runtime, &told, &mut is_away))
            .await;
        let Some(Err(error)) = watched else {
            return;
        };
        let why = crate::error_chain(&error);
        let wedged = matches!(error, Error::Wedged);
        if is_away && wedged == was_wedged {
            tracing::debug!(%why, "docker is still away");
        } else {
            tracing::warn!(%why, "docker is away");
            backoff.reset();
        }
        (is_away, was_wedged) = (true, wedged);
        if told.send(Told::Away { wedged }).await.is_err() {
            return;
        }
        if cancel
            .run_until_cancelled(sleep(backoff.next()))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// Until Docker is away (an error) or nobody listens any more.
async fn follow(
    runtime: &Runtime,
    told: &mpsc::Sender<Told>,
    is_away: &mut bool,
) -> Result<(), Error> {
    runtime.negotiate().await?;
    runtime.check().await?;
    let since_ms = clock::now_ms();
    let all = runtime.list().await?;
    tracing::info!(containers = all.len(), "docker answers");
    if told.send(Told::All(all)).await.is_err() {
        return Ok(());
    }
    *is_away = false;
    let options = EventsOptions {
        since: Some(format!("{}.{:03}", since_ms / 1_000, since_ms % 1_000)),
        until: None,
        filters: Some(
            [
                ("type".to_owned(), vec!["container".to_owned()]),
                ("event".to_owned(), ACTIONS.map(str::to_owned).to_vec()),
                ("label".to_owned(), runtime.labels.filter()),
            ]
            .into(),
        ),
    };
    let mut events = std::pin::pin!(runtime.docker.events(Some(options)));
    let mut check = interval_at(Instant::now() + CHECK_INTERVAL, CHECK_INTERVAL);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            // A daemon may be wedged while its event stream stays open.
            _ = check.tick() => {
                runtime.check().await?;
                continue;
            }
        };
        let event = event.ok_or(Error::Answer {
            what: "more events",
        })?;
        let event = event.map_err(|source| Error::Docker {
            action: "tell events",
            source,
        })?;
        if let Some(changed) = read(event)
            && told.send(changed).await.is_err()
        {
            return Ok(());
        }
    }
}

fn read(event: EventMessage) -> Option<Told> {
    let actor = event.actor?;
    let (allocation, _) = inspect::owner(&actor.attributes?)?;
    Some(Told::Changed {
        allocation,
        container: actor.id?,
        oom: event.action.as_deref() == Some("oom"),
    })
}
