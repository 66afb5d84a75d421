//! Refusals in the words of the distribution API.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse as _;
use oci_spec::distribution::{ErrorCode, ErrorInfoBuilder, ErrorResponseBuilder};

use super::super::store;

/// One refusal.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    code: ErrorCode,
    message: String,
}

impl Refused {
    /// With the status that the API gives this code.
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        use ErrorCode as Code;
        let status = match code {
            Code::BlobUnknown
            | Code::BlobUploadUnknown
            | Code::ManifestUnknown
            | Code::NameUnknown => StatusCode::NOT_FOUND,
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::Denied => StatusCode::FORBIDDEN,
            Code::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::BAD_REQUEST,
        };
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// The same with another status.
    pub(super) fn with(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The store did not take it.
    pub(super) fn store(error: &store::Error) -> Self {
        let message = crate::error_chain(error);
        match error {
            store::Error::Mismatch { .. } => Self::new(ErrorCode::DigestInvalid, message),
            store::Error::TooLong { .. } => {
                Self::new(ErrorCode::SizeInvalid, message).with(StatusCode::PAYLOAD_TOO_LARGE)
            }
            store::Error::Disk(_) if error.is_full() => {
                let message = "the node's disk is full";
                Self::new(ErrorCode::Denied, message).with(StatusCode::INSUFFICIENT_STORAGE)
            }
            store::Error::Disk(_) => {
                tracing::warn!(why = %message, "the image store's disk");
                Self::new(ErrorCode::Denied, message).with(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    /// As an answer.
    pub(super) fn answer(self) -> Response<Body> {
        let info = ErrorInfoBuilder::default()
            .code(self.code)
            .message(self.message)
            .build();
        let errors =
            info.and_then(|info| ErrorResponseBuilder::default().errors(vec![info]).build());
        let body = errors
            .ok()
            .and_then(|errors| serde_json::to_vec(&errors).ok());
        let headers = [("content-type", "application/json")];
        (self.status, headers, body.unwrap_or_default()).into_response()
    }
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self::store(&error.into())
    }
}
