//! Reading settings, and what of a quota is used.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::gate::Gates;
use skep_model::id::{EnvironmentId, ServiceId, WorkspaceId};
use skep_model::registry::RegistryLogin;
use skep_model::service::Service;
use skep_model::settings::{Pool, Scope, ScopeSettings};
use skep_model::variable::SharedVariables;

use crate::state::State;

impl State {
    /// What is said of a workspace or an environment; the default: nothing.
    pub fn settings_of(&self, scope: Scope) -> ScopeSettings {
        self.scopes
            .get(&scope)
            .map_or_else(ScopeSettings::default, |settings| (**settings).clone())
    }

    /// Those of which something is said.
    pub fn scopes(&self) -> impl Iterator<Item = (Scope, &ScopeSettings)> {
        self.scopes
            .iter()
            .map(|(scope, settings)| (*scope, &**settings))
    }

    /// What the services of an environment may refer to; of generation 0 where nothing was ever set.
    pub fn shared_variables(&self, environment: EnvironmentId) -> SharedVariables {
        let found = self.shared_variables.get(&environment);
        found.map_or_else(
            || SharedVariables {
                environment,
                variables: BTreeMap::new(),
                generation: 0,
            },
            |shared| (**shared).clone(),
        )
    }

    /// Every pool with a policy, by name.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values()
    }

    /// A pool that has a policy.
    pub fn pool(&self, name: &str) -> Option<&Arc<Pool>> {
        self.pools.get(name)
    }

    /// Every login at a registry, by host.
    pub fn registries(&self) -> impl Iterator<Item = &Arc<RegistryLogin>> {
        self.registries.values()
    }

    /// The login at a registry.
    pub fn registry(&self, host: &str) -> Option<&Arc<RegistryLogin>> {
        self.registries.get(host)
    }

    /// Environment and workspace that a service belongs to.
    pub fn scopes_of(&self, service: &Service) -> Vec<Scope> {
        let environment = Scope::Environment(service.environment);
        std::iter::once(environment)
            .chain(self.workspace_of(service.environment).map(Scope::Workspace))
            .collect()
    }

    /// What deployments of an environment have to get through: what it says itself, and what its workspace says.
    /// A preview has no gates: it is there to be looked at before anybody says yes.
    pub fn gates_of(&self, environment: EnvironmentId) -> Gates {
        if self.preview_of(environment).is_some() {
            return Gates::default();
        }
        let own = self.settings_of(Scope::Environment(environment)).gates;
        let workspace = self.workspace_of(environment);
        let above = workspace.map(|id| self.settings_of(Scope::Workspace(id)).gates);
        let Some(above) = above.filter(|above| !above.is_empty()) else {
            return own;
        };
        Gates {
            approval: own.approval || above.approval,
            freezes: own.freezes.into_iter().chain(above.freezes).collect(),
        }
    }

    /// Whose setting makes constraints of a service preferences; none: they are none.
    pub fn relaxed_by(&self, service: &Service) -> Option<Scope> {
        let mut said = self.scopes_of(service).into_iter();
        let scope = said.find(|scope| self.settings_of(*scope).relaxed.is_some())?;
        (self.settings_of(scope).relaxed == Some(true)).then_some(scope)
    }

    /// The services of a workspace or of an environment.
    pub fn services_in(&self, scope: Scope) -> impl Iterator<Item = &Arc<Service>> {
        let environments: Vec<EnvironmentId> = match scope {
            Scope::Environment(id) => vec![id],
            Scope::Workspace(workspace) => {
                let all = self.environments.values().map(|one| one.id);
                all.filter(|id| self.workspace_of(*id) == Some(workspace))
                    .collect()
            }
        };
        environments.into_iter().flat_map(|environment| {
            let first = (environment, String::new());
            self.names
                .services
                .range(first..)
                .take_while(move |((owner, _), _)| *owner == environment)
                .filter_map(|(_, id): (_, &ServiceId)| self.services.get(id))
        })
    }

    /// A scope as people name it: ``workspace `acme` ``.
    pub fn scope_name(&self, scope: Scope) -> String {
        match scope {
            Scope::Workspace(id) => {
                let name = self.workspace(id).map(|one| one.name.clone());
                format!("workspace `{}`", name.unwrap_or_else(|| id.to_string()))
            }
            Scope::Environment(id) => {
                let environment = self.environment(id);
                let project = environment.and_then(|one| self.project(one.project));
                match (project, environment) {
                    (Some(project), Some(environment)) => {
                        format!("environment `{}/{}`", project.name, environment.name)
                    }
                    _ => format!("environment `{id}`"),
                }
            }
        }
    }

    /// The workspace of an environment.
    pub fn workspace_of(&self, environment: EnvironmentId) -> Option<WorkspaceId> {
        let project = self.environment(environment)?.project;
        Some(self.project(project)?.workspace)
    }
}
