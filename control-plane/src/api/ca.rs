//! The cluster's CA: what signs, what is trusted, and replacing one by another in three steps. Who
//! would be left behind by a step is asked of the leader, who alone hears of everybody.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use skep_identity::ca::ClusterCa;
use skep_model::problem::{Code, Problem};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_proto::v1::rotate_ca::Step;
use skep_state::Cluster;

use super::error::Failure;
use super::extract::Body;
use super::tokens::cluster;
use super::types::{CaPhase, CaStep, CaView, RotateCaRequest, TrustedCa, WaitingFor};
use super::{App, Here};
use crate::pki::fingerprint_of;
use crate::pki::{self, Phase};

/// Names in one answer; more are counted.
const NAMES_MAX: usize = 100;
/// Where the leader answers who is left behind.
const PATH: &str = "/v1/ca";

/// What signs, what is trusted, and whom the next step of a replacement would leave behind.
#[utoipa::path(get, path = "/v1/ca", tag = "cluster", operation_id = "get_ca",
    responses((status = 200, body = CaView)))]
pub(super) async fn get(Here(app): Here, headers: HeaderMap) -> Result<Json<CaView>, Failure> {
    Ok(Json(look(&app, headers.get(header::AUTHORIZATION)).await?))
}

/// Does the next step of replacing the CA. Refused out of turn, and where it would leave somebody
/// behind unless `force` says so.
#[utoipa::path(post, path = "/v1/ca/rotate", tag = "cluster", operation_id = "rotate_ca",
    request_body = RotateCaRequest, responses((status = 200, body = CaView)))]
pub(super) async fn rotate(
    Here(app): Here,
    headers: HeaderMap,
    Body(request): Body<RotateCaRequest>,
) -> Result<Json<CaView>, Failure> {
    let caller = headers.get(header::AUTHORIZATION);
    let now = cluster(&app.store.view())?;
    let (step, before) = match request.step {
        CaStep::Begin => (Step::Begin(successor(&app, &now)?), Phase::Steady),
        CaStep::Activate => (Step::Activate(true), Phase::Begun),
        CaStep::Finish => (Step::Finish(true), Phase::Activated),
    };
    // Out of turn is the state's to say.
    if before != Phase::Steady && Phase::of(&now) == before && !request.force {
        refuse_loss(&look(&app, caller).await?)?;
    }
    // Without the caller's key: a repeated begin makes another CA, and is refused by the state.
    app.unkeyed
        .propose(Kind::RotateCa(v1::RotateCa { step: Some(step) }))
        .await?;
    tracing::warn!(step = ?request.step, force = request.force, "the cluster's CA is being replaced");
    Ok(Json(look(&app, caller).await?))
}

fn successor(app: &App, cluster: &Cluster) -> Result<v1::Ca, Problem> {
    let ca = ClusterCa::generate(cluster.id, SystemTime::now())
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    Ok(v1::Ca {
        cert_pem: ca.cert_pem().to_owned(),
        sealed_key: app.secrets.seal_ca_key(&ca.key_pem()),
    })
}

fn refuse_loss(view: &CaView) -> Result<(), Problem> {
    let Some(first) = view.waiting_for.first() else {
        return Ok(());
    };
    let message = format!(
        "{} would be left behind, first {}: {}",
        view.waiting_count, first.name, first.why
    );
    Err(Problem::new(Code::Conflict, message)
        .at("step")
        .hint("`skep ca show` names all of them; wait, or force it and let them join again"))
}

async fn look(app: &App, caller: Option<&HeaderValue>) -> Result<CaView, Problem> {
    let view = app.store.view();
    let cluster = cluster(&view)?;
    let phase = Phase::of(&cluster);
    let group = app.store.consensus().group().borrow().clone();
    if phase != Phase::Steady && !group.is_leader {
        let leader = group.leader.and_then(|it| view.server_by_member(it));
        return ask(app, leader, caller).await;
    }
    let behind = pki::behind(&view, &app.fleet, &group);
    let waiting_count = behind.len();
    let behind = behind.into_iter().take(NAMES_MAX);
    Ok(CaView {
        phase: match phase {
            Phase::Steady => CaPhase::Steady,
            Phase::Begun => CaPhase::Begun,
            Phase::Activated => CaPhase::Activated,
        },
        trusted: trusted(&cluster)?,
        waiting_count,
        waiting_for: behind
            .map(|it| WaitingFor {
                name: it.name,
                is_server: it.is_server,
                why: it.why,
            })
            .collect(),
    })
}

async fn ask(
    app: &App,
    leader: Option<&Arc<skep_model::server::Server>>,
    caller: Option<&HeaderValue>,
) -> Result<CaView, Problem> {
    let unknown = |text: String| Problem::new(Code::Unavailable, text).hint("try again");
    let leader = leader
        .filter(|leader| leader.id != app.own.neighbours.own())
        .ok_or_else(|| unknown("the servers have no leader just now".to_owned()))?;
    let asked = app.own.neighbours.ask(leader, (Method::GET, PATH), caller);
    let answer = asked.await.map_err(|error| unknown(error.to_string()))?;
    if !answer.status.is_success() {
        return Err(unknown(format!("the leader answers {}", answer.status)));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|_| Problem::new(Code::Internal, "the leader's answer is not understood"))
}

fn trusted(cluster: &Cluster) -> Result<Vec<TrustedCa>, Problem> {
    let mut trusted = vec![TrustedCa {
        fingerprint: fingerprint_of(&cluster.ca_cert_pem)?.to_string(),
        certificate_pem: cluster.ca_cert_pem.clone(),
        signs: true,
    }];
    if let Some(other) = &cluster.other_ca {
        trusted.push(TrustedCa {
            fingerprint: fingerprint_of(&other.cert_pem)?.to_string(),
            certificate_pem: other.cert_pem.clone(),
            signs: false,
        });
    }
    Ok(trusted)
}
