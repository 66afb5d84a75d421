//! What is read from and done to the heads of requests and answers. Pure.

use std::borrow::Cow;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};

use crate::edge::Asked;
use crate::origin::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO};
use crate::reply::{ERROR_HEADER, Refusal};
use crate::request_id::X_REQUEST_ID;
use crate::table::is_host_byte;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// A client's word about itself that no backend may believe: whoever speaks for it says the same in the
/// headers that [`prepare_request`] writes.
fn is_claim(name: &str) -> bool {
    let forwarded = |rest: &str| {
        matches!(
            rest,
            "for" | "proto" | "host" | "port" | "server" | "prefix" | "ssl" | "scheme" | "protocol"
        )
    };
    match name.strip_prefix("x-forwarded-") {
        Some(rest) => forwarded(rest),
        None => matches!(
            name,
            "forwarded"
                | "x-real-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "x-original-forwarded-for"
                | "x-url-scheme"
                | "front-end-https"
                | "true-client-ip"
                | "cf-connecting-ip"
                | "cf-connecting-ipv6"
                | "x-request-id"
        ),
    }
}

/// What says where a request ends and whose it is, beside claims.
fn is_framing(name: &str) -> bool {
    matches!(
        name,
        "content-length" | "transfer-encoding" | "content-type" | "proxy-authorization"
    )
}

/// The host that a request is for.
enum AskedHost<'a> {
    Header(&'a HeaderValue),
    /// HTTP/2 names it in `:authority`.
    Authority(&'a str),
}

/// One host, and nothing else in the request that disagrees with it.
fn agreed_host<'a>(
    headers: &'a HeaderMap,
    uri: &'a Uri,
    version: Version,
) -> Option<AskedHost<'a>> {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, further) = (hosts.next(), hosts.next());
    if further.is_some() {
        return None;
    }
    match (host, uri.authority().map(|authority| authority.as_str())) {
        (Some(host), None) => Some(AskedHost::Header(host)),
        // Without a scheme it is the form of CONNECT.
        (Some(host), Some(authority))
            if uri.scheme().is_some()
                && host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) =>
        {
            Some(AskedHost::Header(host))
        }
        (None, Some(authority)) if version == Version::HTTP_2 => {
            Some(AskedHost::Authority(authority))
        }
        _ => None,
    }
}

/// Makes sure that there is one `Host` and that nothing else in the request disagrees with it.
pub(crate) fn ensure_host(parts: &mut Parts) -> Result<(), Refusal> {
    let host = match agreed_host(&parts.headers, &parts.uri, parts.version) {
        None => return Err(Refusal::BadHost),
        Some(AskedHost::Header(_)) => return Ok(()),
        Some(AskedHost::Authority(host)) => HeaderValue::from_str(host),
    };
    let host = host.map_err(|_| Refusal::BadHost)?;
    parts.headers.insert(HOST, host);
    Ok(())
}

/// Makes sure that the body, if it is encoded for its way, is so in the one form that is undone here: a
/// backend would get the others without being told of them.
pub(crate) fn ensure_framing(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let (encoding, further) = (encodings.next(), encodings.next());
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    match further.is_none() && encoding.is_none_or(is_chunked) {
        true => Ok(()),
        false => Err(Refusal::BadFraming),
    }
}

/// The name of the host that a request is for, before [`ensure_host`]. None: it would be refused.
pub(crate) fn asked_host<B>(request: &Request<B>) -> Option<Cow<'_, str>> {
    match agreed_host(request.headers(), request.uri(), request.version())? {
        AskedHost::Header(value) => name_of(value.to_str().ok()?),
        AskedHost::Authority(text) => name_of(text),
    }
}

/// The name in `Host` as tables have it: lower case, without port and trailing dot.
pub(crate) fn host_name(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    name_of(headers.get(HOST)?.to_str().ok()?)
}

fn name_of(text: &str) -> Option<Cow<'_, str>> {
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
pub(crate) fn prepare_request(parts: &mut Parts, asked: &Asked<'_>, upgrade: Option<HeaderValue>) {
    strip_hop_by_hop(&mut parts.headers);
    parts.headers.remove(&HTTP2_SETTINGS);
    parts.headers.remove(PROXY_AUTHORIZATION);
    drop_claims(&mut parts.headers, asked.kept_claim);
    tell_origin(&mut parts.headers, asked);
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

fn tell_origin(headers: &mut HeaderMap, asked: &Asked<'_>) {
    let origin = asked.origin;
    headers.insert(&X_FORWARDED_FOR, origin.address.clone());
    let scheme = HeaderValue::from_static(origin.scheme.as_str());
    headers.insert(&X_FORWARDED_PROTO, scheme);
    let port = match &origin.port {
        Some(port) => port.clone(),
        None => own_port(headers).unwrap_or_else(|| HeaderValue::from_static(origin.scheme.port())),
    };
    headers.insert(&X_FORWARDED_PORT, port);
    let host = origin.host.as_ref().or_else(|| headers.get(HOST)).cloned();
    if let Some(host) = host {
        headers.insert(&X_FORWARDED_HOST, host);
    }
    headers.insert(&X_REQUEST_ID, asked.request_id.clone());
}

/// The port in `Host`, which is what the client believes that it speaks to.
fn own_port(headers: &HeaderMap) -> Option<HeaderValue> {
    let (_, port) = headers.get(HOST)?.to_str().ok()?.rsplit_once(':')?;
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    is_port.then(|| HeaderValue::from_str(port).ok()).flatten()
}

/// Makes the fields after a client's body ours: nothing in them may say again what the head settled.
pub(crate) fn prepare_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    drop_claims(trailers, None);
    for name in [
        HOST,
        CONTENT_LENGTH,
        PROXY_AUTHORIZATION,
        COOKIE,
        AUTHORIZATION,
    ] {
        trailers.remove(name);
    }
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

/// Removes claims and what some backends would take for one: those that make variables of header names
/// (CGI, WSGI, PHP) read `X_Forwarded_For` as `X-Forwarded-For`. A name that differs from a claim, from the
/// request's framing or from another of its headers only so goes.
fn drop_claims(headers: &mut HeaderMap, kept: Option<&HeaderName>) {
    let is_kept = |name: &HeaderName| kept == Some(name);
    let is_alias = |name: &HeaderName| {
        let is_odd = |byte: u8| byte == b'_' || byte == b'.';
        name.as_str().bytes().any(is_odd) && {
            let plain = name.as_str().replace(['_', '.'], "-");
            is_claim(&plain) || is_framing(&plain) || headers.contains_key(plain.as_str())
        }
    };
    let doomed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| (is_claim(name.as_str()) && !is_kept(name)) || is_alias(name))
        .cloned()
        .collect();
    for name in doomed {
        headers.remove(name);
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
    use crate::origin::{Peer, Scheme};
    use crate::trust::Trusted;

    fn parts(uri: &str, version: Version, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn prepare(parts: &mut Parts) {
        let peer = Peer::new(([10, 0, 0, 9], 1).into(), Scheme::Http, &Trusted::default());
        let origin = peer.origin_of(&parts.headers, &Trusted::default());
        let id = HeaderValue::from_static("id");
        prepare_request(parts, &Asked::new(&origin, &id, None), None);
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
            ("a", one, vec!["a"], false),
            ("http://u@a/", one, vec!["a"], false),
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
                ("x-request-id", "forged"),
                ("x_request_id", "forged"),
                ("cf-connecting-ip", "1.1.1.1"),
                ("x-forwarded-port", "1"),
                ("content_length", "7"),
                ("transfer_encoding", "chunked"),
                ("x-user", "a"),
                ("x_user", "b"),
                ("x_other", "fine"),
                ("forwarded", "for=1.1.1.1"),
                ("upgrade", "websocket"),
                ("accept", "*/*"),
            ],
        );
        prepare(&mut parts);
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
            ("x-forwarded-port", "80"),
            ("x-forwarded-proto", "http"),
            ("x-request-id", "id"),
            ("x-user", "a"),
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
        prepare(&mut parts);
        let cookies: Vec<_> = parts.headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }

    #[test]
    fn trailers_settle_nothing() {
        let mut trailers = HeaderMap::new();
        for name in [
            "x-forwarded-for",
            "x_real_ip",
            "host",
            "content-length",
            "cookie",
            "x-sum",
        ] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        prepare_trailers(&mut trailers);
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-sum"]);
    }
}
