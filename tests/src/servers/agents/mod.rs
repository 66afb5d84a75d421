//! Agents without machines: each keeps a real session with a server over mTLS, says that what it is
//! told to run is healthy after a set time, and samples as a real agent does. Thousands of them in
//! one process make a large cluster's state and load through the very path that real agents use.

mod agent;
pub mod guest;
pub mod program;
mod work;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use skep_proto::v1::agents_client::AgentsClient;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::grpc_tls;
use super::node::{Machine, Member, join_over};
use crate::tls;
use agent::Agent;
use work::Work;

/// Handshakes and joins under way: more would only wait for the processor.
const AT_ONCE: usize = 32;
/// What a build writes, where builds write something.
pub const BUILD_LINES: [&str; 3] = ["fetching", "building", "built"];

/// How simulated agents behave.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behavior {
    /// From being told to run something to saying that it is healthy.
    pub start: Duration,
    /// They say what everything uses, as often as real ones.
    pub has_samples: bool,
    /// Each build writes [`BUILD_LINES`].
    pub has_build_logs: bool,
}

/// What they have come to, all together.
#[derive(Debug, Default)]
struct Counts {
    connected: AtomicUsize,
    healthy: AtomicUsize,
}

/// Joins so many nodes over a few connections; their names count from `first`.
///
/// # Errors
/// One is refused.
pub async fn join_all(
    server: SocketAddr,
    ca_pem: &str,
    token: &str,
    first: usize,
    count: usize,
) -> Result<Vec<Member>> {
    let config = grpc_tls(ca_pem, None)?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE.min(count) {
        let (config, next, token) = (config.clone(), next.clone(), token.to_owned());
        tasks.spawn(async move {
            let mut client = AgentsClient::new(tls::channel(server, config).await?);
            let mut joined = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(joined);
                }
                let name = format!("node{:05}", first + number);
                joined.push(join_over(&mut client, &token, (&name, Machine::default())).await?);
            }
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(joined) = tasks.join_next().await {
        all.extend(joined??);
    }
    Ok(all)
}

/// Agents in session; their end ends the sessions.
pub struct Agents {
    stop: CancellationToken,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

impl Agents {
    /// Lets every node keep a session with `server`, again whenever it breaks.
    pub fn start(server: SocketAddr, members: Vec<Member>, behavior: Behavior) -> Self {
        let (stop, counts) = (CancellationToken::new(), Arc::new(Counts::default()));
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for member in members {
            let agent = Agent {
                server,
                member,
                behavior,
                room: room.clone(),
                counts: counts.clone(),
                work: Work::new(behavior.start),
                began,
            };
            let stopped = stop.clone();
            tasks.spawn(async move {
                let _ = stopped.run_until_cancelled_owned(agent.keep()).await;
            });
        }
        Self {
            stop,
            counts,
            _tasks: tasks,
        }
    }

    /// How many are in session.
    pub fn connected(&self) -> usize {
        self.counts.connected.load(Ordering::Relaxed)
    }

    /// How many allocations the server has acknowledged to be healthy.
    pub fn healthy(&self) -> usize {
        self.counts.healthy.load(Ordering::Relaxed)
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
