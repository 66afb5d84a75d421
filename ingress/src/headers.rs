//! What is read from and done to the heads of requests and answers. Pure.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};

use crate::reply::{ERROR_HEADER, Refusal};
use crate::table::is_host_byte;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// A client's word about itself that no backend may believe.
static CLIENT_CLAIMS: [HeaderName; 6] = [
    FORWARDED,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-real-ip"),
];

/// Who asks, as it is told to backends. Made once a connection.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The client's address.
    pub(crate) address: HeaderValue,
    /// `http` or `https`.
    pub(crate) scheme: HeaderValue,
}

impl Origin {
    /// The client's address, for rules that are about it.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.address.to_str().ok()?.parse().ok()
    }
}

/// Makes sure that there is one `Host` and that nothing else in the request disagrees with it.
pub(crate) fn ensure_host(parts: &mut Parts) -> Result<(), Refusal> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (host, further) = (hosts.next(), hosts.next());
    if further.is_some() {
        return Err(Refusal::BadHost);
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    match (host, authority) {
        (Some(_), None) => Ok(()),
        (Some(host), Some(authority))
            if host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) =>
        {
            Ok(())
        }
        (None, Some(authority)) if parts.version == Version::HTTP_2 => {
            let host = HeaderValue::from_str(authority).map_err(|_| Refusal::BadHost)?;
            parts.headers.insert(HOST, host);
            Ok(())
        }
        _ => Err(Refusal::BadHost),
    }
}

/// The name in `Host` as tables have it: lower case, without port and trailing dot.
pub(crate) fn host_name(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let text = headers.get(HOST)?.to_str().ok()?;
    let name = match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) => return None,
        None => text,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_name = |byte: u8| is_host_byte(byte.to_ascii_lowercase()) || byte == b'.';
    // An address in brackets is no one's route, but it is a valid host.
    let is_address = |name: &str| {
        let inside = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        inside.is_some_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok())
    };
    if name.is_empty() || !(name.bytes().all(is_name) || is_address(name)) {
        return None;
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Some(Cow::Owned(name.to_ascii_lowercase()))
    } else {
        Some(Cow::Borrowed(name))
    }
}

/// The protocol that the client wants to change to. Never HTTP/2 in clear: a backend that
/// agreed would take further requests past every route.
pub(crate) fn wanted_upgrade(parts: &Parts) -> Option<HeaderValue> {
    let asked = parts.version == Version::HTTP_11
        && tokens(&parts.headers, &CONNECTION).any(|it| is(it, "upgrade"));
    if !asked || tokens(&parts.headers, &UPGRADE).any(|protocol| is(protocol, "h2c")) {
        return None;
    }
    parts.headers.get(UPGRADE).cloned()
}

/// Makes a client's request ours: hop-by-hop headers and claims about its origin removed, the
/// true origin added, the target in origin form, HTTP/1.1.
pub(crate) fn prepare_request(parts: &mut Parts, origin: &Origin, upgrade: Option<HeaderValue>) {
    strip_hop_by_hop(&mut parts.headers);
    parts.headers.remove(&HTTP2_SETTINGS);
    parts.headers.remove(PROXY_AUTHORIZATION);
    for claim in &CLIENT_CLAIMS {
        parts.headers.remove(claim);
    }
    drop_aliases(&mut parts.headers);
    parts
        .headers
        .insert(&X_FORWARDED_FOR, origin.address.clone());
    parts
        .headers
        .insert(&X_FORWARDED_PROTO, origin.scheme.clone());
    if let Some(host) = parts.headers.get(HOST).cloned() {
        parts.headers.insert(&X_FORWARDED_HOST, host);
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    if let Some(protocol) = upgrade {
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, protocol);
    }
    if parts.uri.authority().is_some() {
        let target = parts.uri.path_and_query().cloned();
        parts.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    parts.version = Version::HTTP_11;
}

/// Makes a backend's answer ours.
pub(crate) fn prepare_response(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    strip_hop_by_hop(headers);
    headers.remove(PROXY_AUTHENTICATE);
    headers.remove(&ERROR_HEADER);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
            .filter(|token| {
                !(is(token, "keep-alive") || is(token, "close") || is(token, "upgrade"))
            })
            .filter_map(|token| token.parse().ok())
            // Without these a request would mean something else; nobody may name them away.
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &TE,
        &TRANSFER_ENCODING,
        &UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// Backends that make variables of header names (CGI, WSGI, PHP) read `X_Forwarded_For` as
/// `X-Forwarded-For`: what differs from our headers only so is a claim too.
fn drop_aliases(headers: &mut HeaderMap) {
    let is_ours = |name: &str| {
        let ours = [&X_FORWARDED_FOR, &X_FORWARDED_PROTO, &X_FORWARDED_HOST];
        CLIENT_CLAIMS.iter().chain(ours).any(|ours| *ours == name)
    };
    let has_odd_byte = |name: &&HeaderName| {
        name.as_str()
            .bytes()
            .any(|byte| byte == b'_' || byte == b'.')
    };
    let aliases: Vec<HeaderName> = headers
        .keys()
        .filter(has_odd_byte)
        .filter(|name| is_ours(&name.as_str().replace(['_', '.'], "-")))
        .cloned()
        .collect();
    for alias in aliases {
        headers.remove(alias);
    }
}

/// HTTP/2 may split cookies into many headers, HTTP/1.1 may not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

fn is(token: &str, expected: &str) -> bool {
    token.eq_ignore_ascii_case(expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(uri: &str, version: Version, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn origin() -> Origin {
        Origin {
            address: HeaderValue::from_static("10.0.0.9"),
            scheme: HeaderValue::from_static("http"),
        }
    }

    #[test]
    fn one_host_and_no_contradiction() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for (uri, version, hosts, fine) in [
            ("/", one, vec!["a"], true),
            ("/", one, vec![], false),
            ("/", one, vec!["a", "a"], false),
            ("http://a:80/", one, vec!["A:80"], true),
            ("http://a/", one, vec!["b"], false),
            ("http://a/", one, vec![], false),
            ("http://a/", two, vec![], true),
            ("http://a/", two, vec!["b"], false),
        ] {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let mut parts = parts(uri, version, &headers);
            assert_eq!(
                ensure_host(&mut parts).is_ok(),
                fine,
                "{uri} {version:?} {hosts:?}"
            );
            assert!(!fine || parts.headers.contains_key(HOST));
        }
    }

    #[test]
    fn host_names_lose_case_port_and_dot() {
        for (text, name) in [
            ("a.b", Some("a.b")),
            ("A.b:8080", Some("a.b")),
            ("a.b.:80", Some("a.b")),
            ("[::1]:80", Some("[::1]")),
            ("", None),
            (":80", None),
            ("a:b", None),
            ("u@a", None),
            ("a/b", None),
            ("a b", None),
            ("[x]", None),
        ] {
            let parts = parts("/", Version::HTTP_11, &[("host", text)]);
            assert_eq!(host_name(&parts.headers).as_deref(), name, "{text}");
        }
    }

    #[test]
    fn claims_and_hop_by_hop_headers_do_not_pass() {
        let mut parts = parts(
            "http://a/x?y",
            Version::HTTP_11,
            &[
                ("host", "a"),
                ("connection", "keep-alive, X-Secret, host, Content-Length"),
                ("x-secret", "1"),
                ("content-length", "0"),
                ("te", "trailers"),
                ("keep-alive", "timeout=5"),
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-for", "2.2.2.2"),
                ("x-real-ip", "1.1.1.1"),
                ("x_forwarded_for", "1.1.1.1"),
                ("X.Real_IP", "1.1.1.1"),
                ("x_other", "fine"),
                ("forwarded", "for=1.1.1.1"),
                ("upgrade", "websocket"),
                ("accept", "*/*"),
            ],
        );
        prepare_request(&mut parts, &origin(), None);
        let mut left: Vec<_> = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
            .collect();
        left.sort_unstable();
        let expected = [
            ("accept", "*/*"),
            ("content-length", "0"),
            ("host", "a"),
            ("x-forwarded-for", "10.0.0.9"),
            ("x-forwarded-host", "a"),
            ("x-forwarded-proto", "http"),
            ("x_other", "fine"),
        ];
        assert_eq!(left, expected);
        assert_eq!(parts.uri, "/x?y");
    }

    #[test]
    fn upgrades_need_both_headers_and_are_never_h2c() {
        for (connection, upgrade, wanted) in [
            ("Upgrade", "websocket", true),
            ("keep-alive, upgrade", "WebSocket", true),
            ("keep-alive", "websocket", false),
            ("upgrade, http2-settings", "h2c", false),
            ("upgrade", "websocket, H2C", false),
        ] {
            let parts = parts(
                "/",
                Version::HTTP_11,
                &[("connection", connection), ("upgrade", upgrade)],
            );
            assert_eq!(
                wanted_upgrade(&parts).is_some(),
                wanted,
                "{connection} {upgrade}"
            );
        }
    }

    #[test]
    fn split_cookies_are_joined() {
        let mut parts = parts(
            "http://a/",
            Version::HTTP_2,
            &[("cookie", "a=1"), ("cookie", "b=2")],
        );
        prepare_request(&mut parts, &origin(), None);
        let cookies: Vec<_> = parts.headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }
}
