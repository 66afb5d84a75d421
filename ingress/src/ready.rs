//! Whether load balancers are to send requests to this ingress. Whoever asks at the port that they would send them
//! to learns whether it is served, too.

use std::sync::atomic::{AtomicBool, Ordering};

use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response, StatusCode};

use crate::body::ReplyBody;

/// Where it is asked, at every host.
pub(crate) const PATH: &str = "/.well-known/skep/ready";

/// Whether it is ready: not at first.
#[derive(Debug, Default)]
pub(crate) struct Ready(AtomicBool);

impl Ready {
    pub(crate) fn set(&self, is_ready: bool) {
        self.0.store(is_ready, Ordering::Relaxed);
    }

    /// None: it is somebody else's path.
    pub(crate) fn answer(&self, path: &str) -> Option<Response<ReplyBody>> {
        if path != PATH {
            return None;
        }
        let (status, text) = match self.0.load(Ordering::Relaxed) {
            true => (StatusCode::OK, "ready\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        };
        let mut answer = Response::new(ReplyBody::owned(text.to_owned()));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(answer)
    }
}
