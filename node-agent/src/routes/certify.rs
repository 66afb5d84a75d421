//! Hands the cluster's certificates and challenges to the data plane: at each beginning of it, and whenever a server
//! says others. Kept in memory alone: what survives is the data plane's. Which challenges it has taken is told the
//! server: an issuer is led here only then.

use std::sync::Arc;
use std::time::Duration;

use skep_proto::v1::{CertificateList, ChallengeList, ChallengeStatus};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::net::client::{Client, NetStatusLocal};
use crate::session::Outbox;

/// First and longest pause before it is told again.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// What a server said last; none: nothing yet, and the data plane goes on with what it has.
#[derive(Clone, Default)]
struct Said {
    certificates: Option<Arc<CertificateList>>,
    challenges: Option<Arc<ChallengeList>>,
}

impl Said {
    /// The challenges of it, as a server wants to hear it.
    fn status(&self) -> ChallengeStatus {
        let list = self.challenges.as_deref();
        list.map_or_else(ChallengeStatus::default, |list| ChallengeStatus {
            revision: list.revision,
            incarnation: list.incarnation,
        })
    }
}

/// The certificates of this node. Cheap to clone: all clones are one.
#[derive(Clone, Default)]
pub(crate) struct Certificates(Arc<watch::Sender<Said>>);

impl Certificates {
    /// These, and no others.
    pub(crate) fn hear(&self, list: CertificateList) {
        self.0
            .send_modify(|said| said.certificates = Some(Arc::new(list)));
    }

    /// These challenges, and no others.
    pub(crate) fn hear_challenges(&self, list: ChallengeList) {
        self.0
            .send_modify(|said| said.challenges = Some(Arc::new(list)));
    }

    /// Hands everything on until `cancel`, and says in the outbox which challenges were taken.
    pub(crate) async fn hand_on(
        self,
        client: Client,
        (mut status, outbox): (watch::Receiver<Option<NetStatusLocal>>, Arc<Outbox>),
        cancel: CancellationToken,
    ) {
        let mut news = self.0.subscribe();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let work = async {
            let mut told = Said::default();
            loop {
                if status.wait_for(Option::is_some).await.is_err() {
                    return;
                }
                let said = news.borrow_and_update().clone();
                if let Err(error) = tell(&client, &said, &mut told).await {
                    let why = crate::error_chain(&error);
                    tracing::warn!(%why, "the data plane does not take certificates: it goes on with those that it has");
                    // Perhaps another process is there by then.
                    told = Said::default();
                    outbox.set_challenges(told.status());
                    sleep(backoff.next()).await;
                    continue;
                }
                backoff.reset();
                outbox.set_challenges(told.status());
                tokio::select! {
                    changed = news.changed() => if changed.is_err() { return },
                    // Another process may be next: it is told anew.
                    gone = status.wait_for(Option::is_none) => {
                        if gone.is_err() { return }
                        told = Said::default();
                        outbox.set_challenges(told.status());
                    }
                }
            }
        };
        cancel.run_until_cancelled(work).await;
    }
}

/// Tells what it was not told yet. Challenges first: somebody waits for them.
async fn tell(client: &Client, said: &Said, told: &mut Said) -> Result<(), tonic::Status> {
    if let Some(list) = &said.challenges
        && !is_same(&told.challenges, list)
    {
        client.challenge(ChallengeList::clone(list)).await?;
        told.challenges = Some(Arc::clone(list));
    }
    if let Some(list) = &said.certificates
        && !is_same(&told.certificates, list)
    {
        client.certify(CertificateList::clone(list)).await?;
        told.certificates = Some(Arc::clone(list));
    }
    Ok(())
}

fn is_same<T>(told: &Option<Arc<T>>, said: &Arc<T>) -> bool {
    told.as_ref().is_some_and(|told| Arc::ptr_eq(told, said))
}
