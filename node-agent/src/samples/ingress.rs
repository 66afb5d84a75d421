//! What the data plane has counted, followed from its socket into the outbox.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::net::client::Client;
use crate::session::Outbox;

/// Until a data plane that was away is asked again: as soon as anything new could be read.
const RETRY: Duration = super::PERIOD;
/// Until one that does not know the question is asked again: it has to be restarted with a newer program.
const RETRY_OLDER: Duration = Duration::from_secs(60);

/// Follows until `cancel`, again and again.
pub(crate) async fn follow(client: Client, outbox: Arc<Outbox>, cancel: CancellationToken) {
    let follow = async {
        loop {
            let pause = match once(&client, &outbox).await {
                Ok(()) => RETRY,
                Err(status) if status.code() == Code::Unimplemented => {
                    tracing::info!(
                        "the data plane is older than this agent and counts nothing for it"
                    );
                    RETRY_OLDER
                }
                Err(status) => {
                    let why = crate::error_chain(&status);
                    tracing::debug!(%why, "the data plane's counters are not heard");
                    RETRY
                }
            };
            outbox.ingress_away();
            // Nothing tells that a socket has appeared.
            sleep(pause).await;
        }
    };
    cancel.run_until_cancelled(follow).await;
}

async fn once(client: &Client, outbox: &Outbox) -> Result<(), Status> {
    let mut readings = client.measure().await?;
    let mut is_first = true;
    while let Some(reading) = readings.message().await? {
        outbox.count(reading, std::mem::take(&mut is_first));
    }
    Ok(())
}
