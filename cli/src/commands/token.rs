//! `skep token`: permissions to join the cluster.

use std::time::Duration;

use http::Method;
use skep_control_plane::api::types::{TokenRequest, TokenView};

use crate::failure::Failure;
use crate::output::time;
use crate::session::Session;

/// Tokens that let nodes join
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Make one; it is shown this once
    #[command(after_help = "\
Example:
  skep token create --ttl 15m > join.token
  SKEP_JOIN_TOKEN=$(cat join.token) skep agent --server HOST:7072 ...    on the new node")]
    Create {
        /// How long it is good: 90s, 15m, 1h, 7d
        #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = time::parse_span)]
        ttl: Duration,
        /// For how many nodes
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u32,
    },
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let Command::Create { ttl, uses } = command;
    let client = session.client()?;
    let request = TokenRequest {
        ttl_s: ttl.as_secs(),
        uses,
    };
    let view: TokenView = client.send(Method::POST, "/v1/tokens", &request).await?;
    session.out.result(&view, || view.token.clone());
    Ok(())
}
