//! One connection's worth of a session.

use std::collections::VecDeque;
use std::time::Duration;

use skep_model::assignment::Generation;
use skep_model::id::{AllocationId, DeploymentId};
use skep_model::registry::MAX_REGISTRIES;
use skep_model::route::RouteTable;
use skep_proto::convert::{self, id_bits};
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;
use skep_proto::v1::from_agent::Kind as Up;
use skep_proto::v1::to_agent::Kind;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{Down, Error, MESSAGE_MAX_BYTES, Session, desired};
use crate::backoff::Backoff;
use crate::logs;

/// How long a server may take to begin a session, connecting included.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the server hears that this node lives.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Without an acknowledgement for this long it is sent again.
const RESEND: Duration = Duration::from_secs(10);
/// For the server to see the end of a session; an agent that ends waits no longer for it.
const LEAVE: Duration = Duration::from_millis(500);
/// Messages that wait for the connection.
const SEND_QUEUE: usize = 4;

/// Heartbeats of which an answer may still come.
const MAX_BEATS: usize = 8;

/// When each of the last heartbeats was sent.
#[derive(Default)]
struct Beats {
    sent: VecDeque<(u64, Instant)>,
    last: u64,
}

impl Beats {
    fn next(&mut self) -> u64 {
        self.last += 1;
        if self.sent.len() == MAX_BEATS {
            self.sent.pop_front();
        }
        self.sent.push_back((self.last, Instant::now()));
        self.last
    }

    /// Until when the servers count on this node, by a heartbeat that they have heard: from when it was sent.
    fn heard(&self, heard: v1::Heard) -> Option<Instant> {
        let (_, sent) = self
            .sent
            .iter()
            .find(|(number, _)| *number == heard.number)?;
        Some(*sent + Duration::from_millis(heard.lease_ms.into()))
    }
}

/// A desired set that is being written down.
struct Storing {
    generation: Generation,
    stored: oneshot::Receiver<bool>,
}

/// Keeps one session until it breaks, or `cancel`.
pub(super) async fn keep(
    session: &mut Session,
    backoff: &mut Backoff,
    cancel: &CancellationToken,
) -> Error {
    let Some(begun) = cancel.run_until_cancelled(begin(session)).await else {
        return Error::Closing;
    };
    match begun {
        Ok((up, mut inbound)) => {
            tracing::info!(server = %session.servers.address(), "in session with a server");
            session.metrics.session(true);
            backoff.reset();
            let served = serve(session, &up, &mut inbound);
            match cancel.run_until_cancelled(served).await {
                Some(Ok(never)) => match never {},
                Some(Err(error)) => error,
                None => {
                    leave(up, inbound).await;
                    Error::Closing
                }
            }
        }
        Err(error) => error,
    }
}

type Inbound = Streaming<v1::ToAgent>;

/// Ends the session in order, so that the server knows: this agent goes, its node does not. The server
/// answers by ending its side.
async fn leave(up: mpsc::Sender<v1::FromAgent>, mut inbound: Inbound) {
    drop(up);
    let ended = async { while let Ok(Some(_)) = inbound.message().await {} };
    // A server that does not answer hears of the node by other ways.
    let _ = timeout(LEAVE, ended).await;
}

async fn begin(session: &Session) -> Result<(mpsc::Sender<v1::FromAgent>, Inbound), Error> {
    let facts = loop {
        match session.outbox.begin() {
            Some(facts) => break facts,
            None => session.outbox.changed().await,
        }
    };
    let (up, queue) = mpsc::channel(SEND_QUEUE);
    let (before, mine) = session.seat.shown();
    let hello = v1::Hello {
        facts: Some((&facts).into()),
        held: session.held.map(Into::into),
        seat: convert::optional_id_bytes(before),
        next_seat: convert::optional_id_bytes(mine),
        pushed: session.shells.stored().await,
        incarnation: session.seat.incarnation(),
    };
    let hello = v1::FromAgent {
        kind: Some(Up::Hello(hello)),
    };
    up.send(hello).await.map_err(|_| Error::Ended)?;
    let mut client = AgentsClient::new(session.servers.channel())
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let begun = client.session(ReceiverStream::new(queue));
    let begun = timeout(BEGIN_TIMEOUT, begun)
        .await
        .map_err(|_| Error::Slow(BEGIN_TIMEOUT))?;
    Ok((up, begun?.into_inner()))
}

async fn serve(
    session: &mut Session,
    up: &mpsc::Sender<v1::FromAgent>,
    inbound: &mut Inbound,
) -> Result<std::convert::Infallible, Error> {
    let mut beats = Beats::default();
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut resend = interval(RESEND);
    resend.set_missed_tick_behavior(MissedTickBehavior::Delay);
    resend.reset();
    let mut moved = session.servers.moved();
    let mut is_admitted = false;
    let mut storing: Option<Storing> = None;
    let mut outgoing: Option<Up> = None;
    loop {
        if session.outbox.facts_changed() {
            return Err(Error::Facts);
        }
        if outgoing.is_none() {
            outgoing = session.outbox.next();
        }
        tokio::select! {
            permit = up.reserve(), if outgoing.is_some() => {
                let permit = permit.map_err(|_| Error::Ended)?;
                permit.send(v1::FromAgent { kind: outgoing.take() });
            }
            () = session.outbox.changed(), if outgoing.is_none() => {}
            _ = heartbeat.tick() => {
                // A queue that is full is a sign of life as well.
                let beat = v1::FromAgent { kind: Some(Up::Heartbeat(session.heartbeat(beats.next()))) };
                let _ = up.try_send(beat);
            }
            _ = resend.tick() => session.outbox.resend(),
            Ok(()) = moved.changed() => return Err(Error::Moved),
            stored = wait(&mut storing) => {
                let generation = storing.take().map(|storing| storing.generation);
                if !stored {
                    return Err(Error::NotStored);
                }
                session.held = generation;
            }
            // One desired set at a time: the next is judged by what is on disk then.
            message = inbound.message(), if storing.is_none() => {
                let message = message?.ok_or(Error::Ended)?;
                if !is_admitted {
                    // Before anything is acted upon: it costs one write in each life.
                    let seat = session.seat.clone();
                    let _ = tokio::task::spawn_blocking(move || seat.admit()).await;
                    is_admitted = true;
                }
                if let Some(Kind::Heard(heard)) = message.kind {
                    if let Some(until) = beats.heard(heard) {
                        session.lease.send_replace(Some(until));
                    }
                    continue;
                }
                if matches!(message.kind, Some(Kind::ObservedAck(_) | Kind::BuildLogAck(_))) {
                    resend.reset();
                }
                storing = take(session, message).await?;
            }
        }
    }
}

async fn wait(storing: &mut Option<Storing>) -> bool {
    match storing {
        Some(storing) => (&mut storing.stored).await.unwrap_or(false),
        None => std::future::pending().await,
    }
}

async fn take(session: &Session, message: v1::ToAgent) -> Result<Option<Storing>, Error> {
    match message.kind {
        Some(Kind::Desired(message)) => {
            let change = desired::judge(session.cluster, session.held, message)?;
            let generation = change.set.generation;
            let (answer, stored) = oneshot::channel();
            let down = Down::Desired {
                change: Box::new(change),
                stored: answer,
            };
            session.down.send(down).await.map_err(|_| Error::Closing)?;
            return Ok(Some(Storing { generation, stored }));
        }
        Some(Kind::Routes(message)) => {
            let incarnation = match message.incarnation {
                // An older server's: of the desired set that it has sent.
                0 => session.held.map_or(0, |held| held.incarnation),
                said => said,
            };
            let table = RouteTable::try_from(message).map_err(desired::Refused::from)?;
            let down = Down::Routes(incarnation, table);
            session.down.send(down).await.map_err(|_| Error::Closing)?;
        }
        Some(Kind::ObservedAck(ack)) => session.outbox.acknowledge(ack.sequence),
        Some(Kind::BuildLogAck(ack)) => {
            let id = id_bits("deployment", &ack.deployment).map(DeploymentId::from_u128);
            session.outbox.acknowledge_lines(
                id.map_err(desired::Refused::from)?,
                &ack.run,
                ack.next,
            );
        }
        Some(Kind::LogRequest(message)) => {
            let request = log_request(message).map_err(desired::Refused::from)?;
            session.logs.open(request);
        }
        Some(Kind::Registries(list)) => {
            let all = list.registries.into_iter().take(2 * MAX_REGISTRIES);
            session.logins.replace(all.map(Into::into));
        }
        Some(Kind::Certificates(list)) => session.certificates.hear(list),
        Some(Kind::Challenges(list)) => session.certificates.hear_challenges(list),
        Some(Kind::OpenShell(message)) => {
            // One that a newer server knows and this agent does not is no reason to end a session.
            match message.try_into() {
                Ok(request) => session.shells.open(request),
                Err(error) => tracing::warn!(%error, "a shell of a kind that is not known here"),
            }
        }
        Some(Kind::DropStores(message)) => session.shells.drop_stores(&message.services),
        Some(Kind::Probe(request)) => session.witness.open(request),
        Some(Kind::NetworkAsk(message)) => {
            let request = message.request;
            match message.try_into() {
                Ok(ask) => session.checks.open(request, ask),
                Err(error) => {
                    tracing::warn!(%error, "a question about the network that means nothing")
                }
            }
        }
        Some(Kind::SourceAsk(message)) => {
            let request = message.request;
            match message.try_into() {
                Ok(ask) => session.sources.open(request, ask),
                Err(error) => {
                    tracing::warn!(%error, "a question about a repository that means nothing")
                }
            }
        }
        Some(Kind::RegistryAsk(message)) => {
            let request = message.request;
            match message.try_into() {
                Ok(ask) => session.registries.open(request, ask),
                Err(error) => {
                    tracing::warn!(%error, "a question to a registry that means nothing")
                }
            }
        }
        Some(Kind::Servers(list)) => session.servers.hear(list),
        Some(Kind::LogCancel(cancel)) => session.logs.cancel(cancel.request),
        // Seen to before.
        Some(Kind::Heard(_)) => {}
        // A newer server's word: it must not matter to an agent that does not know it.
        None => {}
    }
    Ok(None)
}

fn log_request(message: v1::LogRequest) -> Result<logs::Request, convert::Error> {
    Ok(logs::Request {
        request: message.request,
        allocation: AllocationId::from_u128(id_bits("allocation", &message.allocation)?),
        follow: message.follow,
        tail: message.tail,
        after_ns: message.after_ns,
        until_ns: message.until_ns,
        grep: message.grep,
    })
}
