//! Commands applied to the state. Every rule that must hold whoever proposes is checked here; what
//! is refused changes nothing.

mod deployment;
mod node;
mod plan;
mod service;

use prost::Message as _;
use skep_model::id::{ClusterId, DeploymentId, EnvironmentId, NodeId, ProjectId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::variable::Sealed;
use skep_proto::convert::{self, id_bits};
use skep_proto::{FORMAT, v1};

use crate::change::Change;
use crate::state::{Cluster, State};

/// What the proposer of a command gets back.
pub type Outcome = Result<Reply, Problem>;

/// What an accepted command made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing to tell.
    Done,
    /// Project and environment in force.
    Environment {
        /// The project.
        project: ProjectId,
        /// The environment.
        environment: EnvironmentId,
    },
    /// The service, and its generation now.
    Service {
        /// Which.
        service: ServiceId,
        /// For the next compare-and-set.
        generation: u64,
    },
    /// The deployment.
    Deployment {
        /// Which.
        deployment: DeploymentId,
        /// An earlier delivery with the same key made it.
        replayed: bool,
    },
    /// The node that joined.
    Node(NodeId),
}

/// An applied command: what to answer, and what changed.
#[derive(Debug)]
pub struct Applied {
    /// For the proposer.
    pub outcome: Outcome,
    /// For the feed; empty when the command was refused.
    pub changes: Vec<Change>,
}

/// Encodes a command of this build's format.
pub fn command(time_ms: u64, kind: v1::command::Kind) -> Vec<u8> {
    v1::Command {
        version: FORMAT,
        time_ms,
        kind: Some(kind),
    }
    .encode_to_vec()
}

/// Collects the changes of one command; handed down to the rule of its kind.
pub(crate) struct Context<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) changes: Vec<Change>,
}

impl State {
    /// Applies the command at `index`. A command that is refused or damaged changes nothing but the
    /// index and the cluster's time.
    pub fn apply(&mut self, index: u64, bytes: &[u8]) -> Applied {
        self.index = index;
        let message = match v1::Command::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                let problem = Problem::new(
                    Code::Internal,
                    format!("the command does not decode: {error}"),
                );
                return Applied {
                    outcome: Err(problem),
                    changes: Vec::new(),
                };
            }
        };
        if message.version > FORMAT {
            let text = format!(
                "the command has format {}, this build applies up to {FORMAT}",
                message.version
            );
            return Applied {
                outcome: Err(Problem::new(Code::Internal, text)),
                changes: Vec::new(),
            };
        }
        self.time_ms = self.time_ms.max(message.time_ms);
        // Rules write to a copy (O(1)): one that refuses half-way leaves nothing behind.
        let mut next = self.clone();
        let mut context = Context {
            state: &mut next,
            changes: Vec::new(),
        };
        let outcome = match message.kind {
            Some(kind) => context.run(kind),
            None => Err(Problem::new(
                Code::Internal,
                "the command is of no known kind",
            )),
        };
        let changes = context.changes;
        if outcome.is_err() {
            return Applied {
                outcome,
                changes: Vec::new(),
            };
        }
        *self = next;
        Applied { outcome, changes }
    }
}

impl Context<'_> {
    fn run(&mut self, kind: v1::command::Kind) -> Outcome {
        use v1::command::Kind;
        match kind {
            Kind::InitCluster(message) => self.init_cluster(message),
            Kind::EnsureEnvironment(message) => self.ensure_environment(message),
            Kind::PutService(message) => self.put_service(message),
            Kind::DropService(message) => self.drop_service(&message),
            Kind::CreateDeployment(message) => self.create_deployment(message),
            Kind::AssignBuild(message) => self.assign_build(message),
            Kind::StartRollout(message) => self.start_rollout(message),
            Kind::FinishDeployment(message) => self.finish_deployment(message),
            Kind::NoteDeployment(message) => self.note_deployment(message),
            Kind::ApplyPlan(message) => self.apply_plan(message),
            Kind::Observe(message) => self.observe(message),
            Kind::PutToken(message) => self.put_token(message),
            Kind::JoinNode(message) => self.join_node(message),
            Kind::UpdateNode(message) => self.update_node(message),
            Kind::SetNodeStatus(message) => self.set_node_status(&message),
            Kind::RemoveNode(message) => self.remove_node(&message),
        }
    }

    fn init_cluster(&mut self, message: v1::InitCluster) -> Outcome {
        if self.state.cluster.is_some() {
            return Err(Problem::new(Code::Conflict, "the cluster exists already"));
        }
        let workspace = message.workspace.ok_or_else(|| missing("workspace"))?;
        self.state.put_workspace(understood(workspace)?);
        let cluster = Cluster {
            id: ClusterId::from_u128(bits("cluster", &message.cluster)?),
            incarnation: 1,
            feature_level: FORMAT,
            ca_cert_pem: message.ca_cert_pem,
            sealed_ca_key: Sealed(message.sealed_ca_key),
            wrapped_data_key: Sealed(message.wrapped_data_key),
            base_domain: message.base_domain,
            admin_token_hash: message.admin_token_hash,
        };
        self.state.cluster = Some(std::sync::Arc::new(cluster));
        self.changes.push(Change::Cluster);
        Ok(Reply::Done)
    }

    /// The route table has a new revision: the index of this command.
    pub(crate) fn touch_routes(&mut self) {
        if self.state.routes_revision != self.state.index {
            self.state.routes_revision = self.state.index;
            self.changes.push(Change::Routes);
        }
    }
}

/// A message as its model type; a message without meaning is refused by its field's name.
pub(crate) fn understood<M, T>(message: M) -> Result<T, Problem>
where
    T: TryFrom<M, Error = convert::Error>,
{
    T::try_from(message).map_err(|error| {
        Problem::new(
            Code::Internal,
            format!("the command does not make sense: {error}"),
        )
    })
}

pub(crate) fn bits(field: &'static str, bytes: &[u8]) -> Result<u128, Problem> {
    id_bits(field, bytes).map_err(|_| missing(field))
}

pub(crate) fn missing(field: &'static str) -> Problem {
    Problem::new(Code::Internal, "the command does not make sense").at(field)
}

pub(crate) fn not_found(what: &str, id: impl std::fmt::Display) -> Problem {
    Problem::new(Code::NotFound, format!("there is no {what} {id}"))
}

pub(crate) fn changed_meanwhile(what: &str) -> Problem {
    Problem::new(Code::Conflict, format!("the {what} was changed meanwhile"))
        .hint("read it again and repeat the change")
}
