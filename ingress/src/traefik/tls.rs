//! What Traefik is told of certificates: the pairs themselves, which hosts are served under TLS, and where
//! authorities get their answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{
    CertFile, EXACT_PRIORITY, Http, LoadBalancer, Pair, RESERVED, Router, Server, Service, Tls,
};
use crate::acme;

/// Above every route: the highest of an exact host is below twice the lowest.
const PRIORITY: usize = 2 * EXACT_PRIORITY;

pub(super) fn of(certificates: &[Pair]) -> Option<Tls> {
    let file = |pair: &Pair| CertFile {
        cert_file: pair.chain.clone(),
        key_file: pair.key.clone(),
    };
    // An empty object or list would make Traefik refuse all.
    (!certificates.is_empty()).then(|| Tls {
        certificates: certificates.iter().map(file).collect(),
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
pub(super) fn lead_to_proofs(http: &mut Http, proofs: SocketAddr, entry_point: Option<&String>) {
    let name = format!("{RESERVED}.proofs");
    let router = Router {
        entry_points: entry_point.cloned().into_iter().collect(),
        middlewares: Vec::new(),
        priority: PRIORITY,
        rule: format!("PathPrefix(`{}`)", acme::PATH),
        service: name.clone(),
        tls: None,
    };
    let servers = vec![Server {
        url: format!("http://{proofs}"),
    }];
    let load_balancer = LoadBalancer {
        pass_host_header: true,
        servers,
    };
    http.routers.insert(name.clone(), router);
    http.services.insert(name, Service { load_balancer });
}
