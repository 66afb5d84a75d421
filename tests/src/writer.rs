//! The client of the consensus bench: a process of its own that writes as fast as it is answered,
//! to Skep's gRPC service of operators or to etcd, over mTLS, with the same number of connections,
//! of writes in flight and of bytes. It gets its job on stdin and prints its result on stdout.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use skep_proto::v1;
use skep_proto::v1::control_client::ControlClient;
use skep_proto::v1::write_request::Kind;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::etcd::{Client as EtcdClient, PutRequest};
use crate::figures::quantile;
use crate::tls;

/// Bytes of a command as it is in the log: the write, the time, a key that makes retries safe.
const COMMAND_BYTES: usize = 256;
const KEY_BYTES: usize = 16;
/// A write overwrites what its slot wrote before: the state stays small, the log grows.
const KEYS: u64 = 32;
/// This part of the measured time goes by before it, unmeasured.
pub const WARM_SHARE: u32 = 4;
/// What a write may take before the bench calls the cluster dead.
const DEADLINE: Duration = Duration::from_secs(30);

/// Who is written to, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// Skep, one call for each write.
    SkepUnary,
    /// Skep, all writes on one stream.
    SkepStream,
    /// etcd, one call for each write.
    EtcdUnary,
}

/// What a client does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// To whom.
    pub target: Target,
    /// The leader.
    pub address: SocketAddr,
    /// The CA.
    pub ca_pem: String,
    /// The client's certificate.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
    /// Id of the node whose metadata is written, as bytes; etcd has none.
    pub node: Vec<u8>,
    /// Connections; a stream has one.
    pub connections: usize,
    /// Writes that wait for an answer at any time.
    pub in_flight: u64,
    /// How long is measured.
    pub measure_ms: u64,
    /// A steady pace for a stream; none: as fast as it is answered.
    pub per_s: Option<u64>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    /// Acknowledged writes a second.
    pub per_s: f64,
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// Nor these.
    pub p99_ms: f64,
}

/// Runs a job in a process of its own: this program with the argument `writer`.
///
/// # Errors
/// It failed; tells what it said.
pub async fn run_apart(job: &Job) -> Result<Done> {
    let own = std::env::current_exe()?;
    let mut child = Command::new(own)
        .arg("writer")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("its stdin")?;
    stdin.write_all(&serde_json::to_vec(job)?).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    ensure!(
        output.status.success(),
        "the writer ended with {}",
        output.status
    );
    serde_json::from_slice(&output.stdout).context("the writer's result")
}

/// The other side of `run_apart`.
///
/// # Errors
/// A write was refused or not answered.
pub async fn main() -> Result<()> {
    let job: Job = serde_json::from_reader(std::io::stdin())?;
    let done = run(job).await?;
    println!("{}", serde_json::to_string(&done)?);
    Ok(())
}

/// Runs a job here.
///
/// # Errors
/// As `main`.
pub async fn run(job: Job) -> Result<Done> {
    let begun = Instant::now();
    let warm = begun + Duration::from_millis(job.measure_ms) / WARM_SHARE;
    let span = Span {
        from: warm,
        to: warm + Duration::from_millis(job.measure_ms),
    };
    let mut took = match job.target {
        Target::SkepStream => stream(&job, span).await?,
        Target::SkepUnary | Target::EtcdUnary => unary(&job, span).await?,
    };
    ensure!(!took.is_empty(), "nothing was acknowledged");
    Ok(Done {
        per_s: took.len() as f64 / (job.measure_ms as f64 / 1e3),
        p50_ms: quantile(&mut took, 0.5),
        p99_ms: quantile(&mut took, 0.99),
    })
}

/// What is measured: answers between these moments.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Instant,
    to: Instant,
}

impl Span {
    /// Notes an answer of now; false: it is over.
    fn note(self, asked: Instant, took: &mut Vec<f64>) -> bool {
        let now = Instant::now();
        if now >= self.from && now < self.to {
            took.push((now - asked).as_secs_f64() * 1e3);
        }
        now < self.to
    }
}

async fn connect(job: &Job) -> Result<Channel> {
    let shown = tls::Shown {
        chain_pem: &job.certificate_pem,
        key_pem: &job.key_pem,
    };
    let config = tls::client(&job.ca_pem, Some(shown), b"h2")?;
    tls::channel(job.address, config).await
}

/// A value that makes its command as long as the bench says.
fn filler(encoded_len: impl Fn(usize) -> usize) -> Result<usize> {
    let fits = (1..COMMAND_BYTES).find(|value| encoded_len(*value) >= COMMAND_BYTES);
    fits.context("a command is longer than that without any value")
}

fn meta(node: &[u8], slot: u64, value: usize) -> v1::SetNodeMeta {
    // Every value is new: nothing can be saved because nothing changed.
    let digits = format!("{:0>20}", rand_like(slot));
    let value = format!("{digits:x<value$}");
    v1::SetNodeMeta {
        node: node.to_vec(),
        set: [(format!("b{:02}", slot % KEYS), value)].into(),
        unset: Vec::new(),
    }
}

/// Differs from call to call.
fn rand_like(slot: u64) -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    CALLS.fetch_add(1, Ordering::Relaxed) << 8 | (slot & 0xff)
}

fn value_of_skep(node: &[u8]) -> Result<usize> {
    filler(|value| {
        let command = v1::Command {
            version: 2,
            time_ms: 1 << 40,
            key: vec![0; KEY_BYTES],
            kind: Some(v1::command::Kind::SetNodeMeta(meta(node, 0, value))),
            since: 1 << 17,
            ..v1::Command::default()
        };
        command.encoded_len()
    })
}

fn write_of(node: &[u8], slot: u64, value: usize) -> v1::WriteRequest {
    v1::WriteRequest {
        id: slot,
        key: Vec::new(),
        kind: Some(Kind::SetNodeMeta(meta(node, slot, value))),
    }
}

fn put_of(slot: u64, value: usize) -> PutRequest {
    let digits = format!("{:0>20}", rand_like(slot));
    PutRequest {
        key: format!("b{:02}", slot % KEYS).into_bytes(),
        value: format!("{digits:x<value$}").into_bytes(),
    }
}

enum Unary {
    Skep(ControlClient<Channel>, Arc<[u8]>, usize),
    Etcd(EtcdClient, usize),
}

impl Unary {
    async fn write(&mut self, slot: u64) -> Result<()> {
        match self {
            Self::Skep(client, node, value) => {
                let reply = client
                    .write(write_of(node, slot, *value))
                    .await?
                    .into_inner();
                refused(reply.problem)
            }
            Self::Etcd(client, value) => client.put(put_of(slot, *value)).await,
        }
    }
}

fn refused(problem: Option<v1::Problem>) -> Result<()> {
    match problem {
        Some(problem) => bail!("a write was refused: {problem:?}"),
        None => Ok(()),
    }
}

async fn unary(job: &Job, span: Span) -> Result<Vec<f64>> {
    let node: Arc<[u8]> = job.node.clone().into();
    let mut channels = Vec::new();
    for _ in 0..job.connections.max(1) {
        channels.push(connect(job).await?);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for slot in 0..job.in_flight {
        let channel = channels[slot as usize % channels.len()].clone();
        let mut client = match job.target {
            Target::EtcdUnary => {
                let value = filler(|value| put_of(0, value).encoded_len())?;
                Unary::Etcd(EtcdClient::new(channel), value)
            }
            _ => {
                let value = value_of_skep(&node)?;
                Unary::Skep(ControlClient::new(channel), node.clone(), value)
            }
        };
        tasks.spawn(async move {
            let mut took = Vec::new();
            loop {
                let asked = Instant::now();
                tokio::time::timeout(DEADLINE, client.write(slot)).await??;
                if !span.note(asked, &mut took) {
                    return anyhow::Ok(took);
                }
            }
        });
    }
    let mut all = Vec::new();
    while let Some(took) = tasks.join_next().await {
        all.extend(took??);
    }
    Ok(all)
}

async fn stream(job: &Job, span: Span) -> Result<Vec<f64>> {
    let value = value_of_skep(&job.node)?;
    let mut client = ControlClient::new(connect(job).await?);
    let slots = usize::try_from(job.in_flight)?;
    let (send, queue) = mpsc::channel(slots);
    let mut free: Vec<u64> = (0..job.in_flight).collect();
    let mut asked = vec![Instant::now(); slots];
    let mut pace = job.per_s.map(|per_s| {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / per_s.max(1) as u32);
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        pace
    });
    let replies = client.write_many(ReceiverStream::new(queue)).await?;
    let mut replies = replies.into_inner();
    let mut took = Vec::new();
    loop {
        tokio::select! {
            // With a pace and no free slot a tick is late, and made up for: what is asked late
            // counts from when it was due.
            due = tick(&mut pace), if !free.is_empty() => {
                let slot = free.pop().context("one is free")?;
                asked[usize::try_from(slot)?] = due;
                send.send(write_of(&job.node, slot, value)).await?;
            }
            reply = tokio::time::timeout(DEADLINE, replies.next()), if free.len() < slots => {
                let reply = reply?.context("the stream ended")??;
                refused(reply.problem)?;
                if !span.note(asked[usize::try_from(reply.id)?], &mut took) {
                    return Ok(took);
                }
                free.push(reply.id);
            }
        }
    }
}

/// When the next write is due.
async fn tick(pace: &mut Option<Interval>) -> Instant {
    match pace {
        Some(pace) => pace.tick().await.into_std(),
        None => Instant::now(),
    }
}

/// Whether this process is such a client.
pub fn is_asked_for() -> bool {
    std::env::args()
        .nth(1)
        .is_some_and(|first| Path::new(&first) == Path::new("writer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_puts_have_the_same_bytes() {
        let node = [7u8; 16];
        let value = value_of_skep(&node).unwrap();
        let command = v1::Command {
            version: 2,
            time_ms: 1 << 40,
            key: vec![0; KEY_BYTES],
            kind: Some(v1::command::Kind::SetNodeMeta(meta(&node, 3, value))),
            since: 1 << 17,
            ..v1::Command::default()
        };
        assert_eq!(command.encoded_len(), COMMAND_BYTES);
        let value = filler(|value| put_of(0, value).encoded_len()).unwrap();
        assert_eq!(put_of(9, value).encoded_len(), COMMAND_BYTES);
        assert_ne!(put_of(9, value), put_of(9, value));
    }
}
