//! What services say of their routes, and claims of hosts.

use std::sync::Arc;

use skep_model::claim::Claim;
use skep_model::id::{AllocationId, DeploymentId, ProjectId, ServiceId};
use skep_model::route::{Part, Tried};
use skep_model::routing::{
    CircuitBreaker, Cors, ForwardAuth, HeaderChanges, Headers, RateLimit, Redirect, RouteSpec,
    Scheme, Split,
};

use super::{Error, enum_number, enum_value, id, id_bits, id_bytes};
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
            compress: route.compress,
            cors: route.cors.as_ref().map(Into::into),
            forward_auth: route.forward_auth.as_ref().map(Into::into),
            circuit_breaker: route.circuit_breaker.as_ref().map(Into::into),
            split: route.split.iter().map(split_out).collect(),
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
            compress: message.compress,
            cors: message.cors.map(Into::into),
            forward_auth: message.forward_auth.map(Into::into),
            circuit_breaker: message.circuit_breaker.map(Into::into),
            split: message.split.into_iter().map(split_in).collect(),
        })
    }
}

fn split_out(split: &Split) -> v1::RouteSplit {
    v1::RouteSplit {
        service: split.service.clone(),
        weight: split.weight,
    }
}

fn split_in(message: v1::RouteSplit) -> Split {
    Split {
        service: message.service,
        weight: message.weight,
    }
}

impl From<&Part> for v1::RoutePart {
    fn from(part: &Part) -> Self {
        let allocations = part.allocations.iter();
        Self {
            service: id_bytes(part.service.as_u128()),
            name: part.name.clone(),
            weight: part.weight,
            allocations: allocations.map(|it| id_bytes(it.as_u128())).collect(),
        }
    }
}

impl TryFrom<v1::RoutePart> for Part {
    type Error = Error;

    fn try_from(message: v1::RoutePart) -> Result<Self, Error> {
        Ok(Self {
            service: id!(ServiceId, message.service),
            name: message.name,
            weight: message.weight,
            allocations: message
                .allocations
                .iter()
                .map(|bytes| id_bits("allocations", bytes).map(AllocationId::from_u128))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Tried> for v1::TriedRelease {
    fn from(tried: &Tried) -> Self {
        let allocations = tried.allocations.iter();
        Self {
            service: id_bytes(tried.service.as_u128()),
            deployment: id_bytes(tried.deployment.as_u128()),
            allocations: allocations.map(|id| id_bytes(id.as_u128())).collect(),
        }
    }
}

impl TryFrom<v1::TriedRelease> for Tried {
    type Error = Error;

    fn try_from(message: v1::TriedRelease) -> Result<Self, Error> {
        let allocations = message.allocations.iter();
        let allocations =
            allocations.map(|bytes| id_bits("allocations", bytes).map(AllocationId::from_u128));
        Ok(Self {
            service: id!(ServiceId, message.service),
            deployment: id!(DeploymentId, message.deployment),
            allocations: allocations.collect::<Result<_, Error>>()?,
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

impl From<&Cors> for v1::RouteCors {
    fn from(cors: &Cors) -> Self {
        Self {
            origins: cors.origins.clone(),
            methods: cors.methods.clone(),
            headers: cors.headers.clone(),
            expose: cors.expose.clone(),
            credentials: cors.credentials,
            max_age_s: cors.max_age_s,
        }
    }
}

impl From<v1::RouteCors> for Cors {
    fn from(message: v1::RouteCors) -> Self {
        Self {
            origins: message.origins,
            methods: message.methods,
            headers: message.headers,
            expose: message.expose,
            credentials: message.credentials,
            max_age_s: message.max_age_s,
        }
    }
}

impl From<&ForwardAuth> for v1::RouteForwardAuth {
    fn from(asked: &ForwardAuth) -> Self {
        Self {
            url: asked.url.clone(),
            request_headers: asked.request_headers.clone(),
            response_headers: asked.response_headers.clone(),
        }
    }
}

impl From<v1::RouteForwardAuth> for ForwardAuth {
    fn from(message: v1::RouteForwardAuth) -> Self {
        Self {
            url: message.url,
            request_headers: message.request_headers,
            response_headers: message.response_headers,
        }
    }
}

impl From<&CircuitBreaker> for v1::RouteCircuitBreaker {
    fn from(breaker: &CircuitBreaker) -> Self {
        Self {
            network_error_percent: breaker.network_error_percent,
            response_5xx_percent: breaker.response_5xx_percent,
            open_ms: breaker.open_ms,
        }
    }
}

impl From<v1::RouteCircuitBreaker> for CircuitBreaker {
    fn from(message: v1::RouteCircuitBreaker) -> Self {
        Self {
            network_error_percent: message.network_error_percent,
            response_5xx_percent: message.response_5xx_percent,
            open_ms: message.open_ms,
        }
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
