//! Certificates by the cluster's authority for private names: made here, asked of nobody.

use std::time::SystemTime;

use skep_identity::leaf;
use skep_identity::local_ca::Root;
use skep_model::certificate::{Certificate, LocalCa, Material, settled_ms};
use skep_model::problem::{Code, Problem};
use zeroize::Zeroizing;

use crate::secrets::{Acme, Secrets};
use crate::store::now_ms;

/// A new authority, its key sealed. When it was made is when it is obeyed.
pub(crate) fn make(secrets: &Secrets, cluster: &str) -> Result<LocalCa, Problem> {
    let made = Root::generate(cluster, SystemTime::now());
    let root = made.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    Ok(LocalCa {
        key: secrets.seal_acme(Acme::LocalCa, "", &root.key_pem),
        cert_pem: root.certificate_pem,
        made_ms: 0,
    })
}

/// A certificate for `host`.
pub(crate) fn issue(secrets: &Secrets, ca: &LocalCa, host: &str) -> Result<Certificate, String> {
    let opened = secrets.open_acme(Acme::LocalCa, "", &ca.key);
    let root = Root {
        certificate_pem: ca.cert_pem.clone(),
        key_pem: Zeroizing::new(opened.map_err(|problem| problem.to_string())?),
    };
    let issued = root.issue(host, SystemTime::now());
    let (chain_pem, key_pem) = issued.map_err(|error| error.to_string())?;
    let leaf = leaf::inspect(&chain_pem, &key_pem).map_err(|error| error.to_string())?;
    let next_ms = settled_ms(leaf.not_before_ms, leaf.not_after_ms, now_ms());
    Ok(Certificate {
        material: Some(Material {
            chain_pem,
            key: secrets.seal_certificate(host, &key_pem),
            names: leaf.names,
            not_before_ms: leaf.not_before_ms,
            not_after_ms: leaf.not_after_ms,
            serial: leaf.serial,
            issuer: leaf.issuer,
        }),
        directory: ca.directory(),
        next_ms,
        ..Certificate::wanted(host)
    })
}
