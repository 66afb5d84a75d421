//! What a certificate that others issued says: its names, its time, its number. For the certificates of apps; the
//! cluster's own CA never signs those.

use rustls::crypto::ring::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// A chain of this length is a mistake: a leaf and some intermediates are sent in each handshake.
const MAX_CHAIN: usize = 8;
/// Longest name of an issuer that is told, in characters.
const MAX_ISSUER: usize = 200;

/// Chain and key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The chain.
    #[error("the chain is no PEM of 1 to {MAX_CHAIN} certificates, the leaf first")]
    Chain,
    /// The key.
    #[error("the key is no PEM of one unencrypted private key")]
    Key,
    /// Both.
    #[error(
        "the key is not the certificate's, or of a kind that is not supported (RSA, ECDSA P-256 and P-384, Ed25519 are)"
    )]
    Pair,
    /// The leaf.
    #[error("the first certificate cannot be read")]
    Leaf,
    /// Clients look for names nowhere else.
    #[error("the certificate has no DNS name among its subject alternative names")]
    Nameless,
}

/// What the first certificate of a chain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Hosts that it stands for, in lower case.
    pub names: Vec<String>,
    /// Since when it holds, ms since the epoch.
    pub not_before_ms: u64,
    /// Until when.
    pub not_after_ms: u64,
    /// In hexadecimal.
    pub serial: String,
    /// Who signed it.
    pub issuer: String,
}

/// Reads a chain, and sees whether the key is its leaf's.
///
/// # Errors
/// They cannot be read, or do not belong together.
pub fn inspect(chain_pem: &str, key_pem: &str) -> Result<Leaf, Error> {
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes());
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|_| Error::Chain)?;
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return Err(Error::Chain);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| Error::Key)?;
    let leaf = read(&chain[0])?;
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(|_| Error::Pair)?;
    Ok(leaf)
}

fn read(der: &CertificateDer<'_>) -> Result<Leaf, Error> {
    let (_, leaf) = parse_x509_certificate(der).map_err(|_| Error::Leaf)?;
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let names = alternatives.map_or(&[][..], |it| &it.value.general_names);
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let names: Vec<String> = dns.collect();
    if names.is_empty() {
        return Err(Error::Nameless);
    }
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
    let validity = leaf.validity();
    Ok(Leaf {
        names,
        not_before_ms: ms(validity.not_before.timestamp()),
        not_after_ms: ms(validity.not_after.timestamp()),
        serial: hex::encode(leaf.raw_serial()),
        issuer: leaf.issuer().to_string().chars().take(MAX_ISSUER).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_tells_whose_it_is_and_a_stranger_key_is_refused() {
        let made = rcgen::generate_simple_self_signed(["A.example".to_owned()]).expect("made");
        let other = rcgen::generate_simple_self_signed(["b.example".to_owned()]).expect("made");
        let key = made.signing_key.serialize_pem();
        let leaf = inspect(&made.cert.pem(), &key).expect("good");
        assert_eq!(leaf.names, ["a.example"]);
        assert!(leaf.not_before_ms < leaf.not_after_ms);
        assert!(!leaf.serial.is_empty() && !leaf.issuer.is_empty());
        assert_eq!(inspect("", &key), Err(Error::Chain));
        assert_eq!(inspect(&made.cert.pem(), ""), Err(Error::Key));
        let theirs = other.signing_key.serialize_pem();
        assert_eq!(inspect(&made.cert.pem(), &theirs), Err(Error::Pair));
        assert_eq!(inspect(&made.cert.pem().repeat(9), &key), Err(Error::Chain));
        let nameless = rcgen::generate_simple_self_signed([]).expect("made");
        let key = nameless.signing_key.serialize_pem();
        assert_eq!(inspect(&nameless.cert.pem(), &key), Err(Error::Nameless));
    }
}
