//! Renewal by a machine that slept too long: its certificate has run out, and no TLS connection takes
//! it any more. It shows the old certificate and signs the new request with the old key. Says who asks
//! and since when the certificate is out of date; whether that is good enough, the caller decides.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::parse_x509_certificate;

use crate::keypair::{Credentials, Validity};
use crate::name::{self, Identity};
use crate::pem;

/// A P-256 certificate with its chain is under 4 KiB; anything large is an attack.
const PEM_MAX_BYTES: usize = 16 * 1024;

/// The proof is not made, or not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The own key is of no use.
    #[error("the key of the old certificate cannot sign")]
    Key,
    /// Not a request.
    #[error("the certificate request cannot be parsed")]
    Request,
    /// Not a certificate, or of another cluster's CA, or of one that is trusted no more.
    #[error(
        "the old certificate was not issued by a CA that this cluster still trusts: join again with \
         a token"
    )]
    NotIssuedHere,
    /// Somebody else's certificate: those are public.
    #[error("the request is not signed by the key of the old certificate")]
    Forged,
}

/// What a machine shows in place of a valid certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The certificate that has run out (PEM).
    pub expired_pem: String,
    /// Over the DER of the new request, by its key: ECDSA P-256 with SHA-256, ASN.1.
    pub signature: Vec<u8>,
}

/// What a certificate said while it was valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lapsed {
    /// Whose it is.
    pub identity: Identity,
    /// When it was valid.
    pub validity: Validity,
}

/// Proves to be the holder of `credentials`, for the request `csr_pem` and nothing else.
///
/// # Errors
/// The request or the own key is not readable.
pub fn prove(credentials: &Credentials, csr_pem: &str) -> Result<Proof, Error> {
    let request = request_der(csr_pem)?;
    let key = pem::private_key(&credentials.key_pem).map_err(|_| Error::Key)?;
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_der(), &random)
        .map_err(|_| Error::Key)?;
    let signature = key.sign(&random, &request).map_err(|_| Error::Key)?;
    Ok(Proof {
        expired_pem: credentials.cert_chain_pem.clone(),
        signature: signature.as_ref().to_vec(),
    })
}

/// Checks a proof against the CAs in `trusted_ca_pem`: who asks, and when the old certificate was
/// valid.
///
/// # Errors
/// It proves nothing.
pub fn check(trusted_ca_pem: &str, csr_pem: &str, proof: &Proof) -> Result<Lapsed, Error> {
    if csr_pem.len().max(proof.expired_pem.len()) > PEM_MAX_BYTES {
        return Err(Error::Request);
    }
    let request = request_der(csr_pem)?;
    let der = pem::certificates(&proof.expired_pem)
        .map_err(|_| Error::NotIssuedHere)?
        .swap_remove(0);
    let leaf = parse_x509_certificate(&der)
        .map_err(|_| Error::NotIssuedHere)?
        .1;
    let identity = Identity::from_certificate(&der).map_err(|_| Error::NotIssuedHere)?;
    let anchors = pem::certificates(trusted_ca_pem).map_err(|_| Error::NotIssuedHere)?;
    let is_ours = anchors.iter().any(|anchor| {
        let is_of_cluster = name::cluster_of_ca(anchor) == Ok(identity.cluster);
        let ca = parse_x509_certificate(anchor).map(|(_, ca)| ca);
        is_of_cluster && ca.is_ok_and(|ca| leaf.verify_signature(Some(ca.public_key())).is_ok())
    });
    if !is_ours {
        return Err(Error::NotIssuedHere);
    }
    let key = leaf.public_key().subject_public_key.data.as_ref();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
        .verify(&request, &proof.signature)
        .map_err(|_| Error::Forged)?;
    let validity = Validity::of_der(&der).map_err(|_| Error::NotIssuedHere)?;
    Ok(Lapsed { identity, validity })
}

fn request_der(csr_pem: &str) -> Result<CertificateSigningRequestDer<'static>, Error> {
    CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes()).map_err(|_| Error::Request)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::ca::ClusterCa;
    use crate::keypair::KeyAndRequest;
    use crate::testing::{Cluster, HOUR};

    #[test]
    fn who_slept_too_long_is_known_by_certificate_and_key_together() {
        let long_ago = SystemTime::now() - 24 * 30 * HOUR;
        let ca = |id| Cluster {
            ca: ClusterCa::generate(skep_model::id::ClusterId::from_u128(id), long_ago)
                .expect("ca"),
        };
        let (ours, newer, other) = (ca(1), ca(1), ca(2));
        let sleeper = ours.credentials_at(ours.node_identity(8), long_ago);
        let fresh = KeyAndRequest::generate().expect("key");
        let proof = prove(&sleeper, &fresh.csr_pem).expect("proves");
        let trusted = format!("{}{}", newer.ca.cert_pem(), ours.ca.cert_pem());
        let lapsed = check(&trusted, &fresh.csr_pem, &proof).expect("known");
        assert_eq!(lapsed.identity, ours.node_identity(8));
        assert!(lapsed.validity.not_after < SystemTime::now() - HOUR);

        let stolen = KeyAndRequest::generate().expect("key");
        let refused = |trusted: &str, csr: &str, proof: &Proof| {
            check(trusted, csr, proof).expect_err("must be refused")
        };
        assert_eq!(
            refused(&trusted, &stolen.csr_pem, &proof),
            Error::Forged,
            "the proof is good for one request"
        );
        let bystander = ours.credentials(ours.node_identity(9));
        let mixed = Proof {
            expired_pem: sleeper.cert_chain_pem.clone(),
            ..prove(&bystander, &fresh.csr_pem).expect("signs")
        };
        assert_eq!(refused(&trusted, &fresh.csr_pem, &mixed), Error::Forged);
        for cas in [newer.ca.cert_pem(), other.ca.cert_pem(), ""] {
            let error = refused(cas, &fresh.csr_pem, &proof);
            assert_eq!(error, Error::NotIssuedHere);
        }
        assert_eq!(refused(&trusted, "rubbish", &proof), Error::Request);
        let large = Proof {
            expired_pem: "x".repeat(PEM_MAX_BYTES + 1),
            ..proof
        };
        assert_eq!(refused(&trusted, &fresh.csr_pem, &large), Error::Request);
    }
}
