//! Traefik's own word for which table it uses: the router that each configuration has for that, asked for at its
//! API until it is there.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use skep_ingress::traefik::revision_router;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::table::Tables;

/// Between two questions: its API answers at once and tells of no change by itself.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Between two pings: far less than Traefik goes on accepting after it was asked to end.
const PING_EVERY: Duration = Duration::from_millis(250);
/// Pings in a row without an answer.
const MAX_MISSED: u32 = 5;
/// One question.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// A table that is not in use so long after it was fetched has been refused, or the API is another
/// Traefik's.
const COMPLAIN_AFTER: Duration = Duration::from_secs(10);

/// Asks `api` after each table that Traefik gets by `provider` (`http` or `file`). Ends with the tables.
pub(super) async fn follow(api: SocketAddr, provider: &str, tables: Arc<Tables>) {
    let mut fetched = tables.fetched();
    while fetched.changed().await.is_ok() {
        let since = Instant::now();
        let mut has_complained = false;
        loop {
            let sequence = *fetched.borrow_and_update();
            let why = match timeout(ANSWER_LIMIT, uses(api, provider, sequence)).await {
                Ok(Ok(true)) => {
                    tables.confirmed(sequence);
                    break;
                }
                Ok(Ok(false)) => "it does not know the table that it has fetched".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it does not answer".to_owned(),
            };
            if !has_complained && since.elapsed() > COMPLAIN_AFTER {
                has_complained = true;
                tracing::warn!(%api, sequence, why, "Traefik does not say that it uses the routes: is this its API, and does its log refuse the configuration?");
            }
            sleep(ASK_EVERY).await;
        }
    }
}

/// Waits until the Traefik at `api` uses a table that was polled.
pub(super) async fn in_use(api: SocketAddr, tables: &Tables) {
    loop {
        let sequence = *tables.fetched().borrow();
        let asked = timeout(ANSWER_LIMIT, uses(api, "http", sequence));
        if sequence > 0 && matches!(asked.await, Ok(Ok(true))) {
            tables.confirmed(sequence);
            return;
        }
        sleep(ASK_EVERY).await;
    }
}

/// Waits until the Traefik at `api` has no answer any more, or was asked to end by somebody; says which.
pub(super) async fn answers_no_more(api: SocketAddr) -> &'static str {
    let mut missed = 0;
    while missed < MAX_MISSED {
        sleep(PING_EVERY).await;
        match timeout(ANSWER_LIMIT, ask(api, "/ping")).await {
            Ok(Ok(StatusCode::SERVICE_UNAVAILABLE)) => return "it was asked to end",
            Ok(Ok(StatusCode::OK)) => missed = 0,
            _ => missed += 1,
        }
    }
    "it does not answer"
}

async fn uses(api: SocketAddr, provider: &str, sequence: u64) -> io::Result<bool> {
    let path = format!("/api/http/routers/{}@{provider}", revision_router(sequence));
    match ask(api, &path).await? {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        other => Err(io::Error::other(format!("it answers {other}"))),
    }
}

async fn ask(api: SocketAddr, path: &str) -> io::Result<StatusCode> {
    let stream = TcpStream::connect(api).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let request = Request::get(path)
        .header(HOST, api.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let asked = async {
        let answer = sender.send_request(request).await;
        answer.map_err(io::Error::other)
    };
    // It may end with the answer: what is asked hears of that itself.
    let carried = async {
        let _ = connection.await;
        pending().await
    };
    let answer = tokio::select! {
        answer = asked => answer?,
        never = carried => never,
    };
    Ok(answer.status())
}
