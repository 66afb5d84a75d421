//! How a request's way to the backends ends.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::backend::InFlight;
use crate::body::{Came, RequestBody};
use crate::link::Link;
use crate::metrics::TriedMetrics;
use crate::reply::Refusal;

/// What a backend answered.
pub(super) struct Answer {
    pub(super) response: Response<Came>,
    /// None: it came over no connection.
    pub(super) link: Option<Link>,
    pub(super) in_flight: InFlight,
}

impl Answer {
    pub(super) fn over(link: Link, response: Response<Incoming>, in_flight: InFlight) -> Self {
        Self {
            response: response.map(Came::Link),
            link: Some(link),
            in_flight,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }
}

/// A request without an answer.
pub(super) struct Ended {
    pub(super) refusal: Refusal,
    /// Where it counts for a release that is tried, whose fault it is.
    pub(super) tried: Option<Arc<TriedMetrics>>,
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            tried: None,
        }
    }
}

/// Whether the last backend is to blame, rather than the client.
pub(super) fn is_backends_fault(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::ConnectFailed
            | Refusal::BackendClosed
            | Refusal::Timeout
            | Refusal::FilesUnreadable
    )
}

/// How a connection did not come about.
pub(super) enum Undialed {
    Refused,
    /// Not in time.
    Silent,
}

/// How sending on one connection failed.
pub(super) enum Failure {
    /// Not one byte went out: here it is again.
    Unsent(Box<Request<RequestBody>>),
    /// Closed or broken before the head of an answer.
    Broken(hyper::Error),
    /// For good.
    Refused(Refusal),
}
