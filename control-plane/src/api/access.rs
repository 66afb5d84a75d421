//! Who asks, and whether they may: one principal now, one seam for good. Routes are made here, so
//! that none can be registered without saying what it asks of the caller.

mod action;

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use skep_identity::digest;
use skep_model::problem::{Code, Problem};
use skep_state::State as View;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem, Paths};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, Required, ResponseBuilder};
use utoipa_axum::router::UtoipaMethodRouter;

pub use action::Action;

use super::error::Failure;
use super::prepare::prepare;
use super::{App, git};
use crate::history::AuditEntry;
use crate::store::now_ms;

/// Methods and paths that answer without a token: health checks, the document, webhooks (which are
/// signed), the steps of a browser (whose URLs have a secret, good once) and metrics (which ask for a token beyond
/// loopback by themselves).
pub const PUBLIC: [(&str, &str); 12] = [
    ("get", "/health"),
    ("get", "/healthz"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
    ("get", "/readyz"),
    ("get", "/v1/github/installed"),
    ("get", "/v1/github/made"),
    ("get", "/v1/github/make"),
    ("get", "/v1/health"),
    ("post", "/v1/hooks/github/{app}"),
    ("post", "/v1/hooks/r/{hook}"),
    ("post", "/v1/hooks/{service}"),
];

/// After this a handler is given up on; streams and uploads have deadlines of their own.
const HANDLER_DEADLINE: Duration = Duration::from_secs(60);
/// Header that says how old the state is that was asked for with `?stale=true`, in ms.
const STALE_HEADER: &str = "skep-stale-ms";
/// Name of the security scheme in the document.
const SCHEME: &str = "token";

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal {
    /// The holder of the administrator's token.
    Admin,
}

impl Principal {
    /// The word, as the audit trail writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
        }
    }
}

/// Whether a principal may do this to a resource (its path below `/v1/`).
///
/// # Errors
/// `Forbidden`, saying what is missing.
pub fn authorize(principal: Principal, action: Action, resource: &str) -> Result<(), Problem> {
    match (principal, action, resource) {
        (Principal::Admin, _, _) => Ok(()),
    }
}

/// What a handler says came of a request, for the audit trail, where a status does not say it.
#[derive(Debug, Clone)]
pub(super) struct Said(pub(super) String);

/// The token in the `Authorization` of a git that has no other way to send it: the password of HTTP Basic. Nowhere
/// else, as browsers send that by themselves.
fn password(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    Some(pair.split_once(':')?.1.to_owned())
}

/// [`authenticate`], for git.
fn authenticate_git(view: &View, headers: &HeaderMap) -> Result<Principal, Problem> {
    let mut headers = headers.clone();
    if let Some(token) = password(&headers) {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        value
            .ok()
            .map(|it| headers.insert(header::AUTHORIZATION, it));
    }
    authenticate(view, &headers).map_err(|problem| {
        problem.hint("the password is the token; `skep git remote add` sets git up to send it")
    })
}

/// Who sent these headers.
///
/// # Errors
/// `Unauthenticated`: no token, or not one of this cluster.
pub(super) fn authenticate(view: &View, headers: &HeaderMap) -> Result<Principal, Problem> {
    let token = bearer(headers)?;
    let cluster = view.cluster().ok_or_else(|| {
        Problem::new(Code::Unavailable, "the cluster is not initialised yet").hint("try again")
    })?;
    let sum = digest::sha256(token.as_bytes());
    if digest::constant_time_eq(&sum, &cluster.admin_token_hash) {
        return Ok(Principal::Admin);
    }
    Err(refused_token("the token is not one of this cluster"))
}

fn refused_token(text: &str) -> Problem {
    Problem::new(Code::Unauthenticated, text)
        .hint("send `Authorization: Bearer <token>` with the administrator's token")
}

/// The token in these headers, whoever's it is.
///
/// # Errors
/// `Unauthenticated`: there is none.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let given = headers
        .get(header::AUTHORIZATION)
        .map(|value| value.to_str());
    let token = match given {
        None => return Err(refused_token("a token is needed")),
        Some(Ok(text)) => text.split_once(' ').filter(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()
        }),
        Some(Err(_)) => None,
    };
    let (_, token) =
        token.ok_or_else(|| refused_token("the Authorization header holds no bearer token"))?;
    Ok(token.trim())
}

/// Whether the token of this digest still opens the cluster.
pub(super) fn is_token(view: &View, sum: &[u8]) -> bool {
    let known = view.cluster().map(|cluster| &cluster.admin_token_hash);
    known.is_some_and(|known| digest::constant_time_eq(sum, known))
}

/// Routes that anybody may call. Each must be in [`PUBLIC`]: a test compares.
pub(super) fn public(
    (schemas, mut paths, router): UtoipaMethodRouter<App>,
) -> UtoipaMethodRouter<App> {
    document(&mut paths, None);
    (schemas, paths, router)
}

/// Routes behind [`authorize`] for one action.
pub(super) fn protected(
    app: &App,
    action: Action,
    (schemas, mut paths, router): UtoipaMethodRouter<App>,
) -> UtoipaMethodRouter<App> {
    document(&mut paths, Some(action));
    let guard = Guard {
        app: app.clone(),
        action,
    };
    let router = router.route_layer(middleware::from_fn_with_state(guard, enforce));
    (schemas, paths, router)
}

#[derive(Clone)]
struct Guard {
    app: App,
    action: Action,
}

async fn enforce(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let Guard { app, action } = guard;
    let path = request.uri().path();
    let resource = path.strip_prefix("/v1/").unwrap_or(path).to_owned();
    let view = app.store.view();
    let known = match action.is_git() {
        true => authenticate_git(&view, request.headers()),
        false => authenticate(&view, request.headers()),
    };
    let who = known.as_ref().ok().copied();
    let allowed =
        known.and_then(|principal| authorize(principal, action, &resource).map(|()| principal));
    let principal = match allowed {
        Ok(principal) => principal,
        Err(problem) => {
            if action.is_shell() {
                let asked = (action, resource.as_str());
                app.refusals.note(&app.history, who, asked, &problem);
            }
            return refused(action, problem);
        }
    };
    request.extensions_mut().insert(principal);
    let stale = match prepare(&app, action, &mut request).await {
        Ok(stale) => stale,
        Err(problem) => return refused(action, problem),
    };
    if !action.is_write() {
        let mut response = handle(action, request, next).await;
        if let Some(age) = stale {
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            response
                .headers_mut()
                .insert(STALE_HEADER, HeaderValue::from(age_ms));
        }
        return response;
    }
    // In a task of its own: a caller who hangs up does not undo half a change, nor its audit.
    let running = tokio::spawn(async move {
        let response = handle(action, request, next).await;
        app.history.audit(AuditEntry {
            at_ms: now_ms(),
            principal: principal.as_str().to_owned(),
            action: action.as_str().to_owned(),
            resource,
            outcome: match response.extensions().get() {
                Some(Said(outcome)) => outcome.clone(),
                None => response.status().as_u16().to_string(),
            },
        });
        response
    });
    running.await.unwrap_or_else(|_| {
        let problem = Problem::new(Code::Internal, "the request could not be finished");
        Failure::from(problem).into_response()
    })
}

fn refused(action: Action, problem: Problem) -> Response {
    match action.is_git() {
        true => git::refusal(&problem),
        false => Failure::from(problem).into_response(),
    }
}

async fn handle(action: Action, request: Request, next: Next) -> Response {
    if action.is_stream() {
        return next.run(request).await;
    }
    match tokio::time::timeout(HANDLER_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let problem = Problem::new(Code::Timeout, "the server did not finish in time");
            Failure::from(problem).into_response()
        }
    }
}

/// What all operations have in common in the document.
fn document(paths: &mut Paths, action: Option<Action>) {
    let error = ResponseBuilder::new()
        .description("A problem")
        .content(
            "application/json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("ErrorBody")))
                .build(),
        )
        .build();
    for item in paths.paths.values_mut() {
        for operation in operations(item) {
            operation
                .responses
                .responses
                .insert("default".to_owned(), error.clone().into());
            if let Some(action) = action {
                let none: [&str; 0] = [];
                operation.security = Some(vec![SecurityRequirement::new(SCHEME, none)]);
                let parameters = operation.parameters.get_or_insert_default();
                parameters.extend(parameter(action).map(Into::into));
            }
        }
    }
}

/// What every operation of this kind takes.
fn parameter(action: Action) -> Option<Parameter> {
    let (name, place, text) = if action.is_write() {
        let text =
            "The same request under the same key happens once, for a day; another one is refused.";
        ("Idempotency-Key", ParameterIn::Header, text)
    } else if action.is_local() || action.is_shell() {
        return None;
    } else {
        let text = "`true`: answered by the asked server alone, from what it has; the header \
                    `Skep-Stale-Ms` says how old that may be.";
        ("stale", ParameterIn::Query, text)
    };
    let schema = if action.is_write() {
        Type::String
    } else {
        Type::Boolean
    };
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(text))
        .schema(Some(ObjectBuilder::new().schema_type(schema)));
    Some(parameter.build())
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem {
        get,
        put,
        post,
        delete,
        patch,
        ..
    } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

/// Adds the bearer token to the document.
pub(super) struct TokenScheme;

impl utoipa::Modify for TokenScheme {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = document.components.get_or_insert_default();
        components
            .security_schemes
            .insert(SCHEME.to_owned(), scheme.into());
    }
}
