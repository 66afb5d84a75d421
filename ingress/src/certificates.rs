//! The certificates that the ingress shows, by the name that a client asks for: exact, then with a wildcard
//! in place of one label, else a self-signed one, so that an unknown name still gets an answer. The set
//! changes as a whole while connections go on.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::acme::Challenges;

/// A chain of this length is a mistake: a leaf and some intermediates are sent in each handshake.
const MAX_CHAIN: usize = 8;
/// In the self-signed certificate: tells a person whose it is, and is nobody's name (RFC 6761).
const FALLBACK_NAME: &str = "no-certificate-for-this-name.skep.invalid";

/// A certificate with its chain and its key, ready to be shown.
#[derive(Debug, Clone)]
pub struct Certificate {
    names: Vec<String>,
    not_after: i64,
    key: Arc<CertifiedKey>,
}

/// A certificate that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The chain is no PEM.
    #[error("the chain is not a PEM file of certificates")]
    Chain(#[source] rustls::pki_types::pem::Error),
    /// No certificate, or too many.
    #[error(
        "the chain holds {0} certificates: it needs the leaf first, then what links it to its root, {MAX_CHAIN} at most"
    )]
    Length(usize),
    /// The key is no PEM.
    #[error("the key is not a PEM file of one unencrypted private key")]
    Key(#[source] rustls::pki_types::pem::Error),
    /// The two do not belong together, or the key is of an unknown kind.
    #[error(
        "the key is not the certificate's, or of a kind that is not supported (RSA, ECDSA P-256 and P-384, Ed25519 are)"
    )]
    Pair(#[source] rustls::Error),
    /// The leaf cannot be read.
    #[error("the first certificate of the chain cannot be read")]
    Leaf(#[source] x509_parser::nom::Err<x509_parser::error::X509Error>),
    /// Clients look for names nowhere else.
    #[error("the certificate has no DNS name among its subject alternative names")]
    Nameless,
}

impl Certificate {
    /// `chain` is the leaf and what links it to its root, `key` the leaf's private key, both in PEM.
    ///
    /// # Errors
    /// They cannot be read, do not belong together, or name no host.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        let chain = CertificateDer::pem_slice_iter(chain);
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(Error::Chain)?;
        if chain.is_empty() || chain.len() > MAX_CHAIN {
            return Err(Error::Length(chain.len()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(Error::Key)?;
        let (names, not_after) = {
            let (_, leaf) = X509Certificate::from_der(&chain[0]).map_err(Error::Leaf)?;
            (names_of(&leaf), leaf.validity().not_after.timestamp())
        };
        if names.is_empty() {
            return Err(Error::Nameless);
        }
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(Error::Pair)?;
        Ok(Self {
            names,
            not_after,
            key: Arc::new(key),
        })
    }

    /// The names that it stands for: lower case, some may begin with `*.`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When it ends, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }
}

fn names_of(leaf: &X509Certificate<'_>) -> Vec<String> {
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let names = alternatives.map_or(&[][..], |it| &it.value.general_names);
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    dns.collect()
}

/// The one provider of cryptography in the whole product.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Whose word a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The cluster's.
    Cluster,
    /// This node's operator's, who has the last one.
    Operator,
}

/// What is shown now.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    set: RwLock<Set>,
    /// Of the cluster, and of the operator.
    all: Mutex<[Vec<Certificate>; 2]>,
}

#[derive(Debug, Default)]
struct Set {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the domain after `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    /// Shows these and no others of theirs from now on. Of two for one name the one that ends later.
    pub(crate) fn replace(&self, from: From, mut certificates: Vec<Certificate>) {
        // The last one written stays.
        certificates.sort_by_key(|it| it.not_after);
        let mut all = self.all.lock();
        all[from as usize] = certificates;
        let mut set = Set::default();
        for it in all.iter().flatten() {
            for name in &it.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut set.wildcard, parent.to_owned()),
                    None => (&mut set.exact, name.clone()),
                };
                names.insert(name, Arc::clone(&it.key));
            }
        }
        let replaced = std::mem::replace(&mut *self.set.write(), set);
        drop(replaced);
    }

    /// `name` is in lower case.
    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let set = self.set.read();
        let found = set.exact.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            set.wildcard.get(parent)
        });
        found.cloned()
    }
}

/// Answers each handshake.
#[derive(Debug)]
pub(crate) struct Resolver {
    certificates: Arc<Certificates>,
    challenges: Arc<Challenges>,
    fallback: Arc<CertifiedKey>,
}

impl Resolver {
    /// Makes the self-signed certificate: some 0.1 ms, once a process that speaks TLS.
    pub(crate) fn new(certificates: Arc<Certificates>, challenges: Arc<Challenges>) -> Self {
        let made = rcgen::generate_simple_self_signed([FALLBACK_NAME.to_owned()])
            .expect("a key and a certificate of a constant name can be made");
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let chain = vec![made.cert.der().clone()];
        let fallback = CertifiedKey::from_der(chain, key, &provider())
            .expect("the key is the certificate's own");
        Self {
            certificates,
            challenges,
            fallback: Arc::new(fallback),
        }
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if Challenges::is_asked(&hello) {
            return self.challenges.key(hello.server_name()?);
        }
        let found = hello
            .server_name()
            .and_then(|name| self.certificates.find(name));
        Some(found.unwrap_or_else(|| Arc::clone(&self.fallback)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn pem(names: &[&str], end_year: i32) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = rcgen::date_time_ymd(end_year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    fn certificate(names: &[&str], end_year: i32) -> Certificate {
        let (chain, key) = pem(names, end_year);
        Certificate::from_pem(chain.as_bytes(), key.as_bytes()).expect("a certificate")
    }

    #[test]
    fn a_name_gets_its_own_certificate_before_a_wildcard() {
        let own = certificate(&["A.example", "b.example"], 2040);
        let wild = certificate(&["*.example"], 2040);
        let certificates = Certificates::default();
        certificates.replace(From::Operator, vec![wild.clone(), own.clone()]);
        let is = |name: &str, which: Option<&Certificate>| {
            let found = certificates.find(name);
            let same = match (&found, which) {
                (Some(found), Some(which)) => Arc::ptr_eq(found, &which.key),
                (found, which) => found.is_none() && which.is_none(),
            };
            assert!(same, "{name}");
        };
        is("a.example", Some(&own));
        is("b.example", Some(&own));
        is("c.example", Some(&wild));
        is("c.d.example", None);
        is("example", None);
        certificates.replace(From::Operator, vec![wild.clone()]);
        is("a.example", Some(&wild));
    }

    #[test]
    fn the_operators_word_is_the_last_one_and_taken_back_the_clusters_is_shown_again() {
        let [mine, theirs] = [2030, 2040].map(|year| certificate(&["a.example"], year));
        let other = certificate(&["*.example"], 2040);
        let certificates = Certificates::default();
        certificates.replace(From::Operator, vec![mine.clone()]);
        certificates.replace(From::Cluster, vec![theirs.clone(), other]);
        let shown = || certificates.find("a.example").expect("found");
        assert!(Arc::ptr_eq(&shown(), &mine.key));
        assert!(certificates.find("b.example").is_some());
        certificates.replace(From::Operator, Vec::new());
        assert!(Arc::ptr_eq(&shown(), &theirs.key));
    }

    #[test]
    fn of_two_for_one_name_the_one_that_ends_later_is_shown() {
        let (early, late) = (
            certificate(&["a.example"], 2030),
            certificate(&["a.example"], 2031),
        );
        assert!(early.not_after() < late.not_after());
        let certificates = Certificates::default();
        for both in [[early.clone(), late.clone()], [late.clone(), early]] {
            certificates.replace(From::Operator, both.to_vec());
            let found = certificates.find("a.example").expect("found");
            assert!(Arc::ptr_eq(&found, &late.key));
        }
    }

    #[test]
    fn what_cannot_be_shown_is_told_apart() {
        let (chain, key) = pem(&["a.example"], 2040);
        let (_, other) = pem(&["a.example"], 2040);
        let (nameless, its_key) = pem(&[], 2040);
        let made = |chain: &str, key: &str| {
            Certificate::from_pem(chain.as_bytes(), key.as_bytes()).expect_err("refused")
        };
        assert!(matches!(made("", &key), Error::Length(0)));
        assert!(matches!(made(&chain.repeat(9), &key), Error::Length(9)));
        assert!(matches!(made(&chain, ""), Error::Key(_)));
        assert!(matches!(made(&chain, &other), Error::Pair(_)));
        assert!(matches!(made(&nameless, &its_key), Error::Nameless));
    }
}
