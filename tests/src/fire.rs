//! Small requests on kept connections from one thread of its own: cheap, so that the cores are left to what is
//! measured. Reads answers with a `content-length` alone.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Timers wake on the millisecond: less than this late is not the server's doing.
const TIMER_SLACK: Duration = Duration::from_millis(2);
/// Of the head of an answer and a small body.
const BUFFER_BYTES: usize = 16 << 10;

/// What to ask, and how.
#[derive(Debug, Clone)]
pub struct Fire {
    /// Whom.
    pub address: SocketAddr,
    /// The host name.
    pub host: String,
    /// Connections, each with one request at a time.
    pub connections: u32,
    /// For how long.
    pub duration: Duration,
    /// Requests a second of all connections; none: each as soon as the one before is answered.
    pub rate: Option<f64>,
}

/// What came of it. Every answer was a 200.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Requests a second.
    pub rate: f64,
    /// Requests.
    pub count: u64,
    /// Of each request, in microseconds; from when it was due where its connection was still busy.
    pub latencies_us: Vec<f64>,
}

impl Fire {
    /// Fires, and waits for the last answer.
    ///
    /// # Errors
    /// A connection broke, or an answer was another one.
    pub async fn run(self) -> Result<Outcome> {
        let thread = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(self.all())
        };
        tokio::task::spawn_blocking(thread).await?
    }

    async fn all(self) -> Result<Outcome> {
        let mut tasks = JoinSet::new();
        let begun = Instant::now();
        for number in 0..self.connections {
            tasks.spawn(self.clone().one(begun, number));
        }
        let mut latencies_us = Vec::new();
        while let Some(done) = tasks.join_next().await {
            latencies_us.extend(done??);
        }
        let count = latencies_us.len() as u64;
        Ok(Outcome {
            rate: count as f64 / begun.elapsed().as_secs_f64(),
            count,
            latencies_us,
        })
    }

    async fn one(self, begun: Instant, number: u32) -> Result<Vec<f64>> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let request = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", self.host);
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut latencies = Vec::new();
        let due = |turn: u32| {
            let apart = self.rate.map(|rate| 1.0 / rate)?;
            let place = f64::from(turn) * f64::from(self.connections) + f64::from(number);
            Some(begun + Duration::from_secs_f64(place * apart))
        };
        for turn in 0.. {
            let due = due(turn);
            if due.unwrap_or_else(Instant::now) >= begun + self.duration {
                break;
            }
            if let Some(due) = due {
                sleep_until(due).await;
            }
            let now = Instant::now();
            let from = due.filter(|due| now > *due + TIMER_SLACK).unwrap_or(now);
            stream.write_all(request.as_bytes()).await?;
            answer(&mut stream, &mut buffer).await?;
            latencies.push(from.elapsed().as_secs_f64() * 1e6);
        }
        Ok(latencies)
    }
}

/// Reads one answer to its end.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "closed without an answer");
        filled += read;
        let head = buffer[..filled].windows(4).position(|it| it == b"\r\n\r\n");
        let Some(end) = head else {
            ensure!(filled < buffer.len(), "a head without an end");
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end])?;
        if !head.starts_with("HTTP/1.1 200") {
            bail!("{head}");
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        let whole = end + 4 + length.context("an answer without its length")?;
        while filled < whole {
            ensure!(whole <= buffer.len(), "an answer of {whole} bytes");
            let read = stream.read(&mut buffer[filled..whole]).await?;
            ensure!(read > 0, "closed in the middle of an answer");
            filled += read;
        }
        return Ok(());
    }
}
