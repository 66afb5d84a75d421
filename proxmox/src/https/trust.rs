//! Which certificates are believed. Proxmox signs its own: the cluster's CA file outlives renewals and is preferred, pins of
//! certificates are the other way, and there is no third that believes anything.

use std::fmt::Write as _;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use super::Verifier;
use crate::error::Error;

/// What a host's certificate is believed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// It was signed by one of these, as PEM: `/etc/pve/pve-root-ca.pem` of the cluster. Names count.
    Ca(String),
    /// It is one of these, by the SHA-256 of the whole. Several: hosts have one each, and a renewal brings another.
    Pins(Vec<[u8; 32]>),
}

impl Trust {
    /// Fingerprints as Proxmox shows them: `AA:BB:...`, 32 pairs of hex digits.
    ///
    /// # Errors
    /// One has not that form, or there is none.
    pub fn pins<'a>(fingerprints: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let pins: Vec<[u8; 32]> = fingerprints
            .into_iter()
            .map(parse_pin)
            .collect::<Result<_, _>>()?;
        match pins.is_empty() {
            true => Err(Error::invalid("no fingerprint is named".to_owned())),
            false => Ok(Self::Pins(pins)),
        }
    }

    /// # Errors
    /// There is no certificate in the file.
    pub(super) fn config(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Verifier = match self {
            Self::Ca(pem) => {
                let roots = roots(pem)?;
                let builder =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
                let built = builder.build();
                built.map_err(|error| Error::invalid(format!("the CA: {error}")))?
            }
            Self::Pins(pins) => Arc::new(Pinned {
                pins: pins.clone(),
                provider: provider.clone(),
            }),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::invalid(format!("TLS: {error}")))?;
        Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth())
    }
}

fn parse_pin(text: &str) -> Result<[u8; 32], Error> {
    let digits: String = text.trim().split(':').collect();
    let mut pin = [0; 32];
    hex::decode_to_slice(&digits, &mut pin).map_err(|_| {
        Error::invalid(format!(
            "`{}` is not a fingerprint: 32 pairs of hex digits between colons, of `pvenode cert info`",
            text.escape_debug()
        ))
    })?;
    Ok(pin)
}

fn roots(pem: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|it| roots.add(it).map_err(|error| error.to_string()));
        added.map_err(|why| Error::invalid(format!("the CA: {why}")))?;
    }
    match roots.is_empty() {
        true => Err(Error::invalid("the CA file has no certificate".to_owned())),
        false => Ok(roots),
    }
}

/// As Proxmox writes one.
fn shown(pin: &[u8]) -> String {
    let mut text = String::new();
    for byte in pin {
        let colon = if text.is_empty() { "" } else { ":" };
        // Writing to text never fails.
        let _ = write!(text, "{colon}{byte:02X}");
    }
    text
}

/// Believes some certificates, and that who has one has its key.
#[derive(Debug)]
struct Pinned {
    pins: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found: [u8; 32] = Sha256::digest(certificate).into();
        if self.pins.contains(&found) {
            return Ok(ServerCertVerified::assertion());
        }
        let known: Vec<String> = self.pins.iter().map(|pin| shown(pin)).collect();
        Err(rustls::Error::General(format!(
            "its certificate has the fingerprint {}, and {} is expected: was it renewed?",
            shown(&found),
            known.join(" or ")
        )))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = &self.provider.signature_verification_algorithms;
        known.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_they_are_shown() {
        let text = ["AB"; 32].join(":");
        let Trust::Pins(pins) = Trust::pins([text.to_lowercase().as_str()]).expect("one") else {
            panic!("pins");
        };
        assert_eq!(shown(&pins[0]), text);
        for odd in ["", "AB:CD", &"A".repeat(63), &["GG"; 32].join(":")] {
            Trust::pins([odd]).expect_err(odd);
        }
        Trust::pins([]).expect_err("none");
        Trust::Ca("no certificate".to_owned())
            .config()
            .expect_err("none");
    }
}
