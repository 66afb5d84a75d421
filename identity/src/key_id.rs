//! Which of two CAs of a cluster signed a certificate: both carry the cluster's name, only their keys
//! differ. Reads what certificates say of themselves; verifies nothing.

use std::fmt;

use x509_parser::extensions::ParsedExtension;
use x509_parser::parse_x509_certificate;

use crate::pem;

/// The key identifier of a CA (RFC 5280, 4.2.1.1 and 4.2.1.2) as Skep's CAs have it: 20 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 20]);

impl KeyId {
    /// The identifier with these bytes, as [`KeyId::as_bytes`] gave them; none: they are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self).ok()
    }

    /// The 20 bytes.
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// Of the CA whose certificate this is (PEM); none: it is not a CA's.
    pub fn of_ca(certificate_pem: &str) -> Option<Self> {
        let der = pem::certificates(certificate_pem).ok()?.swap_remove(0);
        extension(&der, |extension| match extension {
            ParsedExtension::SubjectKeyIdentifier(id) => Self::from_bytes(id.0),
            _ => None,
        })
    }

    /// Of the CA that signed this certificate (DER), as the certificate says.
    pub(crate) fn of_issuer(der: &[u8]) -> Option<Self> {
        extension(der, |extension| match extension {
            ParsedExtension::AuthorityKeyIdentifier(id) => id
                .key_identifier
                .as_ref()
                .and_then(|id| Self::from_bytes(id.0)),
            _ => None,
        })
    }
}

fn extension<T>(der: &[u8], pick: impl Fn(&ParsedExtension<'_>) -> Option<T>) -> Option<T> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let mut parsed = certificate
        .extensions()
        .iter()
        .map(|it| it.parsed_extension());
    parsed.find_map(pick)
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[test]
    fn a_certificate_says_which_of_two_cas_signed_it() {
        let (old, new) = (Cluster::new(1), Cluster::new(1));
        let leaf = |cluster: &Cluster| {
            let credentials = cluster.credentials(cluster.node_identity(8));
            let certificates = pem::certificates(&credentials.cert_chain_pem).expect("pem");
            KeyId::of_issuer(&certificates[0]).expect("says so")
        };
        let ca = |cluster: &Cluster| KeyId::of_ca(cluster.ca.cert_pem()).expect("a CA");
        assert_eq!(leaf(&old), ca(&old));
        assert_eq!(leaf(&new), ca(&new));
        assert_ne!(ca(&old), ca(&new));
        assert_eq!(KeyId::from_bytes(ca(&old).as_bytes()), Some(ca(&old)));
        assert_eq!(KeyId::from_bytes(b"short"), None);
    }
}
