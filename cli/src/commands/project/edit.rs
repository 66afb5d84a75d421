//! `skep edit`: variables, scaling, domains of a project changed together in an editor, shown as a difference, applied as
//! one. What is written is never lost: a file that could not be applied is kept, and said where.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use skep_control_plane::api::types::ServicesView;
use skep_model::problem::{Code, Problem};
use skep_model::project::{self, Project};
use tempfile::NamedTempFile;
use tokio::process::Command;

use super::carry::Secrets;
use super::found::{Look, Project as There};
use super::{How, carry_out, choose, compare};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::confirm;
use crate::session::Session;

/// Where nothing says which editor.
const EDITOR: &str = "vi";
/// What stands above what there is.
const HEAD: &str = "\
# Save and close: what differs is shown, and done once you say yes. Nothing is done before.
# A service or a variable whose lines go is removed; to take a list away, write `[]`.
# Values of secrets are not here: `skep env set --secret` sets them.

";

/// Change a project in an editor: shown as a difference, applied as one
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep edit --project shop             opens all of it in $VISUAL, $EDITOR or vi
  EDITOR='code --wait' skep edit

Variables, replicas, domains and all else are changed together: each service is deployed once. What somebody else
changes meanwhile is not overwritten. The file is the one of `skep export` and `skep apply`.")]
pub(crate) struct EditArgs {
    /// The project [default: the only one]
    #[arg(long, value_name = "NAME", env = "SKEP_PROJECT")]
    project: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Do not stay until services are live, and gone
    #[arg(long)]
    no_wait: bool,
}

/// Runs `skep edit`.
///
/// # Errors
/// No editor, what was written is not good, somebody else was faster, or as `skep apply`.
pub(crate) async fn edit(args: EditArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let services: ServicesView = client.get("/v1/services").await?;
    let projects: Vec<&str> = services.services.iter().map(|it| &*it.project).collect();
    let name = choose(args.project.as_deref(), &projects)?;
    let before = written(&client, &name).await?;
    let mut draft = Draft::new(&before)?;
    let Some(file) = draft.edited(session).await? else {
        session
            .out
            .result(&serde_json::json!({ "changed": false }), || {
                "nothing is changed".to_owned()
            });
        return Ok(());
    };
    let done = applied(&args, (session, &client), (&name, &before, file)).await;
    match done {
        Ok(told) => {
            session
                .out
                .result(&serde_json::json!({ "changed": true }), || told);
            Ok(())
        }
        Err(failure) => {
            let path = draft.keep()?;
            let path = path.display();
            session.out.aside(&format!(
                "what you wrote is kept: `skep diff {path} --prune` shows what it would change, `skep apply {path} --prune` does it"
            ));
            Err(failure)
        }
    }
}

/// The project's file, as there is of it now.
async fn written(client: &Client, name: &str) -> Result<String, Failure> {
    let there = There::find(client, name, (&[], Look::Configuration)).await?;
    Ok(project::export(name, &there.current).text())
}

async fn applied(
    args: &EditArgs,
    (session, client): (&Session, &Client),
    (name, before, file): (&str, &str, Project),
) -> Result<String, Failure> {
    if file.name != name {
        let told = format!("the file is about `{}` now, not `{name}`", file.name);
        return Err(Problem::invalid("project", told)
            .hint("a project is not renamed")
            .into());
    }
    if written(client, name).await? != before {
        let told = "somebody else changed the project meanwhile; nothing is done";
        return Err(Problem::new(Code::Conflict, told)
            .hint("`skep edit` again")
            .into());
    }
    let compared = compare(client, file, true).await?;
    let how = How {
        yes: args.yes,
        wait: !args.no_wait,
        secrets: &Secrets::new(),
    };
    Ok(match carry_out(session, client, (&compared, how)).await? {
        true => format!("done: {name} is as you wrote"),
        false => format!("{name} is as you wrote"),
    })
}

/// A file that somebody writes in.
struct Draft {
    file: NamedTempFile,
    before: Project,
}

impl Draft {
    fn new(before: &str) -> Result<Self, Failure> {
        let file = tempfile::Builder::new()
            .prefix("skep-")
            .suffix(".project.toml")
            .tempfile();
        let mut file = file.map_err(|error| broken("a file to edit cannot be made", &error))?;
        let written = file.write_all(HEAD.as_bytes());
        written
            .and_then(|()| file.write_all(before.as_bytes()))
            .and_then(|()| file.flush())
            .map_err(|error| broken("the file to edit cannot be written", &error))?;
        Ok(Self {
            before: Project::parse(before)?,
            file,
        })
    }

    /// What was written, once it can be read; none: the same as before.
    async fn edited(&mut self, session: &Session) -> Result<Option<Project>, Failure> {
        loop {
            run_editor(self.file.path()).await?;
            match self.read() {
                Ok(file) if file == self.before => return Ok(None),
                Ok(file) => return Ok(Some(file)),
                Err(problem) => {
                    session.out.warning(&problem.to_string());
                    if !confirm("Edit it again?") {
                        let path = self.keep()?;
                        let hint = format!("what you wrote is kept in {}", path.display());
                        return Err(problem.hint(hint).into());
                    }
                }
            }
        }
    }

    /// By its name: editors put another file in its place.
    fn read(&mut self) -> Result<Project, Problem> {
        let path = self.file.path();
        let told = |error: std::io::Error| {
            Problem::invalid(
                "file",
                format!("{} cannot be read: {error}", path.display()),
            )
        };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(told)?;
        let mut file = file.take(project::MAX_BYTES + 1);
        file.read_to_string(&mut text).map_err(told)?;
        Project::parse(&text)
    }

    /// Leaves the file where it is.
    fn keep(&mut self) -> Result<PathBuf, Failure> {
        self.file.disable_cleanup(true);
        Ok(self.file.path().to_owned())
    }
}

/// As git runs one: by a shell, as people put options in these variables.
async fn run_editor(path: &Path) -> Result<(), Failure> {
    let said = |name: &str| std::env::var(name).ok().filter(|it| !it.trim().is_empty());
    let editor = said("VISUAL").or_else(|| said("EDITOR"));
    let editor = editor.unwrap_or_else(|| EDITOR.to_owned());
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "skep-edit"])
        .arg(path)
        .status()
        .await
        .map_err(|error| broken("no shell to run an editor", &error))?;
    if status.success() {
        return Ok(());
    }
    let told = format!("the editor `{editor}` ended with {status}; nothing is done");
    Err(Problem::invalid("EDITOR", told)
        .hint("say which one: EDITOR=nano skep edit")
        .into())
}

fn broken(what: &str, error: &std::io::Error) -> Problem {
    Problem::new(Code::Internal, format!("{what}: {error}"))
}
