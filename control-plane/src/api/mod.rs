//! The HTTP API, `/v1`: resources by name, one error shape, one authorisation that every handler
//! passes by construction, and the OpenAPI document generated from the same routes.

mod access;
mod allocations;
mod app_logs;
mod autoscale;
mod backup;
mod ca;
mod certificates;
mod deploy;
mod deployment_logs;
mod deployments;
mod domains;
mod error;
mod extract;
mod fencing;
mod find;
mod forges;
mod gates;
mod git;
mod github;
mod guest_backups;
mod guest_resize;
mod health;
mod hooks;
mod hosts;
mod introductions;
mod jobs;
mod leader;
mod local_ca;
mod log_source;
mod merge;
mod metrics;
pub mod neighbours;
mod network;
mod node_pools;
mod nodes;
mod notify;
mod paths;
mod placement;
mod pool_backups;
mod prepare;
mod previews;
mod proof;
mod providers;
mod rebalance;
mod registries;
mod rollouts;
mod samples;
mod servers;
mod services;
mod settings;
mod shared_variables;
mod shells;
mod stacks;
mod stream;
mod tcp_ports;
mod tokens;
pub mod types;
mod uploads;
mod variables;
mod views;
mod volumes;

#[cfg(test)]
mod tests;

pub(crate) use deploy::queued;
pub(crate) use git::by_http1;
pub(crate) use services::new_service;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use skep_identity::random;
use skep_model::id::UploadId;
use skep_model::problem::{Code, Problem};
use skep_model::routing::Cidr;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;

pub use access::{Action, PUBLIC, Principal, authorize};
pub use hooks::MAX_HOOK_BYTES;
pub use servers::{CLOCK_TOLERANCE_MS, Own};
/// The one name of a repository, however its URL is written.
pub use skep_forge::canonical as repository_name;
pub use uploads::MAX_UPLOAD_BYTES;

use crate::acme::Tally;
use crate::agents::fleet::Fleet;
use crate::agents::relay::Relay;
use crate::agents::uploads::Uploads;
use crate::forges::Tokens;
use crate::history::{Elsewhere, History};
use crate::hosts::Promises;
use crate::polling::Asked;
use crate::samples::Samples;
use crate::scaling::Scaling;
use crate::secrets::Secrets;
use crate::store::Store;
use crate::witness::Witnesses;
use access::TokenScheme;
use error::Failure;
use prepare::RequestKey;

/// Header of every answer: how many servers the cluster has. A client that knows another number asks
/// for the list again.
pub const SERVERS_HEADER: &str = "skep-servers";
/// Streams of logs that may be open at once.
const MAX_STREAMS: usize = 1_024;
/// Webhook bodies that may be read at once: each may have 25 MiB.
const MAX_HOOKS: usize = 16;

/// What the API works with. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The replicated state.
    pub store: Store,
    /// Seals variables and webhook secrets.
    pub secrets: Secrets,
    /// As whom forges are asked.
    pub tokens: Tokens,
    /// Timelines, build logs, audit.
    pub history: History,
    /// Build logs at the other servers.
    pub elsewhere: Arc<dyn Elsewhere>,
    /// Folders passing through.
    pub uploads: Uploads,
    /// App logs and shells passing through.
    pub relay: Relay,
    /// Who is connected here.
    pub fleet: Fleet,
    /// What the nodes measure.
    pub samples: Samples,
    /// What autoscaling thinks.
    pub scaling: Scaling,
    /// Which nodes can testify for whom.
    pub witnesses: Witnesses,
    /// How orders of certificates went.
    pub tally: Tally,
    /// Which hosts have promised more memory than they have.
    pub promises: Promises,
    /// The folder of this server with programs that may make machines; none: it runs none.
    pub programs: Option<Arc<Path>>,
    /// When repositories and registries were asked last.
    pub asked: Asked,
    /// DNS servers that are asked whose domains are; none: the machine's.
    pub resolvers: Vec<SocketAddr>,
    /// Networks that notifications may go to though they are off limits.
    pub notify_allow: Vec<Cidr>,
    /// The server that this API is part of.
    pub own: Own,
    /// Ends streams.
    pub shutdown: CancellationToken,
}

/// The context, and what the API itself counts.
#[derive(Clone)]
struct App {
    /// With the key of the request at hand, where it has one.
    store: Store,
    /// Never with a key.
    unkeyed: Store,
    secrets: Secrets,
    tokens: Tokens,
    history: History,
    elsewhere: Arc<dyn Elsewhere>,
    uploads: Uploads,
    relay: Relay,
    fleet: Fleet,
    samples: Samples,
    scaling: Scaling,
    witnesses: Witnesses,
    tally: Tally,
    promises: Promises,
    programs: Option<Arc<Path>>,
    asked: Asked,
    resolvers: Vec<SocketAddr>,
    notify_allow: Vec<Cidr>,
    own: Own,
    shutdown: CancellationToken,
    streams: Arc<Semaphore>,
    hooks: Arc<Semaphore>,
    backups: Arc<Semaphore>,
    checks: Arc<Semaphore>,
    shells: Arc<Semaphore>,
    pushes: Arc<Semaphore>,
    refusals: Arc<shells::Refusals>,
    document: Arc<OnceLock<OpenApi>>,
}

impl From<Context> for App {
    fn from(context: Context) -> Self {
        let Context {
            store,
            secrets,
            tokens,
            history,
            elsewhere,
            uploads,
            relay,
            fleet,
            samples,
            scaling,
            witnesses,
            tally,
            promises,
            programs,
            asked,
            resolvers,
            notify_allow,
            own,
            shutdown,
        } = context;
        Self {
            unkeyed: store.clone(),
            store,
            secrets,
            tokens,
            history,
            elsewhere,
            uploads,
            relay,
            fleet,
            samples,
            scaling,
            witnesses,
            tally,
            promises,
            programs,
            asked,
            resolvers,
            notify_allow,
            own,
            shutdown,
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            hooks: Arc::new(Semaphore::new(MAX_HOOKS)),
            backups: Arc::new(Semaphore::new(backup::MAX_BACKUPS)),
            checks: Arc::new(Semaphore::new(network::MAX_CHECKS)),
            shells: Arc::new(Semaphore::new(shells::MAX_SHELLS)),
            pushes: Arc::new(Semaphore::new(git::MAX_PUSHES)),
            refusals: Arc::default(),
            document: Arc::new(OnceLock::new()),
        }
    }
}

/// The API's parts as one request sees them.
struct Here(App);

impl FromRequestParts<App> for Here {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let mut app = app.clone();
        if let Some(RequestKey { key, request }) = parts.extensions.get() {
            app.store = app.store.with_request(key.as_bytes(), request);
        }
        Ok(Self(app))
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Skep",
        description = "The API of a Skep cluster. Every answer that is not a success has the shape `ErrorBody`.",
        license(name = "MIT OR Apache-2.0")
    ),
    components(schemas(types::ErrorBody, types::AppLine, types::EndView, types::Event)),
    modifiers(&TokenScheme)
)]
struct Document;

/// The whole API as one router.
pub fn router(context: Context) -> Router {
    let app = App::from(context);
    let (router, document) = paths::assemble(&app).split_for_parts();
    // Set once, here: the document describes the route that serves it, too.
    let _ = app.document.set(document);
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(app.clone(), number))
        .with_state(app)
}

async fn no_such_path(request: Request) -> Failure {
    let path: String = request.uri().path().chars().take(200).collect();
    Problem::new(
        Code::NotFound,
        format!("there is nothing at {}", path.escape_debug()),
    )
    .hint("`GET /openapi.json` lists every path")
    .into()
}

async fn no_such_method(request: Request) -> Failure {
    let problem = Problem::new(
        Code::Invalid,
        format!("{} is not accepted here", request.method()),
    )
    .hint("`GET /openapi.json` lists the methods of every path");
    Failure::with_status(StatusCode::METHOD_NOT_ALLOWED, problem)
}

/// Gives each request an id, for the log and for whoever reports a problem; and each answer what
/// clients and other servers follow.
async fn number(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = UploadId::from_u128(random::new_id()).to_string();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    let clock = HeaderValue::from(crate::store::now_ms());
    let servers = HeaderValue::from(app.store.view().servers().count());
    response
        .headers_mut()
        .insert(neighbours::CLOCK_HEADER, clock);
    response.headers_mut().insert(SERVERS_HEADER, servers);
    let status = response.status().as_u16();
    if response.status().is_server_error() {
        tracing::warn!(request = %id, %method, path, status, "request failed");
    } else {
        tracing::debug!(request = %id, %method, path, status, "request");
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}
