//! Credentials that can be replaced while connections live: configurations hold a [`Reloadable`]
//! and look into it at each handshake.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls_pki_types::UnixTime;
use tokio::sync::watch;

use crate::key_id::KeyId;
use crate::keypair::{self, Credentials, Validity};
use crate::name::Identity;
use crate::pem;

/// Credentials are not usable.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not readable.
    #[error("the credentials are not readable")]
    Credentials(#[from] keypair::Error),
    /// Not readable.
    #[error("the credentials are not readable")]
    Pem(#[from] pem::Error),
    /// Key and certificate are not a pair, or the CA did not sign the certificate.
    #[error("the key, the certificate and the CA do not belong together")]
    Mismatch(#[from] rustls::Error),
    /// The CA certificates cannot be trusted as such.
    #[error("the CA certificates are not usable")]
    Ca(#[source] rustls::server::VerifierBuilderError),
    /// Somebody else's credentials.
    #[error("the new credentials belong to {theirs}, in use are those of {ours}")]
    OtherIdentity {
        /// The identity in use.
        ours: Identity,
        /// The identity of the refused credentials.
        theirs: Identity,
    },
}

/// One state of the credentials, ready for handshakes.
pub(super) struct Loaded {
    pub(super) identity: Identity,
    pub(super) validity: Validity,
    pub(super) issuer: Option<KeyId>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) client_verifier: Arc<dyn ClientCertVerifier>,
    pub(super) as_client: Arc<CertifiedKey>,
    /// Sends the CA too, for clients that know only its fingerprint.
    pub(super) as_server: Arc<CertifiedKey>,
}

impl Loaded {
    fn new(credentials: &Credentials) -> Result<Self, LoadError> {
        let provider = super::provider();
        let identity = credentials.identity()?;
        let validity = credentials.validity()?;
        let chain = pem::certificates(&credentials.cert_chain_pem)?;
        let anchors = pem::certificates(&credentials.ca_pem)?;
        let key = pem::private_key(&credentials.key_pem)?;
        let as_client = CertifiedKey::from_der(chain, key, &provider)?;
        let chain_and_ca = as_client.cert.iter().chain(&anchors).cloned().collect();
        let as_server = CertifiedKey::new(chain_and_ca, as_client.key.clone());

        let mut roots = RootCertStore::empty();
        for anchor in anchors {
            roots.add(anchor)?;
        }
        let roots = Arc::new(roots);
        let client_verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider)
            .build()
            .map_err(LoadError::Ca)?;
        let (leaf, intermediates) = as_client.cert.split_at(1);
        client_verifier.verify_client_cert(&leaf[0], intermediates, moment_of(validity))?;
        Ok(Self {
            identity,
            validity,
            issuer: KeyId::of_issuer(&leaf[0]),
            roots,
            client_verifier,
            as_client: Arc::new(as_client),
            as_server: Arc::new(as_server),
        })
    }
}

/// A moment at which the certificate is valid: expired credentials still load (they are what a
/// machine wakes up with after a long sleep); peers are the ones to refuse them.
fn moment_of(validity: Validity) -> UnixTime {
    let start = validity.not_before.duration_since(std::time::UNIX_EPOCH);
    UnixTime::since_unix_epoch(start.unwrap_or_default())
}

/// The credentials of this process, shared by all its TLS configurations.
pub struct Reloadable {
    current: watch::Sender<Arc<Loaded>>,
}

impl Reloadable {
    /// Starts with `credentials`, after checking that key, certificate and CA belong together.
    pub fn new(credentials: &Credentials) -> Result<Arc<Self>, LoadError> {
        let loaded = Arc::new(Loaded::new(credentials)?);
        Ok(Arc::new(Self {
            current: watch::Sender::new(loaded),
        }))
    }

    /// Uses `credentials` from the next handshake on; established connections go on. On an error
    /// the old ones stay. The identity cannot change.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), LoadError> {
        let loaded = Loaded::new(credentials)?;
        let ours = self.identity();
        if loaded.identity != ours {
            return Err(LoadError::OtherIdentity {
                ours,
                theirs: loaded.identity,
            });
        }
        self.current.send_replace(Arc::new(loaded));
        Ok(())
    }

    /// Whose credentials they are.
    pub fn identity(&self) -> Identity {
        self.current.borrow().identity
    }

    /// When the certificate in use is valid, hence when to renew it.
    pub fn validity(&self) -> Validity {
        self.current.borrow().validity
    }

    /// The CA that signed the certificate in use.
    pub fn issuer(&self) -> Option<KeyId> {
        self.current.borrow().issuer
    }

    pub(super) fn current(&self) -> Arc<Loaded> {
        self.current.borrow().clone()
    }
}

impl fmt::Debug for Reloadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reloadable({})", self.identity())
    }
}
