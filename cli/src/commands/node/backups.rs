//! `skep node backups|backup|restore`: copies of the guest that a node runs in.

use http::Method;
use serde_json::json;
use skep_control_plane::api::types::{
    BackupBegunView, GuestArchiveView, GuestBackupsView, NodePlanView, RestoreRequest,
};
use skep_model::problem::Problem;
use skep_model::schedule::utc;

use super::nodes;
use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::{confirm, table};
use crate::session::Session;

fn path(node: &str) -> String {
    format!("/v1/nodes/{}/backups", escape(node))
}

/// Lists them.
pub(super) async fn list(client: &Client, session: &Session, node: &str) -> Result<(), Failure> {
    let view: GuestBackupsView = client.get(&path(node)).await?;
    session.out.result(&view, || shown(&view));
    Ok(())
}

/// Begins one.
pub(super) async fn begin(client: &Client, session: &Session, node: &str) -> Result<(), Failure> {
    let view: BackupBegunView = client.send(Method::POST, &path(node), &json!({})).await?;
    session.out.result(&view, || {
        format!(
            "{node} is being copied to {}: task {}\n`skep node backups {node}` shows it once it is whole",
            view.storage, view.task
        )
    });
    Ok(())
}

/// Has a node's guest become one of them.
pub(super) async fn restore(
    client: &Client,
    session: &Session,
    (node, archive): (&str, &str),
    (is_plan, is_sure): (bool, bool),
) -> Result<(), Failure> {
    let question = format!("Make {node} what {archive} holds? What was written since is lost.");
    if !is_plan && !is_sure && !confirm(&question) {
        let problem = Problem::invalid("--yes", "the node stays as it is: not confirmed");
        return Err(problem.hint("answer y on a terminal, or say --yes").into());
    }
    let query = if is_plan { "?plan=true" } else { "" };
    let at = format!("/v1/nodes/{}/restore{query}", escape(node));
    let request = RestoreRequest {
        archive: archive.to_owned(),
    };
    let view: NodePlanView = client.send(Method::POST, &at, &request).await?;
    session.out.result(&view, || match is_plan {
        true => nodes::foreseen(&view),
        false => format!(
            "{}\n`skep node show {node}` shows how far that is",
            view.steps.join("\n")
        ),
    });
    Ok(())
}

fn shown(view: &GuestBackupsView) -> String {
    let row = |one: &GuestArchiveView| {
        let bytes = one.bytes.map(|bytes| format!("{} MiB", bytes >> 20));
        let note = if one.protected { "protected" } else { "" };
        vec![
            utc(one.at_ms),
            bytes.unwrap_or_default(),
            one.archive.clone(),
            note.to_owned(),
        ]
    };
    let columns = ["BEGUN", "SIZE", "ARCHIVE", "NOTES"];
    let rows = view.archives.iter().map(row).collect();
    let copies = table::render(&columns, rows, "there is no copy of it yet");
    let next = view.next_ms.map_or_else(|| "never".to_owned(), utc);
    format!("{copies}\n\nthe next one is due: {next}")
}
