//! The leader's care for hosts under maintenance: nodes that join or move there are drained as well, those that are
//! elsewhere by now are given back.

use skep_state::Change;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::hosts::strayed;
use crate::store::Store;

/// Runs for as long as this server leads.
pub(super) async fn run(store: &Store, token: &CancellationToken) {
    let mut changes = store.consensus().changes();
    loop {
        let due: Vec<_> = strayed(&store.view()).collect();
        for command in due {
            if let Err(problem) = store.propose(command).await {
                tracing::debug!(%problem, "a host under maintenance was not followed: looking again");
            }
        }
        loop {
            tokio::select! {
                batch = changes.recv() => match batch {
                    Ok(batch) if batch.changes.iter().any(concerns) => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                },
                () = token.cancelled() => return,
            }
        }
    }
}

fn concerns(change: &Change) -> bool {
    matches!(change, Change::Node(_) | Change::Guests)
}
