//! The one place where problems become HTTP answers.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use skep_model::problem::{Code, Problem};

use super::types::ErrorBody;

/// What `Retry-After` says of a problem that may pass, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    problem: Problem,
    status: StatusCode,
}

impl Failure {
    /// A problem under a status of its own, where its code alone does not say enough.
    pub(super) fn with_status(status: StatusCode, problem: Problem) -> Self {
        Self { problem, status }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let status = status(problem.code);
        Self { problem, status }
    }
}

/// The HTTP status of a class of problem.
pub(super) fn status(code: Code) -> StatusCode {
    match code {
        Code::Invalid => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Conflict | Code::Canceled => StatusCode::CONFLICT,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::Busy => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Code::SourceFailed
        | Code::BuildFailed
        | Code::ImageFailed
        | Code::Unplaceable
        | Code::Crashed
        | Code::NeverHealthy
        | Code::Regressed => StatusCode::UNPROCESSABLE_ENTITY,
        Code::Runtime => StatusCode::BAD_GATEWAY,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { problem, status } = self;
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(%problem, "a request failed for a fault of the server");
        }
        let body = ErrorBody::from(problem);
        let (retryable, code) = (body.retryable, body.code);
        let mut response = (status, Json(body)).into_response();
        if retryable {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if code == Code::Unauthenticated {
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
