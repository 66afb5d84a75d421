//! `skep login`: learns to know a server.

use std::io::{IsTerminal as _, Read as _, Write as _};

use serde_json::json;
use skep_control_plane::api::types::StatusView;

use crate::client::Client;
use crate::context::{Context, Contexts};
use crate::failure::Failure;
use crate::session::Session;

/// Longest token, in bytes.
const TOKEN_MAX: u64 = 4 << 10;

/// Learn to know a server
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep login --server https://skep.example.com:7070 --fingerprint HEX < token
  SKEP_TOKEN=... skep login --server https://10.0.0.5:7070 --fingerprint HEX --name prod

The fingerprint is the one of the cluster's CA: the server prints it when the cluster is founded, and
its bootstrap file holds it. The token comes from SKEP_TOKEN, else from stdin.")]
pub(crate) struct Args {
    /// URL of the API: https://HOST:PORT
    #[arg(long, value_name = "URL")]
    server: String,
    /// SHA-256 of the cluster's CA certificate, in hex
    #[arg(long, value_name = "HEX")]
    fingerprint: String,
    /// What to call it [default: the server's host]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Make it the current context
    #[arg(long = "use")]
    make_current: bool,
}

/// Runs the command. The server is asked before anything is kept.
///
/// # Errors
/// Not reachable, not the server of that fingerprint, or the token is not known there.
pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let context = Context {
        server: args.server.trim_end_matches('/').to_owned(),
        fingerprint: args.fingerprint.to_ascii_lowercase().replace(':', ""),
        token: token()?,
        hooks: None,
        servers: Vec::new(),
    };
    context.check()?;
    let host = context.server.parse::<http::Uri>().ok();
    let host = host
        .as_ref()
        .and_then(http::Uri::host)
        .unwrap_or("server")
        .to_owned();
    let name = args.name.clone().unwrap_or(host);
    let client = Client::new(context.clone())?;
    super::wait(async move {
        let _: StatusView = client.get("/v1/status").await?;
        Ok(())
    })?;
    let current = Contexts::update(|contexts| {
        contexts.put(&name, context.clone());
        if args.make_current {
            contexts.current = Some(name.clone());
        }
        Ok(contexts.current.clone())
    })?;
    let is_current = current.as_deref() == Some(&name);
    session
        .out
        .result(&json!({ "context": name, "current": is_current }), || {
            if is_current {
                format!("logged in; `{name}` is the current context")
            } else {
                format!("logged in; `skep context use {name}` makes it the current context")
            }
        });
    Ok(())
}

fn token() -> Result<String, Failure> {
    if let Ok(token) = std::env::var("SKEP_TOKEN") {
        return Ok(token.trim().to_owned());
    }
    if std::io::stdin().is_terminal() {
        let mut stderr = std::io::stderr();
        let _ = write!(stderr, "token (then Enter and Ctrl-D): ").and_then(|()| stderr.flush());
    }
    let mut token = String::new();
    std::io::stdin()
        .take(TOKEN_MAX)
        .read_to_string(&mut token)
        .map_err(|error| {
            Failure::usage(format!("the token cannot be read from stdin: {error}"))
                .hint("or set SKEP_TOKEN")
        })?;
    Ok(token.trim().to_owned())
}
