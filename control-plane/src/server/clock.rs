//! Watches that the servers' clocks agree: times in the log are the proposer's, certificates are valid
//! for a day. A clock that is wrong is told in plain words; nothing is done about it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::Method;
use skep_model::id::ServerId;
use skep_model::server::Server;
use tokio_util::sync::CancellationToken;

use crate::api::CLOCK_TOLERANCE_MS;
use crate::api::neighbours::{Error, Neighbours};
use crate::store::{Store, now_ms};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(60);
/// First look: the others may only just be starting, too.
const FIRST: Duration = Duration::from_secs(5);

/// Looks until `shutdown`; tells each disagreement once, and its end.
pub(super) async fn watch(store: Store, neighbours: Neighbours, shutdown: CancellationToken) {
    let mut wrong: BTreeMap<ServerId, String> = BTreeMap::new();
    let mut pause = FIRST;
    loop {
        if shutdown
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            return;
        }
        pause = EVERY;
        let view = store.view();
        wrong.retain(|id, _| view.server(*id).is_some());
        for server in view.servers() {
            if server.id == neighbours.own() {
                continue;
            }
            let Some(found) = compare(&neighbours, server).await else {
                continue;
            };
            match (found, wrong.remove(&server.id)) {
                (Some(text), old) => {
                    if old.is_none() {
                        tracing::error!(
                            server = server.name,
                            "{text}: set the clocks (NTP), else certificates and expiry go wrong"
                        );
                    }
                    wrong.insert(server.id, text);
                }
                (None, Some(_)) => tracing::info!(server = server.name, "the clocks agree again"),
                (None, None) => {}
            }
        }
    }
}

/// None: nothing was learned. Some(None): the clocks agree.
async fn compare(neighbours: &Neighbours, server: &Server) -> Option<Option<String>> {
    let before = now_ms();
    match neighbours
        .ask(server, (Method::GET, "/healthz"), None)
        .await
    {
        Ok(answer) => {
            let between = before + (now_ms().saturating_sub(before)) / 2;
            Some(disagreement(between, answer.clock_ms?))
        }
        Err(error @ Error::Clock(_)) => Some(Some(error.to_string())),
        Err(_) => None,
    }
}

fn disagreement(ours_ms: u64, theirs_ms: u64) -> Option<String> {
    let apart_ms = ours_ms.abs_diff(theirs_ms);
    if apart_ms <= CLOCK_TOLERANCE_MS {
        return None;
    }
    let way = if theirs_ms > ours_ms {
        "ahead of"
    } else {
        "behind"
    };
    Some(format!(
        "its clock is {} {way} this server's",
        span(apart_ms / 1_000)
    ))
}

fn span(seconds: u64) -> String {
    match seconds {
        172_800.. => format!("{} days", seconds / 86_400),
        7_200.. => format!("{} hours", seconds / 3_600),
        120.. => format!("{} minutes", seconds / 60),
        _ => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_two_days_wrong_says_so() {
        let now = 1_800_000_000_000;
        assert_eq!(disagreement(now, now + 60_000), None);
        assert_eq!(
            disagreement(now, now + 61_000).as_deref(),
            Some("its clock is 61 seconds ahead of this server's")
        );
        assert_eq!(
            disagreement(now, now - 2 * 86_400_000).as_deref(),
            Some("its clock is 2 days behind this server's")
        );
    }
}
