//! What the agent counts, and `/metrics` and `/healthz` on a loopback address.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use skep_model::allocation::State;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::samples::Scrape;

/// Scrapes at a time.
const CONNECTIONS_MAX: usize = 16;
/// A scrape is one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Counts {
    states: Mutex<BTreeMap<&'static str, u64>>,
    docker_failures: Mutex<BTreeMap<&'static str, u64>>,
    restarts: AtomicU64,
    ledger_writes: AtomicU64,
    session: AtomicBool,
    runtime_ok: AtomicBool,
    builds: AtomicU64,
    image_bytes: Mutex<BTreeMap<&'static str, u64>>,
    image_liars: AtomicU64,
    lines_shipped: AtomicU64,
    lines_refused: AtomicU64,
    shipping_failures: AtomicU64,
}

/// The agent's counters; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    counts: Arc<Counts>,
}

impl Metrics {
    /// An allocation went from one state to another; none: it was not, or is not any more.
    pub(crate) fn state(&self, from: Option<State>, to: Option<State>) {
        let mut states = self.counts.states.lock();
        if let Some(count) = from.and_then(|state| states.get_mut(state.as_str())) {
            *count = count.saturating_sub(1);
        }
        if let Some(state) = to {
            *states.entry(state.as_str()).or_default() += 1;
        }
    }

    /// A container was begun after the first of its allocation.
    pub(crate) fn restart(&self) {
        self.counts.restarts.fetch_add(1, Relaxed);
    }

    /// A call to Docker failed.
    pub(crate) fn docker_failure(&self, action: &'static str) {
        *self
            .counts
            .docker_failures
            .lock()
            .entry(action)
            .or_default() += 1;
    }

    /// The ledger was written and synced.
    pub(crate) fn ledger_write(&self) {
        self.counts.ledger_writes.fetch_add(1, Relaxed);
    }

    /// A build began.
    pub(crate) fn build(&self) {
        self.counts.builds.fetch_add(1, Relaxed);
    }

    /// Bytes of images moved: taken from a `peer`, or `given` to one.
    pub(crate) fn image_bytes(&self, way: &'static str, bytes: u64) {
        *self.counts.image_bytes.lock().entry(way).or_default() += bytes;
    }

    /// Another node gave something else than it was asked for.
    pub(crate) fn image_liar(&self) {
        self.counts.image_liars.fetch_add(1, Relaxed);
    }

    /// Lines that receivers of logs took, and that they refused for good.
    pub(crate) fn shipped(&self, taken: u64, refused: u64) {
        self.counts.lines_shipped.fetch_add(taken, Relaxed);
        self.counts.lines_refused.fetch_add(refused, Relaxed);
    }

    /// A receiver of logs did not take any just now.
    pub(crate) fn shipping_failed(&self) {
        self.counts.shipping_failures.fetch_add(1, Relaxed);
    }

    /// Whether there is a session with a server.
    pub(crate) fn session(&self, connected: bool) {
        self.counts.session.store(connected, Relaxed);
    }

    /// Whether Docker answers.
    pub(crate) fn runtime(&self, ok: bool) {
        self.counts.runtime_ok.store(ok, Relaxed);
    }

    /// Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        let counts = &self.counts;
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let plain = |value: u64| vec![(String::new(), value)];
        let labelled = |name: &str, values: &BTreeMap<&str, u64>| -> Vec<(String, u64)> {
            let label = |(key, value): (&&str, &u64)| (format!("{{{name}=\"{key}\"}}"), *value);
            values.iter().map(label).collect()
        };
        let states = labelled("state", &counts.states.lock());
        family(
            "skep_agent_allocations",
            "gauge",
            "Allocations by observed state.",
            &states,
        );
        let restarts = plain(counts.restarts.load(Relaxed));
        family(
            "skep_agent_restarts_total",
            "counter",
            "Containers begun after the first.",
            &restarts,
        );
        let failures = labelled("action", &counts.docker_failures.lock());
        family(
            "skep_agent_docker_failures_total",
            "counter",
            "Calls to Docker that failed.",
            &failures,
        );
        let connected = plain(u64::from(counts.session.load(Relaxed)));
        family(
            "skep_agent_session_connected",
            "gauge",
            "1: in session with a server.",
            &connected,
        );
        let runtime = plain(u64::from(counts.runtime_ok.load(Relaxed)));
        family(
            "skep_agent_runtime_ok",
            "gauge",
            "1: Docker answers.",
            &runtime,
        );
        let writes = plain(counts.ledger_writes.load(Relaxed));
        family(
            "skep_agent_ledger_writes_total",
            "counter",
            "Durable writes of the ledger.",
            &writes,
        );
        let builds = plain(counts.builds.load(Relaxed));
        family(
            "skep_agent_builds_total",
            "counter",
            "Builds begun.",
            &builds,
        );
        let moved = labelled("way", &counts.image_bytes.lock());
        family(
            "skep_agent_image_bytes_total",
            "counter",
            "Bytes of images taken from other nodes (peer) and given to them (given).",
            &moved,
        );
        let liars = plain(counts.image_liars.load(Relaxed));
        family(
            "skep_agent_image_liars_total",
            "counter",
            "Blobs from other nodes that were not what they should be.",
            &liars,
        );
        for (name, count, help) in [
            (
                "skep_agent_log_lines_shipped_total",
                &counts.lines_shipped,
                "Lines that receivers of logs took.",
            ),
            (
                "skep_agent_log_lines_refused_total",
                &counts.lines_refused,
                "Lines that receivers of logs refused for good.",
            ),
            (
                "skep_agent_log_shipping_failures_total",
                &counts.shipping_failures,
                "Requests that receivers of logs did not take; they are made again.",
            ),
        ] {
            family(name, "counter", help, &plain(count.load(Relaxed)));
        }
        text
    }
}

/// Serves until `cancel`.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    scrape: Scrape,
    cancel: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accept = async {
        loop {
            let slot = slots.clone().acquire_owned().await.expect("never closed");
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    // Nothing signals that accepting works again.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (metrics, scrape) = (metrics.clone(), scrape.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (metrics, scrape) = (metrics.clone(), scrape.clone());
                async move {
                    let path = request.uri().path();
                    Ok::<_, Infallible>(answer(&metrics, scrape, path).await)
                }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                // A scraper that hangs up is its own affair.
                let _ = timeout(CONNECTION_TIMEOUT, served).await;
                drop(slot);
            });
        }
    };
    cancel.run_until_cancelled(accept).await;
}

async fn answer(metrics: &Metrics, scrape: Scrape, path: &str) -> Response<Full<Bytes>> {
    let (status, body) = match path {
        "/metrics" => {
            // The kernel may take its time to sum up a large group's memory.
            let read = spawn_blocking(move || scrape.render()).await;
            let body = metrics.render() + &read.unwrap_or_default();
            (StatusCode::OK, body)
        }
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        _ => (
            StatusCode::NOT_FOUND,
            "there are /metrics and /healthz here\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Binds the metrics' address.
///
/// # Errors
/// It is not a loopback address, or is taken.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        let why = format!(
            "{address} is not a loopback address: nothing is served unauthenticated elsewhere"
        );
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
    }
    TcpListener::bind(address).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_move_with_the_states() {
        let metrics = Metrics::default();
        metrics.state(None, Some(State::Running));
        metrics.state(Some(State::Running), Some(State::Healthy));
        metrics.docker_failure("answer");
        let text = metrics.render();
        for line in [
            "skep_agent_allocations{state=\"healthy\"} 1",
            "skep_agent_allocations{state=\"running\"} 0",
            "skep_agent_docker_failures_total{action=\"answer\"} 1",
            "skep_agent_session_connected 0",
        ] {
            assert!(text.lines().any(|had| had == line), "{line} in\n{text}");
        }
    }

    #[tokio::test]
    async fn only_loopback() {
        let error = bind("0.0.0.0:0".parse().expect("address"))
            .await
            .expect_err("refused");
        assert!(error.to_string().contains("not a loopback"), "{error}");
    }
}
