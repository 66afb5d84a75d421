//! Deployments: where they come from, what was built, how far they are.

use skep_model::deployment::{
    Build, BuildOutcome, Built, Deployment, Origin, Status, Step, Trigger,
};
use skep_model::gate::Held;
use skep_model::id::{DeploymentId, NodeId, ServiceId, UploadId};

use super::{Error, enum_number, enum_value, error, id, id_bits, id_bytes, need, problem};
use crate::v1;

impl From<&Origin> for v1::Origin {
    fn from(origin: &Origin) -> Self {
        use v1::origin::Kind;
        let kind = match origin {
            Origin::Upload { upload } => Kind::Upload(id_bytes(upload.as_u128())),
            Origin::Git {
                repository,
                branch,
                commit,
                directory,
            } => Kind::Git(v1::origin::Git {
                repository: repository.clone(),
                branch: branch.clone(),
                commit: commit.clone(),
                directory: directory.clone(),
            }),
            Origin::Pushed {
                branch,
                commit,
                directory,
            } => Kind::Pushed(v1::origin::Pushed {
                branch: branch.clone(),
                commit: commit.clone(),
                directory: directory.clone(),
            }),
            Origin::Image { reference } => Kind::Image(reference.clone()),
            Origin::Release { number } => Kind::Release(*number),
            Origin::Promoted { from, number } => Kind::Promoted(v1::origin::Promoted {
                service: id_bytes(from.as_u128()),
                number: *number,
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Origin> for Origin {
    type Error = Error;

    fn try_from(message: v1::Origin) -> Result<Self, Error> {
        use v1::origin::Kind;
        Ok(match message.kind.ok_or(error("origin"))? {
            Kind::Upload(bytes) => Self::Upload {
                upload: UploadId::from_u128(id_bits("upload", &bytes)?),
            },
            Kind::Git(git) => Self::Git {
                repository: git.repository,
                branch: git.branch,
                commit: git.commit,
                directory: git.directory,
            },
            Kind::Pushed(pushed) => Self::Pushed {
                branch: pushed.branch,
                commit: pushed.commit,
                directory: pushed.directory,
            },
            Kind::Image(reference) => Self::Image { reference },
            Kind::Release(number) => Self::Release { number },
            Kind::Promoted(promoted) => Self::Promoted {
                from: id!(ServiceId, promoted.service),
                number: promoted.number,
            },
        })
    }
}

impl From<&BuildOutcome> for v1::BuildOutcome {
    fn from(outcome: &BuildOutcome) -> Self {
        use v1::build_outcome::Kind;
        let kind = match outcome {
            BuildOutcome::Built(built) => Kind::Built(v1::Built {
                image: Some((&built.image).into()),
                exposed: built.exposed.iter().copied().map(u32::from).collect(),
                commit: built.commit.clone(),
                manifest_toml: built.manifest.clone(),
            }),
            BuildOutcome::Failed(problem) => Kind::Failed(problem.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::BuildOutcome> for BuildOutcome {
    type Error = Error;

    fn try_from(message: v1::BuildOutcome) -> Result<Self, Error> {
        use v1::build_outcome::Kind;
        Ok(match message.kind.ok_or(error("outcome"))? {
            Kind::Built(built) => Self::Built(Built {
                image: need!(built.image),
                exposed: built
                    .exposed
                    .into_iter()
                    .map(|n| u16::try_from(n).map_err(|_| error("exposed")))
                    .collect::<Result<_, _>>()?,
                commit: built.commit,
                manifest: built.manifest_toml,
            }),
            Kind::Failed(problem) => Self::Failed(problem.try_into()?),
        })
    }
}

impl From<&Deployment> for v1::Deployment {
    fn from(deployment: &Deployment) -> Self {
        Self {
            id: id_bytes(deployment.id.as_u128()),
            service: id_bytes(deployment.service.as_u128()),
            trigger: enum_number(&Trigger::ALL, &deployment.trigger),
            origin: Some((&deployment.origin).into()),
            status: enum_number(&Status::ALL, &deployment.status),
            problem: deployment.problem.as_ref().map(Into::into),
            build: deployment.build.as_ref().map(|build| v1::Build {
                node: id_bytes(build.node.as_u128()),
                outcome: build.outcome.as_ref().map(Into::into),
                lost: build.lost,
            }),
            release: deployment.release,
            steps: deployment
                .steps
                .iter()
                .map(|step| v1::Step {
                    at_ms: step.at_ms,
                    text: step.text.clone(),
                })
                .collect(),
            created_ms: deployment.created_ms,
            status_ms: deployment.status_ms,
            generation: deployment.generation,
            source: deployment.source.as_ref().map(Into::into),
            no_cache: deployment.no_cache,
            told: deployment.told.as_ref().map(Into::into),
            held: deployment.held.map(|held| v1::Held {
                approved_ms: held.approved_ms,
                despite_freeze: held.despite_freeze,
                heard: held.heard,
            }),
            shown: deployment.shown.as_ref().map(Into::into),
            push: deployment.push.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::Build> for Build {
    type Error = Error;

    fn try_from(message: v1::Build) -> Result<Self, Error> {
        Ok(Self {
            node: id!(NodeId, message.node),
            outcome: message.outcome.map(BuildOutcome::try_from).transpose()?,
            lost: message.lost,
        })
    }
}

impl TryFrom<v1::Deployment> for Deployment {
    type Error = Error;

    fn try_from(message: v1::Deployment) -> Result<Self, Error> {
        Ok(Self {
            id: id!(DeploymentId, message.id),
            service: id!(ServiceId, message.service),
            trigger: enum_value("trigger", &Trigger::ALL, message.trigger)?,
            origin: need!(message.origin),
            status: enum_value("status", &Status::ALL, message.status)?,
            problem: problem(message.problem)?,
            build: message.build.map(Build::try_from).transpose()?,
            release: message.release,
            steps: message
                .steps
                .into_iter()
                .map(|step| Step {
                    at_ms: step.at_ms,
                    text: step.text,
                })
                .collect(),
            created_ms: message.created_ms,
            status_ms: message.status_ms,
            generation: message.generation,
            source: message.source.map(TryInto::try_into).transpose()?,
            no_cache: message.no_cache,
            told: message.told.map(TryInto::try_into).transpose()?,
            held: message.held.map(|held| Held {
                approved_ms: held.approved_ms,
                despite_freeze: held.despite_freeze,
                heard: held.heard,
            }),
            shown: message.shown.map(TryInto::try_into).transpose()?,
            push: message.push.map(TryInto::try_into).transpose()?,
        })
    }
}
