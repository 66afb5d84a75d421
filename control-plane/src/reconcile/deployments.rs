//! Carries out what is decided of deployments.

use skep_model::deployment::{Deployment, Status};
use skep_model::id::{DeploymentId, NodeId};
use skep_model::problem::{Code, Problem};
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1::command::Kind;
use skep_proto::v1::{
    AssignBuild, AwaitApproval, BeginPush, FinishDeployment, ForgetHolder, NoteDeployment,
    PassGate, StartRollout,
};
use skep_state::State;

use super::Duties;
use crate::deploy::decide::{Inputs, Next, decide};
use crate::deploy::release::Resolved;
use crate::store::now_ms;

impl Duties {
    pub(super) async fn advance(&mut self, id: DeploymentId) {
        let view = self.parts.store.view();
        let Some(deployment) = view.deployment(id).cloned() else {
            return;
        };
        self.parts.history.steps(id, &deployment.steps);
        if !deployment.status.is_active() {
            return;
        }
        let checks = self.checks.seen();
        let next = decide(
            &Inputs {
                view: &view,
                secrets: &self.parts.secrets,
                refusals: self.scheduling.refusals(),
                converged: self.scheduling.converged(),
                checks: &checks,
                is_published: self.parts.fleet.is_published(&view, view.routes_revision()),
                now_ms: now_ms(),
            },
            &deployment,
        );
        if let Next::Wait { until_ms } = next {
            if let Some(at) = until_ms {
                self.wake_at_ms(at);
            }
            return;
        }
        let Some(kind) = command(&view, &deployment, next) else {
            return;
        };
        if !self.propose(kind).await {
            self.dirty.deployments.insert(id);
        }
    }
}

fn command(view: &State, deployment: &Deployment, next: Next) -> Option<Kind> {
    Some(match next {
        Next::Wait { .. } => return None,
        Next::Note(problem) => Kind::NoteDeployment(NoteDeployment {
            deployment: id_bytes(deployment.id.as_u128()),
            expected_generation: deployment.generation,
            step: format!("waiting: {problem}"),
            problem: Some((&problem).into()),
        }),
        Next::Pass => Kind::PassGate(PassGate {
            deployment: id_bytes(deployment.id.as_u128()),
            expected_generation: deployment.generation,
            step: match deployment.problem {
                Some(_) => "nothing holds it any more".to_owned(),
                None => String::new(),
            },
        }),
        Next::Await(problem) => Kind::AwaitApproval(AwaitApproval {
            deployment: id_bytes(deployment.id.as_u128()),
            expected_generation: deployment.generation,
            step: format!("waiting: {problem}"),
            problem: Some((&problem).into()),
        }),
        Next::Build(node) => assign(view, deployment, node),
        Next::Forget(node) => Kind::ForgetHolder(ForgetHolder {
            service: id_bytes(deployment.service.as_u128()),
            node: id_bytes(node.as_u128()),
        }),
        Next::Push(step) => Kind::BeginPush(BeginPush {
            deployment: id_bytes(deployment.id.as_u128()),
            expected_generation: deployment.generation,
            step,
        }),
        Next::Release(resolved) => {
            let Resolved {
                release,
                spec,
                step,
            } = *resolved;
            Kind::StartRollout(StartRollout {
                release: Some((&release).into()),
                spec: Some((&spec).into()),
                ..rollout(view, deployment, release.number, step)?
            })
        }
        Next::Existing(number) => Kind::StartRollout(rollout(
            view,
            deployment,
            number,
            format!("release {number}, which is kept"),
        )?),
        Next::Live => finish(deployment, Status::Live, None, "live".to_owned()),
        Next::Fail(problem, log_tail) => {
            let mut step = format!("failed: {problem}");
            if !log_tail.is_empty() {
                step.push_str("\nlast lines of the container:\n");
                step.push_str(&log_tail);
            }
            finish(deployment, Status::Failed, Some(problem), step)
        }
        Next::Cancel(problem) => finish(
            deployment,
            Status::Canceled,
            Some(problem),
            "canceled".to_owned(),
        ),
    })
}

fn assign(view: &State, deployment: &Deployment, node: NodeId) -> Kind {
    let name = view
        .node(node)
        .map_or_else(|| node.to_string(), |node| node.name.clone());
    Kind::AssignBuild(AssignBuild {
        deployment: id_bytes(deployment.id.as_u128()),
        expected_generation: deployment.generation,
        node: id_bytes(node.as_u128()),
        step: format!("building on node {name}"),
    })
}

fn rollout(
    view: &State,
    deployment: &Deployment,
    number: u64,
    step: String,
) -> Option<StartRollout> {
    let service = view.service(deployment.service)?;
    Some(StartRollout {
        deployment: id_bytes(deployment.id.as_u128()),
        expected_generation: deployment.generation,
        release: None,
        number,
        spec: None,
        expected_service_generation: service.generation,
        step,
    })
}

/// The end of a deployment, with the last line of its timeline.
pub(super) fn finish(
    deployment: &Deployment,
    status: Status,
    problem: Option<Problem>,
    step: String,
) -> Kind {
    if let Some(problem) = problem
        .as_ref()
        .filter(|problem| problem.code == Code::Internal)
    {
        tracing::error!(deployment = %deployment.id, %problem, "a deployment failed for a fault of Skep itself");
    }
    Kind::FinishDeployment(FinishDeployment {
        deployment: id_bytes(deployment.id.as_u128()),
        expected_generation: deployment.generation,
        status: enum_number(&Status::ALL, &status),
        problem: problem.as_ref().map(Into::into),
        step,
    })
}
