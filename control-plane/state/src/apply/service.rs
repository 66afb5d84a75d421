//! Tenancy and services.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_model::id::{EnvironmentId, ProjectId, ServiceId, WorkspaceId};
use skep_model::name;
use skep_model::problem::{Code, Problem};
use skep_model::service::{MAX_SCALING_REASON, MAX_SCALINGS, Scaling, ScalingChange, Service};
use skep_model::spec::ServiceSpec;
use skep_model::tenancy::{Environment, Project};
use skep_proto::v1;

use super::variables::check_total;
use super::{Context, Outcome, Reply, bits, changed_meanwhile, missing, not_found, understood};
use crate::change::Change;

impl Context<'_> {
    pub(super) fn ensure_environment(&mut self, message: v1::EnsureEnvironment) -> Outcome {
        let workspace = WorkspaceId::from_u128(bits("workspace", &message.workspace)?);
        if self.state.workspace(workspace).is_none() {
            return Err(not_found("workspace", workspace));
        }
        let project: Project = understood(message.project.ok_or_else(|| missing("project"))?)?;
        let environment: Environment =
            understood(message.environment.ok_or_else(|| missing("environment"))?)?;
        let project = self.ensure_project(Project {
            workspace,
            ..project
        })?;
        let environment = self.ensure_child(Environment {
            project,
            ..environment
        })?;
        Ok(Reply::Environment {
            project,
            environment,
        })
    }

    fn ensure_project(&mut self, project: Project) -> Result<ProjectId, Problem> {
        if let Some(existing) = self.state.project_named(project.workspace, &project.name) {
            return Ok(existing.id);
        }
        name::check("project", &project.name)?;
        let id = project.id;
        self.state.put_project(project);
        Ok(id)
    }

    fn ensure_child(&mut self, environment: Environment) -> Result<EnvironmentId, Problem> {
        if let Some(existing) = self
            .state
            .environment_named(environment.project, &environment.name)
        {
            return Ok(existing.id);
        }
        name::check("environment", &environment.name)?;
        let id = environment.id;
        self.state.put_environment(environment);
        Ok(id)
    }

    pub(super) fn put_service(&mut self, message: v1::PutService) -> Outcome {
        let wanted: Service = understood(message.service.ok_or_else(|| missing("service"))?)?;
        wanted.spec.check()?;
        check_total(&wanted.variables)?;
        self.state.check_routes(&wanted)?;
        let next = if message.expected_generation == 0 {
            let service = self.new_service(wanted)?;
            self.state.give_address(&service)?;
            service
        } else {
            let old = self
                .state
                .service(wanted.id)
                .ok_or_else(|| not_found("service", wanted.id))?;
            if old.generation != message.expected_generation {
                return Err(changed_meanwhile("service"));
            }
            Service {
                scaling: bounded(old.scaling.clone(), &wanted.spec),
                spec: wanted.spec,
                variables: wanted.variables,
                webhook_secret: wanted.webhook_secret,
                stopped: wanted.stopped,
                removing: wanted.removing || old.removing,
                generation: old.generation + 1,
                ..(**old).clone()
            }
        };
        let reply = Reply::Service {
            service: next.id,
            generation: next.generation,
        };
        let id = next.id;
        self.changes.push(Change::Service(id));
        let old = self.state.service(id);
        let before = old.map(hosts_of).unwrap_or_default();
        if old.is_some() {
            // Before and after: a service may cease to have routes.
            self.touch_routes_of(id);
        }
        self.state.put_service(next);
        self.state.settle_claims(id, &before);
        self.touch_routes_of(id);
        Ok(reply)
    }

    fn new_service(&self, wanted: Service) -> Result<Service, Problem> {
        name::check("service", &wanted.name)?;
        if self.state.environment(wanted.environment).is_none() {
            return Err(not_found("environment", wanted.environment));
        }
        let taken = self
            .state
            .service_named(wanted.environment, &wanted.name)
            .is_some();
        if taken || self.state.service(wanted.id).is_some() {
            return Err(Problem::new(
                Code::Conflict,
                format!("there is a service `{}` already", wanted.name),
            )
            .at("service"));
        }
        Ok(Service {
            live: None,
            rollout: None,
            progress: Default::default(),
            last_release: 0,
            generation: 1,
            created_ms: self.state.time_ms,
            scaling: None,
            pinned: None,
            ..wanted
        })
    }

    /// What a service's autoscaler decided.
    pub(super) fn scale_service(&mut self, message: v1::ScaleService) -> Outcome {
        let id = ServiceId::from_u128(bits("service", &message.service)?);
        let found = self.state.service(id);
        let service = found.cloned().ok_or_else(|| not_found("service", id))?;
        if service.generation != message.expected_generation {
            return Err(changed_meanwhile("service"));
        }
        let Some(autoscale) = service.spec.autoscale.as_ref() else {
            let text = format!("service `{}` has no autoscaler", service.name);
            return Err(Problem::new(Code::Conflict, text));
        };
        if autoscale.within(message.replicas) != message.replicas {
            let text = format!("{} is not within the bounds", message.replicas);
            return Err(Problem::invalid("replicas", text));
        }
        if message.reason.len() > MAX_SCALING_REASON {
            let text = format!("has {} bytes", message.reason.len());
            return Err(
                Problem::invalid("reason", text).hint(format!("at most {MAX_SCALING_REASON}"))
            );
        }
        let mut changes = service
            .scaling
            .as_ref()
            .map_or_else(Vec::new, |scaling| scaling.changes.clone());
        let decided = service.scaling.as_ref().map(|scaling| scaling.replicas);
        changes.push(ScalingChange {
            at_ms: self.state.time_ms,
            from: autoscale.wanted(service.spec.replicas, decided),
            to: message.replicas,
            reason: message.reason,
        });
        changes.drain(..changes.len().saturating_sub(MAX_SCALINGS));
        let generation = service.generation + 1;
        self.changes.push(Change::Service(id));
        self.state.put_service(Service {
            scaling: Some(Scaling {
                replicas: message.replicas,
                changes,
            }),
            generation,
            ..(*service).clone()
        });
        Ok(Reply::Service {
            service: id,
            generation,
        })
    }

    pub(super) fn drop_service(&mut self, message: &v1::DropService) -> Outcome {
        let id = ServiceId::from_u128(bits("service", &message.service)?);
        let service = self
            .state
            .service(id)
            .cloned()
            .ok_or_else(|| not_found("service", id))?;
        let is_busy = self
            .state
            .allocations_of(id)
            .any(|allocation| allocation.is_live());
        if !service.removing || is_busy {
            return Err(Problem::new(
                Code::Conflict,
                "the service still has allocations",
            ));
        }
        let allocations: Vec<_> = self
            .state
            .allocations_of(id)
            .map(|allocation| (allocation.id, allocation.node))
            .collect();
        for (allocation, node) in allocations {
            self.state.remove_allocation(allocation);
            self.changes.push(Change::Allocation {
                allocation,
                node,
                service: id,
            });
        }
        let deployments: Vec<_> = self
            .state
            .deployments_of(id)
            .map(|deployment| deployment.id)
            .collect();
        deployments
            .into_iter()
            .for_each(|deployment| self.state.remove_deployment(deployment));
        let releases: Vec<_> = self
            .state
            .releases_of(id)
            .map(|release| release.number)
            .collect();
        for number in releases {
            self.state.releases.remove(&(id, number));
        }
        self.touch_names_of(id);
        self.state.release_address(id);
        self.drop_jobs(id);
        self.state.unindex_hosts(&service);
        let name = (self.state.host_of(&service), id);
        self.state.generated.remove(&name);
        self.state
            .names
            .services
            .remove(&(service.environment, service.name.clone()));
        self.state.polled.remove(&id);
        self.state.pushed.remove(&id);
        self.state.services.remove(&id);
        self.state.settle_claims(id, &hosts_of(&service));
        self.changes.push(Change::ServiceDropped(id));
        self.touch_routes();
        Ok(Reply::Done)
    }
}

/// The hosts that a service names.
pub(super) fn hosts_of(service: &Arc<Service>) -> BTreeSet<String> {
    service
        .spec
        .hosts()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// What an autoscaler decided, under a specification that may be another; none where that has none.
pub(super) fn bounded(scaling: Option<Scaling>, spec: &ServiceSpec) -> Option<Scaling> {
    let autoscale = spec.autoscale.as_ref()?;
    scaling.map(|scaling| Scaling {
        replicas: autoscale.within(scaling.replicas),
        ..scaling
    })
}
