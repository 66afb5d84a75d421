//! `skep import`: makes services of a Compose file. What the file means, the crate `compose` knows; what is there
//! already is not overwritten unless that was asked for.

mod folder;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use skep_compose::{Import, Input, Origin, Outcome, Service};
use skep_control_plane::api::types::{DeploymentRequest, ServiceView};
use skep_model::name;
use skep_model::problem::{Code, Problem};

use self::folder::Folder;
use self::plan::{Plan, Planned, Step, is_short, told};
use super::up;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::folder::complete;
use crate::follow::{self, Gate, Order};
use crate::output::{Style, confirm};
use crate::session::Session;
use crate::target::{Scope, Target};

/// Make services of a Compose file
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep import --dry-run
  skep import shop/compose.yaml --project shop --yes
  skep import --strict --environment staging

What the file says is shown first, and each key that has no counterpart, with what to do
instead. Services are deployed one after the other, those that others depend on first. One that
exists and has been live is kept as it is unless --replace is said. The project is named like
the file's `name`, else like its folder. Variables come from the shell and from .env beside the
file. --json prints the plan, then each deployment. docs/compose.md has what becomes of each
key.")]
pub(crate) struct Args {
    /// The Compose file, or its folder [default: compose.yaml or docker-compose.yml here]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    scope: Scope,
    /// Services of this profile, too; repeatable
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// Show what would be made and what is left out; nothing is changed
    #[arg(long)]
    dry_run: bool,
    /// Refuse the file where anything of it is left out
    #[arg(long)]
    strict: bool,
    /// Make services that exist what the file says; their variables that it does not name stay
    #[arg(long)]
    replace: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Runs the command.
///
/// # Errors
/// Not a Compose file, not confirmed, refused, or a service that does not become live.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let (file, profiles) = (args.file.clone(), args.profiles.clone());
    let looked = tokio::task::spawn_blocking(move || -> Result<_, Problem> {
        let folder = Folder::open(file.as_deref())?;
        let import = read(&folder, &profiles)?;
        Ok((folder, import))
    });
    let (folder, import) = looked.await.expect("reading files does not panic")?;
    if args.strict && is_short(&import) {
        return Err(refused(&folder, &import));
    }
    let targets = targets(&args.scope, &folder, &import)?;
    let folders = folders(&folder, &import).await?;
    let client = session.client()?;
    let mut existing = Vec::new();
    for target in &targets {
        existing.push(up::existing(&client, target).await?);
    }
    let plan = planned(&folder, &import, &targets, (&existing, args.replace));
    session.out.result(&plan, || plan.text(session.out));
    if args.dry_run {
        return Ok(());
    }
    if !plan.changes() {
        session.out.progress("nothing to do: all services exist");
        return Ok(());
    }
    let question = format!(
        "Import {} into {}/{}?",
        plan.file, plan.project, plan.environment
    );
    if !args.yes && !confirm(&question) {
        let problem = Problem::invalid("--yes", "nothing is imported: not confirmed");
        return Err(problem.hint("answer y on a terminal, or say --yes").into());
    }
    let steps: Vec<_> = plan.services.iter().map(|it| it.step).collect();
    let works = import
        .services
        .iter()
        .zip(targets)
        .zip(existing)
        .zip(folders);
    let works = works.zip(steps).filter(|(_, step)| *step != Step::Keep);
    let works: Vec<_> = works
        .map(|((((service, target), existing), folder), _)| Work {
            service,
            target,
            existing,
            folder,
        })
        .collect();
    for number in 0..works.len() {
        let done = works[number].run(session, &client).await;
        done.map_err(|failure| with_rest(failure, &works[number..]))?;
    }
    Ok(())
}

/// The file in Skep's words.
fn read(folder: &Folder, profiles: &[String]) -> Result<Import, Problem> {
    // What is no text is no value of a Compose file either.
    let variables = std::env::vars_os();
    let variables = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    skep_compose::import(&Input {
        text: &folder.text,
        variables: &variables.collect::<BTreeMap<_, _>>(),
        profiles: &profiles.iter().cloned().collect::<BTreeSet<_>>(),
        read: &|path| folder.look(path),
    })
}

fn refused(folder: &Folder, import: &Import) -> Failure {
    let left = import
        .reports
        .iter()
        .filter(|it| it.outcome == Outcome::Left);
    let text = format!(
        "{}: {} of its settings would be left out",
        folder.file,
        left.count()
    );
    let problem = Problem::new(Code::Invalid, text).at("--strict");
    let mut failure = Failure::with(
        Exit::Usage,
        problem.hint("change them as said above, or import without --strict"),
    );
    let told = told(&import.reports, Outcome::Left);
    failure.context = told
        .iter()
        .flat_map(|it| it.lines().map(str::to_owned))
        .collect();
    failure
}

/// The services' full names, in their order.
fn targets(scope: &Scope, folder: &Folder, import: &Import) -> Result<Vec<Target>, Problem> {
    let project = match (&scope.project, &import.project) {
        (Some(project), _) => project.clone(),
        (None, said) => {
            let dir = folder.dir.file_name().unwrap_or_default().to_string_lossy();
            let said = said.as_deref().unwrap_or(&dir);
            name::suggest(said).ok_or_else(|| {
                let text = format!(
                    "no name of a project can be made of `{}`",
                    said.escape_debug()
                );
                Problem::invalid("project", text).hint("--project NAME")
            })?
        }
    };
    let all = import.services.iter();
    all.map(|service| complete(scope, service.name.clone(), project.clone()))
        .collect()
}

/// The folders that are built, before anything is made.
async fn folders(folder: &Folder, import: &Import) -> Result<Vec<Option<PathBuf>>, Problem> {
    let mut all = Vec::with_capacity(import.services.len());
    for service in &import.services {
        let Origin::Folder(path) = &service.origin else {
            all.push(None);
            continue;
        };
        let dir = folder.below(path)?;
        up::look(dir.clone(), &service.spec)
            .await
            .map_err(|mut problem| {
                problem.message = format!("{}: {}", service.name, problem.message);
                problem
            })?;
        all.push(Some(dir));
    }
    Ok(all)
}

fn planned<'a>(
    folder: &'a Folder,
    import: &'a Import,
    targets: &[Target],
    (existing, replace): (&[Option<ServiceView>], bool),
) -> Plan<'a> {
    let steps = existing.iter().map(|it| Step::of(it.as_ref(), replace));
    let services = import.services.iter().zip(steps);
    // A file without services is none.
    let first = targets.first();
    Plan {
        file: &folder.file,
        project: first.map(|it| it.project.clone()).unwrap_or_default(),
        environment: first.map(|it| it.environment.clone()).unwrap_or_default(),
        taken: import.taken,
        services: services
            .map(|(service, step)| Planned::new(service, step))
            .collect(),
        reports: &import.reports,
    }
}

/// One service to be made.
struct Work<'a> {
    service: &'a Service,
    target: Target,
    existing: Option<ServiceView>,
    folder: Option<PathBuf>,
}

impl Work<'_> {
    async fn run(&self, session: &Session, client: &Client) -> Result<(), Failure> {
        let title = format!("deploying {}", self.target);
        session
            .out
            .progress(&session.out.styled(Style::Strong, &title));
        let (spec, variables) = (self.service.spec.clone(), self.service.variables.clone());
        up::put(
            client,
            &self.target,
            self.existing.as_ref(),
            spec,
            variables,
        )
        .await?;
        let request = match &self.service.origin {
            Origin::Image(image) => DeploymentRequest::Image {
                reference: image.clone(),
            },
            Origin::Folder(_) => DeploymentRequest::Upload,
        };
        let order = Order {
            target: self.target.clone(),
            request,
            folder: self.folder.clone(),
            wait: true,
            no_cache: false,
            gate: Gate::default(),
        };
        follow::deploy(session, client, order).await
    }
}

/// The failure of the first of these, with what is missing for it.
fn with_rest(mut failure: Failure, works: &[Work<'_>]) -> Failure {
    let names = works.iter().map(|it| it.service.name.as_str());
    let names = names.collect::<Vec<_>>().join(", ");
    let rest = format!("not live: {names}; the same import again goes on there");
    failure.problem.hint = Some(match failure.problem.hint.take() {
        Some(hint) => format!("{hint}\n      {rest}"),
        None => rest,
    });
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(text: &str) -> (tempfile::TempDir, Folder) {
        let root = tempfile::tempdir().expect("a folder");
        let dir = root.path().join("My Shop");
        std::fs::create_dir(&dir).expect("made");
        std::fs::write(dir.join("compose.yaml"), text).expect("written");
        let folder = Folder::open(Some(&dir)).expect("opened");
        (root, folder)
    }

    #[test]
    fn projects_are_named_by_options_then_the_file_then_the_folder() {
        for (name, project, wanted) in [
            ("", None, "my-shop/production/web"),
            ("name: Their_Shop\n", None, "their-shop/production/web"),
            ("name: x\n", Some("other"), "other/production/web"),
        ] {
            let (_root, folder) = folder(&format!("{name}services: {{web: {{image: a}}}}\n"));
            let import = read(&folder, &[]).expect("accepted");
            let scope = Scope {
                project: project.map(str::to_owned),
                environment: None,
            };
            let targets = targets(&scope, &folder, &import).expect("names");
            assert_eq!(targets[0].to_string(), wanted);
        }
    }

    #[test]
    fn strict_tells_each_line_and_is_wrong_usage() {
        let (_root, folder) = folder("services: {web: {image: a, privileged: true, typo: 1}}\n");
        let import = read(&folder, &[]).expect("accepted");
        let failure = refused(&folder, &import);
        assert_eq!(failure.exit, Exit::Usage);
        assert!(
            failure.problem.message.contains(": 2 of its settings"),
            "{failure}"
        );
        let context = failure.context.join("\n");
        assert!(
            context.contains("services.web.typo (number)\n    not understood"),
            "{context}"
        );
    }

    #[tokio::test]
    async fn folders_are_looked_at_before_anything_is_made() {
        let (_root, folder) = folder("services: {web: {build: web}, api: {build: .}}\n");
        let import = read(&folder, &[]).expect("accepted");
        let problem = folders(&folder, &import).await.expect_err("no folder");
        assert!(problem.message.contains("web"), "{problem}");
        std::fs::create_dir(folder.dir.join("web")).expect("made");
        let problem = folders(&folder, &import).await.expect_err("no Dockerfile");
        assert!(problem.message.starts_with("web: "), "{problem}");
        for dir in ["web", "."] {
            let path = folder.dir.join(dir).join("Dockerfile");
            std::fs::write(path, "FROM scratch\n").expect("written");
        }
        let all = folders(&folder, &import).await.expect("both");
        assert_eq!(
            all,
            [Some(folder.dir.join("web")), Some(folder.dir.clone())]
        );
    }
}
