//! `skep up`: deploys a folder.

use std::path::{Path, PathBuf};

use http::Method;
use skep_control_plane::api::types::{DeploymentRequest, PutService, ServiceView};
use skep_model::manifest;
use skep_model::problem::{Code, Problem};
use skep_model::spec::ServiceSpec;
use skep_model::variable::VariableInput;
use skep_node_agent::build::choose::{self, Choice, Wish};
use skep_node_agent::build::context;

use crate::client::{self, Client};
use crate::failure::Failure;
use crate::folder::App;
use crate::follow::{self, Gate, Order};
use crate::output::{Style, time};
use crate::session::Session;
use crate::target::{Scope, Target};

/// Deploy a folder
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep up
  skep up ./shop --project shop --service web --replicas 2

Names come from the options, else from skep.toml, else from the folder's name. The project is named
like the service where nothing else is said. Files that .dockerignore leaves out are not sent.")]
pub(crate) struct Args {
    /// The app's folder
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Name of the service
    #[arg(long, value_name = "NAME", env = "SKEP_SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    settings: Settings,
    /// Build without what Docker has of earlier builds
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    gate: Gate,
}

/// Settings of a service that a deployment can change.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Settings {
    /// How many allocations
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// The port that the app listens on
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// GET this path to see whether an allocation is fit for traffic
    #[arg(long, value_name = "PATH")]
    health: Option<String>,
    /// Another host name that leads to the service; repeatable
    #[arg(long = "domain", value_name = "HOST")]
    domains: Vec<String>,
}

impl Settings {
    /// Puts what was said into the specification.
    pub(crate) fn apply(&self, spec: &mut ServiceSpec) {
        spec.replicas = self.replicas.unwrap_or(spec.replicas);
        spec.port = self.port.or(spec.port);
        spec.health.path = self.health.clone().or(spec.health.path.take());
        for domain in &self.domains {
            if !spec.domains.contains(domain) {
                spec.domains.push(domain.clone());
            }
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Bad input, refused, or not live.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let app = App::read(&args.dir).await?;
    let target = app.target(&args.scope, args.service.as_deref())?;
    let client = session.client()?;
    let existing = existing(&client, &target).await?;
    let mut spec = base_of(existing.as_ref());
    let mut variables = Vec::new();
    if let Some(manifest) = &app.manifest {
        spec = manifest.apply(&spec)?;
        let input = |(name, value): (&String, &String)| VariableInput {
            name: name.clone(),
            value: value.clone(),
            secret: false,
        };
        variables = manifest.env.iter().map(input).collect();
    }
    args.settings.apply(&mut spec);
    spec.check()?;
    let plan = plan(&app, &spec).await?;
    session
        .out
        .progress(&plan.text(&target, &app.dir, existing.is_some(), session));
    put(&client, &target, existing.as_ref(), spec, variables).await?;
    let order = Order {
        target,
        request: DeploymentRequest::Upload,
        folder: Some(app.dir),
        wait: true,
        no_cache: args.no_cache,
        gate: args.gate,
    };
    follow::deploy(session, &client, order).await
}

/// The service as it is; none where there is none yet.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn existing(
    client: &Client,
    target: &Target,
) -> Result<Option<ServiceView>, Failure> {
    match client.get(&target.path()).await {
        Ok(view) => Ok(Some(view)),
        Err(client::Error::Refused(problem)) if problem.code == Code::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What to begin from.
pub(crate) fn base_of(existing: Option<&ServiceView>) -> ServiceSpec {
    existing.map_or_else(ServiceSpec::default, |view| view.spec.clone())
}

/// Creates or changes the service, unless somebody else did so in between.
///
/// # Errors
/// Refused.
pub(crate) async fn put(
    client: &Client,
    target: &Target,
    existing: Option<&ServiceView>,
    spec: ServiceSpec,
    variables: Vec<VariableInput>,
) -> Result<ServiceView, Failure> {
    let body = PutService {
        spec: Some(spec),
        variables,
        if_generation: Some(existing.map_or(0, |view| view.generation)),
    };
    Ok(client.send(Method::PUT, &target.path(), &body).await?)
}

/// What will be done, before anything is.
struct Plan {
    choice: Choice,
    content: context::Summary,
    has_manifest: bool,
}

/// How a folder would be built, and what would be sent of it.
///
/// # Errors
/// No builder fits, or the folder cannot be sent.
pub(crate) async fn look(
    dir: PathBuf,
    spec: &ServiceSpec,
) -> Result<(Choice, context::Summary), Problem> {
    let wish = Wish::of(spec);
    let look = move || {
        let choice = choose::for_folder(&wish, |path| is_file_inside(&dir, path))?;
        Ok((choice, context::pack(&dir, std::io::sink())?))
    };
    let looked = tokio::task::spawn_blocking(look).await;
    looked.expect("looking at a folder does not panic")
}

async fn plan(app: &App, spec: &ServiceSpec) -> Result<Plan, Failure> {
    let (choice, content) = look(app.dir.clone(), spec).await?;
    Ok(Plan {
        choice,
        content,
        has_manifest: app.manifest.is_some(),
    })
}

fn is_file_inside(dir: &Path, path: &str) -> bool {
    dir.join(path).is_file()
}

impl Plan {
    fn text(&self, target: &Target, dir: &Path, is_known: bool, session: &Session) -> String {
        let verb = if is_known { "deploying to" } else { "creating" };
        let title = session
            .out
            .styled(Style::Strong, &format!("{verb} {target}"));
        let manifest = if self.has_manifest {
            format!(" with {}", manifest::FILE)
        } else {
            String::new()
        };
        format!(
            "{title}\n  folder   {}{manifest}\n  {}\n  upload   {} files, {}",
            dir.display(),
            self.choice.line().replacen("builder: ", "builder  ", 1),
            self.content.files,
            time::bytes(self.content.bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_changes_what_was_and_nothing_else() {
        let mut spec = ServiceSpec {
            replicas: 3,
            domains: vec!["a.example".into()],
            ..Default::default()
        };
        Settings::default().apply(&mut spec);
        assert_eq!(spec.replicas, 3);
        let settings = Settings {
            replicas: Some(0),
            port: Some(3000),
            health: Some("/ok".into()),
            domains: vec!["a.example".into(), "b.example".into()],
        };
        settings.apply(&mut spec);
        assert_eq!(
            (spec.replicas, spec.port, spec.health.path.as_deref()),
            (0, Some(3000), Some("/ok"))
        );
        assert_eq!(spec.domains, ["a.example", "b.example"]);
    }
}
