//! A follower's end of forwarded writes: one stream to the leader that all of them share. Carries
//! bytes; whether to try again is the store's decision.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use skep_proto::v1;
use skep_proto::v1::propose_reply::Result as Outcome;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::directory::Contact;
use super::links::{Lane, Links};
use super::transport::reason;
use crate::consensus::Handle;
use crate::machine::Machine;
use crate::store::{Forward, ForwardError, Forwarded};

/// Commands that wait for the stream to take them.
const QUEUE: usize = 1_024;
/// Commands between that queue and the connection.
const ON_THE_WIRE: usize = 64;

type Answer = oneshot::Sender<Result<(u64, Vec<u8>), ForwardError>>;

/// One command and who waits for it.
struct Job {
    command: Vec<u8>,
    answer: Answer,
}

/// Carries commands to whoever leads. Cheap to clone.
#[derive(Clone)]
pub struct Forwarder {
    links: Links,
    consensus: Handle<Machine>,
    lines: Arc<Mutex<BTreeMap<u64, mpsc::Sender<Job>>>>,
}

impl Forwarder {
    /// Over `links`; `consensus` tells when leadership has moved on.
    pub fn new(links: Links, consensus: Handle<Machine>) -> Self {
        Self {
            links,
            consensus,
            lines: Arc::default(),
        }
    }

    /// The line to a leader; opened where there is none that lives.
    fn line(&self, leader: u64) -> Option<mpsc::Sender<Job>> {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get(&leader).filter(|line| !line.is_closed()) {
            return Some(line.clone());
        }
        let contact = self.links.directory().get(leader)?;
        lines.retain(|_, line| !line.is_closed());
        let (sender, jobs) = mpsc::channel(QUEUE);
        lines.insert(leader, sender.clone());
        tokio::spawn(run(self.links.clone(), contact, jobs));
        Some(sender)
    }

    async fn send(&self, leader: u64, command: Vec<u8>) -> Result<(u64, Vec<u8>), ForwardError> {
        let mut leadership = self.consensus.leadership();
        let not_taken = ForwardError::NotTaken { leader: None };
        let line = self.line(leader).ok_or(not_taken)?;
        let (answer, answered) = oneshot::channel();
        // The leader may be known from hearsay, before it has spoken to this server.
        let before = leadership.borrow_and_update().leader;
        let moved = leadership.wait_for(|now| now.leader != before && now.leader != Some(leader));
        tokio::pin!(moved);
        tokio::select! {
            sent = line.send(Job { command, answer }) => sent.map_err(|_| not_taken)?,
            _ = &mut moved => return Err(not_taken),
        }
        tokio::select! {
            biased;
            answered = answered => answered.unwrap_or(Err(ForwardError::Unknown)),
            // It may be dead or cut off: its answer may never come.
            _ = &mut moved => Err(ForwardError::Unknown),
        }
    }
}

impl Forward for Forwarder {
    fn forward(&self, leader: u64, command: Vec<u8>) -> Forwarded<'_> {
        Box::pin(self.send(leader, command))
    }
}

/// One line until it breaks, or the leader is no server of the cluster any more.
async fn run(links: Links, contact: Contact, mut jobs: mpsc::Receiver<Job>) {
    let (requests, outgoing) = mpsc::channel(ON_THE_WIRE);
    let opened = async {
        let mut client = links.shared(&contact, Lane::Calls)?;
        client.propose(ReceiverStream::new(outgoing)).await
    };
    let opened = tokio::select! {
        opened = opened => opened,
        () = links.directory().until_changed(&contact) => Err(tonic::Status::unavailable("it has moved")),
    };
    match opened {
        Ok(replies) => {
            let line = Line {
                waiting: BTreeMap::new(),
                next: 0,
                requests,
            };
            let work = line.run(&mut jobs, replies.into_inner());
            tokio::select! {
                why = work => tracing::debug!(member = contact.member, %why, "writes cannot be forwarded"),
                () = links.directory().until_changed(&contact) => {}
            }
        }
        Err(status) => {
            tracing::debug!(member = contact.member, why = %reason(&status), "writes cannot be forwarded");
        }
    }
    // What was not sent has certainly not been taken; what was sent is dropped as unknown.
    jobs.close();
    while let Some(job) = jobs.recv().await {
        // A proposer who has given up needs no answer.
        let _ = job
            .answer
            .send(Err(ForwardError::NotTaken { leader: None }));
    }
}

struct Line {
    waiting: BTreeMap<u64, Answer>,
    next: u64,
    requests: mpsc::Sender<v1::ProposeRequest>,
}

impl Line {
    async fn run(
        mut self,
        jobs: &mut mpsc::Receiver<Job>,
        mut replies: Streaming<v1::ProposeReply>,
    ) -> String {
        let requests = self.requests.clone();
        let mut place = None;
        loop {
            tokio::select! {
                reply = replies.message() => {
                    if let Some(why) = self.settle(reply) {
                        return why;
                    }
                }
                // A command is taken only when it can be sent.
                reserved = requests.reserve(), if place.is_none() => match reserved {
                    Ok(reserved) => place = Some(reserved),
                    Err(_) => return "the stream ended".to_owned(),
                },
                job = jobs.recv(), if place.is_some() => {
                    let (Some(Job { command, answer }), Some(place)) = (job, place.take()) else {
                        return "nobody forwards any more".to_owned();
                    };
                    let id = self.next;
                    self.next += 1;
                    self.waiting.insert(id, answer);
                    place.send(v1::ProposeRequest { id, command });
                }
            }
        }
    }

    /// Gives an answer to who waits for it; why the line has ended, if it has.
    fn settle(&mut self, reply: Result<Option<v1::ProposeReply>, tonic::Status>) -> Option<String> {
        let reply = match reply {
            Ok(Some(reply)) => reply,
            Ok(None) => return Some("the stream ended".to_owned()),
            Err(status) => return Some(reason(&status)),
        };
        let answer = self.waiting.remove(&reply.id)?;
        let known = |leader| Some(leader).filter(|leader| *leader != 0);
        let result = match reply.result {
            Some(Outcome::Accepted(accepted)) => Ok((accepted.index, accepted.outcome)),
            Some(Outcome::Rejected(rejected)) => Err(ForwardError::NotTaken {
                leader: known(rejected.leader),
            }),
            Some(Outcome::Unknown(_)) | None => Err(ForwardError::Unknown),
        };
        // A proposer who has given up needs no answer.
        let _ = answer.send(result);
        None
    }
}
