//! How a host is proved in its DNS: who writes the record, and what is known of one that was written. Talks to nobody.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::variable::Sealed;

/// Most records that may be out at a time; far above the orders that are under way at once.
pub const MAX_DNS_RECORDS: usize = 64;
/// Longest of each text of a provider, in bytes.
pub const MAX_DNS_BYTES: usize = 1_000;
/// Longest secret of a provider, in bytes.
pub const MAX_DNS_SECRET_BYTES: usize = 4 << 10;

/// The digest that a key of a zone signs with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TsigAlgorithm {
    /// What every server has.
    #[default]
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// A longer one.
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    /// A longer one still.
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}

impl TsigAlgorithm {
    /// Each of them, in the order of their stored numbers.
    pub const ALL: [Self; 3] = [Self::HmacSha256, Self::HmacSha384, Self::HmacSha512];
}

/// Who writes records into a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DnsProvider {
    /// The zone's own server, by signed updates (RFC 2136, RFC 8945).
    Rfc2136 {
        /// `HOST:PORT` of the server that takes updates.
        server: String,
        /// Name of the key.
        key_name: String,
        /// What the key signs with.
        #[serde(default)]
        algorithm: TsigAlgorithm,
    },
    /// Cloudflare's API.
    Cloudflare,
    /// A program of somebody's behind HTTP.
    Webhook {
        /// Where it is asked.
        url: String,
    },
    /// A program on the servers, which the operator of each allowed.
    Exec,
}

impl DnsProvider {
    /// As people write its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Rfc2136 { .. } => "rfc2136",
            Self::Cloudflare => "cloudflare",
            Self::Webhook { .. } => "webhook",
            Self::Exec => "exec",
        }
    }

    /// Where its secret is used: it is sealed for that and nothing else.
    pub fn place(&self) -> String {
        match self {
            Self::Rfc2136 {
                server, key_name, ..
            } => format!("rfc2136/{server}/{key_name}"),
            Self::Cloudflare | Self::Exec => self.kind().to_owned(),
            Self::Webhook { url } => format!("webhook/{url}"),
        }
    }

    /// Whether it is of no use without a secret.
    pub fn needs_secret(&self) -> bool {
        matches!(self, Self::Rfc2136 { .. } | Self::Cloudflare)
    }
}

/// A provider, and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsAccess {
    /// Who.
    pub provider: DnsProvider,
    /// Its key or token; none: it wants none.
    pub secret: Option<Sealed>,
}

/// A record that is in somebody's zone, or is about to be: whoever leads takes it away again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsRecord {
    /// Where, without a last dot: what `_acme-challenge` of the host leads to.
    pub name: String,
    /// The text in it: no secret, it proves only who asks.
    pub value: String,
    /// The way in which it was written: the issuer's may be another one by now.
    pub access: DnsAccess,
    /// Nobody tries to take it away after this, ms since the epoch.
    pub until_ms: u64,
}

impl DnsRecord {
    /// No other record has the same.
    pub fn key(&self) -> (String, String) {
        (self.name.clone(), self.value.clone())
    }
}

/// Checks what an operator says of a provider.
///
/// # Errors
/// Says which field is not accepted.
pub fn check_access(access: &DnsAccess) -> Result<(), Problem> {
    let is_word = |text: &str| {
        !text.is_empty()
            && text.len() <= MAX_DNS_BYTES
            && !text.chars().any(|c| c.is_control() || c.is_whitespace())
    };
    match &access.provider {
        DnsProvider::Rfc2136 {
            server, key_name, ..
        } => {
            let port = server.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !is_word(server) || !matches!(port, Some(Ok(1..))) {
                let text = "the server that takes updates is HOST:PORT";
                return Err(
                    Problem::invalid("dns.provider.server", text).hint("ns1.example.com:53")
                );
            }
            if !is_word(key_name) {
                let text = "the key that signs updates has a name";
                return Err(Problem::invalid("dns.provider.key_name", text)
                    .hint("as it is called at the DNS server"));
            }
        }
        DnsProvider::Webhook { url } if !is_word(url) || !is_private(url) => {
            let text = "the webhook is an https:// address, or http:// of the machine itself";
            return Err(Problem::invalid("dns.provider.url", text)
                .hint("its token and who may write into your zones go there"));
        }
        DnsProvider::Webhook { .. } | DnsProvider::Cloudflare | DnsProvider::Exec => {}
    }
    if access.provider.needs_secret() && access.secret.is_none() {
        let text = format!("{} needs a secret", access.provider.kind());
        return Err(
            Problem::invalid("dns.secret", text).hint("`--dns-key-file` or `--dns-token-file`")
        );
    }
    Ok(())
}

/// Whether nobody on the way reads along.
fn is_private(url: &str) -> bool {
    let of_machine = ["127.0.0.1", "[::1]", "localhost"];
    match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => !rest.is_empty() && !rest.starts_with('/'),
        (None, Some(rest)) => {
            let authority = rest.split('/').next().unwrap_or_default();
            let is_port = |port: &str| port.is_empty() || port.starts_with(':');
            of_machine
                .iter()
                .any(|host| authority.strip_prefix(host).is_some_and(is_port))
        }
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(provider: DnsProvider, has_secret: bool) -> Option<String> {
        let access = DnsAccess {
            provider,
            secret: has_secret.then(|| Sealed(vec![1])),
        };
        check_access(&access).err()?.field
    }

    fn rfc2136(server: &str, key_name: &str) -> DnsProvider {
        DnsProvider::Rfc2136 {
            server: server.into(),
            key_name: key_name.into(),
            algorithm: TsigAlgorithm::default(),
        }
    }

    fn webhook(url: &str) -> DnsProvider {
        DnsProvider::Webhook { url: url.into() }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (provider, has_secret, field) in [
            (rfc2136("ns1.example.com:53", "acme."), true, None),
            (rfc2136("[::1]:53", "acme"), true, None),
            (
                rfc2136("ns1.example.com", "acme"),
                true,
                Some("dns.provider.server"),
            ),
            (rfc2136("ns1:0", "acme"), true, Some("dns.provider.server")),
            (rfc2136("ns1:53", ""), true, Some("dns.provider.key_name")),
            (rfc2136("ns1:53", "acme"), false, Some("dns.secret")),
            (DnsProvider::Cloudflare, true, None),
            (DnsProvider::Cloudflare, false, Some("dns.secret")),
            (webhook("https://dns.example/acme"), false, None),
            (webhook("http://127.0.0.1:8000/acme"), true, None),
            (
                webhook("http://localhost.evil.example/"),
                true,
                Some("dns.provider.url"),
            ),
            (
                webhook("http://dns.example/"),
                true,
                Some("dns.provider.url"),
            ),
            (webhook("https://"), true, Some("dns.provider.url")),
            (DnsProvider::Exec, false, None),
        ] {
            let found = of(provider.clone(), has_secret);
            assert_eq!(found.as_deref(), field, "{provider:?}");
        }
    }

    #[test]
    fn a_secret_is_of_one_place() {
        let places = [
            rfc2136("a:53", "k").place(),
            rfc2136("b:53", "k").place(),
            webhook("https://a").place(),
            DnsProvider::Cloudflare.place(),
        ];
        for (at, place) in places.iter().enumerate() {
            assert!(!places[..at].contains(place), "{place}");
        }
    }
}
