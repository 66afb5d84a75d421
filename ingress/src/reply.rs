//! What the ingress answers by itself: each has a stable code in `x-skep-error` and says what
//! to do.

use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

use crate::body::ReplyBody;

/// The header that only the ingress itself sets: the code of a [`Refusal`].
pub(crate) static ERROR_HEADER: HeaderName = HeaderName::from_static("x-skep-error");

/// What asks for a password.
const CHALLENGE: &str = "Basic realm=\"skep\"";

/// Why a request did not get an answer from a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    BadHost,
    BadFraming,
    MethodNotAllowed,
    UnknownHost,
    RequestTimeout,
    BodyTooLarge,
    ConnectFailed,
    BackendClosed,
    NoBackend,
    Timeout,
    AddressNotAllowed,
    Unauthorized,
    RateLimited,
    TooManyInFlight,
    AuthUnreachable,
    CircuitOpen,
    FilesUnreadable,
}

impl Refusal {
    /// In the order of declaration: `ALL[refusal as usize] == refusal`.
    pub(crate) const ALL: [Self; 17] = [
        Self::BadHost,
        Self::BadFraming,
        Self::MethodNotAllowed,
        Self::UnknownHost,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::ConnectFailed,
        Self::BackendClosed,
        Self::NoBackend,
        Self::Timeout,
        Self::AddressNotAllowed,
        Self::Unauthorized,
        Self::RateLimited,
        Self::TooManyInFlight,
        Self::AuthUnreachable,
        Self::CircuitOpen,
        Self::FilesUnreadable,
    ];

    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::BadHost => "bad_host",
            Self::BadFraming => "bad_framing",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnknownHost => "unknown_host",
            Self::RequestTimeout => "request_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::ConnectFailed => "connect_failed",
            Self::BackendClosed => "backend_closed",
            Self::NoBackend => "no_backend",
            Self::Timeout => "timeout",
            Self::AddressNotAllowed => "address_not_allowed",
            Self::Unauthorized => "unauthorized",
            Self::RateLimited => "rate_limited",
            Self::TooManyInFlight => "too_many_in_flight",
            Self::AuthUnreachable => "auth_unreachable",
            Self::CircuitOpen => "circuit_open",
            Self::FilesUnreadable => "files_unreadable",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadHost | Self::BadFraming => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownHost => StatusCode::NOT_FOUND,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ConnectFailed | Self::BackendClosed | Self::AuthUnreachable => {
                StatusCode::BAD_GATEWAY
            }
            Self::NoBackend | Self::CircuitOpen => StatusCode::SERVICE_UNAVAILABLE,
            Self::FilesUnreadable => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::AddressNotAllowed => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::RateLimited | Self::TooManyInFlight => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::BadHost => "The request must name exactly one valid host.\n",
            Self::BadFraming => {
                "The request's body is encoded for the way (Transfer-Encoding) by something else than `chunked` alone.\n"
            }
            Self::MethodNotAllowed => "This is not a forward proxy: CONNECT is not served.\n",
            Self::UnknownHost => {
                "No service is routed at this host and path. Check the address and the service's routes.\n"
            }
            Self::RequestTimeout => "The request's body stopped arriving. Send it again.\n",
            Self::BodyTooLarge => {
                "The request's body is larger than this ingress allows. Send less, or raise the limit.\n"
            }
            Self::ConnectFailed => {
                "No instance of the service accepted a connection. See whether it listens on its PORT and all addresses: `skep ps`, `skep logs`.\n"
            }
            Self::BackendClosed => {
                "The service closed the connection without an answer. See why: `skep logs`.\n"
            }
            Self::NoBackend => {
                "The service has no healthy instance now. Try again in a moment, or see `skep ps`.\n"
            }
            Self::Timeout => {
                "The service did not begin its answer in time. See what it is busy with: `skep logs`.\n"
            }
            Self::AddressNotAllowed => {
                "This address may not ask here: the route's `allow_ips` does not have it.\n"
            }
            Self::Unauthorized => "A user and a password are needed here.\n",
            Self::RateLimited => {
                "Too many requests from this address. Try again in a moment, or raise the route's `rate_limit`.\n"
            }
            Self::TooManyInFlight => {
                "Too many requests at the same time. Try again in a moment, or raise the route's `in_flight`.\n"
            }
            Self::AuthUnreachable => {
                "Nobody says whether this request may pass: what the route's `forward_auth` names gives no answer. See the log of `skep net`.\n"
            }
            Self::CircuitOpen => {
                "Too many requests failed: the route's `circuit_breaker` leaves the service alone for a while. See why: `skep logs`.\n"
            }
            Self::FilesUnreadable => {
                "A file of this static site cannot be read on this node. See the log of `skep net`; `skep redeploy` unpacks the site anew.\n"
            }
        }
    }

    pub(crate) fn response(self) -> Response<ReplyBody> {
        let mut response = Response::new(ReplyBody::text(self.text()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(&ERROR_HEADER, HeaderValue::from_static(self.code()));
        match self {
            // Where a head contradicts itself, nobody can tell what the bytes after it are.
            Self::BadHost | Self::BadFraming => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::NoBackend | Self::RateLimited | Self::TooManyInFlight | Self::CircuitOpen => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
            }
            _ => {}
        }
        response
    }
}

/// Another address in place of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Redirected {
    location: String,
    status: StatusCode,
}

impl Redirected {
    /// With the status that lets a client repeat the very request there: browsers make a GET of any
    /// other method after 301 and 302.
    pub(crate) fn new(location: String, permanent: bool, method: &Method) -> Self {
        let status = match (permanent, method == Method::GET) {
            (true, true) => StatusCode::MOVED_PERMANENTLY,
            (true, false) => StatusCode::PERMANENT_REDIRECT,
            (false, true) => StatusCode::FOUND,
            (false, false) => StatusCode::TEMPORARY_REDIRECT,
        };
        Self { location, status }
    }

    pub(crate) fn response(&self) -> Result<Response<ReplyBody>, Refusal> {
        // What came in a head may leave in one; anything else is no address.
        let location = HeaderValue::try_from(&self.location).map_err(|_| Refusal::BadHost)?;
        let mut response = Response::new(ReplyBody::text(""));
        *response.status_mut() = self.status;
        response.headers_mut().insert(LOCATION, location);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_the_order_of_declaration() {
        for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, place);
        }
    }
}
