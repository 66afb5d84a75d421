//! Where logs are shipped to, as it is typed: `loki=http://host:3100`, `otlp=https://host:4318`. Pure.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

/// What the receiver speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Loki's push API, as JSON.
    Loki,
    /// OTLP/HTTP, as JSON.
    Otlp,
}

/// One receiver of logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    kind: Kind,
    url: Uri,
    /// `user:password`.
    credentials: Option<String>,
}

impl Destination {
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn url(&self) -> &Uri {
        &self.url
    }

    pub(super) fn credentials(&self) -> Option<&str> {
        self.credentials.as_deref()
    }

    /// Names it in the ledger; the same for the same receiver.
    pub(super) fn key(&self) -> String {
        self.to_string()
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Destination({self})")
    }
}

/// Without credentials.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Loki => "loki",
            Kind::Otlp => "otlp",
        };
        write!(f, "{kind}={}", self.url)
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let accepted = "`loki=http://host:3100` and `otlp=http://host:4318` are accepted";
        let (kind, url) = text.split_once('=').ok_or(accepted)?;
        let (kind, path) = match kind {
            "loki" => (Kind::Loki, "/loki/api/v1/push"),
            "otlp" => (Kind::Otlp, "/v1/logs"),
            _ => return Err(accepted.into()),
        };
        let (scheme, rest) = url.split_once("://").ok_or(accepted)?;
        if !matches!(scheme, "http" | "https") {
            return Err(accepted.into());
        }
        let (authority, own) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials.to_owned()), host),
            None => (None, authority),
        };
        if host.is_empty() {
            return Err(accepted.into());
        }
        let path = if own.len() > 1 { own } else { path };
        let url = format!("{scheme}://{host}{path}").parse();
        Ok(Self {
            kind,
            url: url.map_err(|error| format!("that is no address: {error}"))?,
            credentials,
        })
    }
}
