//! What is done with a request before its handler sees it: the state is made fresh enough, the
//! caller's key is read. Answers nothing itself.

use std::time::Duration;

use axum::extract::Request;
use skep_model::problem::Problem;

use super::App;
use super::access::Action;

/// Header of the caller's key: the same request under the same key happens once.
const KEY_HEADER: &str = "idempotency-key";
/// Longest key, in bytes.
const KEY_MAX: usize = 128;

/// The key under which the caller repeats a request, told apart by method and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestKey(pub(super) String);

/// What all handlers rely on: the state here is at least as new as every write that was acknowledged
/// before the request, by any server; or the caller wants it as it is, and is told how old.
pub(super) async fn prepare(
    app: &App,
    action: Action,
    request: &mut Request,
) -> Result<Option<Duration>, Problem> {
    if action.is_write() {
        if let Some(key) = request_key(request)? {
            request.extensions_mut().insert(key);
        }
    } else if take_stale(request)? {
        return Ok(Some(app.store.view_age()));
    }
    if !action.is_local() {
        app.store.read().await?;
    }
    Ok(None)
}

fn request_key(request: &Request) -> Result<Option<RequestKey>, Problem> {
    let Some(value) = request.headers().get(KEY_HEADER) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    if !(1..=KEY_MAX).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = Problem::invalid("Idempotency-Key", "the key is not accepted");
        return Err(problem.hint("1 to 128 printable ASCII characters without spaces"));
    }
    let (method, path) = (request.method(), request.uri().path());
    Ok(Some(RequestKey(format!("{method} {path} {text}"))))
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
