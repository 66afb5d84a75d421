//! The cluster's certificates on this node: read for the ingress, kept for Traefik.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use skep_ingress::{Certificate, traefik};
use skep_model::certificate::MAX_CERTIFICATES;
use skep_proto::v1::CertificateList;

use crate::error_chain;

/// What Traefik is told besides the table.
#[derive(Debug, Default)]
pub(super) struct Certified {
    options: RwLock<traefik::Options>,
    /// Where the ingress of this node answers; none: nowhere.
    ingress: Option<SocketAddr>,
    /// Whoever asks for Traefik's configuration shows a token: without one it holds no keys, for every user
    /// of the machine can read it.
    is_guarded: bool,
    /// There are keys that it does not hold, and nobody has been told.
    withholds: AtomicBool,
}

impl Certified {
    /// Nothing yet; `ingress` is where apps are served, `is_guarded` whether Traefik shows a token.
    pub(super) fn new(ingress: SocketAddr, is_guarded: bool) -> Self {
        let own = SocketAddr::new(reachable(ingress), ingress.port());
        Self {
            is_guarded,
            withholds: AtomicBool::new(false),
            options: RwLock::new(traefik::Options {
                ready: Some(own),
                ..traefik::Options::default()
            }),
            ingress: Some(own),
        }
    }

    /// Reads certificates and keeps those that can be shown; of the others a word in the log.
    pub(super) fn take(&self, list: CertificateList) -> Vec<Certificate> {
        let (mut read, mut pairs) = (Vec::new(), Vec::new());
        for it in list.certificates.into_iter().take(MAX_CERTIFICATES) {
            match Certificate::from_pem(it.chain.as_bytes(), it.key.as_bytes()) {
                Ok(certificate) => {
                    pairs.push(traefik::Pair {
                        names: certificate.names().to_vec(),
                        chain: it.chain,
                        key: it.key,
                    });
                    read.push(certificate);
                }
                Err(error) => {
                    let why = error_chain(&error);
                    tracing::error!(%why, "a certificate of the cluster cannot be shown");
                }
            }
        }
        if self.is_guarded {
            self.options.write().certificates = pairs;
        } else {
            self.withholds.store(!pairs.is_empty(), Ordering::Relaxed);
        }
        read
    }

    /// Whether authorities may ask; true: that is new.
    pub(super) fn expect(&self, has_issuer: bool) -> bool {
        let proofs = self.ingress.filter(|_| has_issuer);
        let before = std::mem::replace(&mut self.options.write().proofs, proofs);
        before != proofs
    }

    /// For Traefik.
    pub(super) fn options(&self) -> traefik::Options {
        if self.withholds.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                "Traefik gets no certificates: every user of this machine could read their keys. Give --admin-token, and Traefik the same in providers.http.headers"
            );
        }
        self.options.read().clone()
    }
}

/// Where Traefik, on the same machine, reaches what listens on all addresses.
fn reachable(ingress: SocketAddr) -> std::net::IpAddr {
    match ingress.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::CertificateWithKey;

    use super::*;

    #[test]
    fn what_cannot_be_shown_costs_itself_alone_and_traefik_hears_of_the_rest() {
        let address = "0.0.0.0:8080".parse().expect("an address");
        let certified = Certified::new(address, true);
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("made");
        let good = CertificateWithKey {
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        };
        let bad = CertificateWithKey {
            key: "none".to_owned(),
            ..good.clone()
        };
        let list = CertificateList {
            certificates: vec![bad, good],
        };
        let open = Certified::new(address, false);
        assert_eq!(open.take(list.clone()).len(), 1);
        assert_eq!(open.options().certificates, [], "anybody could read it");
        let read = certified.take(list);
        assert_eq!(read.len(), 1);
        assert!(certified.expect(true) && !certified.expect(true));
        let options = certified.options();
        assert_eq!(options.certificates[0].names, ["a.example"]);
        assert_eq!(options.proofs, "127.0.0.1:8080".parse().ok());
        assert!(!format!("{options:?}").contains("PRIVATE KEY"));
    }
}
