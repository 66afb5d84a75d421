//! A certificate authority for names that no public one issues for: those that lead nowhere from outside. It is not the
//! cluster's own: people put its root among those that their browsers trust, and its root says itself that it is for
//! private names alone.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P256_SHA256,
};
use skep_model::certificate::LOCAL_DOMAINS;
use zeroize::Zeroizing;

use crate::pem;

/// Trusted by hand: replacing it is work for people.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// As public authorities do: renewed by itself.
const LEAF_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// Clocks of those who look may be this far behind.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// A certificate cannot be issued, or the authority not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate library refused.
    #[error("the local CA cannot {action}: {source}")]
    Build {
        /// What was being done.
        action: &'static str,
        /// Why not.
        source: rcgen::Error,
    },
    /// Its certificate is not readable.
    #[error("the local CA's certificate")]
    Pem(#[from] pem::Error),
}

fn build(action: &'static str) -> impl FnOnce(rcgen::Error) -> Error {
    move |source| Error::Build { action, source }
}

/// A root, PEM, and its key.
pub struct Root {
    /// What people trust.
    pub certificate_pem: String,
    /// To be sealed before it goes anywhere.
    pub key_pem: Zeroizing<String>,
}

impl Root {
    /// A new one, called after `cluster`.
    ///
    /// # Errors
    /// The certificate library refused.
    pub fn generate(cluster: &str, now: SystemTime) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(build("make its key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("Skep local CA {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let domains = LOCAL_DOMAINS.map(|it| GeneralSubtree::DnsName(it.to_owned()));
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: domains.to_vec(),
            excluded_subtrees: Vec::new(),
        });
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + ROOT_LIFETIME).into();
        let certificate = params.self_signed(&key).map_err(build("sign its root"))?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            key_pem: Zeroizing::new(key.serialize_pem()),
        })
    }

    /// A certificate for `host`, and its key, both PEM.
    ///
    /// # Errors
    /// The root cannot be read, or the host be in no certificate.
    pub fn issue(&self, host: &str, now: SystemTime) -> Result<(String, Zeroizing<String>), Error> {
        let root = pem::certificates(&self.certificate_pem)?.swap_remove(0);
        let key = KeyPair::from_pem(&self.key_pem).map_err(build("read its key"))?;
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(build("read its root"))?;
        let own = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(build("make a key"))?;
        let params = CertificateParams::new([host.to_owned()]);
        let mut params = params.map_err(build("name the host"))?;
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + LEAF_LIFETIME).into();
        let leaf = params.signed_by(&own, &issuer).map_err(build("sign"))?;
        Ok((leaf.pem(), Zeroizing::new(own.serialize_pem())))
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut whole = DistinguishedName::new();
    whole.push(DnType::CommonName, name);
    whole
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;

    fn is_trusted(root: &Root, host: &str) -> bool {
        let (leaf, key) = root.issue(host, SystemTime::now()).expect("issued");
        crate::leaf::inspect(&leaf, &key).expect("a pair");
        let mut roots = RootCertStore::empty();
        let trusted = pem::certificates(&root.certificate_pem).expect("PEM");
        roots.add(trusted[0].clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let verifier = verifier.build().expect("a verifier");
        let leaf = pem::certificates(&leaf).expect("PEM").swap_remove(0);
        let name = ServerName::try_from(host.replace('*', "any")).expect("a name");
        let looked = verifier.verify_server_cert(&leaf, &[], &name, &[], UnixTime::now());
        looked.is_ok()
    }

    #[test]
    fn whoever_trusts_the_root_trusts_private_names_and_no_others() {
        let root = Root::generate("one", SystemTime::now()).expect("made");
        for (host, is_fine) in [
            ("web-production-shop.localhost", true),
            ("shop.internal", true),
            ("*.apps.internal", true),
            ("nas.local", true),
            ("shop.home.arpa", true),
            ("bank.example.com", false),
            ("internal.example.com", false),
        ] {
            assert_eq!(is_trusted(&root, host), is_fine, "{host}");
        }
    }
}
