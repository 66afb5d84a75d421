//! Jobs, and what is remembered beside them.

use skep_model::id::{AllocationId, DeploymentId, JobId, NodeId, ServiceId};
use skep_model::job::{Attempt, Cause, Job, JobBook, Limits, Status};

use super::entity::{variables_in, variables_out};
use super::{Error, enum_number, enum_value, error, id, id_bits, id_bytes, need, problem};
use crate::v1;

/// An id that may be missing: empty bytes.
pub(super) fn optional_out(bits: Option<u128>) -> Vec<u8> {
    bits.map(id_bytes).unwrap_or_default()
}

/// An id that may be missing.
pub(super) fn optional(field: &'static str, bytes: &[u8]) -> Result<Option<u128>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    id_bits(field, bytes).map(Some)
}

impl From<&Cause> for v1::job::Cause {
    fn from(cause: &Cause) -> Self {
        match cause {
            Cause::Deployment(id) => Self::Deployment(id_bytes(id.as_u128())),
            Cause::Schedule { at_ms } => Self::ScheduledMs(*at_ms),
            Cause::Release(id) => Self::ReleaseOf(id_bytes(id.as_u128())),
            Cause::Request {
                by,
                command,
                variables,
            } => Self::Request(v1::job::Request {
                by: by.clone(),
                command: command.clone(),
                variables: variables_out(variables),
            }),
        }
    }
}

impl TryFrom<v1::job::Cause> for Cause {
    type Error = Error;

    fn try_from(message: v1::job::Cause) -> Result<Self, Error> {
        Ok(match message {
            v1::job::Cause::Deployment(id) => {
                Self::Deployment(DeploymentId::from_u128(id_bits("deployment", &id)?))
            }
            v1::job::Cause::ScheduledMs(at_ms) => Self::Schedule { at_ms },
            v1::job::Cause::ReleaseOf(id) => {
                Self::Release(DeploymentId::from_u128(id_bits("release_of", &id)?))
            }
            v1::job::Cause::Request(request) => Self::Request {
                by: request.by,
                command: request.command,
                variables: variables_in(request.variables),
            },
        })
    }
}

impl From<&Limits> for v1::JobLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            retries: limits.retries,
            deadline_ms: limits.deadline_ms,
            backoff_ms: limits.backoff_ms,
            max_backoff_ms: limits.max_backoff_ms,
        }
    }
}

impl From<v1::JobLimits> for Limits {
    fn from(message: v1::JobLimits) -> Self {
        Self {
            retries: message.retries,
            deadline_ms: message.deadline_ms,
            backoff_ms: message.backoff_ms,
            max_backoff_ms: message.max_backoff_ms,
        }
    }
}

impl From<&Job> for v1::Job {
    fn from(job: &Job) -> Self {
        Self {
            id: id_bytes(job.id.as_u128()),
            service: id_bytes(job.service.as_u128()),
            target: Some((&job.target).into()),
            cause: Some((&job.cause).into()),
            limits: Some((&job.limits).into()),
            status: enum_number(&Status::ALL, &job.status),
            cancel: job.cancel,
            attempts: job.attempts,
            failed_here: job.failed_here,
            allocation: optional_out(job.allocation.map(AllocationId::as_u128)),
            node: optional_out(job.node.map(NodeId::as_u128)),
            not_before_ms: job.not_before_ms,
            exit_code: job.exit_code,
            problem: job.problem.as_ref().map(Into::into),
            log_tail: job.log_tail.clone(),
            created_ms: job.created_ms,
            started_ms: job.started_ms,
            ended_ms: job.ended_ms,
        }
    }
}

impl TryFrom<v1::Job> for Job {
    type Error = Error;

    fn try_from(message: v1::Job) -> Result<Self, Error> {
        let allocation = optional("allocation", &message.allocation)?;
        let node = optional("node", &message.node)?;
        Ok(Self {
            id: id!(JobId, message.id),
            service: id!(ServiceId, message.service),
            target: need!(message.target),
            cause: message.cause.ok_or(error("cause"))?.try_into()?,
            limits: message.limits.map(Limits::from).unwrap_or_default(),
            status: enum_value("status", &Status::ALL, message.status)?,
            cancel: message.cancel,
            attempts: message.attempts,
            failed_here: message.failed_here,
            allocation: allocation.map(AllocationId::from_u128),
            node: node.map(NodeId::from_u128),
            not_before_ms: message.not_before_ms,
            exit_code: message.exit_code,
            problem: problem(message.problem)?,
            log_tail: message.log_tail,
            created_ms: message.created_ms,
            started_ms: message.started_ms,
            ended_ms: message.ended_ms,
        })
    }
}

impl From<(ServiceId, &JobBook)> for v1::JobBook {
    fn from((service, book): (ServiceId, &JobBook)) -> Self {
        Self {
            service: id_bytes(service.as_u128()),
            generation: book.generation,
            deployment: optional_out(book.deployment.map(DeploymentId::as_u128)),
            following: book.following.clone(),
            until_ms: book.until_ms,
        }
    }
}

impl TryFrom<v1::JobBook> for (ServiceId, JobBook) {
    type Error = Error;

    fn try_from(message: v1::JobBook) -> Result<Self, Error> {
        let deployment = optional("deployment", &message.deployment)?;
        let book = JobBook {
            generation: message.generation,
            deployment: deployment.map(DeploymentId::from_u128),
            following: message.following,
            until_ms: message.until_ms,
        };
        Ok((id!(ServiceId, message.service), book))
    }
}

impl From<&Attempt> for v1::Attempt {
    fn from(attempt: &Attempt) -> Self {
        Self {
            job: id_bytes(attempt.job.as_u128()),
            limit_ms: attempt.limit_ms,
        }
    }
}

impl TryFrom<v1::Attempt> for Attempt {
    type Error = Error;

    fn try_from(message: v1::Attempt) -> Result<Self, Error> {
        Ok(Self {
            job: id!(JobId, message.job),
            limit_ms: message.limit_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use skep_model::problem::{Code, Problem};
    use skep_model::service::Target;
    use skep_model::variable::{Sealed, Variable};

    #[test]
    fn every_job_survives_the_message() {
        let target = Target {
            release: 3,
            deployment: DeploymentId::from_u128(4),
        };
        let variable = Variable {
            value: Sealed(vec![1, 2]),
            secret: true,
        };
        let causes = [
            Cause::Deployment(DeploymentId::from_u128(4)),
            Cause::Schedule { at_ms: 0 },
            Cause::Request {
                by: "admin".into(),
                command: vec!["a".into()],
                variables: BTreeMap::from([("A".to_owned(), variable)]),
            },
        ];
        for cause in causes {
            let new = Job::new(JobId::from_u128(1), ServiceId::from_u128(2), target, cause);
            let full = Job {
                status: Status::Failed,
                cancel: true,
                attempts: 3,
                failed_here: 2,
                allocation: Some(AllocationId::from_u128(0)),
                node: Some(NodeId::from_u128(7)),
                exit_code: Some(-1),
                problem: Some(Problem::new(Code::Crashed, "c")),
                ended_ms: 9,
                ..new.clone()
            };
            for job in [new, full] {
                assert_eq!(Job::try_from(v1::Job::from(&job)), Ok(job));
            }
        }
        let empty = v1::Job::default();
        assert!(Job::try_from(empty).is_err());
    }
}
