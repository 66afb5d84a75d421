//! What is done with a request before its handler sees it: the state is made fresh enough, the
//! caller's key is read. Answers nothing itself.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use skep_model::problem::Problem;

use super::access::Action;
use super::{App, extract};

/// Header of the caller's key: the same request under the same key happens once.
const KEY_HEADER: &str = "idempotency-key";
/// Longest key, in bytes.
const KEY_MAX: usize = 128;

/// The key under which the caller repeats a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestKey {
    /// Told apart by method and path.
    pub(super) key: String,
    /// What is asked: the query and the body. Another one under the same key is refused.
    pub(super) request: Bytes,
}

/// What all handlers rely on: the state here is at least as new as every write that was acknowledged
/// before the request, by any server; or the caller wants it as it is, and is told how old.
pub(super) async fn prepare(
    app: &App,
    action: Action,
    request: &mut Request,
) -> Result<Option<Duration>, Problem> {
    if action.is_write() {
        if let Some(key) = request_key(request)? {
            let asks = said(action, request).await?;
            let key = RequestKey { key, request: asks };
            request.extensions_mut().insert(key);
        }
    } else if !action.is_shell() && take_stale(request)? {
        return Ok(Some(app.store.view_age()));
    }
    if !action.is_local() {
        app.store.read().await?;
    }
    Ok(None)
}

/// What the request says beside its method and path; its body is whole afterwards.
async fn said(action: Action, request: &mut Request) -> Result<Bytes, Problem> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let mut said = BytesMut::with_capacity(query.len() + 1);
    said.extend_from_slice(query.as_bytes());
    // No query has a line's end in it.
    said.extend_from_slice(b"\n");
    // A folder may be large: it is taken in as it comes, and its path names it.
    if !action.is_stream() {
        let body = std::mem::take(request.body_mut());
        let body = extract::read(body, extract::MAX_JSON).await?;
        said.extend_from_slice(&body);
        *request.body_mut() = Body::from(body);
    }
    Ok(said.freeze())
}

fn request_key(request: &Request) -> Result<Option<String>, Problem> {
    let Some(value) = request.headers().get(KEY_HEADER) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    if !(1..=KEY_MAX).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = Problem::invalid("Idempotency-Key", "the key is not accepted");
        return Err(problem.hint("1 to 128 printable ASCII characters without spaces"));
    }
    let (method, path) = (request.method(), request.uri().path());
    Ok(Some(format!("{method} {path} {text}")))
}

/// Takes `stale` out of the query: handlers need not know it.
fn take_stale(request: &mut Request) -> Result<bool, Problem> {
    let query = request.uri().query().unwrap_or_default();
    let (stale, rest): (Vec<&str>, Vec<&str>) = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .partition(|pair| *pair == "stale" || pair.starts_with("stale="));
    let is_stale = match stale[..] {
        [] | ["stale=false"] => false,
        ["stale=true"] => true,
        _ => return Err(Problem::invalid("stale", "`true` or `false` is expected")),
    };
    if !stale.is_empty() {
        let path = request.uri().path();
        let target = if rest.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{}", rest.join("&"))
        };
        let target = target
            .parse()
            .map_err(|_| Problem::invalid("stale", "the query is broken"))?;
        *request.uri_mut() = target;
    }
    Ok(is_stale)
}
