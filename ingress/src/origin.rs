//! Who asks: what the connection itself says, and what a trusted proxy in front says of it. Pure.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::trust::{Trust, Trusted};

pub(crate) static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(crate) static X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
pub(crate) static CF_CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");

/// How the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Where it is spoken unless somebody says otherwise.
    pub(crate) fn port(self) -> &'static str {
        match self {
            Self::Http => "80",
            Self::Https => "443",
        }
    }
}

/// Who asks, as the rest of the ingress and backends are told.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) client: IpAddr,
    /// The same as a header.
    pub(crate) address: HeaderValue,
    pub(crate) scheme: Scheme,
    /// The host and port that the client asked for, where a trusted proxy asks for another.
    pub(crate) host: Option<HeaderValue>,
    pub(crate) port: Option<HeaderValue>,
}

impl Origin {
    fn new(client: IpAddr, scheme: Scheme) -> Self {
        let client = client.to_canonical();
        Self {
            client,
            address: HeaderValue::try_from(client.to_string())
                .expect("an address is visible ASCII"),
            scheme,
            host: None,
            port: None,
        }
    }
}

/// The other end of a connection, which may speak for somebody else. Made once a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    origin: Origin,
    trust: Trust,
    kept_claim: Option<&'static HeaderName>,
}

impl Peer {
    /// `address` is where the connection comes from: of a connection that began with a header of the
    /// PROXY protocol what that says.
    pub(crate) fn new(address: SocketAddr, scheme: Scheme, trusted: &Trusted) -> Self {
        let trust = trusted.of(address.ip());
        Self {
            origin: Origin::new(address.ip(), scheme),
            kept_claim: (trust == Trust::Cloudflare).then_some(&CF_CONNECTING_IP),
            trust,
        }
    }

    /// A proxy in front that is part of the node.
    pub(crate) fn own_proxy(address: SocketAddr) -> Self {
        Self {
            origin: Origin::new(address.ip(), Scheme::Http),
            trust: Trust::Proxy,
            // What the route says is done there.
            kept_claim: Some(&X_FORWARDED_PREFIX),
        }
    }

    pub(crate) fn is_trusted(&self) -> bool {
        self.trust != Trust::Client
    }

    /// What it says in this header is no claim of the client.
    pub(crate) fn kept_claim(&self) -> Option<&'static HeaderName> {
        self.kept_claim
    }

    /// Who asks with `headers`. Costs nothing unless the peer is trusted.
    pub(crate) fn origin_of(&self, headers: &HeaderMap, trusted: &Trusted) -> Cow<'_, Origin> {
        if !self.is_trusted() {
            return Cow::Borrowed(&self.origin);
        }
        let client = self.client_of(headers, trusted);
        let mut origin = match client == self.origin.client {
            true => self.origin.clone(),
            false => Origin::new(client, self.origin.scheme),
        };
        if let Some(scheme) = scheme_of(headers) {
            origin.scheme = scheme;
        }
        origin.host = only(headers, &X_FORWARDED_HOST).cloned();
        origin.port = only(headers, &X_FORWARDED_PORT)
            .filter(|port| is_port(port.as_bytes()))
            .cloned();
        Cow::Owned(origin)
    }

    /// From the nearest on, each trusted proxy is asked whom it speaks for. Whoever is not trusted, or
    /// has nobody before it, is the client; the list ends where it cannot be read.
    fn client_of(&self, headers: &HeaderMap, trusted: &Trusted) -> IpAddr {
        if self.trust == Trust::Cloudflare
            && let Some(client) = only(headers, &CF_CONNECTING_IP)
                .and_then(|value| value.to_str().ok())
                .and_then(hop)
        {
            return client;
        }
        let mut client = self.origin.client;
        // A double-ended walk over the values in their order.
        for value in headers.get_all(&X_FORWARDED_FOR).iter().rev() {
            let Ok(text) = value.to_str() else {
                return client;
            };
            for text in text.rsplit(',') {
                let Some(address) = hop(text) else {
                    return client;
                };
                client = address;
                if trusted.of(client) == Trust::Client {
                    return client;
                }
            }
        }
        client
    }
}

/// One entry of `X-Forwarded-For`: an address, by some proxies with its port.
fn hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let inside = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = match inside {
        Some(inside) => inside.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    };
    let address = address.or_else(|| text.parse().ok().map(|it: SocketAddr| it.ip()));
    address.map(|it: IpAddr| it.to_canonical())
}

/// A proxy that says two things says nothing.
fn scheme_of(headers: &HeaderMap) -> Option<Scheme> {
    match only(headers, &X_FORWARDED_PROTO)?.as_bytes() {
        b"https" | b"wss" => Some(Scheme::Https),
        b"http" | b"ws" => Some(Scheme::Http),
        _ => None,
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    let is_only = values.next().is_none() && !value.as_bytes().contains(&b',');
    is_only.then_some(value)
}

/// 1 to 65535, in digits.
fn is_port(text: &[u8]) -> bool {
    let number = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse::<u16>().ok());
    number.is_some_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn trusted() -> Trusted {
        let words = ["10.0.0.0/8", "2001:db8::/32", "cloudflare"];
        Trusted::new(&words.map(|word| word.parse().expect("a network")))
    }

    fn asked(peer: &str, lines: &[(&'static str, &'static str)]) -> Origin {
        let address = SocketAddr::new(peer.parse().expect("an address"), 1);
        let peer = Peer::new(address, Scheme::Http, &trusted());
        peer.origin_of(&headers(lines), &trusted()).into_owned()
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_client() {
        const FOR: &str = "x-forwarded-for";
        const CF: &str = "cf-connecting-ip";
        for (peer, lines, client) in [
            ("203.0.113.1", vec![(FOR, "1.1.1.1")], "203.0.113.1"),
            ("203.0.113.1", vec![(CF, "1.1.1.1")], "203.0.113.1"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("::ffff:10.0.0.1", vec![(FOR, "1.1.1.1")], "1.1.1.1"),
            ("10.0.0.1", vec![(FOR, "6.6.6.6, 1.1.1.1")], "1.1.1.1"),
            ("10.0.0.1", vec![(FOR, "1.1.1.1,10.0.0.2")], "1.1.1.1"),
            (
                "10.0.0.1",
                vec![(FOR, "6.6.6.6"), (FOR, "1.1.1.1, 10.0.0.2")],
                "1.1.1.1",
            ),
            (
                "10.0.0.1",
                vec![(FOR, "1.1.1.1"), (FOR, "10.0.0.2")],
                "1.1.1.1",
            ),
            ("10.0.0.1", vec![(FOR, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            (
                "10.0.0.1",
                vec![(FOR, "1.1.1.1, unknown, 10.0.0.2")],
                "10.0.0.2",
            ),
            ("10.0.0.1", vec![(FOR, "")], "10.0.0.1"),
            ("10.0.0.1", vec![(FOR, "1.1.1.1:5060")], "1.1.1.1"),
            (
                "10.0.0.1",
                vec![(FOR, "[2001:db9::1]:80, [2001:db8::2]")],
                "2001:db9::1",
            ),
            // Only Cloudflare itself is believed what any client could have written.
            (
                "10.0.0.1",
                vec![(CF, "6.6.6.6"), (FOR, "1.1.1.1")],
                "1.1.1.1",
            ),
            (
                "104.16.0.1",
                vec![(CF, "1.1.1.1"), (FOR, "6.6.6.6")],
                "1.1.1.1",
            ),
            (
                "104.16.0.1",
                vec![(CF, "1.1.1.1, 2.2.2.2"), (FOR, "3.3.3.3")],
                "3.3.3.3",
            ),
        ] {
            let origin = asked(peer, &lines);
            assert_eq!(origin.client.to_string(), client, "{peer} {lines:?}");
            assert_eq!(origin.address.as_bytes(), client.as_bytes());
        }
    }

    #[test]
    fn scheme_host_and_port_are_believed_of_proxies_that_say_one_thing() {
        let lines = [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-port", "8443"),
        ];
        let origin = asked("10.0.0.1", &lines);
        assert_eq!(origin.scheme, Scheme::Https);
        assert_eq!(origin.host.expect("believed"), "a.example");
        assert_eq!(origin.port.expect("believed"), "8443");
        let origin = asked("203.0.113.1", &lines);
        assert_eq!(origin.scheme, Scheme::Http);
        assert!(origin.host.is_none() && origin.port.is_none());
        for value in ["https, http", "HTTPS ", "ftp", ""] {
            let mut lines = headers(&[]);
            lines.append(&X_FORWARDED_PROTO, HeaderValue::from_static(value));
            assert_eq!(scheme_of(&lines), None, "{value}");
        }
        for port in ["0", "65536", "+1", "", "a"] {
            assert!(!is_port(port.as_bytes()), "{port}");
        }
    }
}
