//! What Traefik is told of certificates: the pairs themselves, and which hosts are served under TLS.

use std::collections::BTreeSet;

use super::{CertFile, Pair, Tls};

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
