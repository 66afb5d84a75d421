//! A template by its URL: over https, or http on this machine; of a bounded size, and nowhere else than asked.

use std::time::Duration;

use http::header::{LOCATION, USER_AGENT};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use skep_model::problem::{Code, Problem};
use skep_model::template::MAX_BYTES;
use url::{Host, Url};

use crate::failure::chain;

/// All of it, redirects included.
const DEADLINE: Duration = Duration::from_secs(30);
/// Redirects in a row.
const REDIRECTS: usize = 5;

/// The text at a URL.
///
/// # Errors
/// A URL that is not accepted, not reachable, too large, or no text.
pub(super) async fn text(url: &str) -> Result<String, Problem> {
    let url =
        Url::parse(url).map_err(|error| Problem::invalid("URL", format!("not a URL: {error}")))?;
    let late = |_| Problem::new(Code::Timeout, format!("no template within {DEADLINE:?}"));
    tokio::time::timeout(DEADLINE, follow(url))
        .await
        .map_err(late)?
}

/// Only https, but for what does not leave this machine.
fn check(url: &Url) -> Result<(), Problem> {
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_here => Ok(()),
        other => Err(Problem::invalid("URL", format!("{other} is not accepted"))
            .hint("https; http only for an address of this machine")),
    }
}

/// Where a redirect leads, if it may.
fn next(from: &Url, location: &str) -> Result<Url, Problem> {
    let to = from.join(location).map_err(|error| {
        let told = format!("{from} leads to what is no URL: {error}");
        Problem::new(Code::SourceFailed, told)
    })?;
    check(&to)?;
    if to.scheme() != from.scheme() {
        let told = format!("{from} leads to {to}, by another scheme");
        return Err(Problem::new(Code::SourceFailed, told).hint("name the URL that it leads to"));
    }
    Ok(to)
}

async fn follow(mut url: Url) -> Result<String, Problem> {
    check(&url)?;
    for _ in 0..=REDIRECTS {
        let response = ask(&url).await?;
        if response.status().is_redirection() {
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|it| it.to_str().ok()).unwrap_or_default();
            url = next(&url, location)?;
            continue;
        }
        if !response.status().is_success() {
            let told = format!("{url} answers {}", response.status());
            return Err(Problem::new(Code::SourceFailed, told).hint("the URL of the file itself"));
        }
        return body(&url, response).await;
    }
    let told = format!("more than {REDIRECTS} redirects, the last to {url}");
    Err(Problem::new(Code::SourceFailed, told))
}

async fn ask(url: &Url) -> Result<Response<Incoming>, Problem> {
    let lost = |told: String| {
        Problem::new(Code::SourceFailed, format!("{url}: {told}"))
            .hint("is it reachable from here? A file on this machine does as well")
    };
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|error| lost(chain(&error)))?
        .https_or_http()
        .enable_http1()
        .build();
    let request = Request::get(url.as_str())
        .header(USER_AGENT, concat!("skep/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| lost(error.to_string()))?;
    let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
    client
        .request(request)
        .await
        .map_err(|error| lost(chain(&error)))
}

async fn body(url: &Url, response: Response<Incoming>) -> Result<String, Problem> {
    let limit = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
    let body = Limited::new(response.into_body(), limit).collect().await;
    let body = body.map_err(|error| {
        let told = format!("{url}: {error}; a template has up to {MAX_BYTES} bytes");
        Problem::new(Code::TooLarge, told)
    })?;
    String::from_utf8(body.to_bytes().into()).map_err(|_| {
        let told = format!("{url} is no text");
        Problem::new(Code::SourceFailed, told).hint("the URL of the file itself")
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each request in turn with one of these; its URL.
    async fn serve(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut asked = [0; 4096];
                let _ = stream.read(&mut asked).await;
                // Whoever has read enough goes away.
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        format!("http://{address}/t.toml")
    }

    fn found(body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
    }

    fn moved(to: &str) -> String {
        format!(
            "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
    }

    #[tokio::test]
    async fn a_text_is_fetched_and_redirects_are_followed() {
        let url = serve(vec![moved("/other.toml"), found("name")]).await;
        assert_eq!(text(&url).await.as_deref(), Ok("name"));
    }

    #[tokio::test]
    async fn what_is_too_large_or_leads_elsewhere_is_refused() {
        let large = "x".repeat(usize::try_from(MAX_BYTES).expect("small") + 1);
        let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        for (answers, code, part) in [
            (vec![found(&large)], Code::TooLarge, "up to 1048576"),
            (vec![missing.to_owned()], Code::SourceFailed, "404"),
            (
                vec![moved("http://example.com/")],
                Code::Invalid,
                "http is not",
            ),
            (
                vec![moved("https://example.com/")],
                Code::SourceFailed,
                "another scheme",
            ),
            (vec![moved("/"); 6], Code::SourceFailed, "more than 5"),
        ] {
            let url = serve(answers).await;
            let problem = text(&url).await.expect_err(part);
            assert_eq!(problem.code, code, "{problem}");
            assert!(problem.message.contains(part), "{problem}");
        }
    }

    #[test]
    fn http_is_for_this_machine_alone() {
        for (url, is_good) in [
            ("https://example.com/t", true),
            ("http://localhost:80/t", true),
            ("http://[::1]/t", true),
            ("http://example.com/t", false),
            ("http://localhost.example.com/t", false),
            ("file:///etc/passwd", false),
        ] {
            let url = Url::parse(url).expect(url);
            assert_eq!(check(&url).is_ok(), is_good, "{url}");
        }
    }
}
