//! Entities of the replicated state.

use std::collections::BTreeMap;

use skep_model::allocation::{Allocation, Desired, Observed, State};
use skep_model::gate::Pin;
use skep_model::id::{
    AllocationId, DeploymentId, EnvironmentId, JobId, NodeId, ProjectId, ServiceId, WorkspaceId,
};
use skep_model::service::{Image, Release, Service, Target};
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_model::variable::{Sealed, SharedVariables, Variable};

use super::spec::TYPES;
use super::{
    Error, container, enum_number, enum_value, id, id_bits, id_bytes, need, placement, port, ports,
    problem, rollout,
};
use crate::v1;

impl From<&Workspace> for v1::Workspace {
    fn from(workspace: &Workspace) -> Self {
        Self {
            id: id_bytes(workspace.id.as_u128()),
            name: workspace.name.clone(),
        }
    }
}

impl TryFrom<v1::Workspace> for Workspace {
    type Error = Error;

    fn try_from(message: v1::Workspace) -> Result<Self, Error> {
        Ok(Self {
            id: id!(WorkspaceId, message.id),
            name: message.name,
        })
    }
}

impl From<&Project> for v1::Project {
    fn from(project: &Project) -> Self {
        Self {
            id: id_bytes(project.id.as_u128()),
            workspace: id_bytes(project.workspace.as_u128()),
            name: project.name.clone(),
        }
    }
}

impl TryFrom<v1::Project> for Project {
    type Error = Error;

    fn try_from(message: v1::Project) -> Result<Self, Error> {
        Ok(Self {
            id: id!(ProjectId, message.id),
            workspace: id!(WorkspaceId, message.workspace),
            name: message.name,
        })
    }
}

impl From<&Environment> for v1::Environment {
    fn from(environment: &Environment) -> Self {
        Self {
            id: id_bytes(environment.id.as_u128()),
            project: id_bytes(environment.project.as_u128()),
            name: environment.name.clone(),
        }
    }
}

impl TryFrom<v1::Environment> for Environment {
    type Error = Error;

    fn try_from(message: v1::Environment) -> Result<Self, Error> {
        Ok(Self {
            id: id!(EnvironmentId, message.id),
            project: id!(ProjectId, message.project),
            name: message.name,
        })
    }
}

pub(super) fn variables_out(
    variables: &BTreeMap<String, Variable>,
) -> BTreeMap<String, v1::Variable> {
    variables
        .iter()
        .map(|(name, variable)| {
            (
                name.clone(),
                v1::Variable {
                    sealed: variable.value.0.clone(),
                    secret: variable.secret,
                },
            )
        })
        .collect()
}

pub(super) fn variables_in(
    variables: BTreeMap<String, v1::Variable>,
) -> BTreeMap<String, Variable> {
    variables
        .into_iter()
        .map(|(name, variable)| {
            (
                name,
                Variable {
                    value: Sealed(variable.sealed),
                    secret: variable.secret,
                },
            )
        })
        .collect()
}

impl From<&Target> for v1::Target {
    fn from(target: &Target) -> Self {
        Self {
            release: target.release,
            deployment: id_bytes(target.deployment.as_u128()),
        }
    }
}

impl TryFrom<v1::Target> for Target {
    type Error = Error;

    fn try_from(message: v1::Target) -> Result<Self, Error> {
        Ok(Self {
            release: message.release,
            deployment: id!(DeploymentId, message.deployment),
        })
    }
}

impl From<&Service> for v1::Service {
    fn from(service: &Service) -> Self {
        Self {
            id: id_bytes(service.id.as_u128()),
            environment: id_bytes(service.environment.as_u128()),
            name: service.name.clone(),
            spec: Some((&service.spec).into()),
            variables: variables_out(&service.variables),
            webhook_secret: service
                .webhook_secret
                .as_ref()
                .map(|sealed| sealed.0.clone()),
            live: service.live.as_ref().map(Into::into),
            rollout: service.rollout.as_ref().map(Into::into),
            last_release: service.last_release,
            stopped: service.stopped,
            removing: service.removing,
            generation: service.generation,
            created_ms: service.created_ms,
            scaling: service.scaling.as_ref().map(Into::into),
            progress: rollout::progress_out(&service.progress),
            pinned: service.pinned.as_ref().map(|pin| v1::Pin {
                reason: pin.reason.clone(),
                since_ms: pin.since_ms,
            }),
        }
    }
}

impl TryFrom<v1::Service> for Service {
    type Error = Error;

    fn try_from(message: v1::Service) -> Result<Self, Error> {
        Ok(Self {
            id: id!(ServiceId, message.id),
            environment: id!(EnvironmentId, message.environment),
            name: message.name,
            spec: need!(message.spec),
            variables: variables_in(message.variables),
            webhook_secret: message.webhook_secret.map(Sealed),
            live: message.live.map(Target::try_from).transpose()?,
            rollout: message.rollout.map(Target::try_from).transpose()?,
            last_release: message.last_release,
            stopped: message.stopped,
            removing: message.removing,
            generation: message.generation,
            created_ms: message.created_ms,
            scaling: message.scaling.map(Into::into),
            progress: rollout::progress_in(message.progress)?,
            pinned: message.pinned.map(|pin| Pin {
                reason: pin.reason,
                since_ms: pin.since_ms,
            }),
        })
    }
}

impl From<&Image> for v1::Image {
    fn from(image: &Image) -> Self {
        Self {
            reference: image.reference.clone(),
            digest: image.digest.clone(),
            node: image
                .node
                .map(|node| id_bytes(node.as_u128()))
                .unwrap_or_default(),
            shared: image.shared,
            bundle: image.bundle,
            pushed: image.pushed.clone(),
        }
    }
}

impl TryFrom<v1::Image> for Image {
    type Error = Error;

    fn try_from(message: v1::Image) -> Result<Self, Error> {
        let node = (!message.node.is_empty())
            .then(|| id_bits("node", &message.node).map(NodeId::from_u128));
        Ok(Self {
            reference: message.reference,
            digest: message.digest,
            node: node.transpose()?,
            shared: message.shared,
            bundle: message.bundle,
            pushed: message.pushed,
        })
    }
}

impl From<&Release> for v1::Release {
    fn from(release: &Release) -> Self {
        Self {
            service: id_bytes(release.service.as_u128()),
            number: release.number,
            deployment: id_bytes(release.deployment.as_u128()),
            image: Some((&release.image).into()),
            kind: enum_number(&TYPES, &release.kind),
            port: release.port.map(u32::from),
            command: release.command.clone(),
            variables: variables_out(&release.variables),
            resources: Some((&release.resources).into()),
            health: Some((&release.health).into()),
            restart: Some((&release.restart).into()),
            stop_grace_ms: release.stop_grace_ms,
            storage: super::storage::optional(&release.storage),
            commit: release.commit.clone(),
            created_ms: release.created_ms,
            placement: placement::out(&release.placement),
            container: container::container_out(&release.container),
            hooks: container::hooks_out(&release.hooks),
            branch: release.branch.clone(),
            public_url: release.public_url.clone(),
            file_variables: variables_out(&release.file_variables),
        }
    }
}

impl TryFrom<v1::Release> for Release {
    type Error = Error;

    fn try_from(message: v1::Release) -> Result<Self, Error> {
        Ok(Self {
            service: id!(ServiceId, message.service),
            number: message.number,
            deployment: id!(DeploymentId, message.deployment),
            image: need!(message.image),
            kind: enum_value("kind", &TYPES, message.kind)?,
            port: port("port", message.port)?,
            command: message.command,
            variables: variables_in(message.variables),
            resources: need!(message.resources),
            health: need!(message.health),
            restart: need!(message.restart),
            stop_grace_ms: message.stop_grace_ms,
            storage: super::storage::or_empty(message.storage)?,
            commit: message.commit,
            created_ms: message.created_ms,
            placement: placement::read(message.placement)?,
            container: container::container_in(message.container)?,
            hooks: container::hooks_in(message.hooks),
            branch: message.branch,
            public_url: message.public_url,
            file_variables: variables_in(message.file_variables),
        })
    }
}

impl From<&SharedVariables> for v1::SharedVariables {
    fn from(shared: &SharedVariables) -> Self {
        Self {
            environment: id_bytes(shared.environment.as_u128()),
            variables: variables_out(&shared.variables),
            generation: shared.generation,
        }
    }
}

impl TryFrom<v1::SharedVariables> for SharedVariables {
    type Error = Error;

    fn try_from(message: v1::SharedVariables) -> Result<Self, Error> {
        Ok(Self {
            environment: id!(EnvironmentId, message.environment),
            variables: variables_in(message.variables),
            generation: message.generation,
        })
    }
}

impl From<&Observed> for v1::Observed {
    fn from(observed: &Observed) -> Self {
        Self {
            state: enum_number(&State::ALL, &observed.state),
            restarts: observed.restarts,
            problem: observed.problem.as_ref().map(Into::into),
            log_tail: observed.log_tail.clone(),
            exit_code: observed.exit_code,
            ports: observed.ports.iter().copied().map(u32::from).collect(),
        }
    }
}

impl TryFrom<v1::Observed> for Observed {
    type Error = Error;

    fn try_from(message: v1::Observed) -> Result<Self, Error> {
        Ok(Self {
            state: enum_value("state", &State::ALL, message.state)?,
            restarts: message.restarts,
            problem: problem(message.problem)?,
            log_tail: message.log_tail,
            exit_code: message.exit_code,
            ports: ports(&message.ports)?,
        })
    }
}

impl From<&Allocation> for v1::Allocation {
    fn from(allocation: &Allocation) -> Self {
        Self {
            id: id_bytes(allocation.id.as_u128()),
            service: id_bytes(allocation.service.as_u128()),
            target: Some((&allocation.target).into()),
            node: id_bytes(allocation.node.as_u128()),
            desired: enum_number(&Desired::ALL, &allocation.desired),
            reason: allocation.reason.clone(),
            desired_ms: allocation.desired_ms,
            desired_index: allocation.desired_index,
            observed: Some((&allocation.observed).into()),
            observed_ms: allocation.observed_ms,
            created_ms: allocation.created_ms,
            job: super::job::optional_out(allocation.job.map(|job| job.as_u128())),
        }
    }
}

impl TryFrom<v1::Allocation> for Allocation {
    type Error = Error;

    fn try_from(message: v1::Allocation) -> Result<Self, Error> {
        Ok(Self {
            id: id!(AllocationId, message.id),
            service: id!(ServiceId, message.service),
            target: need!(message.target),
            node: id!(NodeId, message.node),
            desired: enum_value("desired", &Desired::ALL, message.desired)?,
            reason: message.reason,
            desired_ms: message.desired_ms,
            desired_index: message.desired_index,
            observed: need!(message.observed),
            observed_ms: message.observed_ms,
            created_ms: message.created_ms,
            job: super::job::optional("job", &message.job)?.map(JobId::from_u128),
        })
    }
}
