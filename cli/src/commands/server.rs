//! `skep server` beyond running one: which servers there are, and changing that.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{ServerRole, ServerView, ServersView};
use skep_control_plane::server::recover as offline;
use skep_model::problem::{Code, Problem};

use crate::client::{Client, escape};
use crate::failure::{Failure, chain};
use crate::output::{confirm, time, view};
use crate::parts;
use crate::session::Session;

/// Run a server of the control plane; see and change which servers there are
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Part(parts::server::Part),
    /// List the servers: role, position in the log, disk, health
    Ls,
    /// Take a server out of the cluster; its process ends by itself
    Leave {
        /// Its name or id [default: the one named like this machine]
        #[arg(value_name = "SERVER")]
        server: Option<String>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Let another server lead
    TransferLeader {
        /// Its name or id [default: the voter that is least behind]
        #[arg(value_name = "SERVER")]
        server: Option<String>,
    },
    /// Make the last surviving server the whole cluster, when the others are lost for good
    #[command(after_help = "\
Only with the server stopped, and only when most servers are lost for good: writes that they alone had
acknowledged are lost with them. Of several survivors take the one with the newest entry: without
--accept-data-loss the command only shows what a data folder holds.

At its next start the server raises the cluster's incarnation and forgets the other servers. Never
start one of those again with its old data.")]
    Recover(Recover),
    /// The history: audit, timelines, build logs
    #[command(subcommand)]
    History(super::history::Command),
}

/// What to recover from.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Recover {
    /// Data folder of the stopped server
    #[arg(long, value_name = "DIR", env = "SKEP_SERVER_DATA_DIR")]
    data_dir: PathBuf,
    /// Do it
    #[arg(long)]
    accept_data_loss: bool,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Ls => list(session).await,
        Command::Leave { server, yes } => leave(server, yes, session).await,
        Command::TransferLeader { server } => transfer(server, session).await,
        Command::Part(_) | Command::Recover(_) | Command::History(_) => {
            unreachable!("run without a server by the caller")
        }
    }
}

async fn list(session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let found: ServersView = client.get("/v1/servers").await?;
    session.out.result(&found, || view::servers(&found.servers));
    for server in &found.servers {
        let own = server.report.iter().flat_map(|report| &report.problems);
        for problem in own.chain(&server.unreachable) {
            session.out.warning(&format!("{}: {problem}", server.name));
        }
    }
    Ok(())
}

async fn leave(server: Option<String>, yes: bool, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let server = match server {
        Some(server) => server,
        None => parts::server::server_name(None)?,
    };
    if !yes && !confirm(&format!("Take the server {server} out of the cluster?")) {
        let problem = Problem::invalid("--yes", "the server stays: not confirmed");
        return Err(problem.hint("answer y on a terminal, or say --yes").into());
    }
    let path = format!("/v1/servers/{}", escape(&server));
    let _: Value = client.send(Method::DELETE, &path, &json!({})).await?;
    session
        .out
        .result(&json!({ "removed": server }), || format!("{server} is out"));
    Ok(())
}

async fn transfer(server: Option<String>, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let server = match server {
        Some(server) => server,
        None => successor(&client).await?,
    };
    let path = format!("/v1/servers/{}/leader", escape(&server));
    let _: Value = client.send(Method::POST, &path, &json!({})).await?;
    session
        .out
        .result(&json!({ "leader": server }), || format!("{server} leads"));
    Ok(())
}

/// The voter that is least behind.
async fn successor(client: &Client) -> Result<String, Failure> {
    let found: ServersView = client.get("/v1/servers").await?;
    let voters = found
        .servers
        .iter()
        .filter(|server| server.role == ServerRole::Voter && server.healthy);
    let best = voters.min_by_key(|server: &&ServerView| server.lag.unwrap_or(u64::MAX));
    best.map(|server| server.name.clone()).ok_or_else(|| {
        let problem = Problem::new(Code::Conflict, "there is no other voter that is well");
        problem.hint("`skep server ls` shows the servers").into()
    })
}

/// Shows what a stopped server's data holds, and makes it the whole group if that is accepted.
///
/// # Errors
/// A server runs on it, it is damaged, or that is not accepted.
pub(crate) fn recover(args: &Recover, session: &Session) -> Result<(), Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::failed(chain(error));
    let found = offline::inspect(&args.data_dir).map_err(|error| failed(&error))?;
    session.out.warning(&format!(
        "{}: member {}, newest entry {} of term {}, committed as far as it knows: {}, voters {:?}",
        args.data_dir.display(),
        found.member,
        found.last_index,
        found.term,
        found.commit,
        found.voters
    ));
    if !args.accept_data_loss {
        return Err(Failure::usage("nothing was changed")
            .hint("--accept-data-loss makes this server the whole cluster; read `skep server recover --help` first"));
    }
    offline::make_sole_member(&args.data_dir).map_err(|error| failed(&error))?;
    let words = json!({ "member": found.member, "last_index": found.last_index });
    session.out.result(&words, || {
        "this server is the whole cluster now.\n\
         Start it with `skep server`, let others join anew, and never start an old one with its old data."
            .to_owned()
    });
    Ok(())
}

/// How long a list of servers may take that nobody asked for.
pub(crate) const QUIET_DEADLINE: Duration = Duration::from_secs(2);

/// Base URLs of the servers' APIs.
pub(crate) fn urls(view: &ServersView) -> Vec<String> {
    let url = |server: &ServerView| format!("https://{}", server.api_address);
    view.servers.iter().map(url).collect()
}

/// The row of one server, for tables.
pub(crate) fn row(server: &ServerView) -> Vec<String> {
    const NONE: &str = "-";
    let report = server.report.as_ref();
    let number = |value: Option<u64>| value.map_or(NONE.to_owned(), |it| it.to_string());
    let disk = report.and_then(|report| report.disk_free_bytes);
    let health = match (report, server.healthy) {
        (None, _) => "unreachable",
        (Some(_), true) => "ok",
        (Some(_), false) => "not well",
    };
    vec![
        server.name.clone(),
        server.role.as_str().to_owned(),
        number(report.map(|report| report.term)),
        number(report.map(|report| report.applied_index)),
        number(server.lag),
        disk.map_or(NONE.to_owned(), |free| {
            format!("{} free", time::bytes(free))
        }),
        health.to_owned(),
        report.map_or(server.version.clone(), |report| report.version.clone()),
        server.api_address.clone(),
    ]
}
