//! Why there is no answer, in words that say what to do about it.

use std::time::Duration;

use http::StatusCode;
use hyper_util::client::legacy;
use skep_identity::tls::PeerError;
use skep_model::problem::{Code, Problem};

use crate::failure::{Exit, Failure, chain};

/// A request without a good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody listens there, or the network does not reach it.
    #[error("cannot reach the server at {server}: {reason}")]
    Unreachable {
        /// Its URL.
        server: String,
        /// Why, as the system says it.
        reason: String,
    },
    /// Somebody else answers there.
    #[error("the server at {server} does not prove to be the one of this context: {reason}")]
    Stranger {
        /// Its URL.
        server: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// The connection ended in the middle.
    #[error("the connection to {server} broke off")]
    Broken {
        /// Its URL.
        server: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("no answer from {server} within {} s", deadline.as_secs())]
    Silent {
        /// Its URL.
        server: String,
        /// What was waited.
        deadline: Duration,
    },
    /// Refused, for this reason.
    #[error(transparent)]
    Refused(Problem),
    /// The answer is not what this program understands.
    #[error("the answer to {path} is not understood")]
    Decode {
        /// Of the request.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The request cannot be written as JSON.
    #[error("the request cannot be encoded")]
    Encode(#[source] serde_json::Error),
    /// The request is not one of HTTP.
    #[error("the request cannot be made")]
    Request(#[source] http::Error),
}

impl Error {
    /// What a failed exchange means.
    pub(super) fn lost(server: String, error: legacy::Error) -> Self {
        let reason = root(&error);
        if let Some(peer) = find_peer_error(&error) {
            return Self::Stranger {
                server,
                reason: peer,
            };
        }
        if error.is_connect() {
            return Self::Unreachable { server, reason };
        }
        Self::Broken {
            server,
            source: Box::new(error),
        }
    }

    /// Whether the same may succeed in a moment: the stream or the server went away.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Silent { .. } => true,
            Self::Refused(problem) => problem.code.is_retryable(),
            _ => false,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = chain(&error);
        let unreachable = |hint: &str| {
            let problem = Problem::new(Code::Unavailable, text.clone()).hint(hint);
            Self::with(Exit::Unreachable, problem)
        };
        match error {
            // The API speaks of headers; here a token comes with a context.
            Error::Refused(problem) if problem.code == Code::Unauthenticated => {
                Self::of(problem.hint("`skep login` again, or another `--context`"))
            }
            Error::Refused(problem) => Self::of(problem),
            Error::Unreachable { .. } => unreachable(
                "`skep dev` starts a server here; `skep login` or `--context` names another one",
            ),
            Error::Stranger { .. } => unreachable(
                "compare the fingerprint with the server's own; `skep login` again if it is new",
            ),
            Error::Broken { .. } | Error::Silent { .. } => {
                unreachable("is the server running, and is it the right address?")
            }
            Error::Decode { .. } => {
                Self::failed(text).hint("are `skep` here and the server of one version?")
            }
            Error::Encode(_) | Error::Request(_) => Self::failed(text),
        }
    }
}

/// What to make of an answer that no Skep server wrote.
pub(super) fn foreign(status: StatusCode, text: &str) -> Problem {
    let code = match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::Forbidden,
        404 => Code::NotFound,
        413 => Code::TooLarge,
        502..=504 => Code::Unavailable,
        400..=499 => Code::Invalid,
        _ => Code::Internal,
    };
    let said = if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    };
    Problem::new(code, format!("the server answered {status}{said}"))
}

/// The innermost cause.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The text of a failed proof of identity among the causes. The TLS stack hides it in an
/// `io::Error`, whose inner error is not among its sources.
fn find_peer_error(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(|error| error.get_ref());
        let tls = inner
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .or_else(|| error.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(why)) = tls {
            let peer = match why {
                rustls::CertificateError::Other(other) => {
                    other.0.downcast_ref::<PeerError>().map(ToString::to_string)
                }
                _ => None,
            };
            return Some(peer.unwrap_or_else(|| format!("{why:?}")));
        }
        cause = inner.map_or_else(|| error.source(), |inner| Some(inner));
    }
    None
}
