//! Repositories over HTTP, by `git http-backend`: to whoever has a token that reads this one.

use std::process::Stdio;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::Shared;

type Answer = Response<Full<Bytes>>;

pub(super) async fn answer(shared: &Shared, parts: &Parts, body: Bytes) -> Answer {
    let path = parts.uri.path();
    let repository = path.trim_start_matches('/').split(".git/").next();
    if !may_read(shared, parts, repository.unwrap_or_default()) {
        let line = format!("{} {path}: 401", parts.method);
        shared.known().refused.push(line);
        let mut answer = plain(StatusCode::UNAUTHORIZED);
        let ask = HeaderValue::from_static("Basic realm=\"GitHub\"");
        answer.headers_mut().insert("www-authenticate", ask);
        return answer;
    }
    let out = run(shared, parts, body).await;
    out.unwrap_or_else(|| plain(StatusCode::INTERNAL_SERVER_ERROR))
}

fn may_read(shared: &Shared, parts: &Parts, repository: &str) -> bool {
    let header = parts.headers.get("authorization");
    let text = header.and_then(|it| it.to_str().ok()).unwrap_or_default();
    let pair = text
        .strip_prefix("Basic ")
        .and_then(|it| STANDARD.decode(it).ok());
    let pair = pair
        .and_then(|it| String::from_utf8(it).ok())
        .unwrap_or_default();
    let Some(token) = pair.strip_prefix("x-access-token:") else {
        return false;
    };
    let known = shared.known();
    known.given.iter().any(|it| {
        let is_its = it.contents_of.as_deref() == Some(repository);
        it.token == token && is_its && it.ends > SystemTime::now()
    })
}

/// CGI, as RFC 3875 has it.
async fn run(shared: &Shared, parts: &Parts, body: Bytes) -> Option<Answer> {
    let header = |name: &str| {
        let value = parts.headers.get(name).and_then(|it| it.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &shared.repositories)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    let writing = tokio::spawn(async move { stdin.write_all(&body).await });
    let out = child.wait_with_output().await.ok()?.stdout;
    // What it does not want to read it leaves.
    let _ = writing.await;
    let at = out.windows(4).position(|it| it == b"\r\n\r\n")?;
    let mut answer = Response::new(Full::from(Bytes::copy_from_slice(&out[at + 4..])));
    for line in String::from_utf8_lossy(&out[..at]).lines() {
        let (name, value) = line.split_once(':')?;
        match name.eq_ignore_ascii_case("status") {
            true => {
                let code = value.split_whitespace().next()?.parse().ok()?;
                *answer.status_mut() = StatusCode::from_u16(code).ok()?;
            }
            false => {
                let name: http::HeaderName = name.parse().ok()?;
                answer
                    .headers_mut()
                    .insert(name, value.trim().parse().ok()?);
            }
        }
    }
    Some(answer)
}

fn plain(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}
