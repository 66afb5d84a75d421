//! What the leader alone knows, asked on behalf of a caller of any server.

use axum::http::{HeaderValue, Method, header};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use skep_model::problem::{Code, Problem};
use utoipa::IntoParams;

use super::App;
use super::find::ServiceKey;
use super::types::ErrorBody;

/// What is asked of the leader.
pub(super) struct Asked<'a> {
    /// What it is called where it cannot be had: "the leader's samples are not known".
    pub(super) what: &'a str,
    /// GET, POST.
    pub(super) method: Method,
    /// With its query, which must say that the asked server is to answer itself.
    pub(super) path: String,
    /// JSON; empty: none.
    pub(super) body: Bytes,
    /// Who asks.
    pub(super) caller: Option<&'a HeaderValue>,
}

/// Whether the asked server is to answer from what it knows.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Place {
    /// Only what the asked server itself knows.
    pub(super) here: bool,
}

pub(super) fn path(key: &ServiceKey, what: &str) -> String {
    let ServiceKey {
        project,
        environment,
        service,
    } = key;
    format!("/v1/projects/{project}/environments/{environment}/services/{service}/{what}")
}

/// The headers' proof of who asks.
pub(super) fn caller(headers: &axum::http::HeaderMap) -> Option<&HeaderValue> {
    headers.get(header::AUTHORIZATION)
}

/// It cannot be had just now.
pub(super) fn unknown(what: &str, why: &str) -> Problem {
    let text = format!("{what}: {why}");
    Problem::new(Code::Unavailable, text).hint("try again in a moment")
}

/// The leader's answer.
///
/// # Errors
/// Nobody leads, or the leader gave no answer; what it refuses is its own problem.
pub(super) async fn ask<T: DeserializeOwned>(app: &App, asked: Asked<'_>) -> Result<T, Problem> {
    let Asked {
        what,
        method,
        path,
        body,
        caller,
    } = asked;
    let unknown = |why: &str| unknown(what, why);
    let leader = app.store.consensus().leadership().borrow().leader;
    let view = app.store.view();
    let server = leader.and_then(|leader| view.server_by_member(leader));
    let server = server.ok_or_else(|| unknown("nobody leads just now"))?;
    if server.id == app.own.neighbours.own() {
        return Err(unknown("this server leads since a moment ago"));
    }
    let asked = app
        .own
        .neighbours
        .pass(server, (method, &path, body), caller);
    let answer = asked.await.map_err(|error| unknown(&error.to_string()))?;
    if !answer.status.is_success() {
        let said: Result<ErrorBody, _> = serde_json::from_slice(&answer.body);
        let why = said.map_or_else(|_| answer.status.to_string(), |said| said.message);
        return Err(unknown(&why));
    }
    serde_json::from_slice(&answer.body).map_err(|error| unknown(&error.to_string()))
}
