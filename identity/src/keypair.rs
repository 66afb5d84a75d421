//! A server's or node's own key: made where it is used, never sent. And what it becomes with the
//! CA's signature: [`Credentials`], kept in a folder.
//!
//! Two files: `identity.pem` (private key and certificate chain, mode 0600, so that the pair is
//! replaced in one step) and `ca.pem` (the CA certificates to trust). Folder functions block on the
//! disk.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

use crate::name::{self, Identity};
use crate::{pem, secret_file};

const IDENTITY_FILE: &str = "identity.pem";
const CA_FILE: &str = "ca.pem";
const CERTIFICATE_MARK: &str = "-----BEGIN CERTIFICATE-----";

/// Credentials cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key or the request could not be made.
    #[error("cannot make a key and its certificate request")]
    Generate(#[source] rcgen::Error),
    /// Reading or writing failed.
    #[error("the credentials")]
    File(#[from] secret_file::Error),
    /// The file is not PEM text of ours.
    #[error("{} holds no private key followed by a certificate", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or key is not readable.
    #[error("the credentials")]
    Pem(#[from] pem::Error),
    /// The certificate names nobody.
    #[error("the certificate of the credentials")]
    Name(#[from] name::Error),
}

/// A fresh private key, and the request to have it certified.
pub struct KeyAndRequest {
    /// The private key (PKCS #8 PEM).
    pub key_pem: Zeroizing<String>,
    /// The certificate request (PEM): carries the public key and no name.
    pub csr_pem: String,
}

impl KeyAndRequest {
    /// A new ECDSA P-256 key with its request.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::Generate)?;
        Ok(Self {
            key_pem: Zeroizing::new(key.serialize_pem()),
            csr_pem: request(&key)?,
        })
    }

    /// The credentials that this key becomes with the certificate issued for it.
    pub fn certified(self, cert_chain_pem: String, ca_pem: String) -> Credentials {
        Credentials {
            cert_chain_pem,
            key_pem: self.key_pem,
            ca_pem,
        }
    }
}

impl fmt::Debug for KeyAndRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyAndRequest")
    }
}

/// What one party needs to prove who it is and to check others.
#[derive(Clone)]
pub struct Credentials {
    /// Own certificate first, then intermediates if any; never the CA itself.
    pub cert_chain_pem: String,
    /// The private key of the first certificate.
    pub key_pem: Zeroizing<String>,
    /// The CA certificates to trust: one, or two while a CA is being replaced.
    pub ca_pem: String,
}

impl Credentials {
    /// Reads what [`Credentials::save`] wrote. Blocks on the disk.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(IDENTITY_FILE);
        let malformed = || Error::Malformed { path: path.clone() };
        let identity = read_text(&path)?;
        let start = identity.find(CERTIFICATE_MARK).ok_or_else(malformed)?;
        let (key, chain) = identity.split_at(start);
        if key.trim().is_empty() {
            return Err(malformed());
        }
        Ok(Self {
            cert_chain_pem: chain.to_owned(),
            key_pem: Zeroizing::new(key.to_owned()),
            ca_pem: read_text(&folder.join(CA_FILE))?.to_string(),
        })
    }

    /// Writes the credentials into `folder`, made with mode 0700 if missing. A crash leaves the old
    /// or the new pair of key and certificate, never a mixture. Blocks on the disk.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        secret_file::ensure_private_dir(folder)?;
        // The CA first: it may be read with the old pair, which it still has to cover.
        secret_file::write_private(&folder.join(CA_FILE), self.ca_pem.as_bytes())?;
        let identity = Zeroizing::new(format!(
            "{}\n{}",
            self.key_pem.trim_end(),
            self.cert_chain_pem
        ));
        secret_file::write_private(&folder.join(IDENTITY_FILE), identity.as_bytes())?;
        Ok(())
    }

    /// Who they belong to.
    pub fn identity(&self) -> Result<Identity, Error> {
        Ok(Identity::from_certificate(&self.leaf()?)?)
    }

    /// When the certificate begins and ends to be valid.
    pub fn validity(&self) -> Result<Validity, Error> {
        Ok(Validity::of_der(&self.leaf()?)?)
    }

    fn leaf(&self) -> Result<CertificateDer<'static>, Error> {
        Ok(pem::certificates(&self.cert_chain_pem)?.swap_remove(0))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.identity() {
            Ok(identity) => write!(f, "Credentials({identity})"),
            Err(_) => f.write_str("Credentials(unreadable)"),
        }
    }
}

/// The span in which a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// The span that a certificate states.
    pub(crate) fn of_der(der: &[u8]) -> Result<Self, name::Error> {
        let (_, parsed) = parse_x509_certificate(der).map_err(|_| name::Error::Certificate)?;
        Ok(Self {
            not_before: parsed.validity().not_before.to_datetime().into(),
            not_after: parsed.validity().not_after.to_datetime().into(),
        })
    }

    /// When to ask for the next certificate: after two thirds, so that a third is left for
    /// servers to come back.
    pub fn renew_at(&self) -> SystemTime {
        let span = self
            .not_after
            .duration_since(self.not_before)
            .unwrap_or(Duration::ZERO);
        self.not_before + span * 2 / 3
    }

    /// Whether the certificate is valid at `now`.
    pub fn contains(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

fn request(key: &KeyPair) -> Result<String, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).map_err(Error::Generate)?;
    request.pem().map_err(Error::Generate)
}

fn read_text(path: &Path) -> Result<Zeroizing<String>, Error> {
    let bytes = secret_file::read_private(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::Malformed {
        path: path.to_owned(),
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use skep_model::id::{ClusterId, NodeId};

    use super::*;
    use crate::ca::{ClusterCa, Grant};

    fn credentials(now: SystemTime) -> Credentials {
        let cluster = ClusterId::from_u128(1);
        let ca = ClusterCa::generate(cluster, now).expect("ca");
        let key = KeyAndRequest::generate().expect("key");
        let grant = Grant {
            identity: Identity::node(cluster, NodeId::from_u128(2)),
            addresses: &[],
            lifetime: Duration::from_secs(3600),
        };
        let cert = ca.issue(&key.csr_pem, &grant, now).expect("issue");
        key.certified(cert, ca.cert_pem().to_owned())
    }

    #[test]
    fn a_folder_keeps_them_private_and_whole() {
        let dir = tempfile::tempdir().expect("folder");
        let folder = dir.path().join("credentials");
        let saved = credentials(SystemTime::now());
        saved.save(&folder).expect("save");
        for file in [IDENTITY_FILE, CA_FILE] {
            let mode = fs::metadata(folder.join(file))
                .expect("metadata")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let loaded = Credentials::load(&folder).expect("load");
        assert_eq!(loaded.key_pem.trim(), saved.key_pem.trim());
        assert_eq!(loaded.cert_chain_pem, saved.cert_chain_pem);
        assert_eq!(loaded.ca_pem, saved.ca_pem);
        assert_eq!(
            loaded.identity().expect("name").node_id(),
            Some(NodeId::from_u128(2))
        );
        assert!(!format!("{loaded:?}").contains("PRIVATE"));
    }

    #[test]
    fn missing_and_damaged_folders_say_so() {
        let dir = tempfile::tempdir().expect("folder");
        let error = Credentials::load(dir.path()).expect_err("missing");
        assert!(
            matches!(&error, Error::File(e) if e.is_not_found()),
            "{error}"
        );
        secret_file::write_private(&dir.path().join(IDENTITY_FILE), b"rubbish").expect("write");
        assert!(matches!(
            Credentials::load(dir.path()),
            Err(Error::Malformed { .. })
        ));
    }

    #[test]
    fn renewal_is_due_after_two_thirds() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let validity = credentials(now).validity().expect("validity");
        assert_eq!(validity.not_after, now + Duration::from_secs(3600));
        assert!(validity.contains(now) && !validity.contains(now + Duration::from_secs(3601)));
        // The certificate starts 300 s early, for clocks that are behind.
        assert_eq!(
            validity.renew_at(),
            now + Duration::from_secs((3600 + 300) * 2 / 3 - 300)
        );
    }
}
