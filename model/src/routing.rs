//! What a service says of its routes: at which hosts and paths it answers, and what is done to requests
//! on their way. Owns the bounds; who may have a host is [`crate::claim`]'s question, the table that
//! comes out of it is [`crate::route`].

mod breaker;
mod check;
mod cidr;
mod cors;
mod forward_auth;
pub mod labels;
mod split;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use breaker::CircuitBreaker;
pub use check::check_all;
pub use cidr::Cidr;
pub use cors::{Cors, MAX_CORS_NAMES};
pub use forward_auth::{ForwardAuth, is_off_limits};
pub use split::{MAX_SPLIT, MAX_WEIGHT, Split};

/// Most routes of one service.
pub const MAX_ROUTES: usize = 50;
/// Most bytes of text in all routes of a service together: a specification travels in one command.
pub const MAX_BYTES: usize = 32 << 10;
/// Longest path of a route, in bytes: far above any real one, and what keeps routes with and without a
/// priority apart in Traefik.
pub const MAX_PATH_BYTES: usize = 1024;
/// Highest priority.
pub const MAX_PRIORITY: u32 = 1_000;
/// Most headers that one route sets or removes, of requests and of answers each.
pub const MAX_HEADERS: usize = 32;
/// Longest value of a header, in bytes.
pub const MAX_HEADER_VALUE: usize = 2_048;
/// Most networks of one list.
pub const MAX_NETWORKS: usize = 100;
/// Most users of one route.
pub const MAX_USERS: usize = 50;
/// Most requests per second, and most at once.
pub const MAX_RATE: u32 = 1_000_000;

/// One route of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RouteSpec {
    /// Exact, or `*.` and a domain: one label in place of the `*`. None: the service's generated name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whole segments that a request's path begins with: `/api` is `/api` and all below it, never
    /// `/apis`. `/` is every path.
    pub path: String,
    /// The service sees the path without the route's; `X-Forwarded-Prefix` names what is missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strip_prefix: bool,
    /// Of the routes of one host: the highest first, before those that have none; 1 to 1000. None:
    /// the longest path first. An exact host is always before a wildcard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Answers in the service's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Headers set and removed.
    #[serde(skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers,
    /// Networks that may ask, as `10.0.0.0/8` or single addresses; empty: everybody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_ips: Vec<String>,
    /// Who may ask: lines of an htpasswd file, `user:hash` with bcrypt; empty: everybody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub basic_auth: Vec<String>,
    /// Most requests of one client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Largest body of a request, in bytes; none: the ingress' own limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_limit_bytes: Option<u64>,
    /// Most requests at the same time, on each node's ingress; further ones are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
    /// A browser's requests go to one replica while that serves: it is told by a cookie.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sticky: bool,
    /// Answers of text are compressed (gzip) for clients that take it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub compress: bool,
    /// Pages of other origins that may use it from a browser.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// Who is asked first whether a request may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_auth: Option<ForwardAuth>,
    /// When a service that fails is left alone for a while, by each node's ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Services of the same environment that share its requests; empty: all are the service's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<Split>,
}

impl Default for RouteSpec {
    fn default() -> Self {
        Self {
            host: None,
            path: "/".to_owned(),
            strip_prefix: false,
            priority: None,
            redirect: None,
            headers: Headers::default(),
            allow_ips: Vec::new(),
            basic_auth: Vec::new(),
            rate_limit: None,
            body_limit_bytes: None,
            in_flight: None,
            sticky: false,
            compress: false,
            cors: None,
            forward_auth: None,
            circuit_breaker: None,
            split: Vec::new(),
        }
    }
}

impl RouteSpec {
    /// The path as routes are compared by: without a trailing `/`, so that the one of everything is
    /// empty.
    pub fn prefix(&self) -> &str {
        self.path.trim_end_matches('/')
    }

    /// Whether it says no more than its host and path.
    pub fn is_plain(&self) -> bool {
        let place = Self {
            host: self.host.clone(),
            path: self.path.clone(),
            ..Self::default()
        };
        *self == place
    }
}

/// Where a request is sent instead. What is not said stays as it was asked for: a request that is there
/// already is the service's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Redirect {
    /// Another host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Another scheme, on its own port; none: the scheme and the port stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// In place of the route's path; what follows that stays, and so does the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Browsers may remember it: 301, and 308 where the method is not GET; else 302 and 307.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub permanent: bool,
}

/// A scheme that a redirect leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// In the order of the stored format: append only.
    pub const ALL: [Self; 2] = [Self::Http, Self::Https];

    /// As URLs have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Headers set and removed, of requests before the service sees them and of its answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// Of requests.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub request: HeaderChanges,
    /// Of answers.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub response: HeaderChanges,
}

impl Headers {
    /// Nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }
}

/// What becomes of headers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HeaderChanges {
    /// Names and the one value that each has from then on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Names that are gone from then on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

impl HeaderChanges {
    /// Nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

/// A token bucket for each client's address, on each node's ingress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests per second that are let through for long.
    pub per_second: u32,
    /// Requests at once, after a time without any.
    pub burst: u32,
}

#[cfg(test)]
mod tests;
