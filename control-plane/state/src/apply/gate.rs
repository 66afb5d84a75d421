//! Deployments at the gates of their environment: held, approved, let through. When a gate is open the leader says: it
//! depends on the hour, and on others.

use std::sync::Arc;

use skep_model::deployment::{Deployment, Status, Trigger};
use skep_model::gate::{Held, Pin, check_reason};
use skep_model::id::{DeploymentId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_proto::v1;

use super::{Context, Outcome, Reply, bits, changed_meanwhile, not_found, understood};

impl Context<'_> {
    /// Whether a deployment that is about to be made waits at the gates, and what was said of it already.
    pub(super) fn held(&self, service: &Service, wanted: &Deployment) -> Option<Held> {
        let waits_for_checks = service.spec.pushes.wait_for_ci.is_some()
            && matches!(wanted.trigger, Trigger::Webhook | Trigger::Poll);
        let is_held = wanted.trigger.is_held()
            && (service.pinned.is_some()
                || waits_for_checks
                || !self.state.gates_of(service.environment).is_empty());
        let said = wanted.held.unwrap_or_default();
        is_held.then(|| Held {
            approved_ms: said.approved_ms.map(|_| self.state.time_ms),
            ..said
        })
    }

    pub(super) fn pass_gate(&mut self, message: v1::PassGate) -> Outcome {
        let deployment = self.expect_held(&message.deployment, message.expected_generation)?;
        self.supersede_others(&deployment, |_| true)?;
        let mut next = (*deployment).clone();
        next.held = None;
        next.problem = None;
        self.step(&mut next, message.step);
        next.generation += 1;
        // What it waits for from now on, it has waited for since now.
        next.status_ms = self.state.time_ms;
        self.put_deployment(next);
        self.start_again(deployment.service);
        Ok(Reply::Done)
    }

    pub(super) fn await_approval(&mut self, message: v1::AwaitApproval) -> Outcome {
        let deployment = self.expect_held(&message.deployment, message.expected_generation)?;
        if !deployment.status.may_become(Status::AwaitingApproval) {
            return Err(changed_meanwhile("deployment"));
        }
        let mut next = (*deployment).clone();
        next.problem = message.problem.map(understood).transpose()?;
        self.step(&mut next, message.step);
        self.enter(&mut next, Status::AwaitingApproval);
        self.tell(&next);
        self.put_deployment(next);
        Ok(Reply::Done)
    }

    pub(super) fn approve_deployment(&mut self, message: v1::ApproveDeployment) -> Outcome {
        let deployment = self.expect_held(&message.deployment, message.expected_generation)?;
        let before = deployment.held.unwrap_or_default();
        let mut next = (*deployment).clone();
        next.held = Some(Held {
            approved_ms: before.approved_ms.or(Some(self.state.time_ms)),
            despite_freeze: before.despite_freeze || message.despite_freeze,
            ..before
        });
        let text = match message.despite_freeze {
            true => "approved, despite freezes",
            false => "approved",
        };
        self.step(&mut next, text.to_owned());
        next.generation += 1;
        self.put_deployment(next);
        Ok(Reply::Done)
    }

    /// A forge says that something is new about commits: those that still wait for them are looked at at once.
    pub(super) fn hear_checks(&mut self, message: &v1::HearChecks) -> Outcome {
        for id in &message.deployments {
            let id = DeploymentId::from_u128(bits("deployment", id)?);
            let waiting = self.state.deployment(id).cloned();
            let Some((deployment, held)) = waiting.and_then(|it| it.held.map(|held| (it, held)))
            else {
                continue;
            };
            let mut next = (*deployment).clone();
            next.held = Some(Held {
                heard: held.heard.wrapping_add(1),
                ..held
            });
            next.generation += 1;
            self.put_deployment(next);
        }
        Ok(Reply::Done)
    }

    /// What waits is looked at again by the leader: the service has changed.
    pub(super) fn pin_service(&mut self, message: v1::PinService) -> Outcome {
        let id = ServiceId::from_u128(bits("service", &message.service)?);
        let service = self.state.service(id).cloned();
        let service = service.ok_or_else(|| not_found("service", id))?;
        let pinned = message.pin.map(|pin| Pin {
            reason: pin.reason,
            since_ms: self.state.time_ms,
        });
        if let Some(pin) = &pinned {
            check_reason(&pin.reason)?;
        }
        let says = |pin: &Option<Pin>| pin.as_ref().map(|pin| pin.reason.clone());
        if says(&pinned) != says(&service.pinned) {
            self.put_changed_service(Service {
                pinned,
                ..(*service).clone()
            });
        }
        Ok(Reply::Done)
    }

    fn expect_held(&self, id: &[u8], generation: u64) -> Result<Arc<Deployment>, Problem> {
        let deployment = self.expect_deployment(id, generation)?;
        match deployment.held {
            Some(_) if deployment.status.is_active() => Ok(deployment),
            _ => Err(
                Problem::new(Code::Conflict, "the deployment does not wait at a gate")
                    .hint("`skep deployments` shows where it is"),
            ),
        }
    }
}
