//! What browsers are told of pages from elsewhere (Fetch, 3.2): questions before a request are answered
//! here, answers get the marks that browsers look for. Pure.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use skep_model::routing::Cors;

use crate::body::ReplyBody;

/// What a route says, as headers.
#[derive(Debug)]
pub(super) struct Policy {
    is_for_any: bool,
    origins: Vec<HeaderValue>,
    /// Answers to questions, beside the origin.
    told: Vec<(HeaderName, HeaderValue)>,
    exposed: Option<HeaderValue>,
    credentials: bool,
}

impl Policy {
    pub(super) fn new(cors: &Cors) -> Arc<Self> {
        let list = |names: &[String]| {
            let all = (!names.is_empty()).then(|| names.join(", "));
            all.and_then(|all| HeaderValue::try_from(all).ok())
        };
        let told = [
            (ACCESS_CONTROL_ALLOW_METHODS, list(&cors.methods)),
            (ACCESS_CONTROL_ALLOW_HEADERS, list(&cors.headers)),
            (ACCESS_CONTROL_MAX_AGE, Some(cors.max_age_s.into())),
        ];
        let told = told.into_iter();
        let origins = cors.origins.iter();
        Arc::new(Self {
            is_for_any: cors.is_for_any(),
            origins: origins.filter_map(|it| it.parse().ok()).collect(),
            told: told.filter_map(|(name, it)| Some((name, it?))).collect(),
            exposed: list(&cors.expose),
            credentials: cors.credentials,
        })
    }

    /// What the answer to this request gets.
    pub(super) fn marks(self: &Arc<Self>, headers: &HeaderMap) -> Marks {
        let origin = headers.get(ORIGIN);
        let allowed = match self.is_for_any {
            true => origin.map(|_| HeaderValue::from_static("*")),
            false => origin.filter(|it| self.origins.contains(it)).cloned(),
        };
        Marks {
            policy: Arc::clone(self),
            allowed,
        }
    }

    /// Answers a browser that asks whether it may ask. The marks are still to come.
    pub(super) fn preflight(&self, parts: &Parts) -> Option<Response<ReplyBody>> {
        let is_asked = parts.method == Method::OPTIONS
            && parts.headers.contains_key(ORIGIN)
            && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        is_asked.then(|| {
            let mut response = Response::new(ReplyBody::text(""));
            response.headers_mut().extend(self.told.iter().cloned());
            response
        })
    }
}

/// What one answer gets, whoever gives it: a page cannot read a refusal without it either.
#[derive(Debug)]
pub(crate) struct Marks {
    policy: Arc<Policy>,
    allowed: Option<HeaderValue>,
}

impl Marks {
    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        if let Some(allowed) = self.allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        }
        if self.policy.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if let Some(exposed) = &self.policy.exposed {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
        // For every origin the answer is the same.
        if !self.policy.is_for_any {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }
}
