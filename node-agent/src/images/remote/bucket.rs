//! A bucket of an object store, by the API of S3, in a registry's place: each blob and each manifest is an object under
//! its digest, below the service's folders. Objects have no other names, so that nothing is ever replaced. URLs are
//! signed for some minutes; nothing is kept between requests.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::CONTENT_LENGTH;
use hyper::{Method, Request, Response, StatusCode};
use rusty_s3::actions::S3Action as _;
use rusty_s3::{Bucket, Credentials, UrlStyle};
use serde::Deserialize;
use skep_model::problem::{Code, Problem};
use skep_model::registry::RegistryAccess;
use tokio::time::sleep;

use super::http::{Http, Payload};
use super::{Digest, Error};

/// How long a signed URL holds: it is used at once, and clocks differ.
const SIGNED_FOR: Duration = Duration::from_secs(5 * 60);
/// Most bytes of one object that is put at once: the API's own limit.
const OBJECT_MAX: u64 = 5 << 30;
/// Attempts at one object where a store has too much to do. After that it is the leader's turn to wait.
const ATTEMPTS: u32 = 4;
/// Pause after the first of them, doubled with each.
const PAUSE: Duration = Duration::from_millis(500);

/// What is kept there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Object {
    /// A layer or a configuration.
    Blob(Digest),
    /// What names them.
    Manifest(Digest),
}

/// What an object store says where it does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    /// The API's name for it; empty: it says nothing that is understood.
    code: String,
    message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code.as_str() {
            "" => write!(f, "it answers {}", self.status),
            code => write!(f, "it says {code} ({}): {}", self.status, self.message),
        }
    }
}

/// The body of a refusal.
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "Code", default)]
    code: String,
    #[serde(rename = "Message", default)]
    message: String,
}

/// The folders of one service in one bucket, as one key.
pub(super) struct Objects {
    bucket: Bucket,
    credentials: Credentials,
    /// Before `blobs/` and `manifests/`.
    base: String,
}

impl Objects {
    /// None: the login is of a registry. A repository there begins with the bucket.
    ///
    /// # Errors
    /// No URL can be made of it.
    pub(super) fn of(
        access: &RegistryAccess,
        (scheme, repository): (&str, &str),
    ) -> Result<Option<Self>, Error> {
        let Some(bucket) = &access.bucket else {
            return Ok(None);
        };
        let odd = |error: &dyn fmt::Display| Error::Odd(format!("no bucket can be there: {error}"));
        let endpoint = url::Url::parse(&format!("{scheme}://{}", access.host));
        let endpoint = endpoint.map_err(|error| odd(&error))?;
        let base = repository
            .strip_prefix(&bucket.name)
            .and_then(|rest| rest.strip_prefix('/'));
        let base = base.ok_or_else(|| {
            // It was put into another bucket, which this key need not be for.
            Error::Missing(format!("{repository}: the bucket is {} now", bucket.name))
        })?;
        let is_address = endpoint
            .host_str()
            .is_some_and(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok());
        let style = match bucket.path_style || is_address {
            true => UrlStyle::Path,
            false => UrlStyle::VirtualHost,
        };
        let made = Bucket::new(endpoint, style, bucket.name.clone(), bucket.region.clone());
        Ok(Some(Self {
            bucket: made.map_err(|error| odd(&error))?,
            credentials: Credentials::new(access.user.clone(), access.password.clone()),
            base: base.to_owned(),
        }))
    }

    fn key(&self, object: Object) -> String {
        let (folder, digest) = match object {
            Object::Blob(digest) => ("blobs", digest),
            Object::Manifest(digest) => ("manifests", digest),
        };
        format!("{}/{folder}/sha256/{}", self.base, digest.hex())
    }

    /// An object, whose body is still to come.
    ///
    /// # Errors
    /// It is not there, or not given.
    pub(super) async fn get(
        &self,
        http: &Http,
        object: Object,
    ) -> Result<Response<Incoming>, Error> {
        self.call(http, Method::GET, (object, Payload::None)).await
    }

    /// Whether an object of that size is there.
    ///
    /// # Errors
    /// It does not say.
    pub(super) async fn has(
        &self,
        http: &Http,
        (object, size): (Object, u64),
    ) -> Result<bool, Error> {
        let found = self.call(http, Method::HEAD, (object, Payload::None)).await;
        match found {
            Ok(answer) => {
                let said = answer.headers().get(CONTENT_LENGTH);
                let said = said.and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
                Ok(said == Some(size))
            }
            Err(Error::Missing(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts an object where it belongs. What breaks off is not there.
    ///
    /// # Errors
    /// It is not taken.
    pub(super) async fn put(
        &self,
        http: &Http,
        (object, payload): (Object, Payload),
    ) -> Result<(), Error> {
        if payload.len() > OBJECT_MAX {
            let text = format!("{object:?} is longer than the {OBJECT_MAX} bytes of one object");
            return Err(Error::Odd(text));
        }
        self.call(http, Method::PUT, (object, payload))
            .await
            .map(drop)
    }

    /// One request, again where the store has too much to do.
    async fn call(
        &self,
        http: &Http,
        method: Method,
        (object, payload): (Object, Payload),
    ) -> Result<Response<Incoming>, Error> {
        let mut attempt = 1;
        loop {
            let url = self.signed(&method, &self.key(object));
            let request = Request::builder().method(&method).uri(url.as_str());
            let answer = http.send(request, payload.clone()).await?;
            let status = answer.status();
            if status.is_success() {
                return Ok(answer);
            }
            let body = http.read(answer).await.unwrap_or_default();
            let refusal = refusal(status, &body);
            // A HEAD has no body that says what it is that is not there.
            if refusal.code == "NoSuchKey" || refusal.code.is_empty() && status == 404 {
                return Err(Error::Missing(self.key(object)));
            }
            let is_busy = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            if !is_busy || attempt >= ATTEMPTS {
                return Err(Error::Store(refusal));
            }
            sleep(PAUSE * 2_u32.pow(attempt - 1)).await;
            attempt += 1;
        }
    }

    fn signed(&self, method: &Method, key: &str) -> url::Url {
        let credentials = Some(&self.credentials);
        match *method {
            Method::PUT => self.bucket.put_object(credentials, key).sign(SIGNED_FOR),
            Method::HEAD => self.bucket.head_object(credentials, key).sign(SIGNED_FOR),
            _ => self.bucket.get_object(credentials, key).sign(SIGNED_FOR),
        }
    }

    /// For a person.
    pub(super) fn explain(&self, error: &Error, host: &str) -> Problem {
        let (code, hint) = match error {
            Error::Store(refusal) => meaning(refusal),
            Error::Missing(_) => (
                Code::NotFound,
                "objects of releases that are kept have to stay in the bucket: does a lifecycle rule remove them?",
            ),
            Error::Digest { .. } => (
                Code::ImageFailed,
                "the object was changed in the bucket: it is not used. Remove it, and deploy again",
            ),
            Error::Unreachable(_) => (
                Code::Unavailable,
                "is the endpoint right (`skep bucket show`), and does this node reach it and trust its certificate?",
            ),
            other => {
                let problem = other.explain(host);
                let text = format!("bucket {} at {host}: {other}", self.bucket.name());
                return Problem::new(problem.code, text).hint(problem.hint.unwrap_or_default());
            }
        };
        Problem::new(
            code,
            format!("bucket {} at {host}: {error}", self.bucket.name()),
        )
        .hint(hint)
    }
}

/// What a body says, as far as it says something.
fn refusal(status: StatusCode, body: &[u8]) -> Refusal {
    let text = String::from_utf8_lossy(body);
    let said: Option<Said> = quick_xml::de::from_str(&text).ok();
    let (code, message) = said.map_or_else(Default::default, |said| (said.code, said.message));
    Refusal {
        status,
        code,
        message,
    }
}

/// What is to be done about a refusal.
fn meaning(refusal: &Refusal) -> (Code, &'static str) {
    match refusal.code.as_str() {
        "InvalidAccessKeyId" => (
            Code::Forbidden,
            "the store does not know the id of the access key: `skep bucket set` with one that it knows",
        ),
        "SignatureDoesNotMatch" => (
            Code::Forbidden,
            "the secret is not that of the access key: `skep bucket set` with the right one",
        ),
        "AccessDenied" => (
            Code::Forbidden,
            "the key has to be allowed GetObject and PutObject below the prefix, and ListBucket, \
             without which a store does not say that an object is not there yet",
        ),
        "NoSuchBucket" => (
            Code::NotFound,
            "make the bucket, or name the right one; some stores want `--path-style`",
        ),
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "AuthorizationQueryParametersError"
        | "IllegalLocationConstraintException" => (
            Code::Invalid,
            "the region or the endpoint is not that of the bucket: `skep bucket set --region`",
        ),
        "RequestTimeTooSkewed" | "RequestExpired" => (
            Code::Invalid,
            "this node's clock is wrong: let it be set by NTP",
        ),
        "SlowDown" | "ServiceUnavailable" | "InternalError" => (
            Code::Unavailable,
            "the store has too much to do: it is tried again",
        ),
        _ if refusal.status == StatusCode::FORBIDDEN => (
            Code::Forbidden,
            "check the key, its secret and what it may do in the bucket",
        ),
        _ if refusal.status.is_redirection() => (
            Code::Invalid,
            "the region or the endpoint is not that of the bucket: `skep bucket set --region`",
        ),
        _ => (Code::Unavailable, "does it speak the API of S3?"),
    }
}

#[cfg(test)]
#[path = "bucket/tests.rs"]
mod tests;
