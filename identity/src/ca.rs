//! The cluster's certificate authority: makes itself once, then signs the certificates of servers,
//! nodes and operators, and of nothing else. Keeps no record of what it signed.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use skep_model::id::ClusterId;
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::fingerprint::Fingerprint;
use crate::name::{self, Identity, Role};
use crate::{pem, random};

/// A cluster outlives its machines; replacing its CA is a ceremony.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of machines that join may be this far behind. Less for certificates that live for minutes:
/// two thirds of their life must not be over at once.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// Shorter, a certificate cannot be renewed in time; longer, it would not be short-lived.
pub const LIFETIMES: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(90 * 24 * 3600);
/// A P-256 request is under 1 KiB; anything large is an attack.
const CSR_MAX_BYTES: usize = 16 * 1024;
/// Extra names of one server.
const ADDRESSES_MAX: usize = 32;

/// A certificate cannot be issued, or the CA not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate library refused.
    #[error("cannot {action}")]
    Build {
        /// What was being done.
        action: &'static str,
        /// Why not.
        source: rcgen::Error,
    },
    /// The CA's own files are not what they should be.
    #[error("the CA certificate is not a cluster CA of Skep")]
    Name(#[from] name::Error),
    /// The CA's certificate is not readable.
    #[error("the CA certificate")]
    Pem(#[from] pem::Error),
    /// Certificate and key of the CA are not a pair.
    #[error("the CA's key does not belong to its certificate")]
    KeyMismatch,
    /// Not a request.
    #[error("the certificate request cannot be parsed")]
    MalformedRequest,
    /// Whoever sent the request does not hold its key.
    #[error("the certificate request is not signed with its own key")]
    ForgedRequest,
    /// Only ECDSA P-256 is signed.
    #[error("the certificate request has another kind of key: ECDSA P-256 is expected")]
    KeyKind,
    /// Another cluster's identity.
    #[error("this CA signs for cluster {ours}, not {theirs}")]
    OtherCluster {
        /// The CA's cluster.
        ours: ClusterId,
        /// The asked one.
        theirs: ClusterId,
    },
    /// A name that cannot be in the certificate.
    #[error("`{address}` cannot be in the certificate: {reason}")]
    Address {
        /// The DNS name or IP address.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Unreasonable lifetime.
    #[error("a lifetime of {} s is not between {} s and {} s", lifetime.as_secs(), LIFETIMES.start().as_secs(), LIFETIMES.end().as_secs())]
    Lifetime {
        /// The asked lifetime.
        lifetime: Duration,
    },
    /// The CA has run out.
    #[error("the cluster CA is not valid at this time: check the clock, else it must be replaced")]
    Expired,
}

fn build(action: &'static str) -> impl FnOnce(rcgen::Error) -> Error {
    move |source| Error::Build { action, source }
}

/// What a certificate is to say, decided by the server that issues it.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    /// Whose certificate it is.
    pub identity: Identity,
    /// DNS names and IP addresses under which a server is reached; empty for nodes.
    pub addresses: &'a [String],
    /// How long it is valid; never beyond the CA's own end.
    pub lifetime: Duration,
}

/// The certificate authority of one cluster, with its key.
pub struct ClusterCa {
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

impl ClusterCa {
    /// A new CA for `cluster`: ECDSA P-256, valid for ten years from `now`.
    pub fn generate(cluster: ClusterId, now: SystemTime) -> Result<Self, Error> {
        let key =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(build("make the CA's key"))?;
        let mut params = ca_params(cluster)?;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + CA_LIFETIME).into();
        let certificate = params
            .self_signed(&key)
            .map_err(build("sign the CA certificate"))?;
        Self::load(&certificate.pem(), &Zeroizing::new(key.serialize_pem()))
    }

    /// The CA with this certificate and key, both PEM.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let certificate = pem::certificates(certificate_pem)?.swap_remove(0);
        let key = KeyPair::from_pem(key_pem).map_err(build("read the CA's key"))?;
        let cluster = name::cluster_of_ca(&certificate)?;
        let (_, parsed) = parse_x509_certificate(&certificate)
            .map_err(|_| Error::Name(name::Error::Certificate))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(Error::KeyMismatch);
        }
        let not_before = parsed.validity().not_before.to_datetime();
        let not_after = parsed.validity().not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(build("read the CA certificate"))?;
        let certificate_pem = certificate_pem.to_owned();
        Ok(Self {
            cluster,
            certificate_pem,
            not_before,
            not_after,
            issuer,
            certificate,
        })
    }

    /// The cluster it signs for.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The CA's certificate.
    pub fn cert_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The CA's private key (PKCS #8 PEM): seal it before it goes anywhere.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// SHA-256 of the CA certificate's DER.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_der(&self.certificate)
    }

    /// Signs a certificate for the public key in `csr_pem`, as `grant` says. Of the request only
    /// the key is used, and only after its signature proved that the sender holds it.
    ///
    /// Returns the leaf as PEM. Servers and nodes act as TLS server and client, operators as client
    /// alone.
    pub fn issue(
        &self,
        csr_pem: &str,
        grant: &Grant<'_>,
        now: SystemTime,
    ) -> Result<String, Error> {
        let public_key = public_key_of(csr_pem)?;
        let params = self.leaf_params(grant, now)?;
        let certificate: Certificate = params
            .signed_by(&public_key, &self.issuer)
            .map_err(build("sign the certificate"))?;
        Ok(certificate.pem())
    }

    /// The certificate of the CA that comes after this one, signed by this one (PEM): whoever trusts
    /// this CA alone trusts certificates of the next one where they come with it ("new with old",
    /// RFC 4210, 4.4). Valid as long as both CAs are.
    ///
    /// # Errors
    /// `next_pem` is no CA certificate of this cluster.
    pub fn endorse(&self, next_pem: &str) -> Result<String, Error> {
        let der = pem::certificates(next_pem)?.swap_remove(0);
        let theirs = name::cluster_of_ca(&der)?;
        if theirs != self.cluster {
            return Err(Error::OtherCluster {
                ours: self.cluster,
                theirs,
            });
        }
        let unreadable = || Error::Name(name::Error::Certificate);
        let (_, next) = parse_x509_certificate(&der).map_err(|_| unreadable())?;
        let key = SubjectPublicKeyInfo::from_der(next.public_key().raw)
            .map_err(build("read the next CA's key"))?;
        let mut params = ca_params(self.cluster)?;
        params.not_before = self
            .not_before
            .max(next.validity().not_before.to_datetime());
        params.not_after = self.not_after.min(next.validity().not_after.to_datetime());
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(build("sign the next CA's certificate"))?;
        Ok(certificate.pem())
    }

    fn leaf_params(&self, grant: &Grant<'_>, now: SystemTime) -> Result<CertificateParams, Error> {
        let Grant {
            identity, lifetime, ..
        } = *grant;
        if identity.cluster != self.cluster {
            return Err(Error::OtherCluster {
                ours: self.cluster,
                theirs: identity.cluster,
            });
        }
        if !LIFETIMES.contains(&lifetime) {
            return Err(Error::Lifetime { lifetime });
        }
        if !(self.not_before..self.not_after).contains(&OffsetDateTime::from(now)) {
            return Err(Error::Expired);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("Skep {}", identity.role()));
        params.subject_alt_names = alternative_names(grant)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity.role() {
            Role::Server | Role::Node => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            Role::Operator => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial());
        params.not_before =
            OffsetDateTime::from(now - CLOCK_SKEW.min(lifetime / 2)).max(self.not_before);
        params.not_after = OffsetDateTime::from(now + lifetime).min(self.not_after);
        Ok(params)
    }
}

impl fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterCa({}, {})", self.cluster, self.fingerprint())
    }
}

fn public_key_of(csr_pem: &str) -> Result<SubjectPublicKeyInfo, Error> {
    if csr_pem.len() > CSR_MAX_BYTES {
        return Err(Error::MalformedRequest);
    }
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
        .map_err(|_| Error::MalformedRequest)?;
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|_| Error::MalformedRequest)?;
    if !rest.is_empty() {
        return Err(Error::MalformedRequest);
    }
    let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
        .map_err(|_| Error::KeyKind)?;
    if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(Error::KeyKind);
    }
    request
        .verify_signature()
        .map_err(|_| Error::ForgedRequest)?;
    Ok(key)
}

fn alternative_names(grant: &Grant<'_>) -> Result<Vec<SanType>, Error> {
    let refuse = |address: &str, reason| Error::Address {
        address: address.to_owned(),
        reason,
    };
    let mut names = vec![uri(grant.identity.to_string())?];
    for address in grant.addresses {
        if grant.identity.role() != Role::Server {
            return Err(refuse(
                address,
                "only servers have addresses in their certificates",
            ));
        }
        if names.len() > ADDRESSES_MAX {
            return Err(refuse(address, "a server has at most 32 addresses"));
        }
        names.push(match address.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => {
                SanType::DnsName(dns_name(address).map_err(|reason| refuse(address, reason))?)
            }
        });
    }
    Ok(names)
}

fn dns_name(address: &str) -> Result<rcgen::string::Ia5String, &'static str> {
    let reason = "it is neither an IP address nor a DNS name";
    rustls_pki_types::DnsName::try_from(address).map_err(|_| reason)?;
    address.try_into().map_err(|_| reason)
}

fn uri(text: String) -> Result<SanType, Error> {
    Ok(SanType::URI(
        text.try_into().map_err(build("write the name"))?,
    ))
}

fn ca_params(cluster: ClusterId) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("Skep cluster {cluster}"));
    params.subject_alt_names = vec![uri(name::trust_domain(cluster))?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial());
    Ok(params)
}

fn common_name(text: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, text);
    subject
}

/// 127 random bits: positive, and unique without a counter.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = random::bytes();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests;
