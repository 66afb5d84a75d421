//! Rollouts on their way: the leader's next phase, by compare-and-set on the service, and what people
//! want of them. Never decides when a phase is over.

use std::sync::Arc;

use skep_model::deployment::{Deployment, Status};
use skep_model::id::{DeploymentId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::rollout::{Control, Phase, Progress};
use skep_model::run::Mode;
use skep_model::service::{Service, Target};
use skep_proto::convert::enum_value;
use skep_proto::v1;

use super::{Context, Outcome, Reply, bits, changed_meanwhile, missing, not_found, understood};

impl Context<'_> {
    pub(super) fn advance_rollout(&mut self, message: v1::AdvanceRollout) -> Outcome {
        let (service, target, deployment) = self.rolled_out(&message.service)?;
        if service.generation != message.expected_generation {
            return Err(changed_meanwhile("service"));
        }
        let progress: Progress = understood(message.progress.ok_or_else(|| missing("progress"))?)?;
        if target.deployment != deployment.id || service.progress.paused {
            return Err(changed_meanwhile("rollout"));
        }
        self.enter_phase(&service, &deployment, progress.phase, message.step);
        Ok(Reply::Done)
    }

    pub(super) fn control_rollout(&mut self, message: &v1::ControlRollout) -> Outcome {
        let (service, target, deployment) = self.rolled_out(&message.service)?;
        let meant = DeploymentId::from_u128(bits("deployment", &message.deployment)?);
        if target.deployment != meant {
            return Err(changed_meanwhile("rollout"));
        }
        let control = enum_value("control", &Control::ALL, message.control)
            .map_err(|_| missing("control"))?;
        match control {
            Control::Pause => self.set_paused(&service, &deployment, &message.by, true)?,
            Control::Resume => self.set_paused(&service, &deployment, &message.by, false)?,
            Control::Promote => self.promote(&service, &deployment, message)?,
            Control::Abort => {
                let text = format!("aborted by {}", message.by);
                let problem = Problem::new(Code::Canceled, text.clone());
                self.end(&deployment, Status::Canceled, Some(problem), &text);
            }
        }
        Ok(Reply::Done)
    }

    /// A service with its rollout.
    fn rolled_out(
        &self,
        service: &[u8],
    ) -> Result<(Arc<Service>, Target, Arc<Deployment>), Problem> {
        let id = ServiceId::from_u128(bits("service", service)?);
        let service = self.state.service(id).cloned();
        let service = service.ok_or_else(|| not_found("service", id))?;
        let Some(target) = service.rollout else {
            let text = "nothing of this service is being rolled out";
            return Err(Problem::new(Code::Conflict, text)
                .hint("`skep rollout status` shows what is live; `skep rollback` goes back to an older release"));
        };
        let deployment = self.state.deployment(target.deployment).cloned();
        let deployment = deployment.ok_or_else(|| not_found("deployment", target.deployment))?;
        Ok((service, target, deployment))
    }

    fn set_paused(
        &mut self,
        service: &Service,
        deployment: &Deployment,
        by: &str,
        paused: bool,
    ) -> Result<(), Problem> {
        let mode = service.spec.run.mode;
        if paused && mode != Mode::Service {
            let text = format!("a rollout of the mode `{}` cannot be paused", mode.as_str());
            return Err(Problem::new(Code::Conflict, text).hint("`skep rollout abort` ends it"));
        }
        if service.progress.paused == paused {
            return Ok(());
        }
        let word = if paused { "paused" } else { "resumed" };
        self.note_step(deployment, format!("{word} by {by}"));
        let progress = Progress {
            since_ms: self.state.time_ms,
            paused,
            ..service.progress
        };
        self.put_changed_service(Service {
            progress,
            ..service.clone()
        });
        Ok(())
    }

    fn promote(
        &mut self,
        service: &Service,
        deployment: &Deployment,
        message: &v1::ControlRollout,
    ) -> Result<(), Problem> {
        if service.progress.paused {
            return Err(Problem::new(Code::Conflict, "the rollout is paused")
                .hint("`skep rollout resume` first"));
        }
        let now_ms = self.state.time_ms;
        let policy = &service.spec.rollout;
        let next = match service.progress.phase {
            Phase::Rolling => {
                let text = "the rollout waits for nobody: it goes on by itself";
                return Err(Problem::new(Code::Conflict, text)
                    .hint("`skep rollout status` shows how far it is"));
            }
            Phase::Trial => {
                self.check_all_healthy(service)?;
                policy.next_phase(Phase::Trial, (true, now_ms))
            }
            Phase::Kept { .. } => Some(Phase::Kept { until_ms: now_ms }),
            Phase::Canary { .. } if message.full => Some(Phase::Rolling),
            phase @ Phase::Canary { .. } => policy.next_phase(phase, (true, now_ms)),
            Phase::Before => {
                let text = "the release phase has not ended";
                return Err(Problem::new(Code::Conflict, text)
                    .hint("`skep jobs` shows it; `skep rollout abort` gives the release up"));
            }
        };
        if let Some(phase) = next {
            let text = format!("promoted by {}", message.by);
            self.enter_phase(service, deployment, phase, text);
        }
        Ok(())
    }

    /// Traffic moves to a whole release or not at all.
    fn check_all_healthy(&self, service: &Service) -> Result<(), Problem> {
        let healthy = self
            .state
            .allocations_of(service.id)
            .filter(|one| Some(one.target) == service.rollout && one.is_routable())
            .count();
        let wanted = service.wanted() as usize;
        if healthy >= wanted {
            return Ok(());
        }
        let text = format!("{healthy} of {wanted} allocations of the new release are healthy");
        Err(Problem::new(Code::Conflict, text).hint("wait until all are: `skep ps` shows them"))
    }

    fn enter_phase(
        &mut self,
        service: &Service,
        deployment: &Deployment,
        phase: Phase,
        step: String,
    ) {
        self.note_step(deployment, step);
        let progress = Progress {
            phase,
            since_ms: self.state.time_ms,
            paused: false,
        };
        self.put_changed_service(Service {
            progress,
            ..service.clone()
        });
    }

    fn note_step(&mut self, deployment: &Deployment, text: String) {
        let mut next = deployment.clone();
        next.problem = None;
        self.step(&mut next, text);
        next.generation += 1;
        self.put_deployment(next);
    }
}
