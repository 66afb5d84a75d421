//! From plain HTTP to HTTPS: who is sent, and where. Pure.

use http::header::LOCATION;
use http::{HeaderValue, Request, Response, StatusCode};

use crate::acme;
use crate::body::ReplyBody;
use crate::headers;
use crate::origin::{Origin, Scheme};

/// The port that needs not be named.
const HTTPS_PORT: u16 = 443;

/// The answer to a plain request where everybody is to speak TLS to `port`. None: serve it. A request
/// without a valid host is refused elsewhere.
pub(crate) fn to_https<B>(
    request: &Request<B>,
    origin: &Origin,
    port: Option<u16>,
) -> Option<Response<ReplyBody>> {
    let port = port.filter(|_| origin.scheme == Scheme::Http)?;
    if request.uri().path().starts_with(acme::PATH) {
        return None;
    }
    let host = headers::asked_host(request)?;
    let target = request
        .uri()
        .path_and_query()
        .map(|target| target.as_str())
        .filter(|target| target.starts_with('/'))
        .unwrap_or("/");
    let location = match port {
        HTTPS_PORT => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    let location = HeaderValue::try_from(location).ok()?;
    let mut answer = Response::new(ReplyBody::text(""));
    // 308 and not 301: the method stays what it is.
    *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
    answer.headers_mut().insert(LOCATION, location);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Peer;
    use crate::trust::Trusted;

    #[test]
    fn plain_requests_are_sent_to_the_same_place_under_tls() {
        for (uri, host, port, location) in [
            ("/", "a.example", 443, Some("https://a.example/")),
            (
                "/x?y=%20",
                "A.example:80",
                443,
                Some("https://a.example/x?y=%20"),
            ),
            ("/", "a.example.", 8443, Some("https://a.example:8443/")),
            ("/", "[::1]:80", 443, Some("https://[::1]/")),
            (
                "//evil.example",
                "a.example",
                443,
                Some("https://a.example//evil.example"),
            ),
            ("*", "a.example", 443, Some("https://a.example/")),
            ("/.well-known/acme-challenge/x", "a.example", 443, None),
            ("/", "a@b", 443, None),
        ] {
            let request = Request::get(uri).header("host", host).body(());
            let request = request.expect("a request");
            let peer = |scheme| Peer::new(([10, 0, 0, 9], 1).into(), scheme, &Trusted::default());
            let to = |scheme, port| {
                let peer = peer(scheme);
                let origin = peer.origin_of(request.headers(), &Trusted::default());
                to_https(&request, &origin, port).map(|answer| answer.headers()[LOCATION].clone())
            };
            let expected = location.map(HeaderValue::from_static);
            assert_eq!(to(Scheme::Http, Some(port)), expected, "{uri} {host}");
            assert_eq!(to(Scheme::Https, Some(port)), None);
            assert_eq!(to(Scheme::Http, None), None);
        }
    }
}
