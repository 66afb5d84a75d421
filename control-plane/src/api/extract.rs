//! What handlers take from requests: axum's extractors with the API's errors and limits.

use std::time::Duration;

use axum::body::Body as RawBody;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use skep_model::problem::{Code, Problem};

use super::error::Failure;

/// Largest JSON body.
pub(super) const MAX_JSON: usize = 1 << 20;
/// How long a client may take to send a body that is read whole.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// A JSON body; an absent one is `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let bytes = read(request.into_body(), MAX_JSON).await?;
        let bytes = if bytes.is_empty() {
            Bytes::from_static(b"{}")
        } else {
            bytes
        };
        Ok(Self(
            serde_json::from_slice(&bytes).map_err(|error| not_accepted(&error))?,
        ))
    }
}

/// A whole body of at most `limit` bytes.
///
/// # Errors
/// Larger, too slow, or broken off.
pub(super) async fn read(body: RawBody, limit: usize) -> Result<Bytes, Problem> {
    let reading = Limited::new(body, limit).collect();
    match tokio::time::timeout(BODY_DEADLINE, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            Code::TooLarge,
            format!("the body is larger than {limit} bytes"),
        )),
        Ok(Err(error)) => Err(Problem::new(
            Code::Invalid,
            format!("the body broke off: {error}"),
        )),
        Err(_) => Err(Problem::new(
            Code::Timeout,
            "the body did not arrive in time",
        )),
    }
}

fn not_accepted(error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let mut problem = Problem::new(Code::Invalid, format!("the body is not accepted: {text}"));
    // serde names the field in back quotes; nothing else of its text is relied on.
    let names_field = ["unknown field `", "missing field `"];
    if let Some(rest) = names_field
        .iter()
        .find_map(|start| text.strip_prefix(start))
    {
        problem.field = rest.split_once('`').map(|(name, _)| name.to_owned());
    }
    problem.hint("`GET /openapi.json` describes every body")
}

/// Parts of the path.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(path_problem(&rejection).into()),
        }
    }
}

fn path_problem(rejection: &PathRejection) -> Problem {
    if let PathRejection::FailedToDeserializePathParams(error) = rejection {
        return match error.kind() {
            ErrorKind::DeserializeError { key, message, .. } => {
                Problem::invalid(key.clone(), message.clone())
            }
            ErrorKind::Message(message) => Problem::new(Code::Invalid, message.clone()),
            ErrorKind::InvalidUtf8InPathParam { key } => {
                Problem::invalid(key.clone(), "not UTF-8 once percent-decoded")
            }
            other => Problem::new(Code::Invalid, other.to_string()),
        };
    }
    Problem::new(Code::Invalid, rejection.body_text())
}

/// The query string.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(Code::Invalid, rejection.body_text()).into()),
        }
    }
}
