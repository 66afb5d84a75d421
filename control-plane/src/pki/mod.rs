//! The cluster's own certificates: who signs at the moment, for how long, what a machine has to show
//! that slept too long, and how one CA is replaced by another. Owns no key: what it signs with is read
//! from the replicated state at each turn, so that a replaced CA is replaced everywhere at once.

mod rotation;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use skep_identity::ca::{self, ClusterCa, Grant};
use skep_identity::fingerprint::Fingerprint;
use skep_identity::name::Identity;
use skep_identity::renewal::{self, Lapsed, Proof};
use skep_model::id::NodeId;
use skep_model::problem::{Code, Problem};
use skep_state::Cluster;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

pub use rotation::{Behind, Phase, behind};

use crate::secrets::Secrets;
use crate::store::Store;

/// Life of the certificates of servers and nodes.
pub const LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// How long after its end a certificate is still good for asking for the next one: a homelab that was
/// switched off for a season.
pub const RENEWABLE_AFTER_END: Duration = Duration::from_secs(90 * 24 * 3_600);
/// A certificate begins a little before it is made; beyond that somebody's clock is wrong.
const FUTURE_TOLERANCE: Duration = Duration::from_secs(300);
const DAY_S: u64 = 24 * 3_600;

/// The fingerprint of the CA that signs.
pub(crate) fn ca_fingerprint(cluster: &Cluster) -> Result<Fingerprint, Problem> {
    fingerprint_of(&cluster.ca_cert_pem)
}

/// The fingerprint of a CA of the cluster.
pub(crate) fn fingerprint_of(ca_pem: &str) -> Result<Fingerprint, Problem> {
    let der = CertificateDer::from_pem_slice(ca_pem.as_bytes());
    der.map(|der| Fingerprint::of_der(&der)).map_err(|_| {
        Problem::new(
            Code::Internal,
            "the cluster's CA certificate cannot be read",
        )
    })
}

/// How long certificates are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Life of the certificates of servers and nodes.
    pub lifetime: Duration,
    /// How long after its end a node's certificate is still good for renewing it.
    pub renewable_after_end: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lifetime: LIFETIME,
            renewable_after_end: RENEWABLE_AFTER_END,
        }
    }
}

/// Signs for the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Authority {
    store: Store,
    secrets: Secrets,
    terms: Terms,
    /// Opening and parsing the CA's key costs more than a signature.
    loaded: Arc<Mutex<Option<Loaded>>>,
}

struct Loaded {
    certificate_pem: String,
    ca: Arc<ClusterCa>,
}

/// A certificate with what its holder has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The certificate (PEM).
    pub certificate_pem: String,
    /// Every CA to trust (PEM).
    pub ca_pem: String,
}

impl Authority {
    /// Over the replicated state.
    pub fn new(store: Store, secrets: Secrets, terms: Terms) -> Self {
        Self {
            store,
            secrets,
            terms,
            loaded: Arc::default(),
        }
    }

    /// The cluster, as this replica knows it.
    ///
    /// # Errors
    /// There is none yet.
    pub fn cluster(&self) -> Result<Arc<Cluster>, Problem> {
        self.store.view().cluster().cloned().ok_or_else(|| {
            Problem::new(
                Code::Unavailable,
                "this server does not know its cluster yet",
            )
            .hint("try again")
        })
    }

    /// Signs a node's certificate for the key in `csr_pem`.
    ///
    /// # Errors
    /// The request is refused, or the CA cannot be used.
    pub fn certify_node(&self, node: NodeId, csr_pem: &str) -> Result<Certified, Problem> {
        let cluster = self.cluster()?;
        let grant = Grant {
            identity: Identity::node(cluster.id, node),
            addresses: &[],
            lifetime: self.terms.lifetime,
        };
        let ca = self.signing(&cluster)?;
        let issued = ca.issue(csr_pem, &grant, SystemTime::now());
        Ok(Certified {
            certificate_pem: issued.map_err(refused)?,
            ca_pem: cluster.trusted_ca_pem(),
        })
    }

    /// The node that a proof in place of a valid certificate speaks for. Whether it is still of the
    /// cluster is the caller's to judge.
    ///
    /// # Errors
    /// It proves nothing, or is too old.
    pub fn lapsed_node(&self, csr_pem: &str, proof: &Proof) -> Result<NodeId, Problem> {
        let trusted = self.cluster()?.trusted_ca_pem();
        let lapsed = renewal::check(&trusted, csr_pem, proof)
            .map_err(|error| Problem::new(Code::Unauthenticated, error.to_string()))?;
        check_age(&lapsed, SystemTime::now(), self.terms.renewable_after_end)?;
        lapsed.identity.node_id().ok_or_else(|| {
            Problem::new(Code::Unauthenticated, "the old certificate is not a node's")
        })
    }

    fn signing(&self, cluster: &Cluster) -> Result<Arc<ClusterCa>, Problem> {
        let mut loaded = self.loaded.lock();
        if let Some(held) = &*loaded
            && held.certificate_pem == cluster.ca_cert_pem
        {
            return Ok(Arc::clone(&held.ca));
        }
        let ca = Arc::new(self.secrets.signing_ca(cluster)?);
        *loaded = Some(Loaded {
            certificate_pem: cluster.ca_cert_pem.clone(),
            ca: Arc::clone(&ca),
        });
        Ok(ca)
    }
}

/// What a server shows: its certificate, and while a CA is being replaced the word of the old one for
/// the new one, so that whoever knows the old one alone is not locked out.
///
/// # Errors
/// A CA cannot be used.
pub fn chain(secrets: &Secrets, cluster: &Cluster, leaf_pem: String) -> Result<String, Problem> {
    let Some(older) = secrets.older_ca(cluster)? else {
        return Ok(leaf_pem);
    };
    let endorsed = older.endorse(&cluster.ca_cert_pem).map_err(|error| {
        let message = format!("the old CA cannot vouch for the new one: {error}");
        Problem::new(Code::Internal, message)
    })?;
    Ok(format!("{}\n{endorsed}", leaf_pem.trim_end()))
}

fn refused(error: ca::Error) -> Problem {
    match error {
        // Ours, not the caller's.
        ca::Error::Expired | ca::Error::Build { .. } | ca::Error::Lifetime { .. } => {
            Problem::new(Code::Internal, error.to_string())
        }
        _ => Problem::invalid("csr_pem", error.to_string()),
    }
}

fn check_age(lapsed: &Lapsed, now: SystemTime, within: Duration) -> Result<(), Problem> {
    let validity = lapsed.validity;
    let clock = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if let Ok(ahead) = validity.not_before.duration_since(now)
        && ahead > FUTURE_TOLERANCE
    {
        let message = format!(
            "the certificate begins {} in the future by this server's clock ({clock} s since 1970): \
             a clock is wrong, here or there",
            span(ahead)
        );
        return Err(Problem::new(Code::Forbidden, message));
    }
    match now.duration_since(validity.not_after) {
        Ok(since) if since > within => {
            let message = format!(
                "the certificate ended {} ago by this server's clock ({clock} s since 1970), and may \
                 be renewed for {}: remove the node and let it join again, if the clocks are right",
                span(since),
                span(within)
            );
            Err(Problem::new(Code::Forbidden, message))
        }
        _ => Ok(()),
    }
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 2 * DAY_S => format!("{} days", seconds / DAY_S),
        seconds => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use skep_identity::keypair::Validity;
    use skep_model::id::ClusterId;

    use super::*;

    #[test]
    fn a_certificate_is_renewable_for_a_while_after_its_end_and_never_before_its_begin() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let day = Duration::from_secs(DAY_S);
        let lapsed = |not_after| Lapsed {
            identity: Identity::node(ClusterId::from_u128(1), NodeId::from_u128(2)),
            validity: Validity {
                not_before: not_after - day,
                not_after,
            },
        };
        let check = |not_after| check_age(&lapsed(not_after), now, RENEWABLE_AFTER_END);
        assert_eq!(check(now - 30 * day), Ok(()));
        assert_eq!(check(now - 90 * day), Ok(()));
        assert_eq!(check(now + day / 2), Ok(()), "still valid");
        let problem = check(now - 91 * day).expect_err("too old");
        assert!(problem.message.contains("ended 91 days ago"), "{problem}");
        let problem = check(now + 3 * day).expect_err("from the future");
        assert!(
            problem.message.contains("begins 2 days in the future"),
            "{problem}"
        );
    }
}
