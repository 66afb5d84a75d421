//! The last word of a deployment: one real request to the service's own address, through the
//! ingress. Only looks; what the app answers is its own affair.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::uri::Scheme;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use skep_identity::tls::unjudged_client_config;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// How long routes may take to reach the ingress.
const DEADLINE: Duration = Duration::from_secs(10);
/// What one answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Between two requests. The ingress announces no routes: it can only be asked.
const PAUSE: Duration = Duration::from_millis(50);
/// Largest page that is read, in bytes.
const PAGE_MAX: usize = 64 << 10;
/// Characters of a page that are told.
const SHOWN: usize = 60;
/// Where HTTPS is, if nobody says another port.
const HTTPS_PORT: u16 = 443;
/// Present when the ingress itself answers, not the app.
const INGRESS_ERROR: &str = "x-skep-error";

type Error = Box<dyn std::error::Error + Send + Sync>;

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
        let answer = answer.unwrap_or_else(|_| Answer::None(silence()));
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

async fn request(url: &str) -> Result<Answer, Error> {
    let uri: Uri = url.parse()?;
    let host = uri.host().ok_or("a URL without a host")?;
    let authority = uri.authority().ok_or("a URL without a host")?.as_str();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let place = (host, uri.port_u16().unwrap_or(80));
    let response = exchange(place, authority, path).await?;
    let status = response.status().as_u16();
    Ok(match refusal(&response) {
        Some(why) => Answer::None(why),
        None => Answer::App(status),
    })
}

/// Why the ingress itself answers; none: the app does.
fn refusal<B>(response: &Response<B>) -> Option<String> {
    let why = response.headers().get(INGRESS_ERROR)?;
    let why = String::from_utf8_lossy(why.as_bytes()).into_owned();
    let status = response.status().as_u16();
    Some(format!("the ingress answers {status}: {why}"))
}

/// One GET at `place` for the host `authority`. The body ends with the connection that comes with it.
async fn exchange(
    (host, port): (&str, u16),
    authority: &str,
    path: &str,
) -> Result<Response<Incoming>, Error> {
    get(connect(host, port).await?, authority, path).await
}

/// The same under TLS, whatever certificate is shown: what is asked for is no secret, and what comes is only looked at.
async fn exchange_tls(
    (host, port): (&str, u16),
    authority: &str,
    path: &str,
) -> Result<Response<Incoming>, Error> {
    let uri: Uri = authority.parse()?;
    let name = uri.host().ok_or("a URL without a host")?;
    let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())?;
    let stream = connect(host, port).await?;
    let connector = TlsConnector::from(unjudged_client_config(&[b"http/1.1"]));
    get(connector.connect(name, stream).await?, authority, path).await
}

/// Where an answer sends to that plain requests get where all are to speak TLS: the port of the same host. None: it is
/// no such answer.
fn tls_port<B>(response: &Response<B>, authority: &str) -> Option<u16> {
    let location = response.headers().get(header::LOCATION)?;
    let target: Uri = location.to_str().ok()?.parse().ok()?;
    let asked: Uri = authority.parse().ok()?;
    let is_same = target.scheme() == Some(&Scheme::HTTPS)
        && target.host()?.eq_ignore_ascii_case(asked.host()?);
    (response.status().is_redirection() && is_same).then(|| target.port_u16().unwrap_or(HTTPS_PORT))
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    authority: &str,
    path: &str,
) -> Result<Response<Incoming>, Error> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the body that it reads: nobody else sends on it.
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::CONNECTION, "close")
        .header(
            header::USER_AGENT,
            concat!("skep/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())?;
    Ok(sender.send_request(request).await?)
}

/// Whether a connection can be made to `host`.
///
/// # Errors
/// Why not.
pub(crate) async fn opens(host: &str, port: u16) -> Result<(), String> {
    let opened = tokio::time::timeout(ANSWER_DEADLINE, connect(host, port)).await;
    match opened {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(silence()),
    }
}

/// The page at the root of `authority`, asked for at `place`; where that sends to TLS, there at the same machine.
///
/// # Errors
/// Why there is none, in words.
pub(crate) async fn page(place: (&str, u16), authority: &str) -> Result<String, String> {
    let asked = async {
        let mut response = exchange(place, authority, "/").await?;
        if let Some(port) = tls_port(&response, authority) {
            response = exchange_tls((place.0, port), authority, "/").await?;
        }
        if let Some(why) = refusal(&response) {
            return Err(why.into());
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), PAGE_MAX)
            .collect()
            .await?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        match status.is_success() {
            true => Ok(text),
            false => Err(Error::from(format!("the answer is {status}"))),
        }
    };
    let answer = tokio::time::timeout(ANSWER_DEADLINE, asked).await;
    let answer = answer.map_err(|_| silence())?;
    answer.map_err(|error| error.to_string())
}

/// Asks for that page until it is the right one, as long as routes may take to get there.
///
/// # Errors
/// What came last instead.
pub(crate) async fn page_until(
    place: (&str, u16),
    authority: &str,
    is_it: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let last = match page(place, authority).await {
            Ok(page) if is_it(&page) => return Ok(()),
            Ok(page) => {
                let begin: String = page.chars().take(SHOWN).collect();
                format!("the page begins with `{}`", begin.trim_end().escape_debug())
            }
            Err(why) => why,
        };
        if Instant::now() >= deadline {
            return Err(last);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn silence() -> String {
    format!("no answer within {} s", ANSWER_DEADLINE.as_secs())
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
    use std::sync::Arc;

    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    #[test]
    fn only_to_tls_of_the_same_host_is_followed() {
        let port = |status: u16, location: &str| {
            let answer = Response::builder()
                .status(status)
                .header(header::LOCATION, location);
            tls_port(&answer.body(()).expect("an answer"), "a.example:80")
        };
        assert_eq!(port(308, "https://A.example/x"), Some(443));
        assert_eq!(port(308, "https://a.example:8443/"), Some(8443));
        assert_eq!(port(200, "https://a.example/"), None);
        assert_eq!(port(302, "http://a.example/login"), None);
        assert_eq!(port(302, "https://b.example/"), None);
        assert_eq!(port(302, "/login"), None);
    }

    #[tokio::test]
    async fn a_page_is_had_where_all_are_sent_to_tls() {
        let names = vec!["app.localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a pair");
        let plain = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let secure = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let ports = [&plain, &secure].map(|it| it.local_addr().expect("bound").port());
        let served = tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            let (mut stream, _) = plain.accept().await.expect("a client");
            let _ = stream.read(&mut buffer).await.expect("a request");
            let sent = format!(
                "HTTP/1.1 308 x\r\nlocation: https://app.localhost:{}/\r\ncontent-length: 0\r\n\r\n",
                ports[1]
            );
            stream.write_all(sent.as_bytes()).await.expect("answered");
            let (stream, _) = secure.accept().await.expect("a client");
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let mut stream = acceptor.accept(stream).await.expect("a handshake");
            let _ = stream.read(&mut buffer).await.expect("a request");
            let page = "HTTP/1.1 200 x\r\ncontent-length: 2\r\n\r\nit";
            stream.write_all(page.as_bytes()).await.expect("answered");
            stream.shutdown().await.expect("closed");
        });
        let got = page(("127.0.0.1", ports[0]), "app.localhost").await;
        assert_eq!(got.as_deref(), Ok("it"));
        served.await.expect("no panic");
    }

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
