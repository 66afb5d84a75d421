//! `skep forge`: connections to forges, which are told of deployments at their commits.

mod app;

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{ForgeRequest, ForgeTestView, ForgeView, ForgesView};
use skep_model::forge::{Kind, MAX_TOKEN};

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::table::{self, facts};
use crate::output::time;
use crate::session::Session;

/// Show deployments at their commits, and previews at their pull requests, at the forge they come from
#[derive(Debug, Clone, clap::Subcommand)]
#[command(after_help = "\
Examples:
  pass show github | skep forge add github.com --token-stdin
  skep forge add git.example.com --kind forgejo --token-stdin < token.txt
  skep forge add git.lan --kind gitea --api-url http://10.0.0.7:3000/api/v1 --token-stdin < token.txt
  skep forge test github.com
  skep forge show github.com
  skep forge app create --organization acme

From then on each new deployment of a commit that comes from this host has a status there, named
skep/PROJECT/ENVIRONMENT/SERVICE, and previews of pull requests from there have one comment each.
`statuses = false` under [source] in an app's skep.toml keeps it out of both.
What rights the token needs is in docs/forges.md.")]
pub(crate) enum Command {
    /// List the connections
    #[command(visible_alias = "list")]
    Ls,
    /// Make a connection, or replace its token; the token is read from stdin and never shown again
    Add(Add),
    /// Show a connection, and what went wrong with it
    Show(Which),
    /// Ask the forge who the token is
    Test(Which),
    /// Remove a connection: nothing is told there any more
    #[command(visible_alias = "remove")]
    Rm(Which),
    /// GitHub Apps: no token of a person, no webhook of a repository
    #[command(subcommand)]
    App(app::Command),
}

/// A connection.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    /// Host, as URLs of repositories have it, without a port
    #[arg(value_name = "HOST")]
    host: String,
}

/// A connection that is made.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Add {
    #[command(flatten)]
    which: Which,
    /// Read the token from stdin: the one way, so that no shell remembers it
    #[arg(long, required = true)]
    token_stdin: bool,
    /// What the forge is [default: what everybody knows to be at the host]
    #[arg(long, value_name = "KIND", value_parser = kind())]
    kind: Option<Kind>,
    /// Where its API is [default: where its kind has it]
    #[arg(long, value_name = "URL")]
    api_url: Option<String>,
    /// The CA of its certificate, PEM [default: those that the servers' machines trust]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

fn kind() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::as_str)).map(|text| {
        let found = Kind::ALL.into_iter().find(|it| it.as_str() == text);
        found.expect("one of those that are possible")
    })
}

impl Which {
    fn path(&self) -> String {
        format!("/v1/forges/{}", escape(&self.host.to_lowercase()))
    }
}

/// Runs the command.
///
/// # Errors
/// Not reachable, refused, or a forge that does not know the token.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::App(command) => return app::run(command, session).await,
        Command::Ls => {
            let view: ForgesView = client.get("/v1/forges").await?;
            session.out.result(&view, || list(&view.forges));
        }
        Command::Add(add) => {
            let view = make(&client, add).await?;
            let now_ms = time::now_ms();
            session.out.result(&view, || shown(&view, now_ms));
        }
        Command::Show(which) => {
            let view: ForgeView = client.get(&which.path()).await?;
            let now_ms = time::now_ms();
            session.out.result(&view, || shown(&view, now_ms));
        }
        Command::Test(which) => {
            let path = format!("{}/test", which.path());
            let view: ForgeTestView = client.send(Method::POST, &path, &json!({})).await?;
            session.out.result(&view, || {
                format!("{} knows the token as {}", view.host, view.user)
            });
        }
        Command::Rm(which) => {
            let _: Value = client
                .send(Method::DELETE, &which.path(), &json!({}))
                .await?;
            let host = which.host;
            let text = format!("{host} is told nothing any more");
            session.out.result(&json!({ "removed": host }), || text);
        }
    }
    Ok(())
}

async fn make(client: &Client, add: Add) -> Result<ForgeView, Failure> {
    let request = ForgeRequest {
        kind: add.kind,
        api_url: add.api_url,
        token: from_stdin(&TOKEN)?,
        ca_pem: read_ca(add.ca.as_deref())?,
    };
    Ok(client
        .send(Method::PUT, &add.which.path(), &request)
        .await?)
}

/// The CA certificate of a forge, if one is said.
fn read_ca(file: Option<&Path>) -> Result<Option<String>, Failure> {
    file.map(|file| {
        std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))
    })
    .transpose()
}

/// A secret that is read from stdin.
struct Stdin {
    what: &'static str,
    example: &'static str,
    /// In bytes.
    most: usize,
}

const TOKEN: Stdin = Stdin {
    what: "token",
    example: "pass show forge | skep forge add HOST --token-stdin",
    most: MAX_TOKEN,
};

/// What stdin has, which must be no terminal: there it would be seen.
fn from_stdin(wanted: &Stdin) -> Result<String, Failure> {
    let (stdin, what) = (std::io::stdin(), wanted.what);
    if stdin.is_terminal() {
        return Err(Failure::usage(format!("the {what} is read from stdin")).hint(wanted.example));
    }
    let mut text = String::new();
    let limit = wanted.most as u64 + 2;
    stdin
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("the {what} cannot be read: {error}")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn state(one: &ForgeView, now_ms: u64) -> String {
    match (one.refused, one.resume_ms, &one.problem) {
        (true, _, _) => "refused".to_owned(),
        (false, Some(at_ms), _) if at_ms > now_ms => {
            format!("waits {}", time::age(at_ms, now_ms))
        }
        (false, _, Some(_)) => "trouble".to_owned(),
        (false, _, None) => {
            let odd = app::state(&one.installations).filter(|_| one.app);
            odd.unwrap_or("ok").to_owned()
        }
    }
}

/// As whom it is told.
fn account(one: &ForgeView) -> String {
    if !one.app {
        return "token".to_owned();
    }
    let all = one.installations.iter();
    let names: Vec<&str> = all.map(|it| it.account.as_str()).collect();
    format!("app at {}", names.join(", "))
}

fn list(all: &[ForgeView]) -> String {
    let now_ms = time::now_ms();
    let row = |one: &ForgeView| {
        vec![
            one.host.clone(),
            one.kind.as_str().to_owned(),
            state(one, now_ms),
            one.waiting.to_string(),
            account(one),
            one.api_url.clone(),
        ]
    };
    let columns = ["HOST", "KIND", "STATE", "WAITING", "AS", "API"];
    let empty = "no forge is told: `skep forge add HOST --token-stdin` makes a connection, `skep forge app create` a GitHub App";
    table::render(&columns, all.iter().map(row).collect(), empty)
}

fn shown(one: &ForgeView, now_ms: u64) -> String {
    let ca = if one.own_ca {
        "its own"
    } else {
        "of the machine"
    };
    let mut rows = vec![
        ("host", one.host.clone()),
        ("kind", one.kind.as_str().to_owned()),
        ("api", one.api_url.clone()),
        ("ca", ca.to_owned()),
        ("state", state(one, now_ms)),
        ("waiting", one.waiting.to_string()),
    ];
    if one.app {
        rows.extend(app::installed(&one.installations));
    }
    if let Some(at_ms) = one.asked_ms {
        rows.push(("last told", format!("{} ago", time::age(now_ms, at_ms))));
    }
    if let Some(why) = &one.problem {
        rows.push(("problem", why.clone()));
    }
    facts(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_says_how_it_is() {
        let mut one = ForgeView {
            host: "github.com".into(),
            kind: Kind::GitHub,
            api_url: "https://api.github.com".into(),
            own_ca: false,
            waiting: 2,
            refused: false,
            resume_ms: None,
            problem: None,
            asked_ms: None,
            changed_ms: 1,
            app: false,
            installations: Vec::new(),
        };
        assert_eq!(state(&one, 1_000), "ok");
        one.problem = Some("429 Too Many Requests".into());
        assert_eq!(state(&one, 1_000), "trouble");
        one.resume_ms = Some(61_000);
        assert_eq!(state(&one, 1_000), "waits 1m0s");
        assert_eq!(state(&one, 61_000), "trouble");
        one.refused = true;
        assert_eq!(state(&one, 1_000), "refused");
        assert!(shown(&one, 1_000).contains("429 Too Many"), "said why");
    }
}
