//! `skep node`: the nodes of the cluster.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{MetaRequest, MetaView, NodesView};
use skep_model::problem::{Code, Problem};

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::{confirm, table, time, view};
use crate::session::Session;

/// The nodes of the cluster
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List them
    Ls,
    /// Remove one; what runs there is placed elsewhere
    Rm {
        /// Its name or id
        #[arg(value_name = "NODE")]
        node: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// What operators say of a node, for placement to ask for
    #[command(subcommand)]
    Meta(Meta),
}

/// What operators say of a node, for placement to ask for
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Meta {
    /// List it
    Ls {
        /// The node's name or id
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Set keys
    #[command(after_help = "Example:\n  skep node meta set n1 rack=b2 disk=ssd")]
    Set {
        /// The node's name or id
        #[arg(value_name = "NODE")]
        node: String,
        /// Keys and values
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = pair)]
        pairs: Vec<(String, String)>,
    },
    /// Remove keys
    Unset {
        /// The node's name or id
        #[arg(value_name = "NODE")]
        node: String,
        /// The keys
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is expected")?;
    Ok((key.to_owned(), value.to_owned()))
}

async fn meta(command: Meta, client: &Client, session: &Session) -> Result<(), Failure> {
    let (node, request) = match command {
        Meta::Ls { node } => {
            let found: NodesView = client.get("/v1/nodes").await?;
            let found = found
                .nodes
                .into_iter()
                .find(|view| view.name == node || view.id.to_string() == node);
            let found = found.ok_or_else(|| {
                let message = format!("there is no node `{}`", node.escape_debug());
                Problem::new(Code::NotFound, message).hint("`skep node ls` lists the nodes")
            })?;
            show(&found.meta, session);
            return Ok(());
        }
        Meta::Set { node, pairs } => {
            let set = pairs.into_iter().collect();
            (
                node,
                MetaRequest {
                    set,
                    ..MetaRequest::default()
                },
            )
        }
        Meta::Unset { node, keys } => (
            node,
            MetaRequest {
                unset: keys,
                ..MetaRequest::default()
            },
        ),
    };
    let path = format!("/v1/nodes/{}/meta", escape(&node));
    let view: MetaView = client.send(Method::PUT, &path, &request).await?;
    show(&view.meta, session);
    Ok(())
}

fn show(meta: &BTreeMap<String, String>, session: &Session) {
    session.out.result(meta, || {
        let rows = meta
            .iter()
            .map(|(key, value)| vec![key.clone(), value.clone()]);
        table::render(&["KEY", "VALUE"], rows.collect(), "nothing is said of it")
    });
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Meta(command) => meta(command, &client, session).await?,
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
