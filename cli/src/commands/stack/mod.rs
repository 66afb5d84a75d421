//! `skep stack`: an environment follows a Compose file in a repository. What the file means, the server says.

mod show;

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use serde_json::json;
use skep_control_plane::api::types::{StackRemovals, StackState, StackView, StacksView};
use skep_model::build::Fetch;
use skep_model::problem::{Code, Problem};
use skep_model::stack::{Prune, Settings};
use skep_model::tenancy::DEFAULT_ENVIRONMENT;

use crate::client::{Client, escape};
use crate::failure::{Exit, Failure};
use crate::output::{confirm, time};
use crate::session::Session;

const PATH: &str = "/v1/stacks";
/// How long one answer waits for the stack to settle, in ms: then it is asked again.
const PATIENCE_MS: u64 = 8_000;

/// Compose files in repositories that environments follow
#[derive(Debug, Clone, clap::Subcommand)]
#[command(after_help = "\
Examples:
  skep stack connect https://github.com/team/shop.git --project shop
  skep stack connect git@github.com:team/shop.git --ssh-key DEPLOY_KEY --known-hosts hosts --project shop
  skep stack status --project shop
  skep stack approve --project shop          services that the file has no more go
  skep stack keep cache --project shop       this one stays, as a service like any other

Each push to the branch is carried out: services of the file are made and changed, those whose
folders changed are built, no other is touched. Services that the file has no more wait for
`skep stack approve`. A file that cannot be read changes nothing. docs/compose.md has what becomes
of each key, and the webhook that makes a push known at once.")]
pub(crate) enum Command {
    /// Let an environment follow a Compose file, or change how it does
    Connect(Box<Connect>),
    /// List all stacks
    #[command(visible_alias = "list")]
    Ls,
    /// Show one: what is in force, what was left out, what waits to be removed
    Status(Which),
    /// Read the file now, and deploy what has failed once more
    Sync {
        #[command(flatten)]
        which: Which,
        /// Do not wait until it is carried out
        #[arg(long)]
        no_wait: bool,
    },
    /// Remove services that the file has no more; their volumes stay
    Approve {
        /// Which [default: all that wait]
        #[arg(value_name = "SERVICE")]
        services: Vec<String>,
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Keep services that the file has no more: they are the stack's no longer
    Keep {
        /// Which
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
        #[command(flatten)]
        which: Which,
    },
    /// Follow the file no more; the services stay as they are
    Disconnect(Which),
}

/// An environment.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    /// The project
    #[arg(long, value_name = "NAME", env = "SKEP_PROJECT")]
    project: String,
    /// The environment
    #[arg(long, short, value_name = "NAME", env = "SKEP_ENVIRONMENT", default_value = DEFAULT_ENVIRONMENT)]
    environment: String,
}

/// Where the file is, and how it is obeyed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Connect {
    /// The repository: what `git clone` takes
    #[arg(value_name = "REPOSITORY")]
    repository: String,
    #[command(flatten)]
    which: Which,
    /// The branch whose newest commit is in force
    #[arg(long, value_name = "NAME", default_value = "main")]
    branch: String,
    /// The file in the repository, or its folder [default: compose.yaml or docker-compose.yml at the top]
    #[arg(
        long,
        value_name = "PATH",
        default_value = "",
        hide_default_value = true
    )]
    file: String,
    /// Services of this profile, too; repeatable
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// What becomes of services that the file has no more
    #[arg(long, value_enum, default_value = "ask")]
    prune: PruneArg,
    /// Services that are there already, by the same name, become the stack's
    #[arg(long)]
    adopt: bool,
    /// How often the repository is asked: 30s, 1h, never [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = poll)]
    poll: Option<u64>,
    /// The shared variable of the environment that holds a token for https
    #[arg(long, value_name = "VARIABLE")]
    token: Option<String>,
    /// The user that goes with the token
    #[arg(long, value_name = "NAME", requires = "token")]
    user: Option<String>,
    /// The shared variable of the environment that holds an SSH private key
    #[arg(long, value_name = "VARIABLE", requires = "known_hosts")]
    ssh_key: Option<String>,
    /// A file with the lines that the repository's host has in known_hosts
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// Builds get the submodules of the repository, too
    #[arg(long)]
    submodules: bool,
    /// Builds get what Git LFS keeps, too
    #[arg(long)]
    lfs: bool,
    /// Do not wait until it is carried out
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PruneArg {
    /// They run until `skep stack approve`.
    Ask,
    /// They go once all else of the file is live.
    Auto,
}

fn poll(text: &str) -> Result<u64, String> {
    match text {
        "never" => Ok(0),
        text => {
            let span: Duration = time::parse_span(text)?;
            u64::try_from(span.as_millis()).map_err(|_| "too long".to_owned())
        }
    }
}

impl Which {
    /// Its path in the API.
    fn path(&self) -> String {
        let (project, environment) = (escape(&self.project), escape(&self.environment));
        format!("{PATH}/{project}/{environment}")
    }
}

impl Connect {
    fn settings(&self) -> Result<Settings, Failure> {
        let known_hosts = self.known_hosts.as_ref().map(|path| {
            std::fs::read_to_string(path).map_err(|error| {
                let text = format!("cannot read {}: {error}", path.display());
                Failure::of(Problem::invalid("--known-hosts", text))
            })
        });
        Ok(Settings {
            repository: self.repository.clone(),
            branch: self.branch.clone(),
            path: self.file.clone(),
            profiles: self.profiles.iter().cloned().collect(),
            fetch: Fetch {
                submodules: self.submodules,
                lfs: self.lfs,
                ssh_key: self.ssh_key.clone(),
                known_hosts: known_hosts.transpose()?,
                token: self.token.clone(),
                user: self.user.clone(),
            },
            prune: match self.prune {
                PruneArg::Ask => Prune::Ask,
                PruneArg::Auto => Prune::Auto,
            },
            adopt: self.adopt,
            poll_ms: self.poll,
        })
    }
}

/// Runs the command.
///
/// # Errors
/// Not reachable, refused, not confirmed, or not all as the file says.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Connect(connect) => {
            let settings = connect.settings()?;
            settings.check()?;
            let path = connect.which.path();
            let view: StackView = client.send(Method::PUT, &path, &settings).await?;
            follow(session, &client, (&path, view), connect.no_wait).await?;
        }
        Command::Ls => {
            let view: StacksView = client.get(PATH).await?;
            session.out.result(&view, || show::all(&view.stacks));
        }
        Command::Status(which) => {
            let view: StackView = client.get(&which.path()).await?;
            session.out.result(&view, || show::one(&view));
        }
        Command::Sync { which, no_wait } => {
            let path = which.path();
            let at = format!("{path}/sync");
            let view: StackView = client.send(Method::POST, &at, &json!({})).await?;
            follow(session, &client, (&path, view), no_wait).await?;
        }
        Command::Approve {
            services,
            which,
            yes,
        } => approve(session, &client, (&which, services), yes).await?,
        Command::Keep { services, which } => {
            let before: StackView = client.get(&which.path()).await?;
            let request = StackRemovals {
                reading: number(&before),
                keep: services,
                ..StackRemovals::default()
            };
            let view = settle(&client, &which, &request).await?;
            session.out.result(&view, || show::one(&view));
        }
        Command::Disconnect(which) => {
            let _: serde_json::Value = client
                .send(Method::DELETE, &which.path(), &json!({}))
                .await?;
            let text = format!(
                "{}/{} follows no file any more; its services stay",
                which.project, which.environment
            );
            session
                .out
                .result(&json!({ "disconnected": true }), || text);
        }
    }
    Ok(())
}

/// Shows what comes of a file, once nothing of it goes on.
async fn follow(
    session: &Session,
    client: &Client,
    (path, mut view): (&str, StackView),
    no_wait: bool,
) -> Result<(), Failure> {
    let mut last = None;
    while !no_wait && !view.state.is_settled() {
        let now = show::progress(&view);
        if last.as_ref() != Some(&now) {
            session.out.progress(&now);
            last = Some(now);
        }
        view = client.get(&format!("{path}?wait_ms={PATIENCE_MS}")).await?;
    }
    session.out.result(&view, || show::one(&view));
    let is_well = matches!(
        view.state,
        StackState::InForce | StackState::Reading | StackState::Deploying
    );
    match (is_well, view.problem) {
        // Of whatever class: nothing that was typed here is wrong.
        (false, Some(problem)) => Err(Failure::with(Exit::Failed, problem)),
        _ => Ok(()),
    }
}

async fn approve(
    session: &Session,
    client: &Client,
    (which, services): (&Which, Vec<String>),
    yes: bool,
) -> Result<(), Failure> {
    let before: StackView = client.get(&which.path()).await?;
    let all = before.gone.iter().map(|it| it.name.clone());
    let services = match services.is_empty() {
        true => all.collect(),
        false => services,
    };
    if services.is_empty() {
        session
            .out
            .result(&before, || "nothing waits to be removed".to_owned());
        return Ok(());
    }
    let question = format!("Remove {}? Volumes stay.", services.join(", "));
    if !yes && !confirm(&question) {
        let problem = Problem::new(Code::Invalid, "nothing is removed: not confirmed");
        return Err(problem
            .at("--yes")
            .hint("answer y on a terminal, or say --yes")
            .into());
    }
    let request = StackRemovals {
        reading: number(&before),
        approve: services,
        ..StackRemovals::default()
    };
    let view = settle(client, which, &request).await?;
    session.out.result(&view, || show::one(&view));
    Ok(())
}

fn number(view: &StackView) -> u64 {
    view.reading.as_ref().map_or(0, |it| it.number)
}

async fn settle(
    client: &Client,
    which: &Which,
    request: &StackRemovals,
) -> Result<StackView, Failure> {
    let path = format!("{}/removals", which.path());
    Ok(client.send(Method::POST, &path, request).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_a_time_or_never() {
        assert_eq!(poll("never"), Ok(0));
        assert_eq!(poll("30s"), Ok(30_000));
        assert!(poll("soon").is_err());
    }
}
