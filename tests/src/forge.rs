//! A forge's API, as far as statuses of commits, comments of pull requests and GitHub's deployments go: takes requests, and answers them as a
//! test wants. Comments are Gitea's: of one pull request, all in one list.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request, as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `POST /api/v1/...`.
    pub line: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Value,
}

/// An answer: its status, and a header. Status 0: none is given.
pub type Answer = (u16, Option<(&'static str, String)>);

#[derive(Default)]
struct Shared {
    asked: Mutex<Vec<Asked>>,
    answers: Mutex<VecDeque<Answer>>,
    /// The one token that it knows; none: any.
    token: Mutex<Option<String>>,
    /// What it shows, by the end of the path.
    pages: Mutex<Vec<(String, Value)>>,
    comments: Mutex<Vec<Comment>>,
    /// What GitHub calls deployments.
    deployments: Mutex<Vec<Value>>,
    /// Takes the next comment or deployment, and never says so.
    is_mute: AtomicBool,
    /// Takes no comments.
    is_locked: AtomicBool,
    /// How many comments there ever were.
    made: AtomicU64,
}

/// A comment of the pull request.
#[derive(Debug, Clone)]
pub struct Comment {
    /// Its number.
    pub id: u64,
    /// Who wrote it.
    pub author: u64,
    /// What it says.
    pub text: String,
}

/// The user that tokens are.
const BOT: u64 = 1;

/// The forge; ends when dropped.
pub struct Forge {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Forge {
    /// Starts one on a free port that answers these to the first statuses, then takes all of whoever has a token that
    /// it knows.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(answers: Vec<Answer>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            answers: Mutex::new(answers.into()),
            ..Shared::default()
        });
        let answering = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&answering);
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move {
                    // A client that goes away is the client's business.
                    let _ = connection.await;
                });
            }
        });
        Ok(Self {
            address,
            shared,
            server,
        })
    }

    /// From now on it knows this token alone.
    pub fn know(&self, token: &str) {
        let known = self.shared.token.lock();
        *known.expect("nobody panics while setting") = Some(token.to_owned());
    }

    /// From now on it shows this to whoever asks for a path with this end.
    pub fn show(&self, end: &str, page: Value) {
        let pages = self.shared.pages.lock();
        let mut pages = pages.expect("nobody panics while setting");
        pages.retain(|(known, _)| known != end);
        pages.push((end.to_owned(), page));
    }

    /// How often somebody asked for a path with this end.
    pub fn asked_for(&self, end: &str) -> usize {
        let asked = self.shared.asked.lock();
        let asked = asked.expect("nobody panics while adding");
        let is_it = |it: &&Asked| it.line.starts_with("GET ") && it.line.ends_with(end);
        asked.iter().filter(is_it).count()
    }

    /// Somebody writes a comment.
    pub fn comment(&self, text: &str) {
        put(&self.shared, BOT + 1, text.to_owned());
    }

    /// What GitHub calls deployments, in their order, each with the state that it was told last.
    pub fn deployments(&self) -> Vec<Value> {
        let all = self.shared.deployments.lock();
        all.expect("nobody panics while adding").clone()
    }

    /// It takes the next comment, or deployment, that tokens make, and never says so.
    pub fn be_mute(&self) {
        self.shared.is_mute.store(true, Ordering::SeqCst);
    }

    /// From now on it takes no comments, or does again.
    pub fn lock(&self, is_locked: bool) {
        self.shared.is_locked.store(is_locked, Ordering::SeqCst);
    }

    /// Somebody deletes a comment.
    pub fn delete(&self, id: u64) {
        let mut all = self.shared.comments.lock();
        let all = all.as_mut().expect("nobody panics while adding");
        all.retain(|it| it.id != id);
    }

    /// The comments that tokens made, in their order.
    pub fn comments(&self) -> Vec<Comment> {
        let all = self.shared.comments.lock();
        let all = all.expect("nobody panics while adding").clone();
        all.into_iter().filter(|it| it.author == BOT).collect()
    }

    /// Requests for comments, in their order.
    pub fn talks(&self) -> Vec<Asked> {
        let asked = self.shared.asked.lock();
        let asked = asked.expect("nobody panics while adding").clone();
        let talks = asked.into_iter().filter(|it| it.line.contains("/comments"));
        talks.collect()
    }

    /// The statuses that it was asked to take, in their order.
    pub fn statuses(&self) -> Vec<Asked> {
        let asked = self.shared.asked.lock();
        let asked = asked.expect("nobody panics while adding").clone();
        let statuses = asked
            .into_iter()
            .filter(|it| it.line.contains("/statuses/"));
        statuses.collect()
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let raw = body.collect().await.map(|body| body.to_bytes());
    let path = parts.uri.path().to_owned();
    let authorization = parts.headers.get("authorization").cloned();
    let body: Value = serde_json::from_slice(&raw.unwrap_or_default()).unwrap_or_default();
    let asked = Asked {
        line: format!("{} {path}", parts.method),
        headers: parts.headers,
        body: body.clone(),
    };
    let all = shared.asked.lock();
    all.expect("nobody panics while adding").push(asked);
    let known = shared.token.lock();
    let known = known.expect("nobody panics while setting").clone();
    let is_known = known.is_none_or(|known| {
        let text = authorization.as_ref().and_then(|it| it.to_str().ok());
        text.and_then(|text| text.split_once(' '))
            .is_some_and(|(_, token)| token == known)
    });
    if !is_known {
        return Ok(reply(401, json!({ "message": "invalid credentials" })));
    }
    if path.ends_with("/user") {
        return Ok(reply(200, json!({ "id": BOT, "login": "skep-bot" })));
    }
    if path.contains("/deployments") {
        return Ok(show(&shared, (&parts.method, &path), body).await);
    }
    if path.contains("/comments") {
        return Ok(talk(&shared, (&parts.method, &path), &body).await);
    }
    if parts.method == Method::GET {
        let pages = shared.pages.lock();
        let pages = pages.expect("nobody panics while setting");
        let page = pages.iter().find(|(end, _)| path.ends_with(end.as_str()));
        return Ok(match page {
            Some((_, page)) => reply(200, page.clone()),
            None => reply(404, json!({ "message": "Not Found" })),
        });
    }
    let next = shared.answers.lock();
    let next = next.expect("nobody panics while taking").pop_front();
    let Some((status, header)) = next else {
        return Ok(reply(201, json!({ "id": 1 })));
    };
    if status == 0 {
        std::future::pending::<()>().await;
    }
    let mut answer = reply(status, json!({ "message": "as the test wants" }));
    if let Some((name, value)) = header {
        let value = value.parse().expect("a header's value");
        answer.headers_mut().insert(name, value);
    }
    Ok(answer)
}

/// The list of comments, a new one, or another text for one.
async fn talk(
    shared: &Shared,
    (method, path): (&Method, &str),
    body: &Value,
) -> Response<Full<Bytes>> {
    let text = body["body"].as_str().unwrap_or_default().to_owned();
    if *method != Method::GET && shared.is_locked.load(Ordering::SeqCst) {
        return reply(403, json!({ "message": "the conversation is locked" }));
    }
    if *method == Method::POST {
        let id = put(shared, BOT, text);
        if shared.is_mute.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        return reply(201, json!({ "id": id }));
    }
    let mut all = shared.comments.lock().expect("nobody panics while adding");
    if *method == Method::GET {
        let shown = all
            .iter()
            .map(|it| json!({ "id": it.id, "user": { "id": it.author }, "body": it.text }));
        return reply(200, shown.collect());
    }
    let id = path.rsplit('/').next().and_then(|id| id.parse().ok());
    match all.iter_mut().find(|it| Some(it.id) == id) {
        Some(found) if found.author == BOT => {
            found.text = text;
            reply(200, json!({ "id": found.id }))
        }
        Some(_) => reply(403, json!({ "message": "not yours" })),
        None => reply(404, json!({ "message": "no such comment" })),
    }
}

/// The list of deployments, a new one, or a status of one.
async fn show(
    shared: &Shared,
    (method, path): (&Method, &str),
    mut body: Value,
) -> Response<Full<Bytes>> {
    let text = path.trim_end_matches("/statuses");
    let is_status = text.len() < path.len();
    let id = text
        .rsplit('/')
        .next()
        .and_then(|id| id.parse::<u64>().ok());
    {
        let mut all = shared
            .deployments
            .lock()
            .expect("nobody panics while adding");
        if *method == Method::GET {
            return reply(200, all.clone().into());
        }
        if is_status {
            let Some(found) = all.iter_mut().find(|it| it["id"].as_u64() == id) else {
                return reply(404, json!({ "message": "no such deployment" }));
            };
            found["state"] = body["state"].clone();
            return reply(201, json!({ "id": 1 }));
        }
        body["id"] = (all.len() as u64 + 1).into();
        all.push(body.clone());
    }
    if shared.is_mute.swap(false, Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    reply(201, body)
}

fn put(shared: &Shared, author: u64, text: String) -> u64 {
    let mut all = shared.comments.lock().expect("nobody panics while adding");
    let id = shared.made.fetch_add(1, Ordering::SeqCst) + 100;
    all.push(Comment { id, author, text });
    id
}

fn reply(status: u16, body: Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}
