//! A registry out there, by the OCI distribution API, or a bucket by that of S3 (`bucket`): images of the node's store are pushed to it as they are, blob by
//! blob, and what a tag stands for is asked. Docker pulls with a client of its own; it could not push by digest, since
//! it compresses layers anew for each registry. What is trusted is what Docker on the node trusts.

mod auth;
mod bucket;
mod give;
mod http;
mod push;

use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use oci_spec::distribution::ErrorResponse;
use parking_lot::Mutex;
use skep_model::problem::{Code, Problem};
use skep_model::registry::{DOCKER_HUB, RegistryAccess};

use super::digest::Digest;
use bucket::Objects;
use http::{DOCKER_CERTS, Http, Payload};

/// How long a registry may say nothing, and take nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// Where the API of Docker Hub is.
const DOCKER_HUB_API: &str = "registry-1.docker.io";
/// Where Docker Hub keeps the images without a folder.
const OFFICIAL: &str = "library";
/// What a manifest may be: as Docker asks.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// The digest of what an answer is about.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// How often a blob may be somewhere else.
const REDIRECTS_MAX: usize = 5;

/// A registry does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody is there, or it broke off.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It takes connections, and that is all.
    #[error("it has said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// It does not know the login, or does not allow it this.
    #[error("it refuses: {0}")]
    Refused(String),
    /// It has no such thing.
    #[error("it has no {0}")]
    Missing(String),
    /// It has something else than what it was given.
    #[error("it has {found} where {wanted} was pushed")]
    Digest {
        /// What it has.
        found: String,
        /// What it should have.
        wanted: Digest,
    },
    /// This node cannot trust it.
    #[error("its certificate cannot be checked: {0}")]
    Trust(String),
    /// An object store says no, in its own words.
    #[error("{0}")]
    Store(bucket::Refusal),
    /// It answers what means nothing here.
    #[error("{0}")]
    Odd(String),
}

impl Error {
    /// For a person, of the registry at `host`.
    pub(crate) fn explain(&self, host: &str) -> Problem {
        let (code, hint) = match self {
            Self::Unreachable(_) => (
                Code::Unavailable,
                "is it running, and does this node reach it and trust its certificate \
                 (/etc/docker/certs.d/HOST/ca.crt)?",
            ),
            Self::Silent(_) => (Code::Timeout, "is it overloaded, or something before it?"),
            Self::Refused(_) => (
                Code::Forbidden,
                "check the user, the password and what they may do: `skep registry show`, \
                 `skep registry push-to` or `skep registry login` sets them",
            ),
            Self::Missing(_) => (Code::NotFound, "check the name and the tag"),
            Self::Digest { .. } => (
                Code::ImageFailed,
                "the registry, or something before it, changes images: nothing is pulled from there",
            ),
            Self::Trust(_) => (
                Code::Invalid,
                "the files under /etc/docker/certs.d of this node are PEM certificates",
            ),
            Self::Store(_) | Self::Odd(_) => (
                Code::Unavailable,
                "does it speak the registry API, version 2?",
            ),
        };
        Problem::new(code, format!("registry {host}: {self}")).hint(hint)
    }
}

/// One repository of a registry, as one user.
pub(crate) struct Remote {
    http: Http,
    authority: String,
    repository: String,
    access: Option<RegistryAccess>,
    /// It is no registry: where objects are.
    objects: Option<Objects>,
    /// What was asked for last: good until it is refused.
    header: Mutex<Option<HeaderValue>>,
}

/// One request, which may be made twice.
struct Call<'a> {
    method: Method,
    url: String,
    headers: &'a [(hyper::header::HeaderName, String)],
    payload: Payload,
}

impl Remote {
    /// Asks nobody yet but Docker, for what it does without TLS.
    ///
    /// # Errors
    /// The node's certificates for it cannot be read.
    pub(crate) async fn new(
        (host, repository): (&str, &str),
        access: Option<RegistryAccess>,
        docker: &Docker,
    ) -> Result<Self, Error> {
        let around = (Path::new(DOCKER_CERTS), SILENCE);
        Self::with((host, repository), access, docker, around).await
    }

    async fn with(
        (host, repository): (&str, &str),
        access: Option<RegistryAccess>,
        docker: &Docker,
        around: (&Path, Duration),
    ) -> Result<Self, Error> {
        let is_official = host == DOCKER_HUB && !repository.contains('/');
        let http = Http::new(host, docker, around).await?;
        let objects = match &access {
            Some(access) => Objects::of(access, (http.scheme, repository))?,
            None => None,
        };
        Ok(Self {
            http,
            objects,
            authority: match host {
                DOCKER_HUB => DOCKER_HUB_API.to_owned(),
                other => other.to_owned(),
            },
            repository: match is_official {
                true => format!("{OFFICIAL}/{repository}"),
                false => repository.to_owned(),
            },
            access,
            header: Mutex::default(),
        })
    }

    /// For a person, of this place at `host`.
    pub(crate) fn explain(&self, error: &Error, host: &str) -> Problem {
        match &self.objects {
            Some(objects) => objects.explain(error, host),
            None => error.explain(host),
        }
    }

    /// The digest that a tag stands for.
    ///
    /// # Errors
    /// There is no such tag, or the registry does not say.
    pub(crate) async fn digest_of(&self, tag: &str) -> Result<Digest, Error> {
        let answer = self.manifest(Method::HEAD, tag).await?;
        if let Some(digest) = said_digest(answer.headers()) {
            return Ok(digest);
        }
        // One that does not say: what it gives says it.
        let answer = self.manifest(Method::GET, tag).await?;
        Ok(Digest::of(&self.http.read(answer).await?))
    }

    async fn manifest(&self, method: Method, name: &str) -> Result<Response<Incoming>, Error> {
        let answer = self
            .call(Call {
                method,
                url: self.url(&format!("manifests/{name}")),
                headers: &[(ACCEPT, MANIFESTS.to_owned())],
                payload: Payload::None,
            })
            .await?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::NOT_FOUND => Err(Error::Missing(format!("{}:{name}", self.repository))),
            _ => Err(self.odd(answer).await),
        }
    }

    fn url(&self, rest: &str) -> String {
        format!(
            "{}://{}/v2/{}/{rest}",
            self.http.scheme, self.authority, self.repository
        )
    }

    /// Makes a request, and once more with what its refusal asks for.
    async fn call(&self, call: Call<'_>) -> Result<Response<Incoming>, Error> {
        let header = self.header.lock().clone();
        let answer = self.once(&call, header).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return self.allowed(answer).await;
        }
        let header = auth::answer(&self.http, answer.headers(), self.access.as_ref()).await?;
        *self.header.lock() = Some(header.clone());
        let answer = self.once(&call, Some(header)).await?;
        self.allowed(answer).await
    }

    async fn once(
        &self,
        call: &Call<'_>,
        header: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder().method(&call.method).uri(&call.url);
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        // Where uploads go may be another place's to say: it gets no password.
        let own = format!("{}://{}/", self.http.scheme, self.authority);
        if let Some(header) = header.filter(|_| call.url.starts_with(&own)) {
            request = request.header(AUTHORIZATION, header);
        }
        self.http.send(request, call.payload.clone()).await
    }

    async fn allowed(&self, answer: Response<Incoming>) -> Result<Response<Incoming>, Error> {
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let status = answer.status();
                Err(Error::Refused(self.words(status, answer).await))
            }
            _ => Ok(answer),
        }
    }

    /// An answer that was not expected.
    async fn odd(&self, answer: Response<Incoming>) -> Error {
        let status = answer.status();
        Error::Odd(self.words(status, answer).await)
    }

    /// What a registry says of a status, as far as it does.
    async fn words(&self, status: StatusCode, answer: Response<Incoming>) -> String {
        let body = self.http.read(answer).await.unwrap_or_default();
        let said: Option<ErrorResponse> = serde_json::from_slice(&body).ok();
        let said = said.and_then(|all| {
            let first = all.errors().first()?;
            let message = first.message().as_deref().unwrap_or_default();
            Some(format!("{status}: {} {message}", first.code()))
        });
        said.unwrap_or_else(|| status.to_string()).trim().to_owned()
    }
}

/// Where an answer leads, which may be a path there.
fn place(asked: &str, headers: &HeaderMap) -> Result<String, Error> {
    let to = headers.get(LOCATION).and_then(|it| it.to_str().ok());
    let to = to.ok_or_else(|| Error::Odd("it does not say where to go".into()))?;
    let found = url::Url::parse(asked).and_then(|asked| asked.join(to));
    let found = found.map_err(|error| Error::Odd(format!("it leads to `{to}`: {error}")))?;
    match found.scheme() == "https" || asked.starts_with("http://") {
        true => Ok(found.into()),
        false => Err(Error::Odd(format!("it leads to `{to}`, without TLS"))),
    }
}

fn said_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
