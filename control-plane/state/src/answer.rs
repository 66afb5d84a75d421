//! What the proposer of a command gets back, also as bytes: on its way from the leader to the server
//! that asked, and in the snapshot for as long as the command's key is remembered.

use prost::Message as _;
use skep_model::id::{DeploymentId, EnvironmentId, JobId, NodeId, ProjectId, ServiceId};
use skep_model::problem::Problem;
use skep_proto::convert::{self, id_bits, id_bytes};
use skep_proto::v1;
use skep_proto::v1::outcome::taken::{Each, each};
use skep_proto::v1::outcome::{self, DeploymentAt, EnvironmentIds, Kind, ServiceAt};

/// What the state machine says to a command.
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
    /// The member id that the cluster gives to a server.
    Member(u64),
    /// The job.
    Job(JobId),
    /// What came of each wish of a delivery, in their order.
    Taken(Vec<Taken>),
}

/// What came of one wish of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// This deployment was made.
    Made(DeploymentId),
    /// A delivery with the same key had asked for it before.
    Replayed(DeploymentId),
    /// Another delivery had asked for the same commit before.
    SameCommit(DeploymentId),
    /// Its service is not there any more.
    Refused(Problem),
}

/// Whether a command was obeyed as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Repeat {
    /// For the first time; or it has no key.
    #[default]
    First,
    /// No: an earlier one with the same key was, and this is its outcome.
    Replayed,
    /// No: it may have been obeyed before, and its key forgotten since. Nothing was changed now.
    TooLate,
}

/// The outcome of one command, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What came of it.
    pub outcome: Outcome,
    /// Of this command, or of an earlier one.
    pub repeat: Repeat,
}

impl Answer {
    /// As bytes for another server of the same or a newer version.
    pub fn encode(&self) -> Vec<u8> {
        v1::Outcome {
            replayed: self.repeat == Repeat::Replayed,
            too_late: self.repeat == Repeat::TooLate,
            ..outcome_out(&self.outcome)
        }
        .encode_to_vec()
    }

    /// The answer that these bytes are.
    ///
    /// # Errors
    /// In words: they do not decode, or are of a kind that this build does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let message = v1::Outcome::decode(bytes).map_err(|error| error.to_string())?;
        let repeat = match (message.replayed, message.too_late) {
            (_, true) => Repeat::TooLate,
            (true, false) => Repeat::Replayed,
            (false, false) => Repeat::First,
        };
        let outcome = outcome_in(message).map_err(|error| error.to_string())?;
        Ok(Self { outcome, repeat })
    }
}

fn taken_out(taken: &Taken) -> Each {
    let kind = match taken {
        Taken::Made(id) => each::Kind::Made(id_bytes(id.as_u128())),
        Taken::Replayed(id) => each::Kind::Replayed(id_bytes(id.as_u128())),
        Taken::SameCommit(id) => each::Kind::SameCommit(id_bytes(id.as_u128())),
        Taken::Refused(problem) => each::Kind::Refused(problem.into()),
    };
    Each { kind: Some(kind) }
}

fn taken_in(message: Each) -> Result<Taken, convert::Error> {
    let id = |bytes: &[u8]| id_bits("deployment", bytes).map(DeploymentId::from_u128);
    Ok(
        match message.kind.ok_or(convert::Error { field: "taken" })? {
            each::Kind::Made(bytes) => Taken::Made(id(&bytes)?),
            each::Kind::Replayed(bytes) => Taken::Replayed(id(&bytes)?),
            each::Kind::SameCommit(bytes) => Taken::SameCommit(id(&bytes)?),
            each::Kind::Refused(problem) => Taken::Refused(problem.try_into()?),
        },
    )
}

pub(crate) fn outcome_out(outcome: &Outcome) -> v1::Outcome {
    let kind = match outcome {
        Err(problem) => Kind::Problem(problem.into()),
        Ok(Reply::Done) => Kind::Done(true),
        Ok(Reply::Environment {
            project,
            environment,
        }) => Kind::Environment(EnvironmentIds {
            project: id_bytes(project.as_u128()),
            environment: id_bytes(environment.as_u128()),
        }),
        Ok(Reply::Service {
            service,
            generation,
        }) => Kind::Service(ServiceAt {
            service: id_bytes(service.as_u128()),
            generation: *generation,
        }),
        Ok(Reply::Deployment {
            deployment,
            replayed,
        }) => Kind::Deployment(DeploymentAt {
            deployment: id_bytes(deployment.as_u128()),
            replayed: *replayed,
        }),
        Ok(Reply::Node(node)) => Kind::Node(id_bytes(node.as_u128())),
        Ok(Reply::Member(member)) => Kind::Member(*member),
        Ok(Reply::Job(job)) => Kind::Job(id_bytes(job.as_u128())),
        Ok(Reply::Taken(all)) => Kind::Taken(outcome::Taken {
            each: all.iter().map(taken_out).collect(),
        }),
    };
    v1::Outcome {
        kind: Some(kind),
        ..v1::Outcome::default()
    }
}

pub(crate) fn outcome_in(message: v1::Outcome) -> Result<Outcome, convert::Error> {
    let kind = message.kind.ok_or(convert::Error { field: "outcome" })?;
    Ok(match kind {
        Kind::Problem(problem) => Err(problem.try_into()?),
        Kind::Done(_) => Ok(Reply::Done),
        Kind::Environment(at) => Ok(Reply::Environment {
            project: ProjectId::from_u128(id_bits("project", &at.project)?),
            environment: EnvironmentId::from_u128(id_bits("environment", &at.environment)?),
        }),
        Kind::Service(at) => Ok(Reply::Service {
            service: ServiceId::from_u128(id_bits("service", &at.service)?),
            generation: at.generation,
        }),
        Kind::Deployment(at) => Ok(Reply::Deployment {
            deployment: DeploymentId::from_u128(id_bits("deployment", &at.deployment)?),
            replayed: at.replayed,
        }),
        Kind::Node(node) => Ok(Reply::Node(NodeId::from_u128(id_bits("node", &node)?))),
        Kind::Member(member) => Ok(Reply::Member(member)),
        Kind::Job(job) => Ok(Reply::Job(JobId::from_u128(id_bits("job", &job)?))),
        Kind::Taken(taken) => {
            let all: Result<_, _> = taken.each.into_iter().map(taken_in).collect();
            Ok(Reply::Taken(all?))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::problem::Code;

    #[test]
    fn every_answer_survives_the_bytes() {
        let outcomes = [
            Err(Problem::new(Code::Busy, "b").at("f").hint("h")),
            Ok(Reply::Done),
            Ok(Reply::Environment {
                project: ProjectId::from_u128(1),
                environment: EnvironmentId::from_u128(2),
            }),
            Ok(Reply::Service {
                service: ServiceId::from_u128(3),
                generation: 4,
            }),
            Ok(Reply::Deployment {
                deployment: DeploymentId::from_u128(5),
                replayed: true,
            }),
            Ok(Reply::Node(NodeId::from_u128(6))),
            Ok(Reply::Member(7)),
            Ok(Reply::Job(JobId::from_u128(8))),
        ];
        for outcome in outcomes {
            for repeat in [Repeat::First, Repeat::Replayed, Repeat::TooLate] {
                let outcome = outcome.clone();
                let answer = Answer { outcome, repeat };
                assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
            }
        }
        assert!(Answer::decode(&[]).is_err(), "says nothing");
        assert!(Answer::decode(&[0xff]).is_err());
    }
}
