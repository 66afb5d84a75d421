//! The HTTP client of the API: TLS pinned to the cluster's CA, bearer token, deadlines, problems, and
//! the next server where one does not serve. Knows how to speak, not what about: endpoints are named by
//! the commands.

mod bases;
mod error;
pub(crate) mod sse;
mod upgrade;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use skep_identity::fingerprint::Fingerprint;
use skep_identity::tls::pinned_client_config;
use skep_model::problem::Problem;

pub(crate) use error::Error;
pub(crate) use upgrade::Socket;

use crate::context::Context;
use bases::Bases;

/// What a TCP connection and TLS may take together, at most.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// What an answer may take: the server's own deadlines are shorter.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Largest answer that is read whole, in bytes.
const ANSWER_MAX: usize = 64 << 20;
/// A vanished server is noticed while a stream is quiet.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// The same where another server can be asked: the longest that a server takes to decide, and some.
const ANSWER_DEADLINE_OF_MANY: Duration = Duration::from_secs(12);
/// Rounds over all servers where none can serve just now: a leader is found in that time.
const ROUNDS: u32 = 6;
/// Pause after the first round; doubles.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of randomness in a key that makes a repeated write happen once.
const KEY_BYTES: usize = 16;

/// A request body: whole, or streamed with errors that end it.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;
type Http = legacy::Client<HttpsConnector<HttpConnector>, Body>;

/// Speaks to the servers of one cluster, one at a time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    context: Context,
    bases: Arc<Bases>,
    http: Http,
}

impl Client {
    /// A client for the servers of this context; connects at the first request.
    ///
    /// # Errors
    /// The context names no server.
    pub(crate) fn new(context: Context) -> Result<Self, Problem> {
        Ok(Self::with(context.check()?, context))
    }

    fn with(fingerprint: Fingerprint, context: Context) -> Self {
        Self {
            bases: Arc::new(Bases::new(&context.server, &context.servers)),
            http: connector(fingerprint),
            context,
        }
    }

    /// The server that it speaks to just now.
    pub(crate) fn server(&self) -> &str {
        self.bases.current()
    }

    /// Whether the list of servers in the context should be asked for again.
    pub(crate) fn is_outdated(&self) -> bool {
        self.bases.is_outdated()
    }

    /// Where webhooks reach the server.
    pub(crate) fn hooks_base(&self) -> &str {
        let base = self.context.hooks.as_deref();
        let base = base.unwrap_or(&self.context.server);
        base.trim_end_matches('/')
    }

    /// Reads; asked again, of the next server, where one says that it cannot answer just now.
    ///
    /// # Errors
    /// Not reachable, or refused.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.again(Method::GET, path, (Bytes::new(), None)).await
    }

    /// Writes. Sent again, to the next server, where one does not answer: under one key, so that it
    /// happens once.
    ///
    /// # Errors
    /// Not reachable, or refused.
    pub(crate) async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        let bytes = serde_json::to_vec(body).map_err(Error::Encode)?;
        let key = skep_identity::random::hex(KEY_BYTES);
        self.again(method, path, (bytes.into(), Some(&key))).await
    }

    /// Writes what takes its time: a server that is silent is waited for until `deadline`, and the next one is
    /// asked, under the same key.
    ///
    /// # Errors
    /// Not reachable, or refused.
    pub(crate) async fn send_for<B: Serialize, T: DeserializeOwned>(
        &self,
        (method, path): (Method, &str),
        body: &B,
        deadline: Duration,
    ) -> Result<T, Error> {
        let bytes = Bytes::from(serde_json::to_vec(body).map_err(Error::Encode)?);
        let key = skep_identity::random::hex(KEY_BYTES);
        let mut left = self.bases.count();
        loop {
            left = left.saturating_sub(1);
            let asked = (bytes.clone(), Some(&*key));
            let asked = self.once(method.clone(), path, asked, deadline);
            match asked.await {
                Err(error) if error.is_passing() && left > 0 => {}
                other => return other,
            }
        }
    }

    /// Asks until a server serves, or all have been asked often enough.
    async fn again<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        (body, key): (Bytes, Option<&str>),
    ) -> Result<T, Error> {
        let deadline = if self.bases.count() > 1 {
            ANSWER_DEADLINE_OF_MANY
        } else {
            ANSWER_DEADLINE
        };
        let mut pause = ROUND_PAUSE;
        let mut round = 1;
        loop {
            for _ in 1..self.bases.count() {
                let asked = self.once(method.clone(), path, (body.clone(), key), deadline);
                match asked.await {
                    Err(error) if error.is_passing() => {}
                    other => return other,
                }
            }
            let asked = self.once(method.clone(), path, (body.clone(), key), deadline);
            match asked.await {
                // Where nobody can be reached, waiting helps nobody.
                Err(Error::Refused(problem)) if problem.code.is_retryable() && round < ROUNDS => {}
                other => return other,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            round += 1;
        }
    }

    /// Opens a stream of server-sent events.
    ///
    /// # Errors
    /// Not reachable, or refused.
    pub(crate) async fn events(
        &self,
        path: &str,
        last_event_id: Option<&str>,
    ) -> Result<sse::Events, Error> {
        let mut request = self
            .request(Method::GET, path)
            .header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(empty()).map_err(Error::Request)?;
        let response = self.answer(request, ANSWER_DEADLINE).await?;
        Ok(sse::Events::new(response.into_body()))
    }

    /// Opens an answer of any size, to be read as it comes. Asks the next server where one does not serve.
    ///
    /// # Errors
    /// Not reachable, or refused.
    pub(crate) async fn download(&self, path: &str) -> Result<Incoming, Error> {
        let mut left = self.bases.count();
        loop {
            left -= 1;
            let request = self.request(Method::GET, path).body(empty());
            let asked = self.answer(request.map_err(Error::Request)?, ANSWER_DEADLINE);
            match asked.await {
                Err(error) if error.is_passing() && left > 0 => {}
                other => return other.map(Response::into_body),
            }
        }
    }

    /// Sends a body that is made while it is sent.
    ///
    /// # Errors
    /// Not reachable, refused, broken off, or not through by the deadline.
    pub(crate) async fn put_stream(
        &self,
        path: &str,
        content_type: &'static str,
        body: Body,
        deadline: Duration,
    ) -> Result<(), Error> {
        let request = self
            .request(Method::PUT, path)
            .header(CONTENT_TYPE, content_type);
        let request = request.body(body).map_err(Error::Request)?;
        self.answer(request, deadline).await.map(drop)
    }

    async fn once<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        (body, key): (Bytes, Option<&str>),
        deadline: Duration,
    ) -> Result<T, Error> {
        let mut request = self
            .request(method, path)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(full(body)).map_err(Error::Request)?;
        let response = self.answer(request, deadline).await?;
        let bytes = self.whole(response).await?;
        // An answer without content reads as JSON's null.
        let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(bytes).map_err(|source| Error::Decode {
            path: path.to_owned(),
            source,
        })
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let base = self.server();
        Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header(AUTHORIZATION, format!("Bearer {}", self.context.token))
            .header(USER_AGENT, concat!("skep/", env!("CARGO_PKG_VERSION")))
    }

    /// One exchange with the server of the moment; one that does not serve is left for the next.
    async fn answer(
        &self,
        request: Request<Body>,
        deadline: Duration,
    ) -> Result<Response<Incoming>, Error> {
        let server = self.server().to_owned();
        let answered = self.exchange(&server, request, deadline).await;
        match &answered {
            Ok(response) => self.bases.heard(response.headers()),
            Err(error) if error.is_passing() => self.bases.move_on(&server),
            Err(_) => {}
        }
        answered
    }

    async fn exchange(
        &self,
        server: &str,
        request: Request<Body>,
        deadline: Duration,
    ) -> Result<Response<Incoming>, Error> {
        let answer = tokio::time::timeout(deadline, self.http.request(request));
        let response = match answer.await {
            Err(_) => {
                return Err(Error::Silent {
                    server: server.to_owned(),
                    deadline,
                });
            }
            Ok(Err(error)) => return Err(Error::lost(server.to_owned(), error)),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = self.whole(response).await?;
        Err(Error::Refused(refusal(status, &bytes)))
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<Bytes, Error> {
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect();
        let server = || self.server().to_owned();
        match tokio::time::timeout(ANSWER_DEADLINE, body).await {
            Err(_) => Err(Error::Silent {
                server: server(),
                deadline: ANSWER_DEADLINE,
            }),
            Ok(Err(source)) => Err(Error::Broken {
                server: server(),
                source,
            }),
            Ok(Ok(body)) => Ok(body.to_bytes()),
        }
    }
}

/// HTTP/1.1 over TLS that trusts this cluster alone.
fn connector(fingerprint: Fingerprint) -> Http {
    // The connector sets ALPN itself and refuses a configuration that has some.
    let tls = pinned_client_config(fingerprint, &[]);
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_DEADLINE));
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    let https = HttpsConnectorBuilder::new()
        .with_tls_config((*tls).clone())
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    legacy::Client::builder(TokioExecutor::new()).build(https)
}

/// The problem that a refusal carries, or one that says what came instead.
fn refusal(status: StatusCode, body: &[u8]) -> Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let text: String = String::from_utf8_lossy(body)
            .trim()
            .chars()
            .take(200)
            .collect();
        error::foreign(status, &text)
    })
}

/// POSTs bytes to any URL: the delivery of a webhook, which carries its own proof. Over https only
/// the cluster with this fingerprint is spoken to.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn deliver(
    request: Request<Bytes>,
    fingerprint: Fingerprint,
) -> Result<Bytes, Error> {
    let context = Context {
        server: request.uri().to_string(),
        fingerprint: fingerprint.to_string(),
        token: String::new(),
        hooks: None,
        servers: Vec::new(),
    };
    let client = Client::with(fingerprint, context);
    let response = client.answer(request.map(full), ANSWER_DEADLINE).await?;
    client.whole(response).await
}

/// A body of these bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed()
}

fn empty() -> Body {
    full(Bytes::new())
}

/// One segment of a path, or one value of a query: everything but letters, digits and `-._~` is
/// escaped.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use skep_model::problem::Code;

    use super::*;

    #[test]
    fn what_people_type_stays_one_segment() {
        assert_eq!(escape("a/../b c?é"), "a%2F..%2Fb%20c%3F%C3%A9");
        assert_eq!(escape("node-1.lan"), "node-1.lan");
    }

    #[test]
    fn a_refusal_is_the_servers_problem_or_says_who_answered() {
        let body = br#"{"code":"conflict","message":"taken","field":"name","retryable":false}"#;
        let problem = refusal(StatusCode::CONFLICT, body);
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::Conflict, Some("name"))
        );
        let problem = refusal(StatusCode::BAD_GATEWAY, b"<html>nginx</html>");
        assert_eq!(problem.code, Code::Unavailable);
        assert!(problem.message.contains("502"), "{problem}");
    }
}
