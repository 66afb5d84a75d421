//! One node's session: desired state and routes down, observations up, for as long as both live.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::allocation::Desired;
use skep_model::assignment::{DesiredSet, Generation};
use skep_model::id::{AllocationId, DeploymentId, NodeId};
use skep_model::node::Facts;
use skep_model::problem::Problem;
use skep_proto::convert::{id_bits, id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::{Change, State};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::desired::desired_set;
use super::fleet::RouteStatus;
use super::service::Shared;
use crate::consensus::Batch;

/// What goes down to the node.
pub(super) type Down = mpsc::Sender<Result<v1::ToAgent, Status>>;

/// What the node was told last: the base of the next delta.
#[derive(Default)]
struct Told {
    generation: Option<Generation>,
    allocations: BTreeMap<AllocationId, Desired>,
    builds: BTreeSet<DeploymentId>,
    routes: Option<u64>,
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
        let (relayed, mut to_node) = self.shared.relay.connect(self.node);
        let result = self.exchange(&mut up, &mut to_node).await;
        self.shared.relay.disconnect(self.node, relayed);
        self.shared.fleet.disconnect(self.node, self.id);
        match result {
            Ok(()) => tracing::info!(node = %self.node, "session ended"),
            Err(status) => {
                tracing::warn!(node = %self.node, status = status.message(), "session ended");
                let _ = self.down.send(Err(status)).await;
            }
        }
    }

    async fn exchange(
        &self,
        up: &mut Streaming<v1::FromAgent>,
        to_node: &mut mpsc::Receiver<v1::to_agent::Kind>,
    ) -> Result<(), Status> {
        // Subscribed before the first view: nothing between the two is missed.
        let mut changes = self.shared.store.consensus().changes();
        let mut told = Told::default();
        self.hello(up).await?;
        self.tell(&mut told, true, true).await?;
        loop {
            tokio::select! {
                message = up.message() => match message? {
                    Some(v1::FromAgent { kind: Some(kind) }) => self.hear(kind).await?,
                    Some(_) => {}
                    None => return Ok(()),
                },
                batch = changes.recv() => match batch {
                    Ok(batch) => {
                        let (work, routes) = self.concerns(&batch);
                        self.tell(&mut told, work, routes).await?;
                    }
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => self.tell(&mut told, true, true).await?,
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return Ok(()),
                },
                Some(kind) = to_node.recv() => self.send(kind).await?,
                () = self.shared.shutdown.cancelled() => return Err(Status::unavailable("the server is stopping")),
            }
        }
    }

    async fn hello(&self, up: &mut Streaming<v1::FromAgent>) -> Result<(), Status> {
        let first = up.message().await?.and_then(|message| message.kind);
        let Some(v1::from_agent::Kind::Hello(hello)) = first else {
            return Err(Status::invalid_argument("a session begins with Hello"));
        };
        let facts = hello
            .facts
            .ok_or_else(|| Status::invalid_argument("Hello lacks facts"))?;
        self.learn(facts).await
    }

    /// The node's facts, where they are new.
    async fn learn(&self, message: v1::Facts) -> Result<(), Status> {
        let facts = Facts::try_from(message.clone())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let is_known = self
            .shared
            .store
            .view()
            .node(self.node)
            .is_some_and(|node| node.facts == facts);
        if is_known {
            return Ok(());
        }
        let update = v1::UpdateNode {
            node: id_bytes(self.node.as_u128()),
            facts: Some(message),
        };
        self.propose(Kind::UpdateNode(update)).await
    }

    /// Whether a batch changes this node's work, and whether it changes the routes.
    fn concerns(&self, batch: &Batch<Change>) -> (bool, bool) {
        let work = batch.changes.iter().any(|change| match change {
            Change::Allocation { node, .. } | Change::Build(node) | Change::Node(node) => {
                *node == self.node
            }
            _ => false,
        });
        (work, batch.changes.contains(&Change::Routes))
    }

    async fn tell(&self, told: &mut Told, work: bool, routes: bool) -> Result<(), Status> {
        if !work && !routes {
            return Ok(());
        }
        let view = self.shared.store.view();
        if view.node(self.node).is_none() {
            return Err(Status::permission_denied(
                "this node was removed from the cluster",
            ));
        }
        // Before the work: an allocation is out of the routes before its container hears of it.
        if routes && told.routes != Some(view.routes_revision()) {
            told.routes = Some(view.routes_revision());
            self.send(v1::to_agent::Kind::Routes((&view.route_table()).into()))
                .await?;
        }
        if work {
            self.tell_work(told, &view).await
        } else {
            Ok(())
        }
    }

    async fn tell_work(&self, told: &mut Told, view: &State) -> Result<(), Status> {
        let cluster = view
            .cluster()
            .ok_or_else(|| Status::unavailable("the cluster is not initialised"))?;
        let set = desired_set(view, cluster, self.node, &self.shared.secrets);
        let allocations = set
            .assignments
            .iter()
            .map(|a| (a.allocation, a.desired))
            .collect();
        let builds = set.builds.iter().map(|build| build.deployment).collect();
        let generation = set.generation;
        let message = match told.generation {
            None => v1::Desired {
                full: true,
                set: Some((&set).into()),
                ..v1::Desired::default()
            },
            Some(base) => {
                let Some(delta) = delta(told, base, set) else {
                    return Ok(());
                };
                delta
            }
        };
        *told = Told {
            generation: Some(generation),
            allocations,
            builds,
            routes: told.routes,
        };
        self.send(v1::to_agent::Kind::Desired(message)).await
    }

    async fn send(&self, kind: v1::to_agent::Kind) -> Result<(), Status> {
        let message = v1::ToAgent { kind: Some(kind) };
        self.down
            .send(Ok(message))
            .await
            .map_err(|_| Status::cancelled("the agent is gone"))
    }

    async fn hear(&self, kind: v1::from_agent::Kind) -> Result<(), Status> {
        use v1::from_agent::Kind as Up;
        let (fleet, node) = (&self.shared.fleet, self.node);
        fleet.heard(node, self.id);
        match kind {
            Up::Hello(hello) => match hello.facts {
                Some(facts) => self.learn(facts).await,
                None => Ok(()),
            },
            Up::Heartbeat(_) => Ok(()),
            Up::Routes(routes) => {
                let status = RouteStatus {
                    applied: routes.applied_revision,
                    drained: routes.drained_revision,
                };
                fleet.routes(node, self.id, status);
                Ok(())
            }
            Up::Observed(observed) => {
                fleet.runtime(node, self.id, observed.runtime_ok);
                self.observe(observed).await
            }
            Up::BuildLog(log) => self.keep_lines(log).await,
        }
    }

    async fn observe(&self, observed: v1::ObservedSet) -> Result<(), Status> {
        if !observed.allocations.is_empty() || !observed.builds.is_empty() {
            let node = id_bytes(self.node.as_u128());
            let command = v1::Observe {
                node,
                allocations: observed.allocations,
                builds: observed.builds,
            };
            self.propose(Kind::Observe(command)).await?;
        }
        self.send(v1::to_agent::Kind::ObservedAck(v1::ObservedAck {
            sequence: observed.sequence,
        }))
        .await
    }

    async fn keep_lines(&self, log: v1::BuildLog) -> Result<(), Status> {
        let deployment = id_bits("deployment", &log.deployment)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let deployment = DeploymentId::from_u128(deployment);
        let is_its_own = self
            .shared
            .store
            .view()
            .deployment(deployment)
            .and_then(|deployment| deployment.build.as_ref().map(|build| build.node))
            .is_none_or(|node| node == self.node);
        let upto = log.first + log.lines.len() as u64;
        if !is_its_own {
            return Err(Status::permission_denied(
                "a node may speak of its own builds only",
            ));
        }
        // A history that cannot be written never holds the cluster up: the lines are lost and
        // counted there.
        let next = self
            .shared
            .history
            .build_lines(deployment, log.first, log.lines)
            .await
            .unwrap_or(upto);
        self.send(v1::to_agent::Kind::BuildLogAck(v1::BuildLogAck {
            deployment: log.deployment,
            next,
        }))
        .await
    }

    async fn propose(&self, kind: Kind) -> Result<(), Status> {
        self.shared
            .store
            .propose(kind)
            .await
            .map(|_| ())
            .map_err(status)
    }
}

/// What changed since the node was told; none: nothing.
fn delta(told: &Told, base: Generation, set: DesiredSet) -> Option<v1::Desired> {
    let is_gone = |id: &&AllocationId| {
        !set.assignments
            .iter()
            .any(|assignment| assignment.allocation == **id)
    };
    let removed_allocations: Vec<_> = told
        .allocations
        .keys()
        .filter(is_gone)
        .map(|id| id_bytes(id.as_u128()))
        .collect();
    let is_ended = |id: &&DeploymentId| !set.builds.iter().any(|build| build.deployment == **id);
    let removed_builds: Vec<_> = told
        .builds
        .iter()
        .filter(is_ended)
        .map(|id| id_bytes(id.as_u128()))
        .collect();
    let mut changed = set;
    changed
        .assignments
        .retain(|a| told.allocations.get(&a.allocation) != Some(&a.desired));
    changed
        .builds
        .retain(|build| !told.builds.contains(&build.deployment));
    let is_same = removed_allocations.is_empty()
        && removed_builds.is_empty()
        && changed.assignments.is_empty()
        && changed.builds.is_empty();
    (!is_same).then(|| v1::Desired {
        full: false,
        base: Some(base.into()),
        set: Some((&changed).into()),
        removed_allocations,
        removed_builds,
    })
}

/// A problem as gRPC says it.
pub(super) fn status(problem: Problem) -> Status {
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
