//! A small HTTP/1.1 client that hides nothing: one connection is one connection, nothing is
//! retried, every answer is read whole or as a stream of events.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::tls;

/// Longest wait for a whole answer: what takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(30);

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is not of that shape; shows it.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("status {}, body {}", self.status, self.text()))
    }

    /// A header as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// A connection.
///
/// # Errors
/// Refused, or not made in time.
pub async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    connect_over(address, None).await
}

/// A connection, on TLS where a configuration is given.
///
/// # Errors
/// Refused, not trusted, or not made in time.
pub async fn connect_over(
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
) -> Result<SendRequest<Full<Bytes>>> {
    if let Some(config) = tls {
        return speak(tls::connect(address, config).await?).await;
    }
    let stream = timeout(DEADLINE, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    speak(stream).await
}

async fn speak<S>(stream: S) -> Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Its end shows in the requests made on it.
        let _ = connection.await;
    });
    Ok(sender)
}

/// One request on a connection of its own.
///
/// # Errors
/// No connection, no answer, or not in time.
pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<Answer> {
    send_over(address, None, request).await
}

/// The same, on TLS where a configuration is given.
///
/// # Errors
/// As `send`.
pub async fn send_over(
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer> {
    let shown = format!("{} {}", request.method(), request.uri());
    let answer = async {
        let mut sender = connect_over(address, tls).await?;
        read(sender.send_request(request).await?).await
    };
    let answer = timeout(DEADLINE, answer)
        .await
        .map_err(anyhow::Error::from)
        .flatten();
    answer.with_context(|| format!("{shown} at {address}"))
}

/// Reads an answer to its end.
///
/// # Errors
/// It breaks off.
pub async fn read(answer: http::Response<Incoming>) -> Result<Answer> {
    let (head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    })
}

/// A GET by host name, as a browser would behind a resolver.
///
/// # Errors
/// As `send`.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    let request = Request::get(path)
        .header(HOST, host)
        .body(Full::default())?;
    send(address, request).await
}

/// A POST by host name.
///
/// # Errors
/// As `send`.
pub async fn post(address: SocketAddr, host: &str, path: &str, body: Bytes) -> Result<Answer> {
    let request = Request::post(path)
        .header(HOST, host)
        .body(Full::new(body))?;
    send(address, request).await
}

/// A stream of server-sent events (WHATWG HTML, 9.2).
pub struct Events {
    body: Incoming,
    buffer: String,
    // The connection lives as long as its sender.
    _sender: SendRequest<Full<Bytes>>,
}

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its `id`; empty where it has none.
    pub id: String,
    /// Its `event`; empty: a plain message.
    pub kind: String,
    /// Its `data`.
    pub data: String,
}

impl Events {
    /// Opens a stream.
    ///
    /// # Errors
    /// No connection, or an answer that is no stream of events.
    pub async fn open(
        address: SocketAddr,
        tls: Option<Arc<ClientConfig>>,
        request: Request<Full<Bytes>>,
    ) -> Result<Self> {
        let mut sender = connect_over(address, tls).await?;
        let answer = timeout(DEADLINE, sender.send_request(request)).await??;
        let kind = answer.headers().get(http::header::CONTENT_TYPE).cloned();
        let is_stream = kind
            .as_ref()
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if !answer.status().is_success() || !is_stream {
            let answer = read(answer).await?;
            bail!("status {}, {kind:?}: {}", answer.status, answer.text());
        }
        Ok(Self {
            body: answer.into_body(),
            buffer: String::new(),
            _sender: sender,
        })
    }

    /// The next event; none: the stream has ended.
    ///
    /// # Errors
    /// The connection broke, or nothing came in time.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        timeout(DEADLINE, self.read_event())
            .await
            .context("no event in time")?
    }

    async fn read_event(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let block: String = self.buffer.drain(..end + 2).collect();
                if let Some(event) = parse_event(&block) {
                    return Ok(Some(event));
                }
                continue;
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                self.buffer
                    .push_str(&String::from_utf8_lossy(&data).replace('\r', ""));
            }
        }
    }
}

/// Comments alone are no event.
fn parse_event(block: &str) -> Option<Event> {
    let mut event = Event::default();
    let mut has_field = false;
    let mut data = Vec::new();
    for line in block
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(':'))
    {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => event.id = value.to_owned(),
            "event" => event.kind = value.to_owned(),
            "data" => data.push(value),
            _ => continue,
        }
        has_field = true;
    }
    event.data = data.join("\n");
    has_field.then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_the_standard_says() {
        assert_eq!(parse_event(": keep-alive\n\n"), None);
        let event = parse_event("id: 7\nevent:end\ndata: a\ndata:b\n\n").unwrap();
        assert_eq!(
            (event.id.as_str(), event.kind.as_str(), event.data.as_str()),
            ("7", "end", "a\nb")
        );
    }
}
