//! `skep token`: permissions to join the cluster.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{GivenToken, TokenRequest, TokenView, TokensView};
use skep_model::server::Role;

use crate::client::escape;
use crate::failure::Failure;
use crate::output::{table, time};
use crate::session::Session;

/// Tokens that let nodes and servers join
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Make one; it is shown this once
    #[command(after_help = "\
Examples:
  skep token create --ttl 15m > join.token
  SKEP_JOIN_TOKEN=$(cat join.token) skep agent --server HOST:7072 ...    on the new node

  skep token create --role server > join.token
  SKEP_JOIN_TOKEN=$(cat join.token) skep server join --server HOST:7072 ...    on the new server")]
    Create {
        /// What joins with it
        #[arg(long, value_name = "ROLE", default_value = "node", value_parser = role)]
        role: Role,
        /// How long it is good: 90s, 15m, 1h, 7d
        #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = time::parse_span)]
        ttl: Duration,
        /// For how many joins
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u32,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
    },
    /// List those that are good, without their secrets
    #[command(visible_alias = "ls")]
    List,
    /// Revoke one: nobody joins with it any more
    Revoke {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
    },
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "node" => Ok(Role::Node),
        "server" => Ok(Role::Server),
        _ => Err("node or server".to_owned()),
    }
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Node => "node",
        Role::Server => "server",
    }
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Create {
            role,
            ttl,
            uses,
            note,
        } => {
            let request = TokenRequest {
                ttl_s: ttl.as_secs(),
                uses,
                role,
                note,
            };
            let view: TokenView = client.send(Method::POST, "/v1/tokens", &request).await?;
            session.out.result(&view, || view.token.clone());
        }
        Command::List => {
            let found: TokensView = client.get("/v1/tokens").await?;
            session
                .out
                .result(&found.tokens, || list(&found.tokens, time::now_ms()));
        }
        Command::Revoke { id } => {
            let path = format!("/v1/tokens/{}", escape(&id));
            let _: Value = client.send(Method::DELETE, &path, &json!({})).await?;
            session
                .out
                .result(&json!({ "revoked": id }), || format!("{id} is revoked"));
        }
    }
    Ok(())
}

fn list(tokens: &[GivenToken], now_ms: u64) -> String {
    let row = |token: &GivenToken| {
        let left = token.expires_ms.saturating_sub(now_ms);
        vec![
            token.id.to_string(),
            role_word(token.role).to_owned(),
            token.uses_left.to_string(),
            time::span(Duration::from_millis(left)),
            token.note.clone(),
        ]
    };
    table::render(
        &["TOKEN", "ROLE", "USES LEFT", "GOOD FOR", "NOTE"],
        tokens.iter().map(row).collect(),
        "none: `skep token create` makes one",
    )
}
