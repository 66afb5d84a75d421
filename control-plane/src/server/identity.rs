//! The server's own certificate: issued from its replica of the CA at each start, renewed at two
//! thirds of its life.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_identity::ca::{self, ClusterCa, Grant};
use skep_identity::keypair::{self, KeyAndRequest};
use skep_identity::name::Identity;
use skep_identity::tls::{self, Reloadable};
use skep_model::id::ServerId;
use tokio_util::sync::CancellationToken;

use super::{Listeners, Options, local_address};

/// Life of a server's certificate.
const LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// Pause after a renewal that failed.
const RETRY: Duration = Duration::from_secs(60);

/// The server has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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

/// The server's own certificate. Cheap to clone.
#[derive(Clone)]
pub(super) struct Own {
    server: ServerId,
    names: Arc<Vec<String>>,
    reloadable: Arc<Reloadable>,
}

impl Own {
    pub(super) fn issue(
        ca: &ClusterCa,
        server: ServerId,
        names: Vec<String>,
    ) -> Result<Self, Error> {
        let credentials = issue(ca, server, &names)?;
        Ok(Self {
            server,
            names: Arc::new(names),
            reloadable: Reloadable::new(&credentials)?,
        })
    }

    pub(super) fn reloadable(&self) -> &Arc<Reloadable> {
        &self.reloadable
    }

    /// Renews for as long as the server runs.
    pub(super) async fn keep_fresh(self, ca: Arc<ClusterCa>, shutdown: CancellationToken) {
        let mut pause = self.until_renewal();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let renewed = issue(&ca, self.server, &self.names)
                .and_then(|credentials| self.reloadable.replace(&credentials).map_err(Error::from));
            pause = match renewed {
                Ok(()) => self.until_renewal(),
                Err(error) => {
                    tracing::error!(%error, "the server's certificate could not be renewed");
                    RETRY
                }
            };
        }
    }

    fn until_renewal(&self) -> Duration {
        self.reloadable
            .validity()
            .renew_at()
            .duration_since(SystemTime::now())
            .unwrap_or_default()
    }
}

fn issue(
    ca: &ClusterCa,
    server: ServerId,
    names: &[String],
) -> Result<keypair::Credentials, Error> {
    let key = KeyAndRequest::generate()?;
    let grant = Grant {
        identity: Identity::server(ca.cluster(), server),
        addresses: names,
        lifetime: LIFETIME,
    };
    let certificate = ca.issue(&key.csr_pem, &grant, SystemTime::now())?;
    Ok(key.certified(certificate, ca.cert_pem().to_owned()))
}

/// The names and addresses that the certificate is good for.
pub(super) fn names(options: &Options, listeners: &Listeners) -> Result<Vec<String>, super::Error> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    for listener in [&listeners.api, &listeners.agents] {
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
