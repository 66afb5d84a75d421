//! What lets others in: join tokens of nodes and servers, and operators' certificates.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use skep_identity::ca::Grant;
use skep_identity::name::Identity;
use skep_identity::random;
use skep_identity::token::JoinToken as TokenText;
use skep_model::id::{OperatorId, TokenId};
use skep_model::problem::{Code, Problem};
use skep_model::server::JoinToken;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::{Cluster, State as View};
use utoipa::IntoParams;

use super::Here;
use super::error::Failure;
use super::extract::{Body, Path};
use super::types::{
    GivenToken, OperatorRequest, OperatorView, TokenRequest, TokenView, TokensView,
};
use crate::pki::ca_fingerprint;
use crate::store::now_ms;

/// Shortest and longest life of a join token, in seconds.
const TTL_S: std::ops::RangeInclusive<u64> = 60..=7 * 24 * 3_600;
/// Fewest and most joins that a token is good for.
const USES: std::ops::RangeInclusive<u32> = 1..=1_000;
/// Longest note, in characters.
const NOTE_MAX: usize = 200;
/// Shortest and longest life of an operator's certificate, in seconds.
const OPERATOR_TTL_S: std::ops::RangeInclusive<u64> = 600..=30 * 24 * 3_600;

/// The id of a join token.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct TokenKey {
    /// Its public half.
    token: TokenId,
}

/// The cluster, once there is one.
pub(super) fn cluster(view: &View) -> Result<Arc<Cluster>, Problem> {
    view.cluster().cloned().ok_or_else(|| {
        Problem::new(Code::Unavailable, "the cluster is not initialised yet").hint("try again")
    })
}

fn within<T: PartialOrd + std::fmt::Display>(
    field: &str,
    value: &T,
    range: &std::ops::RangeInclusive<T>,
) -> Result<(), Problem> {
    if range.contains(value) {
        return Ok(());
    }
    let hint = format!("{} to {}", range.start(), range.end());
    Err(Problem::invalid(field, "out of range").hint(hint))
}

/// Makes a join token.
#[utoipa::path(post, path = "/v1/tokens", tag = "cluster", operation_id = "create_token",
    request_body = TokenRequest, responses((status = 201, body = TokenView)))]
pub(super) async fn create(
    Here(app): Here,
    Body(request): Body<TokenRequest>,
) -> Result<(StatusCode, Json<TokenView>), Failure> {
    within("ttl_s", &request.ttl_s, &TTL_S)?;
    within("uses", &request.uses, &USES)?;
    if request.note.chars().count() > NOTE_MAX || request.note.chars().any(char::is_control) {
        let problem = Problem::invalid("note", "too long, or with control characters");
        return Err(problem.hint("one line of at most 200 characters").into());
    }
    let ca = ca_fingerprint(&*cluster(&app.store.view())?)?;
    let text = TokenText::generate(ca, TokenId::from_u128(random::new_id()));
    let token = JoinToken {
        id: text.id,
        secret_hash: text.secret_hash().to_vec(),
        expires_ms: now_ms() + request.ttl_s * 1_000,
        uses_left: request.uses,
        role: request.role,
        note: request.note,
        created_ms: 0,
    };
    // Without the caller's key: the secret of a first try is lost with its answer.
    app.unkeyed
        .propose(Kind::PutToken(v1::PutToken {
            token: Some((&token).into()),
        }))
        .await?;
    let view = TokenView {
        id: token.id,
        token: text.to_text().to_string(),
        role: token.role,
        expires_ms: token.expires_ms,
        uses: request.uses,
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Lists the join tokens that are still good.
#[utoipa::path(get, path = "/v1/tokens", tag = "cluster", operation_id = "list_tokens",
    responses((status = 200, body = TokensView)))]
pub(super) async fn list(Here(app): Here) -> Json<TokensView> {
    let view = app.store.view();
    let now = now_ms().max(view.time_ms());
    let mut tokens: Vec<_> = view
        .tokens()
        .filter(|token| token.expires_ms > now && token.uses_left > 0)
        .map(|token| GivenToken {
            id: token.id,
            role: token.role,
            note: token.note.clone(),
            created_ms: token.created_ms,
            expires_ms: token.expires_ms,
            uses_left: token.uses_left,
        })
        .collect();
    tokens.sort_by_key(|token| (token.created_ms, token.id));
    Json(TokensView { tokens })
}

/// Revokes a join token: nobody joins with it any more.
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "cluster", params(TokenKey),
    operation_id = "revoke_token", responses((status = 204, description = "It is revoked")))]
pub(super) async fn revoke(
    Here(app): Here,
    Path(key): Path<TokenKey>,
) -> Result<StatusCode, Failure> {
    let command = v1::RemoveToken {
        token: id_bytes(key.token.as_u128()),
    };
    app.store.propose(Kind::RemoveToken(command)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Signs a certificate for operators and automation: it opens the gRPC service `Control`.
#[utoipa::path(post, path = "/v1/operators", tag = "cluster", operation_id = "create_operator",
    request_body = OperatorRequest, responses((status = 201, body = OperatorView)))]
pub(super) async fn create_operator(
    Here(app): Here,
    Body(request): Body<OperatorRequest>,
) -> Result<(StatusCode, Json<OperatorView>), Failure> {
    within("ttl_s", &request.ttl_s, &OPERATOR_TTL_S)?;
    let view = app.store.view();
    let cluster = cluster(&view)?;
    let ca = app.secrets.signing_ca(&cluster)?;
    let id = OperatorId::from_u128(random::new_id());
    let grant = Grant {
        identity: Identity::operator(ca.cluster(), id),
        addresses: &[],
        lifetime: Duration::from_secs(request.ttl_s),
    };
    let certificate_pem = ca
        .issue(&request.csr_pem, &grant, SystemTime::now())
        .map_err(|error| Problem::invalid("csr_pem", error.to_string()))?;
    let answer = OperatorView {
        id: id.to_string(),
        certificate_pem,
        ca_pem: cluster.trusted_ca_pem(),
        servers: view
            .servers()
            .map(|server| server.cluster_address.clone())
            .collect(),
        expires_ms: now_ms() + request.ttl_s * 1_000,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}
