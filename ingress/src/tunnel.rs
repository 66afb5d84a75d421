//! Upgraded connections (WebSocket and the like): bytes both ways until one side ends or the
//! listener's drain deadline cuts them.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::Lease;
use crate::metrics::Present;

/// The tunnels of one listener.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tunnels {
    pub(crate) tracker: TaskTracker,
    pub(crate) cut: CancellationToken,
}

/// Both ends of a tunnel, and what must live as long as it does.
pub(crate) struct Ends {
    pub(crate) client: OnUpgrade,
    pub(crate) backend: OnUpgrade,
    pub(crate) lease: Lease,
    pub(crate) present: Present,
}

impl Tunnels {
    /// Carries bytes between the two ends in a task of its own.
    pub(crate) fn spawn(&self, ends: Ends) {
        let cut = self.cut.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = carry(ends) => {}
            }
        });
    }
}

async fn carry(ends: Ends) {
    let Ends {
        client,
        backend,
        lease,
        present,
    } = ends;
    match tokio::try_join!(client, backend) {
        Ok((client, backend)) => {
            let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
                tracing::debug!(%error, "an upgraded connection broke");
            }
        }
        Err(error) => tracing::debug!(%error, "an upgrade was agreed but did not happen"),
    }
    drop((lease, present));
}
