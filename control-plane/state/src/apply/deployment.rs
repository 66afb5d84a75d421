//! Deployments: made, given to a builder, rolled out, ended.

mod prune;

use std::sync::Arc;

use skep_model::deployment::{Build, Deployment, MAX_STEPS, Origin, Status, Step, Trigger};
use skep_model::id::{DeploymentId, NodeId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::rollout::{Phase, Progress};
use skep_model::service::{Release, Service, Target};
use skep_model::spec::ServiceSpec;
use skep_proto::convert::enum_value;
use skep_proto::{LEVEL_SCHEDULING, v1};

use super::service::{bounded, hosts_of};
use super::{Context, Outcome, Reply, bits, changed_meanwhile, missing, not_found, understood};
use crate::change::Change;

impl Context<'_> {
    pub(super) fn create_deployment(&mut self, message: v1::CreateDeployment) -> Outcome {
        let wanted: Deployment =
            understood(message.deployment.ok_or_else(|| missing("deployment"))?)?;
        if let Some(key) = &message.delivery
            && let Some(delivery) = self.state.delivery(key)
        {
            return Ok(Reply::Deployment {
                deployment: delivery.deployment,
                replayed: true,
            });
        }
        let deployment = self.make_deployment(wanted, message.delivery)?;
        Ok(Reply::Deployment {
            deployment,
            replayed: false,
        })
    }

    /// Makes a deployment that nobody has asked for before under this key.
    pub(super) fn make_deployment(
        &mut self,
        wanted: Deployment,
        delivery: Option<String>,
    ) -> Result<DeploymentId, Problem> {
        let service = self
            .state
            .service(wanted.service)
            .cloned()
            .ok_or_else(|| not_found("service", wanted.service))?;
        if service.removing {
            return Err(Problem::new(Code::Conflict, "the service is being removed"));
        }
        if self.state.deployment(wanted.id).is_some() {
            return Err(Problem::new(
                Code::Conflict,
                "there is a deployment with this id already",
            ));
        }
        if let Origin::Release { number } = wanted.origin
            && self.state.release(wanted.service, number).is_none()
        {
            let kept: Vec<String> = self
                .state
                .releases_of(wanted.service)
                .map(|r| r.number.to_string())
                .collect();
            return Err(
                Problem::invalid("release", format!("there is no release {number}"))
                    .hint(format!("kept are: {}", kept.join(", "))),
            );
        }
        if let Origin::Promoted { from, number } = wanted.origin {
            self.check_promoted(&service, from, number)?;
        }
        let now = self.state.time_ms;
        let held = self.held(&service, &wanted);
        match (held, wanted.trigger) {
            // It takes the place of what waits, and of what is on its way only when it is through.
            (Some(_), _) => self.supersede_others(&wanted, |other| other.held.is_some())?,
            // What runs again as it is says nothing of what is to come.
            (None, Trigger::Restart) => {
                self.supersede_others(&wanted, |other| other.held.is_none())?;
            }
            (None, _) => self.supersede_others(&wanted, |_| true)?,
        }
        self.remember_delivery(delivery, wanted.id)?;
        let id = wanted.id;
        let service_id = wanted.service;
        let made = Deployment {
            status: Status::Queued,
            problem: None,
            build: None,
            release: None,
            steps: vec![Step {
                at_ms: now,
                text: "queued".to_owned(),
            }],
            created_ms: now,
            status_ms: now,
            generation: 1,
            told: None,
            held,
            shown: None,
            push: None,
            ..wanted
        };
        self.tell(&made);
        self.put_deployment(made);
        if held.is_none() {
            self.start_again(service_id);
        }
        self.prune_deployments(service_id);
        Ok(id)
    }

    /// A deployment starts a service that was stopped.
    pub(super) fn start_again(&mut self, service: ServiceId) {
        let service = self.state.service(service).cloned();
        if let Some(service) = service.filter(|service| service.stopped) {
            self.put_changed_service(Service {
                stopped: false,
                ..(*service).clone()
            });
        }
    }

    /// A release of another environment of the same project. What another project has stays there.
    fn check_promoted(
        &self,
        service: &Service,
        from: ServiceId,
        number: u64,
    ) -> Result<(), Problem> {
        let project_of = |service: &Service| {
            let environment = self.state.environment(service.environment);
            environment.map(|environment| environment.project)
        };
        let other = self.state.service(from);
        let other = other.filter(|other| project_of(other) == project_of(service));
        if other.is_none() {
            return Err(not_found("service", from).at("from"));
        }
        match self.state.release(from, number) {
            Some(_) => Ok(()),
            None => Err(
                Problem::invalid("release", format!("there is no release {number}"))
                    .hint("`skep releases` lists those that are kept"),
            ),
        }
    }

    /// One deployment of a service on its way, and one at the gates: the newer takes over.
    pub(super) fn supersede_others(
        &mut self,
        newer: &Deployment,
        is_meant: impl Fn(&Deployment) -> bool,
    ) -> Result<(), Problem> {
        let others: Vec<_> = self
            .state
            .deployments_of(newer.service)
            .filter(|other| other.status.is_active() && other.id != newer.id && is_meant(other))
            .cloned()
            .collect();
        for other in others {
            if self.has_taken_over(&other) {
                // It serves, and goes on serving: the way back that was kept is given up.
                self.go_live(&other)?;
                self.end(&other, Status::Live, None, "live: a newer deployment began");
                continue;
            }
            let problem = Problem::new(
                Code::Canceled,
                format!("superseded by deployment {}", newer.id),
            );
            self.end(
                &other,
                Status::Superseded,
                Some(problem),
                "superseded by a newer deployment",
            );
        }
        Ok(())
    }

    /// Whether all traffic goes to what this deployment rolls out.
    fn has_taken_over(&self, deployment: &Deployment) -> bool {
        self.state
            .service(deployment.service)
            .is_some_and(|service| {
                let is_its = service
                    .rollout
                    .is_some_and(|target| target.deployment == deployment.id);
                is_its && matches!(service.progress.phase, Phase::Kept { .. })
            })
    }

    pub(super) fn assign_build(&mut self, message: v1::AssignBuild) -> Outcome {
        let deployment =
            self.expect_deployment(&message.deployment, message.expected_generation)?;
        let node = NodeId::from_u128(bits("node", &message.node)?);
        if self.state.node(node).is_none() {
            return Err(not_found("node", node));
        }
        let mut next = (*deployment).clone();
        let lost = match (&deployment.status, &deployment.build) {
            _ if deployment.may_begin() => 0,
            // The node before was lost with it, or its Docker was.
            (Status::Building, Some(before)) if before.node != node => {
                self.changes.push(Change::Build(before.node));
                before.lost + 1
            }
            _ => return Err(changed_meanwhile("deployment")),
        };
        next.build = Some(Build {
            node,
            outcome: None,
            lost,
        });
        next.problem = None;
        self.step(&mut next, message.step);
        self.enter(&mut next, Status::Building);
        self.put_deployment(next);
        Ok(Reply::Done)
    }

    pub(super) fn start_rollout(&mut self, message: v1::StartRollout) -> Outcome {
        let deployment =
            self.expect_deployment(&message.deployment, message.expected_generation)?;
        let service = self
            .state
            .service(deployment.service)
            .cloned()
            .ok_or_else(|| not_found("service", deployment.service))?;
        let is_current = service.generation == message.expected_service_generation;
        let may_roll_out =
            deployment.status.may_become(Status::Deploying) && deployment.held.is_none();
        if !may_roll_out || !is_current || service.removing {
            return Err(changed_meanwhile("service or its deployment"));
        }
        let number = message.number;
        let mut last_release = service.last_release;
        let is_new = match message.release {
            Some(release) => {
                let release: Release = understood(release)?;
                if release.number != number
                    || number != last_release + 1
                    || release.service != service.id
                {
                    return Err(changed_meanwhile("service"));
                }
                last_release = number;
                let release = Release {
                    created_ms: self.state.time_ms,
                    ..release
                };
                self.state
                    .releases
                    .insert((service.id, number), Arc::new(release));
                true
            }
            None if self.state.release(service.id, number).is_none() => {
                return Err(not_found("release", number));
            }
            None => false,
        };
        let spec = match message.spec {
            Some(spec) => understood::<_, ServiceSpec>(spec)?,
            None => service.spec.clone(),
        };
        spec.check()?;
        let target = Target {
            release: number,
            deployment: deployment.id,
        };
        let has_live = service.live.is_some();
        let phase = match is_new {
            true => spec.first_phase(has_live),
            // Its release phase was over when it was new.
            false => spec.rollout.first_phase(has_live),
        };
        let since_ms = match phase {
            // As it was written before there were phases: its deployment knows the time.
            Phase::Rolling => 0,
            _ => self.state.time_ms,
        };
        let before = hosts_of(&service);
        let next = Service {
            rollout: Some(target),
            progress: Progress {
                phase,
                since_ms,
                paused: false,
            },
            last_release,
            scaling: bounded(service.scaling.clone(), &spec),
            spec,
            ..(*service).clone()
        };
        if self.state.feature_level() >= LEVEL_SCHEDULING {
            self.state.check_routes(&next)?;
        }
        self.put_changed_service(next);
        self.state.settle_claims(service.id, &before);
        let mut next = (*deployment).clone();
        next.release = Some(number);
        next.problem = None;
        self.step(&mut next, message.step);
        self.enter(&mut next, Status::Deploying);
        self.put_deployment(next);
        self.prune_releases(service.id);
        Ok(Reply::Done)
    }

    pub(super) fn finish_deployment(&mut self, message: v1::FinishDeployment) -> Outcome {
        let deployment =
            self.expect_deployment(&message.deployment, message.expected_generation)?;
        let status =
            enum_value("status", &Status::ALL, message.status).map_err(|_| missing("status"))?;
        let is_final = matches!(status, Status::Live | Status::Failed | Status::Canceled);
        if !is_final || !deployment.status.may_become(status) {
            return Err(changed_meanwhile("deployment"));
        }
        let problem = message.problem.map(understood).transpose()?;
        if status == Status::Live {
            self.go_live(&deployment)?;
        }
        self.end(&deployment, status, problem, &message.step);
        Ok(Reply::Done)
    }

    /// The service now serves what this deployment rolled out.
    fn go_live(&mut self, deployment: &Deployment) -> Result<(), Problem> {
        let service = self
            .state
            .service(deployment.service)
            .cloned()
            .ok_or_else(|| not_found("service", deployment.service))?;
        let target = service
            .rollout
            .filter(|target| target.deployment == deployment.id);
        let target = target.ok_or_else(|| changed_meanwhile("service"))?;
        let previous = service
            .live
            .and_then(|live| self.state.deployment(live.deployment).cloned());
        self.put_changed_service(Service {
            live: Some(target),
            rollout: None,
            progress: service.progress.ended(),
            ..(*service).clone()
        });
        if let Some(previous) = previous {
            let went_back = deployment.trigger == Trigger::Rollback;
            let status = if went_back {
                Status::RolledBack
            } else {
                Status::Superseded
            };
            let text = if went_back {
                "rolled back"
            } else {
                "superseded by a newer deployment"
            };
            self.end(&previous, status, None, text);
        }
        Ok(())
    }

    /// Gives a deployment its last status; what it was rolling out is no longer wanted.
    pub(super) fn end(
        &mut self,
        deployment: &Deployment,
        status: Status,
        problem: Option<Problem>,
        text: &str,
    ) {
        if !deployment.status.may_become(status) {
            return;
        }
        let mut next = deployment.clone();
        next.problem = problem;
        self.step(&mut next, text.to_owned());
        self.enter(&mut next, status);
        let id = next.id;
        let service = self.state.service(next.service).cloned();
        self.tell(&next);
        self.put_deployment(next);
        if let Some(service) = service.filter(|service| {
            service
                .rollout
                .is_some_and(|target| target.deployment == id)
        }) {
            self.put_changed_service(Service {
                rollout: None,
                progress: service.progress.ended(),
                ..(*service).clone()
            });
        }
    }

    pub(super) fn note_deployment(&mut self, message: v1::NoteDeployment) -> Outcome {
        let deployment =
            self.expect_deployment(&message.deployment, message.expected_generation)?;
        if !deployment.status.is_active() {
            return Err(changed_meanwhile("deployment"));
        }
        let mut next = (*deployment).clone();
        next.problem = message.problem.map(understood).transpose()?;
        self.step(&mut next, message.step);
        next.generation += 1;
        self.put_deployment(next);
        Ok(Reply::Done)
    }

    pub(super) fn expect_deployment(
        &self,
        id: &[u8],
        generation: u64,
    ) -> Result<Arc<Deployment>, Problem> {
        let id = DeploymentId::from_u128(bits("deployment", id)?);
        let deployment = self
            .state
            .deployment(id)
            .ok_or_else(|| not_found("deployment", id))?;
        if deployment.generation != generation {
            return Err(changed_meanwhile("deployment"));
        }
        Ok(Arc::clone(deployment))
    }

    pub(super) fn put_deployment(&mut self, deployment: Deployment) {
        self.changes.push(Change::Deployment(deployment.id));
        if let Some(build) = &deployment.build {
            self.changes.push(Change::Build(build.node));
        }
        self.state.put_deployment(deployment);
    }

    pub(super) fn put_changed_service(&mut self, service: Service) {
        let id = service.id;
        self.changes.push(Change::Service(id));
        let generation = service.generation + 1;
        // Before and after: a service may cease to have routes.
        self.touch_routes_of(id);
        self.state.put_service(Service {
            generation,
            ..service
        });
        self.touch_routes_of(id);
    }

    pub(super) fn step(&self, deployment: &mut Deployment, text: String) {
        let is_new = deployment.steps.last().is_none_or(|last| last.text != text);
        if !text.is_empty() && is_new && deployment.steps.len() < MAX_STEPS {
            deployment.steps.push(Step {
                at_ms: self.state.time_ms,
                text,
            });
        }
    }

    pub(super) fn enter(&self, deployment: &mut Deployment, status: Status) {
        deployment.status = status;
        deployment.status_ms = self.state.time_ms;
        deployment.generation += 1;
    }
}
