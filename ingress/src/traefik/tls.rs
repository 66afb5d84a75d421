//! What Traefik is told of certificates: the pairs themselves, which hosts are served under TLS, and where
//! authorities get their answers.

use std::collections::BTreeSet;

use super::{CertFile, EXACT_PRIORITY, Pair, Router, Rule, Tls};

/// The router of what authorities ask, and its service: names of ours.
pub(super) const PROOFS: &str = "skep-rev.proofs";

/// Above every route: the highest of an exact host is below twice the lowest.
const PRIORITY: usize = 2 * EXACT_PRIORITY;

pub(super) fn of(certificates: &[Pair]) -> Option<Tls<'_>> {
    let files = certificates.iter().map(|pair| CertFile {
        cert_file: &pair.chain,
        key_file: &pair.key,
    });
    // An empty object or list would make Traefik refuse all.
    (!certificates.is_empty()).then(|| Tls {
        certificates: files.collect(),
    })
}

pub(super) fn names(certificates: &[Pair]) -> BTreeSet<&str> {
    let names = certificates.iter().flat_map(|pair| &pair.names);
    names.map(String::as_str).collect()
}

/// Whether some certificate stands for a host of the table.
pub(super) fn is_covered(host: &str, names: &BTreeSet<&str>) -> bool {
    let wild = || {
        let (_, parent) = host.split_once('.')?;
        Some(names.contains(&*format!("*.{parent}")))
    };
    names.contains(host) || wild().unwrap_or(false)
}

/// A router for what authorities ask, of every host: the ingress answers.
pub(super) fn proofs_router(entry_points: &[String]) -> Router<'_> {
    Router {
        entry_points,
        middlewares: Vec::new(),
        priority: PRIORITY,
        rule: Rule::Proofs,
        service: PROOFS.into(),
        tls: None,
    }
}
