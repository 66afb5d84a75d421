//! Certificates and keys between PEM text and DER. Verifies nothing.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A chain or CA bundle is a handful of certificates; more is not ours.
const CERTIFICATES_MAX: usize = 16;

/// The text is not the PEM that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No certificate, or not readable, or too many.
    #[error(
        "no readable certificate: PEM text with 1 to {CERTIFICATES_MAX} `BEGIN CERTIFICATE` blocks is expected"
    )]
    Certificate,
    /// Not a private key.
    #[error("no readable private key: PEM text with a `BEGIN PRIVATE KEY` block is expected")]
    Key,
}

/// Every certificate of `text`, in order; at least one.
pub(crate) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(text.as_bytes())
        .take(CERTIFICATES_MAX + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Error::Certificate)?;
    if found.is_empty() || found.len() > CERTIFICATES_MAX {
        return Err(Error::Certificate);
    }
    Ok(found)
}

/// The private key in `text`.
pub(crate) fn private_key(text: &str) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| Error::Key)
}
