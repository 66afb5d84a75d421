//! `skep diff`, `skep apply` and `skep export`: a whole project as one file. What a file means and what it changes
//! is decided in the model; here it is read, compared with what servers say, shown and carried out.

mod carry;
mod edit;
mod found;
mod show;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use skep_control_plane::api::types::ServicesView;
use skep_model::name;
use skep_model::problem::{Code, Problem};
use skep_model::project::{self, Plan, Project};

use crate::client::Client;
use crate::failure::Failure;
use crate::output::confirm;
use crate::session::Session;
pub(super) use carry::Secrets;
use carry::Work;
pub(crate) use edit::{EditArgs, edit};
use found::{Look, Project as There};

/// What `diff` exits with where something differs and that was asked for, as git has it.
const DIFFERS: u8 = 1;

/// Show what a project's file would change; nothing is changed
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep diff                        what skep.project.toml says and is not so
  skep diff shop.toml --prune      and what is there and the file does not say
  skep diff --exit-code            exits with 1 where something differs

What the file does not say stays as it is. `skep plan` shows where a service would run instead.")]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    what: What,
    /// Exit with 1 where something differs
    #[arg(long)]
    exit_code: bool,
}

/// Make a project as its file says
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep apply                       as skep.project.toml says, once you have said yes
  skep apply shop.toml --yes
  skep apply --prune               what the file does not say goes, in its environments

Nothing is done unless all of the file is good and its secrets are set (`skep env set
--secret`). Services are deployed one after the other, those that others refer to first. Where
one fails the rest is left as it is: the same command goes on from there.")]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    what: What,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Do not stay until services are live, and gone
    #[arg(long)]
    no_wait: bool,
}

/// Print the file that says what there is of a project
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  skep export --project shop > skep.project.toml

Values of secrets are in no file: it says `{ secret = true }` in their place.")]
pub(crate) struct ExportArgs {
    /// The project [default: the only one]
    #[arg(long, value_name = "NAME", env = "SKEP_PROJECT")]
    project: Option<String>,
}

/// Which file, and how far it goes.
#[derive(Debug, Clone, clap::Args)]
struct What {
    /// The file
    #[arg(value_name = "FILE", default_value = project::FILE)]
    file: PathBuf,
    /// Services and variables of the file's environments that it does not say, go
    #[arg(long)]
    prune: bool,
}

/// A file beside what there is, and what that comes to.
pub(super) struct Compared {
    file: Project,
    there: There,
    /// What it takes.
    pub(super) plan: Plan,
}

/// How a plan is carried out.
pub(super) struct How<'a> {
    /// Nobody is asked.
    pub(super) yes: bool,
    /// Until it runs.
    pub(super) wait: bool,
    /// The values of secrets that the plan makes.
    pub(super) secrets: &'a Secrets,
}

/// Runs `skep diff`.
///
/// # Errors
/// The file is not good; or it differs, and that was to be told by the exit code.
pub(crate) async fn diff(args: DiffArgs, session: &Session) -> Result<(), Failure> {
    let file = read(&args.what.file).await?;
    let compared = compare(&session.client()?, file, args.what.prune).await?;
    let Compared { file, plan, .. } = compared;
    session
        .out
        .result(&plan, || show::plan(session.out, &file.name, &plan));
    match args.exit_code && !plan.is_empty() {
        true => Err(Failure::exited(DIFFERS)),
        false => Ok(()),
    }
}

/// Runs `skep apply`.
///
/// # Errors
/// The file is not good, a secret is missing, not confirmed, or something of it failed.
pub(crate) async fn apply(args: ApplyArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let file = read(&args.what.file).await?;
    let compared = compare(&client, file, args.what.prune).await?;
    let how = How {
        yes: args.yes,
        wait: !args.no_wait,
        secrets: &Secrets::new(),
    };
    let name = &compared.file.name;
    let told = match carry_out(session, &client, (&compared, how)).await? {
        true => format!("done: {name} is as the file says"),
        false => format!("{name} is as the file says"),
    };
    session.out.result(&compared.plan, || told);
    Ok(())
}

/// Shows what it takes, asks, and does it; whether there was anything to do.
///
/// # Errors
/// A secret is missing, not confirmed, or something of it failed.
pub(super) async fn carry_out(
    session: &Session,
    client: &Client,
    (compared, how): (&Compared, How<'_>),
) -> Result<bool, Failure> {
    let Compared { file, there, plan } = compared;
    if !plan.is_empty() {
        let text = show::plan(session.out, &file.name, plan);
        session.out.progress(&text);
    }
    if !plan.missing.is_empty() {
        let told = "the file names secrets that are not set; nothing is done";
        let problem = Problem::invalid("variables", told);
        return Err(problem.hint("set them as said above, then apply it").into());
    }
    if plan.changes.is_empty() {
        return Ok(false);
    }
    if !how.yes && !confirm("Do all of this?") {
        let problem = Problem::invalid("--yes", "nothing is done: not confirmed");
        return Err(problem.hint("answer y on a terminal, or say --yes").into());
    }
    let work = Work::new(session, client, (&file.name, there, how.secrets));
    work.carry_out(plan, how.wait).await?;
    Ok(true)
}

/// Runs `skep export`.
///
/// # Errors
/// There is no such project, or nothing says which.
pub(crate) async fn export(args: ExportArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let services: ServicesView = client.get("/v1/services").await?;
    let projects: Vec<&str> = services.services.iter().map(|it| &*it.project).collect();
    let name = choose(args.project.as_deref(), &projects)?;
    let there = There::find(&client, &name, (&[], Look::Configuration)).await?;
    let file = project::export(&name, &there.current);
    match session.out.is_json() {
        true => session.out.result(&file.table(), String::new),
        false => session.out.document(&file.text()),
    }
    Ok(())
}

/// Compares a file with what there is.
///
/// # Errors
/// Not reachable, refused, or what would come of it is not accepted.
pub(super) async fn compare(
    client: &Client,
    file: Project,
    prune: bool,
) -> Result<Compared, Failure> {
    let environments: Vec<&str> = file.environments().into_iter().collect();
    let there = There::find(client, &file.name, (&environments, Look::Running)).await?;
    let plan = project::plan(&file, &there.current, prune)?;
    Ok(Compared { file, there, plan })
}

async fn read(path: &Path) -> Result<Project, Problem> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_blocking(&path));
    read.await.expect("reading a file does not panic")
}

fn read_blocking(path: &Path) -> Result<Project, Problem> {
    let unreadable = |error: std::io::Error| {
        let told = format!("cannot read {}: {error}", path.display());
        Problem::invalid("FILE", told)
            .hint("name the project's file; `skep export --project NAME` prints one")
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    let mut file = file.take(project::MAX_BYTES + 1);
    file.read_to_string(&mut text).map_err(unreadable)?;
    Project::parse(&text)
}

/// The project that is named, else the only one; `projects`: of each service, by name.
fn choose(named: Option<&str>, projects: &[&str]) -> Result<String, Problem> {
    let mut projects = projects.to_vec();
    projects.dedup();
    let missing = |told: String| {
        let hint = match projects.is_empty() {
            true => "there is none yet: `skep up` or `skep apply` makes one".to_owned(),
            false => format!("there are: {}", projects.join(", ")),
        };
        Problem::new(Code::NotFound, told).at("project").hint(hint)
    };
    match (named, &projects[..]) {
        (Some(name), _) if projects.contains(&name) => Ok(name.to_owned()),
        (Some(name), _) => {
            name::check("project", name)?;
            Err(missing(format!("there is no project `{name}`")))
        }
        (None, [one]) => Ok((*one).to_owned()),
        (None, []) => Err(missing("there is no project".to_owned())),
        (None, _) => Err(Problem::invalid("project", "which project?").hint(format!(
            "--project NAME; there are: {}",
            projects.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_the_one_that_is_named_or_the_only_one() {
        let chosen = |named: Option<&str>, there: &[&str]| {
            choose(named, there).map_err(|problem| problem.hint.unwrap_or_default())
        };
        let (one, two) = (&["shop", "shop"][..], &["blog", "shop"][..]);
        assert_eq!(chosen(None, one).as_deref(), Ok("shop"));
        assert_eq!(chosen(Some("blog"), two).as_deref(), Ok("blog"));
        for (named, there, advice) in [
            (None, two, "blog, shop"),
            (Some("ship"), two, "blog, shop"),
            (Some("A B"), two, "a-b"),
            (None, &[][..], "skep apply"),
        ] {
            let hint = chosen(named, there).expect_err("none or several");
            assert!(hint.contains(advice), "{named:?}: {hint}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_says_how_one_is_had() {
        let problem = read_blocking(Path::new("/no/such/file")).expect_err("missing");
        assert!(problem.message.contains("/no/such/file"), "{problem}");
        assert!(
            problem
                .hint
                .is_some_and(|hint| hint.contains("skep export"))
        );
    }
}
