//! Tells the data plane for how long the servers count on this node: whenever they say so, and at each beginning of
//! the data plane.

use tokio::sync::watch;
use tokio::time::Instant;

use crate::net::client::{Client, NetStatusLocal};

/// Tells it for ever.
pub(crate) async fn tell_lease(
    client: Client,
    mut status: watch::Receiver<Option<NetStatusLocal>>,
    mut lease: watch::Receiver<Option<Instant>>,
) {
    loop {
        if status.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let until = *lease.borrow_and_update();
        let remaining = until.map(|until| until.saturating_duration_since(Instant::now()));
        if let Some(remaining) = remaining.filter(|remaining| !remaining.is_zero())
            && let Err(error) = client.renew(remaining).await
        {
            // The next heartbeat that is heard brings the next try.
            let why = crate::error_chain(&error);
            tracing::debug!(%why, "the data plane does not hear of its lease");
        }
        tokio::select! {
            renewed = lease.changed() => if renewed.is_err() { return },
            // Another process may be next: it is told anew.
            gone = status.wait_for(Option::is_none) => if gone.is_err() { return },
        }
    }
}
