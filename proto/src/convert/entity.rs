//! Entities of the replicated state.

use std::collections::BTreeMap;

use skep_model::allocation::{Allocation, Desired, Observed, State};
use skep_model::deployment::{
    Build, BuildOutcome, Built, Deployment, Origin, Status, Step, Trigger,
};
use skep_model::id::{
    AllocationId, DeploymentId, EnvironmentId, JobId, NodeId, ProjectId, ServiceId, UploadId,
    WorkspaceId,
};
use skep_model::node::{Admin, Facts, Node, NodeStatus};
use skep_model::service::{Image, Release, Service, Target};
use skep_model::storage::HeldVolume;
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_model::variable::{Sealed, Variable};

use super::spec::TYPES;
use super::{
    Error, container, enum_number, enum_value, error, id, id_bits, id_bytes, need, placement, port,
    ports, problem, rollout,
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
        })
    }
}

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
            Origin::Image { reference } => Kind::Image(reference.clone()),
            Origin::Release { number } => Kind::Release(*number),
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
            Kind::Image(reference) => Self::Image { reference },
            Kind::Release(number) => Self::Release { number },
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
        }
    }
}

impl TryFrom<v1::Build> for Build {
    type Error = Error;

    fn try_from(message: v1::Build) -> Result<Self, Error> {
        Ok(Self {
            node: id!(NodeId, message.node),
            outcome: message.outcome.map(BuildOutcome::try_from).transpose()?,
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

impl From<&Facts> for v1::Facts {
    fn from(facts: &Facts) -> Self {
        Self {
            hostname: facts.hostname.clone(),
            architecture: facts.architecture.clone(),
            kernel: facts.kernel.clone(),
            cpu_millis: facts.cpu_millis,
            memory_bytes: facts.memory_bytes,
            disk_bytes: facts.disk_bytes,
            docker_version: facts.docker_version.clone(),
            agent_version: facts.agent_version.clone(),
            ingress_port: facts.ingress_port.map(u32::from),
            builder: facts.builder,
            devices: facts.devices.clone(),
            private_network: facts.private_network,
            meta: facts.meta.clone(),
            storage: facts.storage,
            volumes: facts.volumes.iter().map(Into::into).collect(),
            host_paths: facts.host_paths.clone(),
            image_address: facts.image_address.clone().unwrap_or_default(),
            machine: (!facts.machine.is_silent()).then(|| (&facts.machine).into()),
        }
    }
}

impl TryFrom<v1::Facts> for Facts {
    type Error = Error;

    fn try_from(message: v1::Facts) -> Result<Self, Error> {
        Ok(Self {
            hostname: message.hostname,
            architecture: message.architecture,
            kernel: message.kernel,
            cpu_millis: message.cpu_millis,
            memory_bytes: message.memory_bytes,
            disk_bytes: message.disk_bytes,
            docker_version: message.docker_version,
            agent_version: message.agent_version,
            ingress_port: port("ingress_port", message.ingress_port)?,
            builder: message.builder,
            devices: message.devices,
            private_network: message.private_network,
            meta: message.meta,
            storage: message.storage,
            volumes: held(message.volumes)?,
            host_paths: message.host_paths,
            image_address: (!message.image_address.is_empty()).then_some(message.image_address),
            machine: match message.machine {
                Some(machine) => machine.try_into()?,
                None => Default::default(),
            },
        })
    }
}

fn held(volumes: Vec<v1::HeldVolume>) -> Result<Vec<HeldVolume>, Error> {
    volumes.into_iter().map(TryInto::try_into).collect()
}

impl From<&Node> for v1::Node {
    fn from(node: &Node) -> Self {
        Self {
            id: id_bytes(node.id.as_u128()),
            name: node.name.clone(),
            facts: Some((&node.facts).into()),
            status: enum_number(&NodeStatus::ALL, &node.status),
            status_ms: node.status_ms,
            generation: node.generation,
            joined_ms: node.joined_ms,
            meta: node.meta.clone(),
            cordoned: node.admin == Admin::Cordoned,
            drain_deadline_ms: match node.admin {
                Admin::Draining { deadline_ms } => Some(deadline_ms),
                Admin::Eligible | Admin::Cordoned => None,
            },
            seat: super::optional_id_bytes(node.seat),
            witnesses: (node.witnesses.iter())
                .map(|witness| id_bytes(witness.as_u128()))
                .collect(),
        }
    }
}

impl TryFrom<v1::Node> for Node {
    type Error = Error;

    fn try_from(message: v1::Node) -> Result<Self, Error> {
        Ok(Self {
            id: id!(NodeId, message.id),
            name: message.name,
            facts: need!(message.facts),
            status: enum_value("status", &NodeStatus::ALL, message.status)?,
            status_ms: message.status_ms,
            generation: message.generation,
            joined_ms: message.joined_ms,
            meta: message.meta,
            admin: match message.drain_deadline_ms {
                Some(deadline_ms) => Admin::Draining { deadline_ms },
                None if message.cordoned => Admin::Cordoned,
                None => Admin::Eligible,
            },
            seat: super::optional_id_bits("seat", &message.seat)?,
            witnesses: super::node_ids(&message.witnesses)?,
        })
    }
}
