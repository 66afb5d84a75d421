//! The cluster's own CA, and a certificate of it for each host.

use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};

/// What signs the hosts' certificates.
pub struct Certificates {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    /// A new CA.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        named(&mut params, "Proxmox Virtual Environment");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self {
            ca: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
        })
    }

    /// The CA, as PEM.
    pub fn pem(&self) -> String {
        self.ca.pem()
    }

    /// What a host shows, and its fingerprint.
    ///
    /// # Errors
    /// No key can be made.
    pub fn of_host(&self, name: &str) -> Result<(Arc<ServerConfig>, String)> {
        let names = ["127.0.0.1", "localhost", name].map(str::to_owned);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        named(&mut params, name);
        let certificate = params.signed_by(&key, &self.ca)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        let digest = hex::encode_upper(Sha256::digest(certificate.der()));
        let pairs: Vec<&str> = (0..32).map(|at| &digest[2 * at..2 * at + 2]).collect();
        Ok((Arc::new(config), pairs.join(":")))
    }
}

/// A host that had its CA's name would have signed itself, for some clients.
fn named(params: &mut CertificateParams, name: &str) {
    params.distinguished_name.push(DnType::CommonName, name);
}
