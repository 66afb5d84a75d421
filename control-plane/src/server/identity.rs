//! The server's own certificate: issued from its replica of the CA, renewed at two thirds of its life
//! and when the cluster's CAs change. No other server is asked: a cluster that was switched off comes
//! back by itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_identity::ca::{self, Grant};
use skep_identity::keypair::{self, Credentials, KeyAndRequest};
use skep_identity::name::Identity;
use skep_identity::tls::{self, Reloadable};
use skep_model::id::ServerId;
use skep_model::problem::Problem;
use skep_state::{Change, Cluster};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::listeners::{Advertised, Listeners, local_address};
use crate::consensus::Batch;
use crate::pki;
use crate::secrets::Secrets;
use crate::store::Store;

/// Between two renewals, whatever the certificates say: a clock may be wrong by their whole life.
const RENEW_PAUSE: Duration = Duration::from_secs(1);
/// The wall clock may jump, and a sleeping machine's timers stop: look again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Pause after a renewal that failed.
const RETRY: Duration = Duration::from_secs(60);

/// The server has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CA cannot be used.
    #[error("the cluster's CA: {0}")]
    Authority(#[from] Problem),
    /// The CA refuses.
    #[error("the server's certificate cannot be issued")]
    Issue(#[from] ca::Error),
    /// The key pair.
    #[error("the server's key cannot be made")]
    Key(#[from] keypair::Error),
    /// TLS does not take it.
    #[error("the server's certificate cannot be used")]
    Load(#[from] tls::LoadError),
}

/// What a server's certificate says, and who signs it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Issuer {
    pub(super) server: ServerId,
    pub(super) names: Arc<Vec<String>>,
    pub(super) secrets: Secrets,
    pub(super) lifetime: Duration,
}

impl Issuer {
    /// A fresh certificate, from the replica at hand.
    pub(super) fn issue(&self, cluster: &Cluster) -> Result<Credentials, Error> {
        let ca = self.secrets.signing_ca(cluster)?;
        let key = KeyAndRequest::generate()?;
        let grant = Grant {
            identity: Identity::server(ca.cluster(), self.server),
            addresses: &self.names,
            lifetime: self.lifetime,
        };
        let certificate = ca.issue(&key.csr_pem, &grant, SystemTime::now())?;
        let chain = pki::chain(&self.secrets, cluster, certificate)?;
        Ok(key.certified(chain, cluster.trusted_ca_pem()))
    }

    fn replace(&self, store: &Store, own: &Reloadable) -> Result<(), Error> {
        let view = store.view();
        let Some(cluster) = view.cluster() else {
            return Ok(());
        };
        own.replace(&self.issue(cluster)?)?;
        Ok(())
    }

    /// Renews for as long as the server runs: in time, and when another CA signs or is trusted.
    pub(super) async fn keep_fresh(
        self,
        own: Arc<Reloadable>,
        store: Store,
        shutdown: CancellationToken,
    ) {
        let mut changes = store.consensus().changes();
        let cas = || {
            let view = store.view();
            let cluster = view.cluster()?;
            Some((cluster.ca_cert_pem.clone(), cluster.trusted_ca_pem()))
        };
        // What the first certificate was issued under is past: the CAs may have changed since.
        let mut in_use = None;
        loop {
            let known = cas();
            let is_due = until_renewal(&own).is_zero() || known != in_use;
            let renewed = if is_due {
                self.replace(&store, &own)
            } else {
                Ok(())
            };
            let pause = match renewed {
                Ok(()) => {
                    in_use = known;
                    until_renewal(&own).clamp(RENEW_PAUSE, LOOK_AGAIN)
                }
                Err(error) => {
                    tracing::error!(%error, "the server's certificate could not be renewed");
                    RETRY
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                is_there = cluster_changed(&mut changes) => if !is_there { return },
            }
        }
    }
}

/// Returns when the cluster itself may have changed; false: nothing will any more.
async fn cluster_changed(changes: &mut Receiver<Arc<Batch<Change>>>) -> bool {
    loop {
        match changes.recv().await {
            Ok(batch) if batch.is_reset => return true,
            Ok(batch) if batch.changes.iter().any(|it| matches!(it, Change::Cluster)) => {
                return true;
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

/// Zero: now. A certificate from the future was issued while the clock was ahead: nobody else takes it.
fn until_renewal(own: &Reloadable) -> Duration {
    let (validity, now) = (own.validity(), SystemTime::now());
    if now < validity.not_before {
        return Duration::ZERO;
    }
    validity.renew_at().duration_since(now).unwrap_or_default()
}

/// The names and addresses that the certificate is good for.
pub(super) fn names(
    options: &Options,
    listeners: &Listeners,
    advertised: &Advertised,
) -> Result<Vec<String>, super::Error> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
        advertised.host.clone(),
    ];
    for listener in [&listeners.api, &listeners.cluster] {
        let ip = local_address(listener)?.ip();
        if !ip.is_unspecified() {
            names.push(ip.to_string());
        }
    }
    names.extend(options.names.iter().cloned());
    names.sort();
    names.dedup();
    Ok(names)
}
