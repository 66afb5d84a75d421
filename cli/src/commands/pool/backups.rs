//! `skep pool backups|rm-backups`: copies of guests that have left their pool.

use http::Method;
use skep_control_plane::api::types::{
    DepartedArchiveView, NodePlanView, PoolBackupsView, RemovePoolBackupsRequest,
};
use skep_model::problem::{Code, Problem};
use skep_model::schedule::utc;

use super::nodes::foreseen;
use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::{confirm, table};
use crate::session::Session;

/// Which of them are removed.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep pool backups web                                         which are left
  skep pool rm-backups web --guest skep-01m8... --plan
  skep pool rm-backups web nas:backup/vzdump-qemu-5001-2026_11_29-03_00_00.vma.zst
  skep pool rm-backups web --all --yes

Only copies of guests that this cluster has made in the pool and that are gone. What is marked as
protected in Proxmox is refused by name, and left out by --guest and --all.")]
pub(crate) struct Remove {
    /// The pool
    #[arg(value_name = "POOL")]
    pool: String,
    /// Copies: `skep pool backups POOL`
    #[arg(value_name = "ARCHIVE", required_unless_present_any = ["guest", "all"])]
    archives: Vec<String>,
    /// All of this guest
    #[arg(long, value_name = "GUEST", conflicts_with_all = ["archives", "all"])]
    guest: Option<String>,
    /// All of all guests that have left
    #[arg(long, conflicts_with = "archives")]
    all: bool,
    /// The Proxmox storage [where the pool's guests are copied to]
    #[arg(long, value_name = "STORAGE")]
    storage: Option<String>,
    /// Say what would be done, and do nothing of it
    #[arg(long)]
    plan: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

fn path(pool: &str) -> String {
    format!("/v1/node-pools/{}/backups", escape(pool))
}

async fn look(
    client: &Client,
    pool: &str,
    storage: Option<&str>,
) -> Result<PoolBackupsView, Failure> {
    let query = storage.map_or_else(String::new, |it| format!("?storage={}", escape(it)));
    Ok(client.get(&format!("{}{query}", path(pool))).await?)
}

/// Lists them.
pub(super) async fn list(
    (client, session): (&Client, &Session),
    pool: &str,
    storage: Option<&str>,
) -> Result<(), Failure> {
    let view = look(client, pool, storage).await?;
    session.out.result(&view, || shown(pool, &view));
    Ok(())
}

/// Removes some, or says what that would be.
pub(super) async fn remove(
    (client, session): (&Client, &Session),
    args: &Remove,
) -> Result<(), Failure> {
    let pool = &args.pool;
    let archives = match args.archives.is_empty() {
        false => args.archives.clone(),
        true => {
            let view = look(client, pool, args.storage.as_deref()).await?;
            chosen(pool, args.guest.as_deref(), &view)?
        }
    };
    let count = archives.len();
    let question =
        format!("Remove {count} copies of guests that have left {pool}? Nobody brings them back.");
    if !args.plan && !args.yes && !confirm(&question) {
        let problem = Problem::invalid("--yes", "the copies stay as they are: not confirmed");
        return Err(problem.hint("answer y on a terminal, or say --yes").into());
    }
    let query = if args.plan { "?plan=true" } else { "" };
    let at = format!("{}/remove{query}", path(pool));
    let request = RemovePoolBackupsRequest {
        archives,
        storage: args.storage.clone(),
    };
    let view: NodePlanView = client.send(Method::POST, &at, &request).await?;
    session.out.result(&view, || match args.plan {
        true => foreseen(&view),
        false => view.steps.join("\n"),
    });
    Ok(())
}

/// Copies of one guest, or of all, that may go.
fn chosen(pool: &str, guest: Option<&str>, view: &PoolBackupsView) -> Result<Vec<String>, Failure> {
    let its = view.archives.iter();
    let its = its.filter(|it| guest.is_none_or(|guest| it.guest == guest) && !it.protected);
    let archives: Vec<String> = its.map(|it| it.archive.clone()).collect();
    if archives.is_empty() {
        let whose = guest.map_or_else(|| format!("guests that have left {pool}"), str::to_owned);
        let text = format!("there is no copy of {whose} that may be removed");
        return Err(Problem::new(Code::NotFound, text)
            .hint(format!("`skep pool backups {pool}` lists what there is"))
            .into());
    }
    Ok(archives)
}

fn shown(pool: &str, view: &PoolBackupsView) -> String {
    let row = |one: &DepartedArchiveView| {
        let bytes = one.bytes.map(|bytes| format!("{} MiB", bytes >> 20));
        let note = if one.protected { "protected" } else { "" };
        vec![
            one.guest.clone(),
            utc(one.gone_ms),
            utc(one.at_ms),
            bytes.unwrap_or_default(),
            one.archive.clone(),
            note.to_owned(),
        ]
    };
    let columns = ["GUEST", "GONE", "BEGUN", "SIZE", "ARCHIVE", "NOTES"];
    let rows = view.archives.iter().map(row).collect();
    let empty = format!(
        "no copy is left on {} of a guest that has left {pool}, as far as the token of its provider sees",
        view.storage
    );
    let mut text = table::render(&columns, rows, &empty);
    if view.unknown > 0 {
        text.push_str(&format!(
            "\n\n{} more on {} name a guest as ours are named, which is not one that this pool remembers: they are left alone",
            view.unknown, view.storage
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_protected_is_left_out_and_nothing_else_is_taken() {
        let one = |guest: &str, archive: &str, protected| DepartedArchiveView {
            guest: guest.to_owned(),
            vmid: 5001,
            gone_ms: 5,
            archive: archive.to_owned(),
            at_ms: 5,
            bytes: None,
            protected,
        };
        let view = PoolBackupsView {
            storage: "nas".to_owned(),
            archives: vec![
                one("a", "a1", false),
                one("a", "a2", true),
                one("b", "b1", false),
            ],
            unknown: 2,
        };
        let names = |guest| chosen("web", guest, &view).ok();
        assert_eq!(names(None), Some(vec!["a1".to_owned(), "b1".to_owned()]));
        assert_eq!(names(Some("a")), Some(vec!["a1".to_owned()]));
        assert_eq!(names(Some("c")), None);
        assert!(shown("web", &view).contains("2 more on nas"));
    }
}
