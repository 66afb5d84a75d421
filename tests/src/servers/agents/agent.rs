//! One simulated agent: a real session with a server over mTLS, kept for as long as it lives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use skep_model::id::NodeId;
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;
use skep_proto::v1::from_agent::Kind as Up;
use skep_proto::v1::to_agent::Kind as Down;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval_at, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use super::work::Work;
use super::{BUILD_LINES, Behavior, Counts};
use crate::servers::grpc_tls;
use crate::servers::node::{Member, facts};
use crate::tls;

/// As a real agent's own, for heartbeats and for samples.
const PERIOD: Duration = Duration::from_secs(2);
/// Messages that wait for the connection.
const QUEUE: usize = 8;
/// Before a session that broke is made again.
const AGAIN: Duration = Duration::from_secs(1);
/// A desired set of one node, with all of its variables.
const MESSAGE_MAX_BYTES: usize = 64 << 20;

pub(super) struct Agent {
    pub(super) server: SocketAddr,
    pub(super) member: Member,
    pub(super) behavior: Behavior,
    /// Handshakes under way, of all agents together.
    pub(super) room: Arc<Semaphore>,
    pub(super) counts: Arc<Counts>,
    pub(super) work: Work,
    pub(super) began: Instant,
}

type Outbound = mpsc::Sender<v1::FromAgent>;

impl Agent {
    pub(super) async fn keep(mut self) {
        loop {
            if let Err(error) = self.session().await {
                eprintln!("{}: {error:#}", self.member.id);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn session(&mut self) -> Result<()> {
        let permit = self.room.clone().acquire_owned().await?;
        let shown = tls::Shown {
            chain_pem: &self.member.certificate_pem,
            key_pem: &self.member.key_pem,
        };
        let config = grpc_tls(&self.member.ca_pem, Some(shown))?;
        let channel = tls::channel(self.server, config).await?;
        let mut client = AgentsClient::new(channel).max_decoding_message_size(MESSAGE_MAX_BYTES);
        let (up, queue) = mpsc::channel(QUEUE);
        let greeted = facts(&self.member.name, &self.member.machine);
        let hello = v1::Hello {
            facts: Some(greeted.clone()),
            held: None,
            ..Default::default()
        };
        send(&up, Up::Hello(hello)).await?;
        let mut inbound = client
            .session(ReceiverStream::new(queue))
            .await?
            .into_inner();
        drop(permit);
        self.work.begin();
        self.counts.connected.fetch_add(1, Ordering::Relaxed);
        let ended = self.serve(&up, &mut inbound, &greeted).await;
        self.counts.connected.fetch_sub(1, Ordering::Relaxed);
        ended
    }

    async fn serve(
        &mut self,
        up: &Outbound,
        inbound: &mut tonic::Streaming<v1::ToAgent>,
        greeted: &v1::Facts,
    ) -> Result<()> {
        // Thousands that began together do not speak together.
        let phase = PERIOD.mul_f64(f64::from(self.number() as u16) / f64::from(u16::MAX));
        let first = tokio::time::Instant::now() + phase;
        let mut heartbeat = interval_at(first, PERIOD);
        let mut sampling = interval_at(first + PERIOD / 2, PERIOD);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sampling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.work.next_due();
            tokio::select! {
                _ = heartbeat.tick() => {
                    // As a real one: what has changed of its machine it says as it greets anew.
                    let now = facts(&self.member.name, &self.member.machine);
                    ensure!(now == *greeted, "the machine is another one by now");
                    send(up, Up::Heartbeat(v1::Heartbeat::default())).await?;
                }
                _ = sampling.tick(), if self.behavior.has_samples => {
                    let at_ms = u64::try_from(self.began.elapsed().as_millis())?;
                    send(up, Up::Samples(self.work.samples(self.number(), at_ms))).await?;
                }
                () = until(due) => self.work.start_due(Instant::now()),
                message = inbound.message() => {
                    let message = message?.context("the server ended the session")?;
                    self.take(up, message).await?;
                }
            }
            while let Some(observed) = self.work.next() {
                send(up, Up::Observed(observed)).await?;
            }
        }
    }

    /// Tells one node from another.
    fn number(&self) -> u64 {
        let id: Option<NodeId> = self.member.id.parse().ok();
        id.map_or(0, |id| id.as_u128() as u64)
    }

    async fn take(&mut self, up: &Outbound, message: v1::ToAgent) -> Result<()> {
        match message.kind {
            Some(Down::Desired(desired)) => {
                if self.behavior.has_build_logs {
                    let builds = desired.set.iter().flat_map(|set| &set.builds);
                    for order in builds {
                        send(up, Up::BuildLog(lines_of(order))).await?;
                    }
                }
                self.work.obey(desired, Instant::now());
            }
            Some(Down::ObservedAck(ack)) => {
                let counted = self.work.acknowledge(ack.sequence);
                self.counts.healthy.fetch_add(counted, Ordering::Relaxed);
            }
            Some(Down::Routes(table)) => {
                let revision = table.revision;
                let routes = v1::RouteStatus {
                    applied_revision: revision,
                    drained_revision: revision,
                    incarnation: table.incarnation,
                };
                send(up, Up::Routes(routes)).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn lines_of(order: &v1::BuildOrder) -> v1::BuildLog {
    v1::BuildLog {
        deployment: order.deployment.clone(),
        first: 0,
        lines: BUILD_LINES.map(str::to_owned).to_vec(),
        run: Vec::new(),
    }
}

async fn send(up: &Outbound, kind: Up) -> Result<()> {
    let sent = up.send(v1::FromAgent { kind: Some(kind) }).await;
    sent.context("the session ended")
}
