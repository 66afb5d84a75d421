//! What a route says, as Traefik's middlewares, in the order in which the embedded ingress asks the
//! same questions. Only options that every Traefik v3 knows, and no empty object. Answers are compressed behind
//! Traefik: it would compress parts of answers, too, which leaves nobody able to put them together.

use std::collections::BTreeMap;

use serde::Serialize;
use skep_model::routing::{
    CircuitBreaker, Cors, ForwardAuth, HeaderChanges, Headers, Redirect, RouteSpec,
};

use crate::compress::BY_HEADER;

/// Characters of paths that mean something in a regular expression.
const SPECIAL: &str = ".+*()$";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Middleware {
    #[serde(rename_all = "camelCase")]
    IpAllowList { source_range: Vec<String> },
    #[serde(rename_all = "camelCase")]
    RateLimit { average: u32, burst: u32 },
    #[serde(rename_all = "camelCase")]
    InFlightReq { amount: u32 },
    #[serde(rename_all = "camelCase")]
    RedirectRegex {
        regex: String,
        replacement: String,
        permanent: bool,
    },
    #[serde(rename_all = "camelCase")]
    BasicAuth {
        users: Vec<String>,
        realm: &'static str,
        remove_header: bool,
    },
    #[serde(rename_all = "camelCase")]
    Buffering { max_request_body_bytes: u64 },
    #[serde(rename_all = "camelCase")]
    Headers {
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        custom_request_headers: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        custom_response_headers: BTreeMap<String, String>,
    },
    #[serde(rename_all = "camelCase")]
    StripPrefix { prefixes: Vec<String> },
    #[serde(rename = "headers", rename_all = "camelCase")]
    Cors {
        access_control_allow_origin_list: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        access_control_allow_methods: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        access_control_allow_headers: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        access_control_expose_headers: Vec<String>,
        access_control_allow_credentials: bool,
        access_control_max_age: u32,
        add_vary_header: bool,
    },
    #[serde(rename_all = "camelCase")]
    ForwardAuth {
        address: String,
        trust_forward_header: bool,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        auth_request_headers: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        auth_response_headers: Vec<String>,
    },
    #[serde(rename_all = "camelCase")]
    CircuitBreaker {
        expression: String,
        fallback_duration: String,
        recovery_duration: String,
    },
}

/// The middlewares of a route, each with a word for its name.
pub(super) fn of(rules: &RouteSpec) -> Vec<(&'static str, Middleware)> {
    let mut all = Vec::new();
    if !rules.allow_ips.is_empty() {
        let source_range = rules.allow_ips.clone();
        all.push(("allow", Middleware::IpAllowList { source_range }));
    }
    if let Some(limit) = &rules.rate_limit {
        let (average, burst) = (limit.per_second, limit.burst);
        all.push(("rate", Middleware::RateLimit { average, burst }));
    }
    if let Some(amount) = rules.in_flight {
        all.push(("in-flight", Middleware::InFlightReq { amount }));
    }
    all.extend(rules.cors.as_ref().map(|cors| ("cors", cors_of(cors))));
    if let Some(redirect) = &rules.redirect {
        all.push(("redirect", redirect_of(redirect, rules.prefix())));
    }
    if !rules.basic_auth.is_empty() {
        let users = rules.basic_auth.clone();
        all.push((
            "auth",
            Middleware::BasicAuth {
                users,
                realm: "skep",
                remove_header: true,
            },
        ));
    }
    let asked = rules.forward_auth.as_ref();
    all.extend(asked.map(|asked| ("forward", forward_of(asked))));
    let breaker = rules.circuit_breaker.as_ref();
    all.extend(breaker.map(|breaker| ("breaker", breaker_of(breaker))));
    if let Some(max_request_body_bytes) = rules.body_limit_bytes {
        let buffering = Middleware::Buffering {
            max_request_body_bytes,
        };
        all.push(("body", buffering));
    }
    if rules.compress {
        let said = [(BY_HEADER.to_string(), "gzip".to_owned())];
        let headers = Middleware::Headers {
            custom_request_headers: said.into(),
            custom_response_headers: BTreeMap::new(),
        };
        all.push(("compress", headers));
    }
    all.extend(headers_of(&rules.headers).map(|headers| ("headers", headers)));
    if rules.strip_prefix {
        let prefixes = vec![rules.prefix().to_owned()];
        all.push(("strip", Middleware::StripPrefix { prefixes }));
    }
    all
}

fn cors_of(cors: &Cors) -> Middleware {
    Middleware::Cors {
        access_control_allow_origin_list: cors.origins.clone(),
        access_control_allow_methods: cors.methods.clone(),
        access_control_allow_headers: cors.headers.clone(),
        access_control_expose_headers: cors.expose.clone(),
        access_control_allow_credentials: cors.credentials,
        access_control_max_age: cors.max_age_s,
        // For every origin the answer is the same.
        add_vary_header: !cors.is_for_any(),
    }
}

fn forward_of(asked: &ForwardAuth) -> Middleware {
    Middleware::ForwardAuth {
        address: asked.url.clone(),
        trust_forward_header: false,
        auth_request_headers: asked.request_headers.clone(),
        auth_response_headers: asked.response_headers.clone(),
    }
}

/// Traefik, too, counts 502 and 504 as errors of the network, over ten seconds.
fn breaker_of(breaker: &CircuitBreaker) -> Middleware {
    let share = |percent: u32| format!("0.{percent:02}");
    let network = breaker.network_error_percent;
    let network = network.map(|it| format!("NetworkErrorRatio() > {}", share(it)));
    let failed = breaker.response_5xx_percent;
    let failed = failed.map(|it| format!("ResponseCodeRatio(500, 600, 0, 600) > {}", share(it)));
    let either: Vec<_> = network.into_iter().chain(failed).collect();
    let time = format!("{}ms", breaker.open_ms);
    Middleware::CircuitBreaker {
        expression: either.join(" || "),
        fallback_duration: time.clone(),
        recovery_duration: time,
    }
}

/// None where nothing is changed: an empty object would make Traefik refuse the whole body.
fn headers_of(headers: &Headers) -> Option<Middleware> {
    (!headers.is_empty()).then(|| Middleware::Headers {
        custom_request_headers: changes_of(&headers.request),
        custom_response_headers: changes_of(&headers.response),
    })
}

/// An empty value takes a header away.
fn changes_of(changes: &HeaderChanges) -> BTreeMap<String, String> {
    let removed = changes
        .remove
        .iter()
        .map(|name| (name.clone(), String::new()));
    changes.set.clone().into_iter().chain(removed).collect()
}

/// Traefik compares the whole address with the expression, and what it becomes with what it was: a
/// request that is there already goes on to the service.
fn redirect_of(redirect: &Redirect, prefix: &str) -> Middleware {
    let scheme = redirect.scheme.map_or("${1}", |scheme| scheme.as_str());
    let host = redirect.host.as_deref().unwrap_or("${2}");
    let port = if redirect.scheme.is_some() {
        ""
    } else {
        "${3}"
    };
    let path = redirect.path.as_deref().unwrap_or(prefix);
    // `$` begins a group's name.
    let path = path.trim_end_matches('/').replace('$', "$$");
    let mut literal = String::with_capacity(prefix.len());
    for character in prefix.chars() {
        if SPECIAL.contains(character) {
            literal.push('\\');
        }
        literal.push(character);
    }
    Middleware::RedirectRegex {
        regex: format!("^(https?)://([^/]+?)(:[0-9]+)?{literal}((?:[/?].*)?)$"),
        replacement: format!("{scheme}://{host}{port}{path}${{4}}"),
        permanent: redirect.permanent,
    }
}
