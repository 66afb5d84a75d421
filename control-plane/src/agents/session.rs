//! One node's session: desired state and routes down, observations up, for as long as both live.
//! Who leads is no concern of it: what cannot be proposed just now is proposed again, and the stream
//! goes on. Only where nobody has led for longer than elections take does it send the node elsewhere.

use std::collections::BTreeSet;
use std::time::Duration;

use prost::Message as _;
use skep_identity::key_id::KeyId;
use skep_model::assignment::Generation;
use skep_model::id::{DeploymentId, NodeId};
use skep_model::problem::Problem;
use skep_proto::convert::{id_bits, id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::fleet::{LOST_AFTER, RouteStatus, Runtime};
use super::notices::Concern;
use super::relay::ToNode;
use super::service::Shared;
use super::told::Told;

/// What goes down to the node. Boxed, as all that waits in a session's queues: a queue has room for 32
/// things from its first one on, in each of thousands of sessions.
pub(super) type Down = mpsc::Sender<Result<Box<v1::ToAgent>, Status>>;

/// Words of the node that wait to be written down. What finds no room is not acknowledged, and the
/// agent says it again.
const WORK_QUEUE: usize = 64;
/// What is gathered into one command: with room below what a command may have.
const GATHERED_MAX_BYTES: usize = 64 << 10;
/// Pause after a proposal that nobody could take: the store has waited for a leader already.
const RETRY: Duration = Duration::from_millis(200);
/// An election takes 2 s at most, and a node is lost after 8.
const LEADERLESS: Duration = Duration::from_secs(5);

/// What a node says and that has to be written down, in order.
enum Work {
    Facts(Box<v1::Facts>),
    Observed(Box<v1::ObservedSet>),
    Lines(Box<v1::BuildLog>),
}

/// One running session.
pub(super) struct Session {
    pub(super) shared: Shared,
    pub(super) node: NodeId,
    pub(super) id: u64,
    pub(super) down: Down,
}

impl Session {
    /// Runs until either side goes away. Errors end the session: the agent dials again and both
    /// begin with full sets.
    pub(super) async fn run(self, mut up: Streaming<v1::FromAgent>) {
        let (relayed, to_node) = self.shared.relay.connect(self.node);
        let mut broke = false;
        let result = self.exchange(&mut up, to_node, &mut broke).await;
        self.shared.relay.disconnect(self.node, relayed);
        self.shared.samples.disconnect(self.node, self.id);
        self.shared.fleet.disconnect(self.node, self.id, broke);
        match result {
            Ok(()) => tracing::info!(node = %self.node, "session ended"),
            Err(status) => {
                tracing::warn!(node = %self.node, status = status.message(), "session ended");
                let _ = self.down.send(Err(status)).await;
            }
        }
    }

    /// Three things at once, so that none waits for another: a node is heard while its last word is
    /// still being committed, and hears while there is nobody to commit it. `broke` is set where the
    /// stream ended and neither side had ended it.
    async fn exchange(
        &self,
        up: &mut Streaming<v1::FromAgent>,
        to_node: ToNode,
        broke: &mut bool,
    ) -> Result<(), Status> {
        let (facts, held) = self.hello(up).await?;
        let (queue, work) = mpsc::channel(WORK_QUEUE);
        let has_routes = facts.ingress_port.is_some();
        // The first word finds an empty queue.
        let _ = queue.try_send(Work::Facts(Box::new(facts)));
        let told = Told::new(self.node, held, has_routes);
        tokio::select! {
            ended = self.listen(up, queue) => {
                *broke = ended.is_err();
                ended
            }
            ended = self.write_down(work) => ended,
            ended = self.talk(told, has_routes, to_node) => ended,
            ended = self.until_leaderless() => Err(ended),
            () = self.shared.shutdown.cancelled() => Err(Status::unavailable("the server is stopping")),
        }
    }

    /// Ends when this server has known no leader for longer than any election takes. It may be cut
    /// off from the others: what it hears of its nodes then reaches nobody, and the leader would
    /// take them for lost. The agent goes on to the next server, and comes back if there is none.
    async fn until_leaderless(&self) -> Status {
        let mut leadership = self.shared.store.consensus().leadership();
        loop {
            let found = leadership.wait_for(|now| now.leader.is_some());
            match tokio::time::timeout(LEADERLESS, found).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Status::unavailable("the server is stopping"),
                Err(_) => {
                    return Status::unavailable(
                        "this server has known no leader for a while: another one may",
                    );
                }
            }
            let lost = leadership.wait_for(|now| now.leader.is_none());
            if lost.await.is_err() {
                return Status::unavailable("the server is stopping");
            }
        }
    }

    /// The node's facts, and the newest generation on its disk.
    async fn hello(
        &self,
        up: &mut Streaming<v1::FromAgent>,
    ) -> Result<(v1::Facts, Option<Generation>), Status> {
        let first = up.message().await?.and_then(|message| message.kind);
        let Some(v1::from_agent::Kind::Hello(hello)) = first else {
            return Err(Status::invalid_argument("a session begins with Hello"));
        };
        let facts = hello
            .facts
            .ok_or_else(|| Status::invalid_argument("Hello lacks facts"))?;
        self.seat(&hello.seat, &hello.next_seat).await?;
        self.come_back(hello.incarnation).await?;
        self.shared.tidy_pushes(self.node, &hello.pushed);
        Ok((facts, hello.held.map(Generation::from)))
    }

    async fn listen(
        &self,
        up: &mut Streaming<v1::FromAgent>,
        queue: mpsc::Sender<Work>,
    ) -> Result<(), Status> {
        use v1::from_agent::Kind as Up;
        let (fleet, node) = (&self.shared.fleet, self.node);
        while let Some(message) = up.message().await? {
            let Some(kind) = message.kind else { continue };
            fleet.heard(node, self.id);
            let work = match kind {
                Up::Heartbeat(beat) => {
                    fleet.certified(node, self.id, KeyId::from_bytes(&beat.ca));
                    self.confirm(beat.number);
                    continue;
                }
                Up::Samples(samples) => {
                    self.measured(samples);
                    continue;
                }
                Up::Routes(routes) => {
                    let status = self.route_status(&routes);
                    fleet.routes(node, self.id, status);
                    continue;
                }
                Up::Challenges(status) => {
                    let revision = self.of_ours(status.incarnation, status.revision);
                    fleet.challenges(node, self.id, revision);
                    continue;
                }
                Up::Hello(hello) => match hello.facts {
                    Some(facts) => Work::Facts(Box::new(facts)),
                    None => continue,
                },
                Up::Observed(observed) => {
                    let runtime = Runtime::of(observed.runtime_ok, observed.runtime_wedged);
                    fleet.runtime(node, self.id, runtime);
                    Work::Observed(Box::new(observed))
                }
                Up::BuildLog(log) => Work::Lines(Box::new(log)),
                Up::Probed(found) => {
                    self.shared.relay.probed(node, &found);
                    continue;
                }
                Up::SourceFound(found) => {
                    self.shared.relay.source_found(node, found);
                    continue;
                }
                Up::RegistryFound(found) => {
                    self.shared.relay.registry_found(node, found);
                    continue;
                }
                Up::NetworkFound(found) => {
                    self.shared.relay.network_found(node, found);
                    continue;
                }
            };
            if queue.try_send(work).is_err() {
                tracing::debug!(%node, "a node's word found no room: it will be said again");
            }
        }
        Ok(())
    }

    /// Says that a heartbeat was heard, where that is worth something: a server that knows no leader may be the
    /// only one to have heard it.
    fn confirm(&self, number: u64) {
        let consensus = self.shared.store.consensus();
        if number == 0 || consensus.leadership().borrow().leader.is_none() {
            return;
        }
        let lease_ms = u32::try_from(LOST_AFTER.as_millis()).unwrap_or(u32::MAX);
        let heard = v1::to_agent::Kind::Heard(v1::Heard { number, lease_ms });
        // Where there is no room the next one is confirmed.
        let _ = self
            .down
            .try_send(Ok(Box::new(v1::ToAgent { kind: Some(heard) })));
    }

    /// What the node measures: it goes to the leader, and is written down nowhere. What means nothing is
    /// no reason to end a session.
    fn measured(&self, message: v1::Samples) {
        let samples = &self.shared.samples;
        match message.try_into() {
            Ok(said) => samples.hear(&self.shared.store.view(), (self.node, self.id), said),
            Err(error) => {
                samples.refuse();
                tracing::debug!(node = %self.node, %error, "a node's samples mean nothing");
            }
        }
    }

    /// What the node's ingress serves.
    fn route_status(&self, routes: &v1::RouteStatus) -> RouteStatus {
        RouteStatus {
            applied: self.of_ours(routes.incarnation, routes.applied_revision),
            drained: self.of_ours(routes.incarnation, routes.drained_revision),
        }
    }

    /// A revision that a node holds. Of another incarnation's nothing can be concluded: revisions begin anew
    /// with each.
    fn of_ours(&self, incarnation: u64, revision: u64) -> u64 {
        let view = self.shared.store.view();
        let ours = view.cluster().map_or(0, |cluster| cluster.incarnation);
        match incarnation {
            0 => revision,
            theirs if theirs == ours => revision,
            _ => 0,
        }
    }

    async fn write_down(&self, mut work: mpsc::Receiver<Work>) -> Result<(), Status> {
        let mut is_whole = false;
        let mut waiting = None;
        loop {
            let next = match waiting.take() {
                Some(next) => next,
                None => match work.recv().await {
                    Some(next) => next,
                    None => return Ok(()),
                },
            };
            match next {
                Work::Facts(facts) => self.learn(*facts).await?,
                Work::Observed(mut observed) => {
                    waiting = gather(&mut observed, &mut work);
                    is_whole |= observed.full;
                    self.observe(*observed, is_whole).await?;
                }
                Work::Lines(lines) => self.keep_lines(*lines).await?,
            }
        }
    }

    /// Tells the node what it is to do, now and whenever that changes.
    async fn talk(
        &self,
        mut told: Told,
        has_routes: bool,
        mut to_node: ToNode,
    ) -> Result<(), Status> {
        // Listening before the first view: nothing between the two is missed.
        let notices = self.shared.notices.listen(self.node, self.id, has_routes);
        let mut applied = self.shared.store.consensus().applied();
        loop {
            let concern = tokio::select! {
                concern = notices.next() => concern,
                // A replica that is behind what the node has been told elsewhere catches up.
                moved = applied.changed(), if told.is_waiting() => match moved {
                    Ok(()) => Concern::ALL,
                    Err(_) => return Ok(()),
                },
                Some(kind) = to_node.recv() => {
                    self.send(kind).await?;
                    Concern::NONE
                }
            };
            self.tell(&mut told, concern).await?;
            notices.follow_names(told.environments().clone());
        }
    }

    async fn tell(&self, told: &mut Told, concern: Concern) -> Result<(), Status> {
        if concern == Concern::NONE {
            return Ok(());
        }
        let view = self.shared.store.view();
        if !is_member(&view, self.node) {
            return Err(Status::permission_denied(
                "this node was removed from the cluster",
            ));
        }
        if let Some(fenced) = super::fenced::since(&view, self.node) {
            return Err(fenced);
        }
        if concern.work {
            self.log_in(told, &view).await;
        }
        for kind in told.tell(&view, &concern, &self.shared) {
            self.send(kind).await?;
        }
        Ok(())
    }

    /// Has tokens asked for that builds wait for. What else the node is told of does not wait for them, but for the first
    /// time: a build that the first set does not have is one that has ended.
    async fn log_in(&self, told: &mut Told, view: &State) {
        let wanting = told.wanting(view, &self.shared.secrets);
        if !told.has_begun() {
            let all = wanting.into_iter().map(|one| one.settle(&self.shared));
            futures_util::future::join_all(all).await;
            return;
        }
        for one in wanting {
            let (shared, node) = (self.shared.clone(), self.node);
            tokio::spawn(async move {
                let settling = one.settle(&shared);
                shared.shutdown.run_until_cancelled(settling).await;
                shared.notices.look(node);
            });
        }
    }

    async fn send(&self, kind: v1::to_agent::Kind) -> Result<(), Status> {
        let message = v1::ToAgent { kind: Some(kind) };
        self.down
            .send(Ok(Box::new(message)))
            .await
            .map_err(|_| Status::cancelled("the agent is gone"))
    }

    /// The node's facts, where they are new.
    async fn learn(&self, message: v1::Facts) -> Result<(), Status> {
        let facts = self.shared.facts(message)?;
        let view = self.shared.store.view();
        let is_known = view.node(self.node).is_some_and(|node| node.facts == facts);
        if is_known {
            return Ok(());
        }
        let update = v1::UpdateNode {
            node: id_bytes(self.node.as_u128()),
            facts: Some((&facts).into()),
        };
        self.propose(Kind::UpdateNode(update)).await
    }

    /// `is_whole`: the node has looked at everything, so that what it does not name is not there.
    async fn observe(&self, observed: v1::ObservedSet, is_whole: bool) -> Result<(), Status> {
        let v1::ObservedSet {
            sequence,
            allocations,
            mut builds,
            quarantine,
            ..
        } = observed;
        self.shared.keep_images_local(&mut builds);
        let is_news = is_whole && self.is_news(&quarantine);
        let quarantine = is_news.then_some(v1::QuarantineList {
            entries: quarantine,
        });
        if !allocations.is_empty() || !builds.is_empty() || quarantine.is_some() {
            let command = v1::Observe {
                node: id_bytes(self.node.as_u128()),
                allocations,
                builds,
                quarantine,
            };
            self.propose(Kind::Observe(command)).await?;
        }
        self.send(v1::to_agent::Kind::ObservedAck(v1::ObservedAck {
            sequence,
        }))
        .await
    }

    /// Whether the node has other things in quarantine than the state knows of.
    fn is_news(&self, entries: &[v1::Quarantined]) -> bool {
        let view = self.shared.store.view();
        let quarantined = view.quarantine_on(self.node).map(|entry| entry.allocation);
        let known: BTreeSet<_> = quarantined
            .chain(view.dismissed_on(self.node))
            .map(|id| id_bytes(id.as_u128()))
            .collect();
        let told: BTreeSet<_> = entries.iter().map(|e| e.allocation.clone()).collect();
        known != told
    }

    async fn keep_lines(&self, log: v1::BuildLog) -> Result<(), Status> {
        let refused =
            |error: skep_proto::convert::Error| Status::invalid_argument(error.to_string());
        let deployment = id_bits("deployment", &log.deployment).map_err(refused)?;
        let deployment = DeploymentId::from_u128(deployment);
        let run = match log.run.as_slice() {
            [] => 0,
            run => id_bits("run", run).map_err(refused)?,
        };
        let view = self.shared.store.view();
        let mut builder = builder_of(&view, deployment);
        if builder.is_none() {
            // This replica may be behind. Without a leader to ask the agent says it again.
            match self.shared.store.read().await {
                Ok(view) => builder = builder_of(&view, deployment),
                Err(_) => return Ok(()),
            }
        }
        let upto = log.first + log.lines.len() as u64;
        let next = match builder {
            // It was given to another node meanwhile: what this one has still to say of it is heard by nobody, and
            // taken, or it would be said again for ever.
            Some(node) if node != self.node => upto,
            // A history that cannot be written never holds the cluster up: the lines are lost and
            // counted there.
            Some(_) => {
                let history = &self.shared.history;
                if let Some(deployment) = view.deployment(deployment) {
                    // What led to these lines stands before them, whoever leads.
                    let _ = history.flush_steps(deployment.id, &deployment.steps).await;
                }
                let kept = history.build_lines(deployment, run, log.first, log.lines);
                kept.await.unwrap_or(upto)
            }
            // Of a deployment that is no more, or not this node's to build.
            None => upto,
        };
        self.send(v1::to_agent::Kind::BuildLogAck(v1::BuildLogAck {
            deployment: log.deployment,
            next,
            run: log.run,
        }))
        .await
    }

    /// Until it is taken or refused: while nobody leads, the node's word waits here.
    pub(super) async fn propose(&self, kind: Kind) -> Result<(), Status> {
        loop {
            match self.shared.store.propose(kind.clone()).await {
                Ok(_) => return Ok(()),
                Err(problem) if problem.code.is_retryable() => {
                    tracing::debug!(node = %self.node, %problem, "a node's word waits");
                    tokio::time::sleep(RETRY).await;
                }
                Err(problem) => return Err(status(problem)),
            }
        }
    }
}

/// What the node has said of its allocations while its last word was being committed goes with this one:
/// one command and one acknowledgement for all. Answers what came behind them and is something else.
fn gather(observed: &mut v1::ObservedSet, work: &mut mpsc::Receiver<Work>) -> Option<Work> {
    let mut bytes = observed.encoded_len();
    while bytes < GATHERED_MAX_BYTES {
        match work.try_recv().ok()? {
            Work::Observed(more) if bytes + more.encoded_len() <= GATHERED_MAX_BYTES => {
                bytes += more.encoded_len();
                // In the order in which it was said: the last word on each counts.
                observed.allocations.extend(more.allocations);
                observed.builds.extend(more.builds);
                observed.sequence = more.sequence;
                observed.full |= more.full;
                observed.quarantine = more.quarantine;
            }
            other => return Some(other),
        }
    }
    None
}

/// The node that builds, or built, a deployment.
fn builder_of(view: &State, deployment: DeploymentId) -> Option<NodeId> {
    let build = view.deployment(deployment)?.build.as_ref()?;
    Some(build.node)
}

/// Whether a node is of the cluster, by the newest state known here.
pub(super) fn is_member(view: &State, node: NodeId) -> bool {
    view.node(node).is_some()
}

/// A problem as gRPC says it.
pub(crate) fn status(problem: Problem) -> Status {
    use skep_model::problem::Code;
    let text = problem.to_string();
    match problem.code {
        Code::Invalid => Status::invalid_argument(text),
        Code::Unauthenticated => Status::unauthenticated(text),
        Code::Forbidden => Status::permission_denied(text),
        Code::NotFound => Status::not_found(text),
        Code::Conflict => Status::already_exists(text),
        Code::Busy | Code::TooLarge => Status::resource_exhausted(text),
        Code::Unavailable => Status::unavailable(text),
        Code::Timeout => Status::deadline_exceeded(text),
        _ => Status::internal(text),
    }
}
