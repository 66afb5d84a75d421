//! The leader's care for hosts that were given up: when the time in which only their project may take
//! them again is over, they are forgotten, and private addresses of services that are gone with them. Nobody waits for it: whoever asks for such a host gets it.

use std::time::Duration;

use skep_proto::v1;
use skep_proto::v1::command::Kind;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::store::{Store, now_ms};

/// Between two looks: the time that is waited for has hours.
const PERIOD: Duration = Duration::from_secs(60);

/// Runs for as long as this server leads.
pub(super) async fn run(store: &Store, token: &CancellationToken) {
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = token.cancelled() => return,
        }
        let (view, now_ms) = (store.view(), now_ms());
        if !view.has_free_claims(now_ms) && !view.has_free_addresses(now_ms) {
            continue;
        }
        let command = Kind::PruneClaims(v1::PruneClaims {});
        if let Err(problem) = store.propose(command).await {
            tracing::debug!(%problem, "hosts that are free were not forgotten: looking again");
        }
    }
}
