//! The endpoints: what a request gets, held and failed as the settings say.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, SERVER, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

use crate::faults;
use crate::settings::Settings;

/// Text of ours, or the request's own body streamed back.
pub(crate) type Body = Either<Full<Bytes>, Incoming>;

/// A body to be echoed of which no more than this is told beforehand is read to its end first, bytes: a proxy that is
/// written in Go may break an answer off that begins while the request is still sent (golang/go#40747).
const READ_FIRST: u64 = 64 * 1024;

/// Longer holds than any test waits for are a mistake in the test.
const MAX_HOLD_MS: u64 = 600_000;

/// Answers `/`, `/healthz`, `/env`, `/head`, `/hold?ms=`, `/crash`, `/echo` and `/socket`.
pub(crate) async fn answer(settings: &Settings, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_string();
    if path != "/healthz" && !settings.hold.is_zero() {
        tokio::time::sleep(settings.hold).await;
    }
    match path.as_str() {
        "/" if settings.fail_requests => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "failed, as told\n".into(),
        ),
        "/" => text(
            StatusCode::OK,
            format!(
                "version={} allocation={}\n",
                settings.version, settings.allocation
            ),
        ),
        "/healthz" if settings.fail_health => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unhealthy, as told\n".into(),
        ),
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/env" => environment(),
        "/head" => text(StatusCode::OK, head(&request)),
        "/hold" => match hold_ms(request.uri().query()) {
            Some(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                text(StatusCode::OK, format!("held {ms} ms\n"))
            }
            None => text(
                StatusCode::BAD_REQUEST,
                format!("ask for /hold?ms=N with N at most {MAX_HOLD_MS}\n"),
            ),
        },
        "/crash" => faults::crash(settings.crash_code),
        "/echo" => echo(request).await,
        "/socket" => socket(request),
        _ => text(
            StatusCode::NOT_FOUND,
            "there is /, /healthz, /env, /head, /hold?ms=, /crash, /echo and /socket\n".into(),
        ),
    }
}

fn hold_ms(query: Option<&str>) -> Option<u64> {
    let ms = query?
        .split('&')
        .find_map(|pair| pair.strip_prefix("ms="))?;
    ms.parse().ok().filter(|ms| *ms <= MAX_HOLD_MS)
}

/// The request's own head, a line for the request and one for each header, sorted.
fn head(request: &Request<Incoming>) -> String {
    let headers = request.headers().iter();
    let mut lines: Vec<String> = headers
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    lines.sort_unstable();
    format!("{} {}\n{}", request.method(), request.uri(), lines.concat())
}

fn environment() -> Response<Body> {
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect();
    let json = serde_json::to_string(&variables).expect("a map of strings is always JSON");
    respond(
        StatusCode::OK,
        "application/json",
        Either::Left(Full::from(json)),
    )
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    let kind = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or("application/octet-stream").to_string();
    let body = request.into_body();
    if body.size_hint().upper().is_none_or(|it| it > READ_FIRST) {
        return respond(StatusCode::OK, &kind, Either::Right(body));
    }
    match body.collect().await {
        Ok(read) => respond(StatusCode::OK, &kind, Either::Left(read.to_bytes().into())),
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

/// Another protocol from then on: whatever comes goes back.
fn socket(request: Request<Incoming>) -> Response<Body> {
    let Some(protocol) = request.headers().get(UPGRADE).cloned() else {
        let wanted = "ask for an upgrade\n".into();
        return text(StatusCode::UPGRADE_REQUIRED, wanted);
    };
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        // A client that goes away is the client's business.
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    });
    let mut answer = text(StatusCode::SWITCHING_PROTOCOLS, String::new());
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, protocol);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    respond(
        status,
        "text/plain; charset=utf-8",
        Either::Left(Full::from(body)),
    )
}

fn respond(status: StatusCode, kind: &str, body: Body) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .header(SERVER, "skep-test-app")
        .body(body)
        .expect("a status and valid headers make a response")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn a_hold_is_bounded_and_must_be_a_number() {
        assert_eq!(hold_ms(Some("a=1&ms=250")), Some(250));
        for wrong in [
            None,
            Some(""),
            Some("ms="),
            Some("ms=-1"),
            Some("ms=600001"),
        ] {
            assert_eq!(hold_ms(wrong), None, "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn the_environment_is_json() {
        let body = environment().into_body();
        let Either::Left(full) = body else {
            panic!("text expected")
        };
        let bytes = full.collect().await.unwrap().to_bytes();
        let map: BTreeMap<String, String> = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            map.get("CARGO_PKG_NAME").map(String::as_str),
            Some("skep-test-app")
        );
    }
}
