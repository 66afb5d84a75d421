//! Which service is meant: `name`, `project/name` or `project/environment/name`, completed from
//! options, from the folder's `skep.toml`, and from what exists.

use std::path::Path;

use skep_control_plane::api::types::{DeploymentView, ServiceView, ServicesView};
use skep_model::name;
use skep_model::problem::{Code, Problem};
use skep_model::tenancy::DEFAULT_ENVIRONMENT;

use crate::client::Client;
use crate::failure::Failure;
use crate::folder::App;

/// Candidates that are named in an error.
const SHOWN: usize = 10;

/// Options that narrow a service's name.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Scope {
    /// The project of the service
    #[arg(long, value_name = "NAME", env = "SKEP_PROJECT")]
    pub(crate) project: Option<String>,
    /// The environment of the service
    #[arg(long, short, value_name = "NAME", env = "SKEP_ENVIRONMENT")]
    pub(crate) environment: Option<String>,
}

/// One service, named in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its project.
    pub(crate) project: String,
    /// Its environment.
    pub(crate) environment: String,
    /// Its own name.
    pub(crate) service: String,
}

impl Target {
    /// Its path in the API.
    pub(crate) fn path(&self) -> String {
        let Self {
            project,
            environment,
            service,
        } = self;
        format!("/v1/projects/{project}/environments/{environment}/services/{service}")
    }

    /// The query that narrows a list to it.
    pub(crate) fn query(&self) -> String {
        let Self {
            project,
            environment,
            service,
        } = self;
        format!("project={project}&environment={environment}&service={service}")
    }

    /// Checks the names before they become a path.
    ///
    /// # Errors
    /// Names the field, and what is accepted.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        // First: where nobody names a project, it is named like the service.
        name::check("service", &self.service)?;
        name::check("project", &self.project)?;
        name::check("environment", &self.environment)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.project, self.environment, self.service)
    }
}

impl From<&DeploymentView> for Target {
    fn from(view: &DeploymentView) -> Self {
        Self {
            project: view.project.clone(),
            environment: view.environment.clone(),
            service: view.service.clone(),
        }
    }
}

impl From<&ServiceView> for Target {
    fn from(view: &ServiceView) -> Self {
        Self {
            project: view.project.clone(),
            environment: view.environment.clone(),
            service: view.name.clone(),
        }
    }
}

/// What was said of a service; the rest is open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted {
    project: Option<String>,
    environment: Option<String>,
    service: Option<String>,
}

/// Finds the service that is meant by `text` and options, else by the folder.
///
/// # Errors
/// None or several fit, or nothing says which.
pub(crate) async fn find(
    client: &Client,
    text: Option<&str>,
    scope: &Scope,
) -> Result<Target, Failure> {
    let mut wanted = parse(text, scope)?;
    if wanted.service.is_none() {
        let app = App::read(Path::new(".")).await?;
        if app.manifest.is_none() {
            return Err(Failure::usage("which service?")
                .hint("name it, or be in a folder with a skep.toml; `skep status` lists them"));
        }
        let target = app.target(&Scope::default(), None)?;
        wanted.service = Some(target.service);
        wanted.project.get_or_insert(target.project);
    }
    let view: ServicesView = client.get("/v1/services").await?;
    Ok(choose(&wanted, &view.services)?)
}

fn parse(text: Option<&str>, scope: &Scope) -> Result<Wanted, Problem> {
    let parts: Vec<&str> = text
        .map(|text| text.split('/').collect())
        .unwrap_or_default();
    let (project, environment, service) = match parts[..] {
        [] => (None, None, None),
        [service] => (None, None, Some(service)),
        [project, service] => (Some(project), None, Some(service)),
        [project, environment, service] => (Some(project), Some(environment), Some(service)),
        _ => {
            let shown = text.unwrap_or_default().escape_debug().to_string();
            return Err(
                Problem::invalid("service", format!("`{shown}` does not name a service"))
                    .hint("name, project/name or project/environment/name"),
            );
        }
    };
    let wanted = Wanted {
        project: agree("project", project, scope.project.as_deref())?,
        environment: agree("environment", environment, scope.environment.as_deref())?,
        service: service.map(str::to_owned),
    };
    let given = [
        ("project", &wanted.project),
        ("environment", &wanted.environment),
        ("service", &wanted.service),
    ];
    for (field, value) in given {
        value
            .as_deref()
            .map_or(Ok(()), |value| name::check(field, value))?;
    }
    Ok(wanted)
}

/// What the reference and the option say together.
fn agree(field: &str, one: Option<&str>, other: Option<&str>) -> Result<Option<String>, Problem> {
    if let (Some(one), Some(other)) = (one, other)
        && one != other
    {
        let message = format!("the {field} is `{one}` in one place and `{other}` in another");
        return Err(Problem::invalid(field, message).hint("say it once"));
    }
    Ok(one.or(other).map(str::to_owned))
}

fn choose(wanted: &Wanted, services: &[ServiceView]) -> Result<Target, Problem> {
    let fits = |given: &Option<String>, value: &str| given.as_deref().is_none_or(|it| it == value);
    let fitting: Vec<Target> = services
        .iter()
        .filter(|view| fits(&wanted.project, &view.project))
        .filter(|view| fits(&wanted.environment, &view.environment))
        .filter(|view| fits(&wanted.service, &view.name))
        .map(Target::from)
        .collect();
    if let [target] = &fitting[..] {
        return Ok(target.clone());
    }
    // Of one service in several environments the usual one is meant; other projects' services
    // of the same name are a coincidence.
    let is_one_project = fitting
        .windows(2)
        .all(|pair| pair[0].project == pair[1].project);
    let mut usual = fitting
        .iter()
        .filter(|target| target.environment == DEFAULT_ENVIRONMENT);
    if is_one_project && let (Some(target), None) = (usual.next(), usual.next()) {
        return Ok(target.clone());
    }
    let said = [&wanted.project, &wanted.environment, &wanted.service];
    let said: Vec<_> = said.into_iter().flatten().map(String::as_str).collect();
    let said = said.join("/");
    if fitting.is_empty() {
        let all: Vec<_> = services.iter().map(Target::from).collect();
        let hint = if all.is_empty() {
            "there is none yet: `skep up` or `skep deploy` makes one".to_owned()
        } else {
            format!("there are: {}", list(&all))
        };
        let problem = Problem::new(Code::NotFound, format!("there is no service `{said}`"));
        return Err(problem.at("service").hint(hint));
    }
    let message = format!("`{said}` could be {} services", fitting.len());
    Err(Problem::invalid("service", message).hint(format!("say which: {}", list(&fitting))))
}

fn list(targets: &[Target]) -> String {
    let names: Vec<_> = targets
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect();
    let more = targets.len().saturating_sub(SHOWN);
    let names = names.join(", ");
    if more == 0 {
        names
    } else {
        format!("{names} and {more} more")
    }
}

#[cfg(test)]
mod tests;
