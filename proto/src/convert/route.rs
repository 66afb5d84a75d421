//! What services say of their routes, and claims of hosts.

use std::sync::Arc;

use skep_model::claim::Claim;
use skep_model::id::ProjectId;
use skep_model::routing::{HeaderChanges, Headers, RateLimit, Redirect, RouteSpec, Scheme};

use super::{Error, enum_number, enum_value, id};
use crate::v1;

impl From<&RouteSpec> for v1::RouteSpec {
    fn from(route: &RouteSpec) -> Self {
        Self {
            host: route.host.clone(),
            path: route.path.clone(),
            strip_prefix: route.strip_prefix,
            priority: route.priority,
            redirect: route.redirect.as_ref().map(Into::into),
            request_headers: changes_out(&route.headers.request),
            response_headers: changes_out(&route.headers.response),
            allow_ips: route.allow_ips.clone(),
            basic_auth: route.basic_auth.clone(),
            rate_limit: route.rate_limit.map(|limit| v1::RouteRateLimit {
                per_second: limit.per_second,
                burst: limit.burst,
            }),
            body_limit_bytes: route.body_limit_bytes,
            in_flight: route.in_flight,
            sticky: route.sticky,
        }
    }
}

impl TryFrom<v1::RouteSpec> for RouteSpec {
    type Error = Error;

    fn try_from(message: v1::RouteSpec) -> Result<Self, Error> {
        Ok(Self {
            host: message.host,
            path: message.path,
            strip_prefix: message.strip_prefix,
            priority: message.priority,
            redirect: message.redirect.map(Redirect::try_from).transpose()?,
            headers: Headers {
                request: changes_in(message.request_headers),
                response: changes_in(message.response_headers),
            },
            allow_ips: message.allow_ips,
            basic_auth: message.basic_auth,
            rate_limit: message.rate_limit.map(|limit| RateLimit {
                per_second: limit.per_second,
                burst: limit.burst,
            }),
            body_limit_bytes: message.body_limit_bytes,
            in_flight: message.in_flight,
            sticky: message.sticky,
        })
    }
}

/// What a table's route carries of its service's words.
pub fn rules_out(rules: &Option<Arc<RouteSpec>>) -> Option<v1::RouteSpec> {
    rules.as_deref().map(Into::into)
}

/// The same, read.
///
/// # Errors
/// A field out of range.
pub fn rules_in(message: Option<v1::RouteSpec>) -> Result<Option<Arc<RouteSpec>>, Error> {
    let rules = message.map(RouteSpec::try_from).transpose()?;
    Ok(rules.map(Arc::new))
}

impl From<&Redirect> for v1::RouteRedirect {
    fn from(redirect: &Redirect) -> Self {
        Self {
            host: redirect.host.clone(),
            scheme: redirect
                .scheme
                .map_or(0, |scheme| enum_number(&Scheme::ALL, &scheme)),
            path: redirect.path.clone(),
            permanent: redirect.permanent,
        }
    }
}

impl TryFrom<v1::RouteRedirect> for Redirect {
    type Error = Error;

    fn try_from(message: v1::RouteRedirect) -> Result<Self, Error> {
        Ok(Self {
            host: message.host,
            scheme: match message.scheme {
                0 => None,
                number => Some(enum_value("scheme", &Scheme::ALL, number)?),
            },
            path: message.path,
            permanent: message.permanent,
        })
    }
}

fn changes_out(changes: &HeaderChanges) -> Option<v1::HeaderChanges> {
    (!changes.is_empty()).then(|| v1::HeaderChanges {
        set: changes.set.clone(),
        remove: changes.remove.clone(),
    })
}

fn changes_in(message: Option<v1::HeaderChanges>) -> HeaderChanges {
    message.map_or_else(HeaderChanges::default, |message| HeaderChanges {
        set: message.set,
        remove: message.remove,
    })
}

impl From<&Claim> for v1::Claim {
    fn from(claim: &Claim) -> Self {
        Self {
            host: claim.host.clone(),
            project: super::id_bytes(claim.project.as_u128()),
            since_ms: claim.since_ms,
            released_ms: claim.released_ms,
        }
    }
}

impl TryFrom<v1::Claim> for Claim {
    type Error = Error;

    fn try_from(message: v1::Claim) -> Result<Self, Error> {
        Ok(Self {
            host: message.host,
            project: id!(ProjectId, message.project),
            since_ms: message.since_ms,
            released_ms: message.released_ms,
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
