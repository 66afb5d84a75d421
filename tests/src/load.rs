//! Requests at a steady rate through an ingress, kept-alive and fresh connections mixed, each
//! failure counted with its cause.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::http::connect;

/// Clients at once; every second one opens a connection for each request.
pub const CLIENTS: u32 = 16;
/// Longer than any answer may take: what exceeds it has failed.
const DEADLINE: Duration = Duration::from_secs(30);
/// Different causes that a report holds.
const MAX_CAUSES: usize = 64;

/// What became of the requests.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Answered with success.
    pub served: u64,
    /// Failed requests by cause: any other status (a route that is missing is a 404), or what
    /// broke.
    pub failures: BTreeMap<String, u64>,
    /// From start to stop.
    pub elapsed: Duration,
    /// The longest that a request took, whatever became of it.
    pub slowest: Duration,
}

impl Report {
    /// All failures.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Requests a second that were answered or failed.
    pub fn rate(&self) -> f64 {
        (self.served + self.failed()) as f64 / self.elapsed.as_secs_f64().max(0.001)
    }

    fn add(&mut self, outcome: Result<(), String>, took: Duration) {
        self.slowest = self.slowest.max(took);
        match outcome {
            Ok(()) => self.served += 1,
            Err(cause)
                if self.failures.len() < MAX_CAUSES || self.failures.contains_key(&cause) =>
            {
                *self.failures.entry(cause).or_default() += 1;
            }
            Err(_) => *self.failures.entry("other causes".to_owned()).or_default() += 1,
        }
    }
}

/// Running clients.
pub struct Load {
    report: Arc<Mutex<Report>>,
    clients: JoinSet<()>,
    stop: CancellationToken,
    begun: Instant,
}

impl Load {
    /// Sends `rate` requests a second for `/` of `host` to the ingress until stopped.
    pub fn start(ingress: SocketAddr, host: &str, rate: u32) -> Self {
        Self::balanced(&[ingress], host, rate)
    }

    /// The same as through a load balancer in front of several: what one ingress does not take, because
    /// it does not listen or has nothing of the host, goes to the next. Nothing else is tried again.
    pub fn balanced(ingresses: &[SocketAddr], host: &str, rate: u32) -> Self {
        let report = Arc::new(Mutex::new(Report::default()));
        let stop = CancellationToken::new();
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let client = Client {
                ingresses: ingresses.to_vec(),
                host: host.to_owned(),
                keeps_alive: number % 2 == 0,
                kept: None,
                pause: Duration::from_secs(1) * CLIENTS / rate.max(1),
                begun: Instant::now(),
                report: Arc::clone(&report),
            };
            clients.spawn(client.run(stop.clone()));
        }
        Self {
            report,
            clients,
            stop,
            begun: Instant::now(),
        }
    }

    /// How it stands.
    pub fn so_far(&self) -> Report {
        let mut report = self
            .report
            .lock()
            .expect("no client panics while counting")
            .clone();
        report.elapsed = self.begun.elapsed();
        report
    }

    /// Ends it once the requests under way are answered.
    pub async fn stop(mut self) -> Report {
        self.stop.cancel();
        while self.clients.join_next().await.is_some() {}
        self.so_far()
    }
}

struct Client {
    /// The one that took the last request comes first.
    ingresses: Vec<SocketAddr>,
    host: String,
    keeps_alive: bool,
    kept: Option<SendRequest<Full<Bytes>>>,
    pause: Duration,
    begun: Instant,
    report: Arc<Mutex<Report>>,
}

impl Client {
    async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(self.pause);
        // What a slow answer held up is made up for: the rate is the load's, not the server's.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let begun = Instant::now();
            let outcome = match timeout(DEADLINE, self.request()).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    self.kept = None;
                    Err(format!("no answer within {DEADLINE:?}"))
                }
            };
            if let Err(cause) = &outcome {
                eprintln!("load: {:.3} s: {cause}", self.begun.elapsed().as_secs_f64());
            }
            self.report
                .lock()
                .expect("no client panics while counting")
                .add(outcome, begun.elapsed());
        }
    }

    async fn request(&mut self) -> Result<(), String> {
        let mut last = Err("no ingress".to_owned());
        for _ in 0..self.ingresses.len() {
            last = self.request_one().await;
            match &last {
                Err(cause) if is_not_taken(cause) => {
                    self.kept = None;
                    self.ingresses.rotate_left(1);
                }
                _ => return last,
            }
        }
        last
    }

    async fn request_one(&mut self) -> Result<(), String> {
        // A kept connection that was closed while it was idle costs no request: the next is
        // sent on a new one, as every client does.
        if let Some(mut sender) = self.kept.take()
            && sender.ready().await.is_ok()
        {
            match self.send(sender).await {
                Err(Broken::Unsent) => {}
                Err(Broken::Cause(cause)) => return Err(format!("kept connection: {cause}")),
                Ok(()) => return Ok(()),
            }
        }
        let sender = connect(self.ingresses[0])
            .await
            .map_err(|error| format!("connect: {error:#}"))?;
        match self.send(sender).await {
            Ok(()) => Ok(()),
            Err(Broken::Unsent) => Err("fresh connection: closed at once".to_owned()),
            Err(Broken::Cause(cause)) => Err(format!("fresh connection: {cause}")),
        }
    }

    async fn send(&mut self, mut sender: SendRequest<Full<Bytes>>) -> Result<(), Broken> {
        let request = Request::get("/")
            .header(HOST, self.host.as_str())
            .body(Full::default());
        let request = request.expect("a path and a host name make a request");
        let answer = match sender.try_send_request(request).await {
            Ok(answer) => answer,
            Err(mut error) => {
                return Err(match error.take_message() {
                    // Given back: not a byte of it was written.
                    Some(_) => Broken::Unsent,
                    None => Broken::Cause(told(&error.into_error())),
                });
            }
        };
        let status = answer.status();
        let reason = answer
            .headers()
            .get("x-skep-error")
            .and_then(|value| value.to_str().ok());
        let reason = reason.map(str::to_owned);
        answer
            .into_body()
            .collect()
            .await
            .map_err(|error| Broken::Cause(told(&error)))?;
        if self.keeps_alive {
            self.kept = Some(sender);
        }
        if !status.is_success() {
            return Err(Broken::Cause(format!(
                "{} {}",
                status.as_u16(),
                reason.unwrap_or_default()
            )));
        }
        Ok(())
    }
}

/// Whether an ingress said, or shows by not listening, that the request is not for it.
fn is_not_taken(cause: &str) -> bool {
    let said = [": 404 unknown_host", ": 503 no_backend"];
    cause.starts_with("connect: ") || said.iter().any(|said| cause.ends_with(said))
}

enum Broken {
    Unsent,
    Cause(String),
}

fn told(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each first request of a connection with `answer`, then closes.
    async fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    async fn report(address: SocketAddr) -> Report {
        report_of(&[address]).await
    }

    async fn report_of(ingresses: &[SocketAddr]) -> Report {
        let load = Load::balanced(ingresses, "x", 200);
        while load.so_far().served + load.so_far().failed() < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        load.stop().await
    }

    #[tokio::test]
    async fn only_what_an_ingress_does_not_take_goes_to_the_next() {
        let good = server("HTTP/1.1 200 x\r\ncontent-length: 2\r\n\r\nok").await;
        let not_there = "HTTP/1.1 404 x\r\nx-skep-error: unknown_host\r\ncontent-length: 0\r\n\r\n";
        let passed_on = report_of(&[server(not_there).await, good]).await;
        assert!(passed_on.failed() == 0, "{passed_on:?}");
        let broken = server("HTTP/1.1 502 x\r\ncontent-length: 0\r\n\r\n").await;
        let failed = report_of(&[broken, good]).await;
        assert!(failed.served == 0 && failed.failed() >= 20, "{failed:?}");
    }

    #[tokio::test]
    async fn what_fails_is_counted_and_what_is_served_is_not() {
        let good = report(server("HTTP/1.1 200 x\r\ncontent-length: 2\r\n\r\nok").await).await;
        assert!(good.failed() == 0 && good.served >= 20, "{good:?}");
        let closed = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port")
            .local_addr();
        let wrong = [
            server("HTTP/1.1 404 x\r\ncontent-length: 2\r\n\r\nno").await,
            server("HTTP/1.1 502 x\r\ncontent-length: 0\r\n\r\n").await,
            server("HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\ncut").await,
            server("").await,
            closed.expect("an address"),
        ];
        for address in wrong {
            let bad = report(address).await;
            assert!(bad.served == 0 && bad.failed() >= 20, "{bad:?}");
        }
    }
}
