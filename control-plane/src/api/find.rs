//! Looking things up by the names that people use. Never changes anything.

use std::sync::Arc;

use serde::Deserialize;
use skep_model::deployment::Deployment;
use skep_model::id::{DeploymentId, EnvironmentId, WorkspaceId};
use skep_model::problem::{Code, Problem};
use skep_model::service::Service;
use skep_model::tenancy::DEFAULT_WORKSPACE;
use skep_state::State;
use utoipa::IntoParams;

/// The names that lead to a service.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ServiceKey {
    /// Name of the project.
    pub(super) project: String,
    /// Name of the environment.
    pub(super) environment: String,
    /// Name of the service.
    pub(super) service: String,
}

/// Filters of lists of services and what belongs to them.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ServiceFilter {
    /// Name of a project.
    pub(super) project: Option<String>,
    /// Name of an environment.
    pub(super) environment: Option<String>,
    /// Name of a service.
    pub(super) service: Option<String>,
}

impl ServiceFilter {
    /// The services that match, by project, environment and name.
    pub(super) fn matching(&self, view: &State) -> Vec<Arc<Service>> {
        let is = |filter: &Option<String>, name: &str| {
            filter.as_deref().is_none_or(|wanted| wanted == name)
        };
        let mut found: Vec<_> = view
            .services()
            .filter_map(|service| view.path_of(service).map(|path| (path, service)))
            .filter(|(path, _)| {
                is(&self.project, &path.project)
                    && is(&self.environment, &path.environment)
                    && is(&self.service, &path.service)
            })
            .map(|(path, service)| {
                (
                    (path.project, path.environment, path.service),
                    Arc::clone(service),
                )
            })
            .collect();
        found.sort_by(|left, right| left.0.cmp(&right.0));
        found.into_iter().map(|(_, service)| service).collect()
    }
}

/// The default workspace.
///
/// # Errors
/// The cluster does not exist yet.
pub(super) fn workspace(view: &State) -> Result<WorkspaceId, Problem> {
    view.workspace_named(DEFAULT_WORKSPACE)
        .map(|workspace| workspace.id)
        .ok_or_else(|| {
            Problem::new(Code::Unavailable, "the cluster is not initialised yet").hint("try again")
        })
}

/// A workspace by its name.
///
/// # Errors
/// There is none.
pub(super) fn workspace_named(view: &State, name: &str) -> Result<WorkspaceId, Problem> {
    let found = view.workspace_named(name).map(|workspace| workspace.id);
    found.ok_or_else(|| missing("workspace", name))
}

/// An environment of the default workspace by its names.
///
/// # Errors
/// Which of the names does not exist.
pub(super) fn environment(
    view: &State,
    project: &str,
    environment: &str,
) -> Result<EnvironmentId, Problem> {
    let project = view
        .project_named(workspace(view)?, project)
        .ok_or_else(|| missing("project", project))?;
    let found = view.environment_named(project.id, environment);
    found
        .map(|environment| environment.id)
        .ok_or_else(|| missing("environment", environment))
}

/// A service by its names.
///
/// # Errors
/// Which of the names does not exist.
pub(super) fn service(view: &State, key: &ServiceKey) -> Result<Arc<Service>, Problem> {
    let environment = environment(view, &key.project, &key.environment)?;
    view.service_named(environment, &key.service)
        .cloned()
        .ok_or_else(|| missing("service", &key.service))
}

fn missing(what: &str, name: &str) -> Problem {
    let shown: String = name.chars().take(60).collect();
    Problem::new(
        Code::NotFound,
        format!("there is no {what} `{}`", shown.escape_debug()),
    )
    .at(what)
    .hint("`skep ps` lists the services")
}

/// A deployment by its id.
///
/// # Errors
/// There is none, or none any more.
pub(super) fn deployment(view: &State, id: DeploymentId) -> Result<Arc<Deployment>, Problem> {
    view.deployment(id).cloned().ok_or_else(|| {
        Problem::new(Code::NotFound, format!("there is no deployment {id}"))
            .hint("only the newest of each service are kept; older ones have their logs still")
    })
}
