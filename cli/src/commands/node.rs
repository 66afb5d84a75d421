//! `skep node`: the nodes of the cluster.

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::NodesView;
use skep_model::problem::Problem;

use crate::client::escape;
use crate::failure::Failure;
use crate::output::{confirm, time, view};
use crate::session::Session;

/// The nodes of the cluster
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List them
    Ls,
    /// Remove one; what runs there is placed elsewhere
    Rm {
        /// Its name
        #[arg(value_name = "NODE")]
        node: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
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
            let found: NodesView = client.get("/v1/nodes").await?;
            session
                .out
                .result(&found.nodes, || view::nodes(&found.nodes, time::now_ms()));
        }
        Command::Rm { node, yes } => {
            if !yes && !confirm(&format!("Remove the node {node}?")) {
                let problem = Problem::invalid("--yes", "the node is not removed: not confirmed");
                return Err(problem.hint("answer y on a terminal, or say --yes").into());
            }
            let path = format!("/v1/nodes/{}", escape(&node));
            let _: Value = client.send(Method::DELETE, &path, &json!({})).await?;
            session
                .out
                .result(&json!({ "removed": node }), || format!("{node} is removed"));
        }
    }
    Ok(())
}
