//! `skep registry`: as whom the cluster's nodes pull from registries.

use std::io::{IsTerminal as _, Read as _};

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{RegistriesView, RegistryRequest};
use skep_model::registry::{MAX_PASSWORD, RegistryShown};

use crate::client::escape;
use crate::failure::Failure;
use crate::output::table;
use crate::session::Session;

/// Registries that ask for a login
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List them
    #[command(visible_alias = "list")]
    Ls,
    /// Say as whom nodes pull from a registry; the password is read from stdin
    #[command(after_help = "\
Examples:
  pass show ghcr | skep registry login ghcr.io --user me
  skep registry login registry.example.com:5000 --user ci < token.txt

It holds for every node and every image of that registry, from the next pull on. The password is kept sealed
and never shown again. `docker.io` is the registry of references without a host.")]
    Login {
        /// Host, as references to images begin
        #[arg(value_name = "HOST[:PORT]")]
        host: String,
        /// As whom
        #[arg(long, short, value_name = "USER")]
        user: String,
    },
    /// Take a login away
    Rm {
        /// Host
        #[arg(value_name = "HOST[:PORT]")]
        host: String,
    },
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Ls => {
            let view: RegistriesView = client.get("/v1/registries").await?;
            session.out.result(&view, || text(&view.registries));
        }
        Command::Login { host, user } => {
            let request = RegistryRequest {
                user,
                password: password()?,
            };
            let path = format!("/v1/registries/{}", escape(&host));
            let shown: RegistryShown = client.send(Method::PUT, &path, &request).await?;
            session.out.result(&shown, || {
                format!("nodes pull from {} as {}", shown.host, shown.user)
            });
        }
        Command::Rm { host } => {
            let path = format!("/v1/registries/{}", escape(&host));
            let _: Value = client.send(Method::DELETE, &path, &json!({})).await?;
            session.out.result(&json!({ "removed": host }), || {
                format!("nodes pull from {host} as anybody can")
            });
        }
    }
    Ok(())
}

/// One line from stdin, which must be no terminal: there it would be seen.
fn password() -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::usage("the password is read from stdin")
            .hint("pass show registry | skep registry login HOST --user USER"));
    }
    let mut text = String::new();
    let limit = MAX_PASSWORD as u64 + 2;
    stdin
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("the password cannot be read: {error}")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn text(registries: &[RegistryShown]) -> String {
    let row = |login: &RegistryShown| vec![login.host.clone(), login.user.clone()];
    let rows = registries.iter().map(row).collect();
    let empty = "no logins: nodes pull from registries as anybody can";
    table::render(&["REGISTRY", "USER"], rows, empty)
}
