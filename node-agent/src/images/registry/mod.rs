//! The OCI distribution API on the node's loopback, for the node's own Docker: what is here, and what other
//! nodes have, pulled as from any registry; what was built, pushed as to any. Whoever calls must know the
//! agent's secret.

mod error;
mod path;
mod pull;
mod push;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::distribution::ErrorCode;
use skep_identity::digest::constant_time_eq;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::fetch::Fetcher;
use super::store::Store;
use error::Refused;
use path::Target;
use push::Uploads;

/// Whom Docker says that it is.
pub(super) const USER: &str = "skep";

/// The registry.
pub(super) struct Registry {
    store: Arc<Store>,
    fetcher: Arc<Fetcher>,
    secret: Zeroizing<String>,
    uploads: Uploads,
}

impl Registry {
    /// Over this store; callers show `secret`.
    pub(super) fn new(store: Arc<Store>, fetcher: Arc<Fetcher>, secret: Zeroizing<String>) -> Self {
        Self {
            store,
            fetcher,
            secret,
            uploads: Uploads::default(),
        }
    }

    /// Serves until `shutdown`.
    pub(super) async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let served = axum::serve(listener, self.router());
        let served = served.with_graceful_shutdown(async move { shutdown.cancelled().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "the image registry of this node ended");
        }
    }

    fn router(self) -> Router {
        let router = Router::new().fallback(handle);
        router
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::new(self))
    }

    fn is_allowed(&self, headers: &HeaderMap) -> bool {
        let said = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
        let said = said.and_then(|it| it.strip_prefix("Basic "));
        let said = said
            .and_then(|it| STANDARD.decode(it).ok())
            .unwrap_or_default();
        let expected = Zeroizing::new(format!("{USER}:{}", *self.secret));
        constant_time_eq(&said, expected.as_bytes())
    }

    async fn answer(&self, request: Request) -> Result<Response<Body>, Refused> {
        if !self.is_allowed(request.headers()) {
            let text = "this registry is for this node's agent alone";
            return Err(Refused::new(ErrorCode::Unauthorized, text));
        }
        let method = request.method().clone();
        let target = path::parse(request.uri().path()).map_err(|code| match code {
            Some(code) => Refused::new(code, "the path names nothing that can be"),
            None => Refused::new(ErrorCode::NameUnknown, "there is no such path"),
        })?;
        let is_read = matches!(method, Method::GET | Method::HEAD);
        match target {
            Target::Base if is_read => Ok(Response::new(Body::from("{}"))),
            Target::Manifest(repository, name) if is_read => {
                self.manifest(&method, (&repository, name)).await
            }
            Target::Blob(_, digest) if is_read => {
                self.blob(&method, request.headers(), digest).await
            }
            Target::Tags(repository) if is_read => {
                self.tags(&repository, request.uri().query().unwrap_or_default())
            }
            Target::Referrers(..) if is_read => Ok(pull::no_referrers()),
            Target::Upload(repository, id) if is_read => self.upload_status(&repository, &id).await,
            Target::Manifest(repository, name) if method == Method::PUT => {
                self.put_manifest(&repository, name, request).await
            }
            Target::Uploads(repository) if method == Method::POST => {
                self.begin_upload(&repository, request).await
            }
            Target::Upload(repository, id) if method == Method::PATCH => {
                self.append(&repository, &id, request).await
            }
            Target::Upload(repository, id) if method == Method::PUT => {
                self.end_upload(&repository, &id, request).await
            }
            Target::Upload(_, id) if method == Method::DELETE => self.cancel_upload(&id).await,
            // What is not needed any more goes by the budget.
            _ => Err(Refused::new(
                ErrorCode::Unsupported,
                format!("no {method} here"),
            )),
        }
    }
}

async fn handle(State(registry): State<Arc<Registry>>, request: Request) -> Response<Body> {
    let mut answer = match registry.answer(request).await {
        Ok(answer) => answer,
        Err(refused) => refused.answer(),
    };
    let is_refused = answer.status() == StatusCode::UNAUTHORIZED;
    let headers = answer.headers_mut();
    headers.insert(
        "docker-distribution-api-version",
        HeaderValue::from_static("registry/2.0"),
    );
    if is_refused {
        headers.insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"skep\""),
        );
    }
    answer
}
