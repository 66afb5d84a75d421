//! The last word of a deployment: one real request to the service's own address, through the
//! ingress. Only looks; what the app answers is its own affair.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::{Request, Uri, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long routes may take to reach the ingress.
const DEADLINE: Duration = Duration::from_secs(10);
/// What one answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Between two requests. The ingress announces no routes: it can only be asked.
const PAUSE: Duration = Duration::from_millis(50);
/// Present when the ingress itself answers, not the app.
const INGRESS_ERROR: &str = "x-skep-error";

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The app answered with this status.
    App(u16),
    /// It did not, for this reason.
    None(String),
}

/// Asks `url` until the app answers or the deadline has passed.
pub(crate) async fn ask(url: &str) -> Answer {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = tokio::time::timeout(ANSWER_DEADLINE, once(url)).await;
        let answer = answer.unwrap_or_else(|_| {
            Answer::None(format!("no answer within {} s", ANSWER_DEADLINE.as_secs()))
        });
        if matches!(answer, Answer::App(_)) || Instant::now() >= deadline {
            return answer;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(url: &str) -> Answer {
    request(url)
        .await
        .unwrap_or_else(|error| Answer::None(error.to_string()))
}

async fn request(url: &str) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let uri: Uri = url.parse()?;
    let host = uri.host().ok_or("a URL without a host")?;
    let stream = connect(host, uri.port_u16().unwrap_or(80)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let serving = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().ok_or("a URL without a host")?.as_str();
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(
            header::USER_AGENT,
            concat!("skep/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    serving.abort();
    let status = response.status().as_u16();
    Ok(match response.headers().get(INGRESS_ERROR) {
        Some(why) => {
            let why = String::from_utf8_lossy(why.as_bytes()).into_owned();
            Answer::None(format!("the ingress answers {status}: {why}"))
        }
        None => Answer::App(status),
    })
}

/// Names under `localhost` are this machine (RFC 6761), whatever the resolver thinks.
async fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    if host == "localhost" || host.ends_with(".localhost") {
        return TcpStream::connect((IpAddr::from(Ipv4Addr::LOCALHOST), port)).await;
    }
    TcpStream::connect((host, port)).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_ingress_is_asked_again_until_the_app_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let served = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in [
                "HTTP/1.1 503 x\r\nx-skep-error: no_backend\r\ncontent-length: 0\r\n\r\n",
                "HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n",
            ] {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut buffer = vec![0; 4096];
                let read = stream.read(&mut buffer).await.expect("a request");
                requests.push(String::from_utf8_lossy(&buffer[..read]).to_lowercase());
                stream.write_all(answer.as_bytes()).await.expect("answered");
            }
            requests
        });
        let host = format!("web-production-shop.localhost:{port}");
        assert_eq!(ask(&format!("http://{host}")).await, Answer::App(404));
        for request in served.await.expect("no panic") {
            assert!(request.starts_with("get / http/1.1"), "{request}");
            assert!(request.contains(&format!("host: {host}")), "{request}");
        }
    }
}
