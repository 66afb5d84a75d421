//! Certificates of apps: list without their keys, upload, ask for another one, take away; and who issues them.

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_identity::leaf;
use skep_model::certificate::{
    Binding, Certificate, CertificateShown, DnsAccess, DnsProvider, Issuer, IssuerShown,
    MAX_CHAIN_BYTES, MAX_DNS_SECRET_BYTES, MAX_KEY_BYTES, Material, Source, check_issuer,
    check_name,
};
use skep_model::problem::{Code, Problem};
use skep_model::variable::Sealed;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;
use utoipa::IntoParams;
use zeroize::Zeroizing;

use super::Here;
use super::error::Failure;
use super::extract::{Body, Path};
use super::types::{CertificateRequest, CertificatesView, DnsRequest, IssuerRequest};
use crate::acme;
use crate::secrets::{Acme, Secrets};
use crate::store::now_ms;

/// The name of a certificate.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct CertificateKey {
    /// The host of one that was issued: `www.example.com`.
    name: String,
}

/// Lists certificates, those that could not be had yet included, and who issues them.
#[utoipa::path(get, path = "/v1/certificates", tag = "cluster", operation_id = "list_certificates",
    responses((status = 200, body = CertificatesView)))]
pub(super) async fn list(Here(app): Here) -> Json<CertificatesView> {
    let view = app.store.view();
    Json(CertificatesView {
        issuer: view.issuer().map(|it| (&**it).into()),
        certificates: view.certificates().map(|it| (&**it).into()).collect(),
    })
}

/// Uploads a certificate, instead of the one of that name if there is one. Its key is sealed, and never shown.
#[utoipa::path(put, path = "/v1/certificates/{name}", tag = "cluster", params(CertificateKey),
    operation_id = "put_certificate", request_body = CertificateRequest,
    responses((status = 200, body = CertificateShown)))]
pub(super) async fn put(
    Here(app): Here,
    Path(key): Path<CertificateKey>,
    Body(request): Body<CertificateRequest>,
) -> Result<Json<CertificateShown>, Failure> {
    check_name(&key.name)?;
    if request.chain.len() > MAX_CHAIN_BYTES {
        let text = format!("the chain has at most {MAX_CHAIN_BYTES} bytes");
        return Err(Problem::invalid("chain", text).into());
    }
    if request.key.len() > MAX_KEY_BYTES {
        let text = format!("the key has at most {MAX_KEY_BYTES} bytes");
        return Err(Problem::invalid("key", text).into());
    }
    let leaf = leaf::inspect(&request.chain, &request.key).map_err(|error| {
        let field = match error {
            leaf::Error::Key | leaf::Error::Pair => "key",
            _ => "chain",
        };
        Problem::invalid(field, error.to_string())
    })?;
    if leaf.not_after_ms <= now_ms() {
        let text = "the certificate has run out";
        return Err(Problem::invalid("chain", text)
            .hint("upload one that holds")
            .into());
    }
    let certificate = Certificate {
        source: Source::Uploaded,
        material: Some(Material {
            key: app.secrets.seal_certificate(&key.name, &request.key),
            chain_pem: request.chain,
            names: leaf.names,
            not_before_ms: leaf.not_before_ms,
            not_after_ms: leaf.not_after_ms,
            serial: leaf.serial,
            issuer: leaf.issuer,
        }),
        ..Certificate::wanted(&key.name)
    };
    let command = v1::PutCertificate {
        certificate: Some((&certificate).into()),
    };
    app.store.propose(Kind::PutCertificate(command)).await?;
    Ok(Json((&certificate).into()))
}

/// Takes a certificate away. One that is still wanted is asked for anew.
#[utoipa::path(delete, path = "/v1/certificates/{name}", tag = "cluster", params(CertificateKey),
    operation_id = "remove_certificate", responses((status = 204, description = "It is gone")))]
pub(super) async fn remove(
    Here(app): Here,
    Path(key): Path<CertificateKey>,
) -> Result<StatusCode, Failure> {
    let command = v1::RemoveCertificate {
        name: key.name,
        only_issued: false,
    };
    app.store.propose(Kind::RemoveCertificate(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Asks the issuer for another one now, whenever the last attempt was.
#[utoipa::path(post, path = "/v1/certificates/{name}/renew", tag = "cluster", params(CertificateKey),
    operation_id = "renew_certificate", responses((status = 202, description = "It is asked for")))]
pub(super) async fn renew(
    Here(app): Here,
    Path(key): Path<CertificateKey>,
) -> Result<StatusCode, Failure> {
    let command = v1::RenewCertificate { name: key.name };
    app.store.propose(Kind::RenewCertificate(command)).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Says who issues certificates: from then on every host of a route that can have one gets one.
#[utoipa::path(put, path = "/v1/issuer", tag = "cluster", operation_id = "put_issuer",
    request_body = IssuerRequest, responses((status = 200, body = IssuerShown)))]
pub(super) async fn put_issuer(
    Here(app): Here,
    Body(request): Body<IssuerRequest>,
) -> Result<Json<IssuerShown>, Failure> {
    if !request.terms_agreed {
        let text = "the issuer's terms are to be agreed to";
        return Err(Problem::invalid("terms_agreed", text)
            .hint("read them, then say `--agree-terms`")
            .into());
    }
    if !request.root.is_empty() {
        acme::check_roots(&request.root).map_err(|why| Problem::invalid("root", why))?;
    }
    let binding = match (request.eab_key_id, request.eab_hmac) {
        (None, None) => None,
        (Some(key_id), Some(hmac)) if acme::decode_hmac(&hmac).is_some() => Some(Binding {
            hmac: app
                .secrets
                .seal_acme(Acme::Binding, &request.directory, &hmac),
            key_id,
        }),
        (Some(_), Some(_)) => {
            let text = "the key of the binding is base64url, as the issuer shows it";
            return Err(Problem::invalid("eab_hmac", text).into());
        }
        _ => {
            let text = "a binding is the name of a key and the key";
            return Err(Problem::invalid("eab_key_id", text).into());
        }
    };
    let dns = request.dns.map(|it| access(it, &app.secrets)).transpose()?;
    let issuer = Issuer {
        dns,
        directory: request.directory,
        contact: request.contact,
        root_pem: request.root,
        binding,
        challenge: request.challenge,
        account: None,
        // Set where it is obeyed.
        changed_ms: 0,
    };
    check_issuer(&issuer)?;
    let command = v1::SetIssuer {
        issuer: Some((&kept_binding(&app.store.view(), &app.secrets, issuer)).into()),
    };
    app.store.propose(Kind::SetIssuer(command)).await?;
    let view = app.store.view();
    let stored = view.issuer().map(|it| (&**it).into());
    let gone = || Problem::new(Code::NotFound, "the issuer was removed meanwhile");
    Ok(Json(stored.ok_or_else(gone)?))
}

/// What is kept of who writes records in DNS.
fn access(request: DnsRequest, secrets: &Secrets) -> Result<DnsAccess, Problem> {
    let secret = request.secret.map(Zeroizing::new);
    let secret = secret.as_ref().map(|it| it.trim()).unwrap_or_default();
    if secret.len() > MAX_DNS_SECRET_BYTES {
        let text = format!("the secret has at most {MAX_DNS_SECRET_BYTES} bytes");
        return Err(Problem::invalid("dns.secret", text));
    }
    if matches!(request.provider, DnsProvider::Rfc2136 { .. }) && !secret.is_empty() {
        acme::check_key(secret).map_err(|why| Problem::invalid("dns.secret", why))?;
    }
    let place = request.provider.place();
    let sealed = (!secret.is_empty()).then(|| secrets.seal_acme(Acme::Dns, &place, secret));
    Ok(DnsAccess {
        provider: request.provider,
        secret: sealed,
    })
}

/// The same binding said again is the one that there is: sealed anew it would look like another, and the account
/// would be made anew.
fn kept_binding(view: &State, secrets: &Secrets, issuer: Issuer) -> Issuer {
    let old = view
        .issuer()
        .filter(|old| old.directory == issuer.directory);
    let opened = |sealed: &Sealed| {
        secrets
            .open_acme(Acme::Binding, &issuer.directory, sealed)
            .ok()
    };
    let same = old.and_then(|old| old.binding.clone()).filter(|old| {
        issuer
            .binding
            .as_ref()
            .is_some_and(|new| new.key_id == old.key_id && opened(&new.hmac) == opened(&old.hmac))
    });
    Issuer {
        binding: same.or_else(|| issuer.binding.clone()),
        ..issuer
    }
}

/// Nobody issues certificates any more. Those that there are stay until they run out.
#[utoipa::path(delete, path = "/v1/issuer", tag = "cluster", operation_id = "remove_issuer",
    responses((status = 204, description = "Nobody issues")))]
pub(super) async fn remove_issuer(Here(app): Here) -> Result<StatusCode, Failure> {
    let command = v1::SetIssuer { issuer: None };
    app.store.propose(Kind::SetIssuer(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}
