//! Tells the data plane who this node is: at each beginning of it, and whenever the credentials change.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::credentials::Own;
use crate::net::client::{Client, NetStatusLocal};

/// First and longest pause before it is told again.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// Introduces this node until `cancel`.
pub(crate) async fn introduce(
    client: Client,
    mut status: watch::Receiver<Option<NetStatusLocal>>,
    own: Own,
    cancel: CancellationToken,
) {
    let mut changes = own.changes();
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let work = async {
        loop {
            if status.wait_for(Option::is_some).await.is_err() {
                return;
            }
            changes.mark_unchanged();
            let told = match own.credentials().await {
                Ok(credentials) => client.identify(&credentials).await,
                Err(error) => Err(tonic::Status::internal(crate::error_chain(&error))),
            };
            if let Err(error) = told {
                let why = crate::error_chain(&error);
                tracing::warn!(%why, "the data plane does not take who this node is: other nodes are not reached");
                sleep(backoff.next()).await;
                continue;
            }
            backoff.reset();
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                // Another process may be next: it is told anew.
                gone = status.wait_for(Option::is_none) => if gone.is_err() { return },
            }
        }
    };
    cancel.run_until_cancelled(work).await;
}
