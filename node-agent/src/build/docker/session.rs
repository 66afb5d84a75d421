//! The session that BuildKit wants of whoever asks for a build: a connection to the daemon on which
//! the daemon is the client of a gRPC service. Offers nothing but the sign of life and the secrets that
//! the build declares: no folder, no credentials, so that a build reaches only what was sent with it.
//!
//! Answered with hyper alone: of gRPC it takes one constant message, and one with a field.

use std::convert::Infallible;
use std::sync::Arc;

use bollard::BollardRequest;
use bollard::errors::Error;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioExecutor;
use prost::Message as _;

use crate::runtime::transport::Socket;

/// The only method: BuildKit ends the session of a client that does not answer it.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse { status: SERVING }` in a gRPC frame.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
/// gRPC's OK and UNIMPLEMENTED.
const OK: &str = "0";
const UNIMPLEMENTED: &str = "12";
const NOT_FOUND: &str = "5";
/// What steps ask that mount a secret.
const GET_SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
/// Before each message of gRPC: whether it is compressed, and its length.
const FRAME_HEADER: usize = 5;
/// A question: the name of a secret.
const QUESTION_MAX: usize = 64 << 10;
/// Questions at a time: more than one asks nobody.
const STREAMS_MAX: u32 = 32;

type Body =
    StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

/// An open session. Dropping it closes it.
pub(super) struct Session {
    connection: Upgraded,
    secrets: Arc<Vec<(String, String)>>,
}

impl Session {
    /// Opens the session called `id`, below the API's path `base`, that gives these secrets to steps which
    /// mount them.
    ///
    /// # Errors
    /// The daemon does not answer, or does not want one.
    pub(super) async fn open(
        socket: &Socket,
        base: &str,
        id: &str,
        secrets: &[(String, String)],
    ) -> Result<Self, Error> {
        let mut request: BollardRequest = Request::post(format!("{base}/session"))
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "h2c")
            .header("X-Docker-Expose-Session-Uuid", id)
            .header("X-Docker-Expose-Session-Name", "skep")
            .header("X-Docker-Expose-Session-Grpc-Method", HEALTH_CHECK)
            .body(bollard::body_full(Bytes::new()))?;
        if !secrets.is_empty() {
            let method = hyper::header::HeaderValue::from_static(GET_SECRET);
            request
                .headers_mut()
                .append("X-Docker-Expose-Session-Grpc-Method", method);
        }
        let answer = socket.send(request).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::DockerResponseServerError {
                status_code: answer.status().as_u16(),
                message: "the daemon opens no session for BuildKit".to_owned(),
            });
        }
        let connection = hyper::upgrade::on(answer).await?;
        Ok(Self {
            connection,
            secrets: Arc::new(secrets.to_vec()),
        })
    }

    /// Answers for as long as it is polled. A connection that breaks fails the build by itself.
    pub(super) async fn serve(self) -> Infallible {
        let secrets = self.secrets;
        let answer = move |request| answer(request, Arc::clone(&secrets));
        let served = http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(STREAMS_MAX)
            .serve_connection(self.connection, service_fn(answer))
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "BuildKit's session ended");
        }
        std::future::pending().await
    }
}

async fn answer(
    request: Request<Incoming>,
    secrets: Arc<Vec<(String, String)>>,
) -> Result<Response<Body>, Infallible> {
    let (message, status) = match request.uri().path() {
        HEALTH_CHECK => (Some(Bytes::from_static(SERVING)), OK),
        GET_SECRET if !secrets.is_empty() => match secret(request, &secrets).await {
            Some(message) => (Some(message), OK),
            None => (None, NOT_FOUND),
        },
        _ => (None, UNIMPLEMENTED),
    };
    let message = message.map(Frame::data);
    let mut trailers = HeaderMap::new();
    trailers.insert(
        "grpc-status",
        hyper::header::HeaderValue::from_static(status),
    );
    let frames: Vec<_> = message
        .into_iter()
        .chain([Frame::trailers(trailers)])
        .map(Ok)
        .collect();
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/grpc"),
    );
    Ok(response)
}

/// The part that is used of `moby.buildkit.secrets.v1.GetSecretRequest` and `GetSecretResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct GetSecretRequest {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetSecretResponse {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

/// A secret that a step asks for, in a gRPC frame; none: it was not declared.
async fn secret(request: Request<Incoming>, secrets: &[(String, String)]) -> Option<Bytes> {
    let body = Limited::new(request.into_body(), QUESTION_MAX);
    let body = body.collect().await.ok()?.to_bytes();
    let asked = GetSecretRequest::decode(body.get(FRAME_HEADER..)?).ok()?;
    let (_, value) = secrets.iter().find(|(name, _)| *name == asked.id)?;
    let data = value.as_bytes().to_vec();
    let message = GetSecretResponse { data }.encode_to_vec();
    let len = u32::try_from(message.len()).ok()?;
    let mut frame = vec![0];
    frame.extend(len.to_be_bytes());
    frame.extend(message);
    Some(frame.into())
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};
    use hyper::client::conn::http2 as client;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    /// As the daemon does: reads the request, switches, and is the client from then on.
    async fn switch(listener: &UnixListener, answer: &[u8]) -> (String, UnixStream) {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.expect("a request"));
        }
        stream.write_all(answer).await.expect("answered");
        (String::from_utf8(request).expect("text"), stream)
    }

    #[tokio::test]
    async fn it_answers_that_it_lives_and_offers_nothing_else() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let socket = Socket::new(&path);
        let switched =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
        let secrets = [("TOKEN".to_owned(), "s3".to_owned())];
        let (opened, (request, stream)) = tokio::join!(
            Session::open(&socket, "/v1.41", "the-id", &secrets),
            switch(&listener, switched)
        );
        assert!(
            request.starts_with("POST /v1.41/session HTTP/1.1"),
            "{request}"
        );
        assert!(
            request
                .to_lowercase()
                .contains("x-docker-expose-session-uuid: the-id"),
            "{request}"
        );
        let serving = tokio::spawn(opened.expect("a session").serve());
        let (mut daemon, connection) =
            client::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("HTTP/2");
        let connection = tokio::spawn(connection);
        type Case = (&'static str, &'static [u8], &'static str, &'static [u8]);
        let cases: [Case; 5] = [
            (HEALTH_CHECK, b"", OK, SERVING),
            (
                "/moby.filesync.v1.Auth/Credentials",
                b"",
                UNIMPLEMENTED,
                &[],
            ),
            (
                "/moby.filesync.v1.FileSync/DiffCopy",
                b"",
                UNIMPLEMENTED,
                &[],
            ),
            (
                GET_SECRET,
                b"\0\0\0\0\x07\x0a\x05TOKEN",
                OK,
                b"\0\0\0\0\x04\x0a\x02s3",
            ),
            (GET_SECRET, b"\0\0\0\0\x07\x0a\x05OTHER", NOT_FOUND, &[]),
        ];
        for (method, question, status, message) in cases {
            let request = Request::post(format!("http://session{method}"))
                .body(Full::new(Bytes::from_static(question)))
                .expect("a request");
            let answer = daemon.send_request(request).await.expect("an answer");
            let body = answer.into_body().collect().await.expect("a body");
            let trailers = body.trailers().expect("trailers");
            assert_eq!(trailers["grpc-status"], status, "{method}");
            assert_eq!(body.to_bytes(), message, "{method}");
        }
        // Whoever drops the build closes the session.
        serving.abort();
        let ended = tokio::time::timeout(std::time::Duration::from_secs(5), connection).await;
        ended.expect("the daemon sees the end").expect("ran").ok();
    }

    #[tokio::test]
    async fn a_daemon_that_wants_no_session_says_so() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let socket = Socket::new(&path);
        let (opened, _) = tokio::join!(
            Session::open(&socket, "", "id", &[]),
            switch(
                &listener,
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
            )
        );
        let error = opened.err().expect("refused");
        assert!(error.to_string().contains("404"), "{error}");
    }
}
