//! Somebody else is asked whether a request may pass.

use std::net::IpAddr;

use http::Uri;
use serde::{Deserialize, Serialize};

use super::MAX_HEADERS;
use super::check::check_header_name;
use crate::name::check_host;
use crate::problem::Problem;

/// Longest address, in bytes.
const MAX_URL: usize = 1_024;

/// Who is asked, with what, and what of the answer goes on to the service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ForwardAuth {
    /// `http://` or `https://`, a host, and what follows it. A GET there that is answered by 2xx lets a request
    /// through; any other answer is the client's.
    pub url: String,
    /// Headers of the request that go along; empty: all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_headers: Vec<String>,
    /// Headers of the answer that the service gets, and never from a client.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<String>,
}

impl ForwardAuth {
    /// The address, where it is one.
    pub fn uri(&self) -> Option<Uri> {
        let uri: Uri = self.url.parse().ok()?;
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority()?.as_str();
        let is_plain = !authority.contains('@') && !self.url.contains('#');
        (is_web && is_plain && self.url.len() <= MAX_URL).then_some(uri)
    }

    pub(super) fn check(&self) -> Result<(), Problem> {
        let field = "forward_auth.url";
        let Some(uri) = self.uri() else {
            let text = "this is not an address that can be asked";
            return Err(Problem::invalid(field, text).hint(format!(
                "http:// or https://, a host without user and password, and a path, in at most {MAX_URL} bytes: \
                 https://auth.example.com/verify"
            )));
        };
        let host = uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) if is_off_limits(address) => {
                let text = format!("{address} is the node itself, or nobody's");
                return Err(Problem::invalid(field, text)
                    .hint("an address of the network: loopback, link-local and multicast ones are not asked"));
            }
            Ok(_) => {}
            Err(_) => check_host(field, host)?,
        }
        for (field, names) in [
            ("forward_auth.request_headers", &self.request_headers),
            ("forward_auth.response_headers", &self.response_headers),
        ] {
            if names.len() > MAX_HEADERS {
                let text = format!("{} headers are too many", names.len());
                return Err(Problem::invalid(field, text).hint(format!("at most {MAX_HEADERS}")));
            }
            names
                .iter()
                .try_for_each(|name| check_header_name(field, name))?;
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        let lists = [&self.request_headers, &self.response_headers];
        self.url.len() + lists.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

/// Addresses that mean the machine that asks, its link (where clouds tell a machine its secrets), or
/// nobody in particular: what the owner of an app may not have a node ask.
pub fn is_off_limits(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.octets()[0] == 0
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            // An IPv4 address inside of one that a translator takes apart (RFC 6052), or of the old form.
            let [.., high, low] = v6.segments();
            let inside = std::net::Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
            let is_translated = v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.segments()[..6] == [0; 6]
                || (is_translated && is_off_limits(inside.into()))
                // Where one cloud tells machines their secrets.
                || v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_node_is_to_ask() {
        for (address, expected) in [
            ("127.0.0.1", true),
            ("127.64.3.4", true),
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("169.254.169.254", true),
            ("224.0.0.1", true),
            ("255.255.255.255", true),
            ("10.0.0.1", false),
            ("172.17.0.1", false),
            ("192.0.2.1", false),
            ("::1", true),
            ("::", true),
            ("::ffff:127.0.0.1", true),
            ("::7f00:1", true),
            ("64:ff9b::7f00:1", true),
            ("64:ff9b::a00:1", false),
            ("fe80::1", true),
            ("ff02::1", true),
            ("fd00:ec2::254", true),
            ("fd00::1", false),
            ("2001:db8::1", false),
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(is_off_limits(parsed), expected, "{address}");
        }
    }
}
