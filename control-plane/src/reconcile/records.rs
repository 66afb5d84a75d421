//! The leader's care for records in other people's zones: what no order of this leader holds is taken away, what a
//! leader before it has left included.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Parts;
use super::certificates::concerned;
use crate::acme::Records;

/// Longest sleep: what a missed change costs.
const PERIOD: Duration = Duration::from_secs(60);

/// Runs for as long as this server leads.
pub(super) async fn run(parts: &Parts, records: &Records, token: &CancellationToken) {
    let mut changes = parts.store.consensus().changes();
    loop {
        let latest = Instant::now() + PERIOD;
        let let_go = records.let_go();
        tokio::pin!(let_go);
        // Listens before it looks.
        let_go.as_mut().enable();
        let next = records.sweep().await.unwrap_or(latest).min(latest);
        tokio::select! {
            () = let_go => {}
            () = concerned(&mut changes) => {}
            () = sleep_until(next) => {}
            () = token.cancelled() => return,
        }
    }
}
