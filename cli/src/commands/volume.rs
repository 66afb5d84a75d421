//! `skep volume`: what services keep on nodes.

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{
    CloneRequest, SnapshotRequest, VolumeState, VolumeView, VolumesView,
};
use skep_model::problem::{Code, Problem};

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::time::{bytes, now_ms};
use crate::output::{confirm, table};
use crate::session::Session;
use crate::target::{self, Scope};

/// Candidates that are named in an error.
const SHOWN: usize = 10;

/// Which volume.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    /// NAME, SERVICE/NAME, PROJECT/ENVIRONMENT/SERVICE/NAME, or the id that `skep volume ls` shows
    #[arg(value_name = "VOLUME[@SNAPSHOT]")]
    volume: String,
    /// The node that has it, where several have one
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

/// What services keep on nodes
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List them with their sizes, also those that removed services left behind
    #[command(visible_alias = "list")]
    Ls,
    /// Show one, and its snapshots
    Inspect {
        #[command(flatten)]
        which: Which,
    },
    /// Delete one and its snapshots, or one snapshot
    #[command(after_help = "\
Examples:
  skep volume rm db/data            (its service is stopped or removed)
  skep volume rm db/data@monday     (that snapshot alone)")]
    Rm {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Keep what one holds now, on the same node
    #[command(after_help = "\
The blocks are shared where the node's filesystem can (btrfs, XFS, ZFS), else everything is copied. A snapshot
on the same disk is no backup: copy it elsewhere.")]
    Snapshot {
        #[command(flatten)]
        which: Which,
        /// Name of the snapshot [default: the time]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Also while the service runs: the copy is then not of one moment, which its files have to bear
        #[arg(long)]
        running: bool,
    },
    /// Make a volume that holds what another holds, on the same node
    #[command(after_help = "\
Examples:
  skep volume clone shop/production/db/data shop/staging/db/data
  skep volume clone db/data@monday db/data --replace    (back to what it was)")]
    Clone {
        #[command(flatten)]
        which: Which,
        /// SERVICE/NAME or PROJECT/ENVIRONMENT/SERVICE/NAME of the new one; the service must be there
        #[arg(value_name = "NEW")]
        to: String,
        /// Delete what is there by that name
        #[arg(long)]
        replace: bool,
        /// Also while the service that is copied from runs
        #[arg(long)]
        running: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// Not reachable, not found, not confirmed, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Ls => {
            let view: VolumesView = client.get("/v1/volumes?measure=true").await?;
            session.out.result(&view, || text(&view.volumes));
        }
        Command::Inspect { which } => {
            let (found, _) = find(&client, &which, true).await?;
            session.out.result(&found, || one(&found));
        }
        Command::Rm { which, yes } => remove(&client, session, (&which, yes)).await?,
        Command::Snapshot {
            which,
            name,
            running,
        } => {
            let (found, snapshot) = find(&client, &which, false).await?;
            no_snapshot(snapshot.as_deref())?;
            let name = name.unwrap_or_else(|| format!("at-{}", now_ms() / 1_000));
            let request = SnapshotRequest {
                name: name.clone(),
                running,
            };
            let path = path(&found, "/snapshots", &[]);
            let _: Value = client.send(Method::POST, &path, &request).await?;
            let told = json!({ "volume": found.id, "snapshot": name });
            session
                .out
                .result(&told, || format!("kept as {}@{name}", title(&found)));
        }
        Command::Clone {
            which,
            to,
            replace,
            running,
        } => {
            let (found, snapshot) = find(&client, &which, false).await?;
            let unnamed = || Failure::usage(format!("`{to}` names no volume of a service"));
            let (service, name) = to
                .rsplit_once('/')
                .ok_or_else(|| unnamed().hint("SERVICE/NAME of the new one"))?;
            let target = target::find(&client, Some(service), &Scope::default()).await?;
            let request = CloneRequest {
                snapshot,
                project: target.project,
                environment: target.environment,
                service: target.service,
                name: name.to_owned(),
                replace,
                running,
            };
            let path = path(&found, "/clone", &[]);
            let _: Value = client.send(Method::POST, &path, &request).await?;
            let told = json!({ "volume": found.id, "to": to });
            session.out.result(&told, || {
                format!("{to} holds what {} held, on {}", which.volume, found.node)
            });
        }
    }
    Ok(())
}

async fn remove(
    client: &Client,
    session: &Session,
    (which, yes): (&Which, bool),
) -> Result<(), Failure> {
    let (found, snapshot) = find(client, which, false).await?;
    let what = match &snapshot {
        Some(name) => format!("the snapshot {}@{name}", title(&found)),
        None => format!(
            "the volume {} on {}, with its snapshots",
            title(&found),
            found.node
        ),
    };
    if !yes && !confirm(&format!("Delete {what}? It does not come back.")) {
        let problem = Problem::invalid("--yes", format!("{what} is not deleted: not confirmed"));
        return Err(problem.hint("answer y on a terminal, or say --yes").into());
    }
    delete(client, &found, snapshot.as_deref()).await?;
    let told = json!({ "removed": found.id, "snapshot": snapshot });
    session.out.result(&told, || format!("{what} is deleted"));
    Ok(())
}

/// Deletes a volume, or a snapshot of it.
///
/// # Errors
/// Refused.
pub(crate) async fn delete(
    client: &Client,
    volume: &VolumeView,
    snapshot: Option<&str>,
) -> Result<(), Failure> {
    let snapshot = snapshot.map(|name| ("snapshot", name));
    let path = path(volume, "", snapshot.as_slice());
    let _: Value = client.send(Method::DELETE, &path, &json!({})).await?;
    Ok(())
}

/// The volumes of a service, not measured.
///
/// # Errors
/// Not reachable.
pub(crate) async fn of_service(client: &Client, service: &str) -> Result<Vec<VolumeView>, Failure> {
    let view: VolumesView = client.get("/v1/volumes").await?;
    let own = |one: &VolumeView| one.service.as_deref() == Some(service);
    Ok(view.volumes.into_iter().filter(own).collect())
}

/// How a volume is named to people.
pub(crate) fn title(volume: &VolumeView) -> String {
    match &volume.service {
        Some(service) => format!("{service}/{}", volume.name),
        None => volume.id.clone(),
    }
}

fn path(volume: &VolumeView, rest: &str, query: &[(&str, &str)]) -> String {
    let mut path = format!(
        "/v1/volumes/{}{rest}?node={}",
        escape(&volume.id),
        volume.node_id
    );
    for (name, value) in query {
        path.push_str(&format!("&{name}={}", escape(value)));
    }
    path
}

fn no_snapshot(snapshot: Option<&str>) -> Result<(), Failure> {
    match snapshot {
        None => Ok(()),
        Some(name) => Err(Failure::usage(format!("`@{name}` is a snapshot already"))
            .hint("`--name` names the new one")),
    }
}

async fn find(
    client: &Client,
    which: &Which,
    measure: bool,
) -> Result<(VolumeView, Option<String>), Failure> {
    let (wanted, snapshot) = match which.volume.split_once('@') {
        Some((volume, snapshot)) => (volume, Some(snapshot.to_owned())),
        None => (&*which.volume, None),
    };
    let query = if measure { "?measure=true" } else { "" };
    let view: VolumesView = client.get(&format!("/v1/volumes{query}")).await?;
    let found = choose(&view.volumes, wanted, which.node.as_deref())?;
    Ok((found.clone(), snapshot))
}

/// The only one that `wanted` can mean.
fn choose<'a>(
    all: &'a [VolumeView],
    wanted: &str,
    node: Option<&str>,
) -> Result<&'a VolumeView, Problem> {
    let fits = |one: &&VolumeView| {
        let full = title(one);
        let is_end = full.ends_with(&format!("/{wanted}"));
        let is_on = |node: &str| one.node == node || one.node_id.to_string() == node;
        (one.id == wanted || full == wanted || is_end) && node.is_none_or(is_on)
    };
    let found: Vec<&VolumeView> = all.iter().filter(fits).collect();
    match found[..] {
        [one] => Ok(one),
        [] => {
            let text = format!("no node has a volume `{}`", wanted.escape_debug());
            Err(Problem::new(Code::NotFound, text).hint("`skep volume ls` lists them"))
        }
        _ => {
            let named = found.iter().take(SHOWN);
            let named = named.map(|one| format!("{} on {}", title(one), one.node));
            let named = named.collect::<Vec<_>>().join(", ");
            let text = format!("`{}` can be {named}", wanted.escape_debug());
            Err(Problem::new(Code::Conflict, text).hint("name it in full, or say --node"))
        }
    }
}

fn text(volumes: &[VolumeView]) -> String {
    let row = |one: &VolumeView| {
        vec![
            title(one),
            one.node.clone(),
            one.state.as_str().to_owned(),
            size(one),
            one.snapshots.len().to_string(),
        ]
    };
    let rows = volumes.iter().map(row).collect();
    let columns = ["VOLUME", "NODE", "STATE", "SIZE", "SNAPSHOTS"];
    let mut text = table::render(&columns, rows, "no volumes");
    let left = |one: &&VolumeView| one.state == VolumeState::LeftBehind;
    let left = volumes.iter().filter(left).count();
    if left > 0 {
        text.push_str(&format!(
            "\n{left} left behind: nobody has them; `skep volume rm VOLUME` deletes one"
        ));
    }
    text
}

fn size(one: &VolumeView) -> String {
    let Some(taken) = one.bytes else {
        return "?".to_owned();
    };
    let mut text = bytes(taken);
    if one.at_least {
        text.insert_str(0, "> ");
    }
    if one.size_bytes > 0 {
        text.push_str(&format!(" of {}", bytes(one.size_bytes)));
        if taken > one.size_bytes {
            text.push_str(" (over)");
        }
    }
    text
}

fn one(found: &VolumeView) -> String {
    let or = |text: Option<&String>, or: &str| text.map_or_else(|| or.to_owned(), Clone::clone);
    let mut rows = vec![
        ("volume", title(found)),
        ("id", found.id.clone()),
        ("service", or(found.service.as_ref(), "removed")),
        ("node", found.node.clone()),
        ("state", found.state.as_str().to_owned()),
        ("mounted at", or(found.path.as_ref(), "-")),
        ("size", size(found)),
        ("snapshots", found.snapshots.join(", ")),
    ];
    if let Some(why) = &found.problem {
        rows.push(("not measured", why.clone()));
    }
    table::facts(&rows)
}

#[cfg(test)]
mod tests {
    use skep_model::id::{NodeId, ServiceId};

    use super::*;

    fn volume(service: Option<&str>, node: &str, bytes: Option<u64>) -> VolumeView {
        VolumeView {
            id: "id.data".into(),
            name: "data".into(),
            service: service.map(str::to_owned),
            service_id: ServiceId::from_u128(1),
            node: node.into(),
            node_id: NodeId::from_u128(2),
            state: service.map_or(VolumeState::LeftBehind, |_| VolumeState::InUse),
            path: None,
            size_bytes: 1 << 30,
            bytes,
            at_least: false,
            snapshots: Vec::new(),
            problem: None,
        }
    }

    #[test]
    fn a_volume_is_meant_by_as_much_of_its_name_as_tells() {
        let all = [
            volume(Some("shop/production/db"), "one", None),
            volume(Some("shop/staging/db"), "two", None),
            volume(None, "two", None),
        ];
        let meant = |wanted: &str, node: Option<&str>| choose(&all, wanted, node).map(title);
        assert_eq!(
            meant("staging/db/data", None),
            Ok("shop/staging/db/data".into())
        );
        assert_eq!(
            meant("db/data", Some("one")),
            Ok("shop/production/db/data".into())
        );
        let problem = meant("db/data", None).expect_err("two fit");
        assert!(
            problem.message.contains("shop/staging/db/data on two"),
            "{problem:?}"
        );
        assert!(meant("b/data", None).is_err(), "a part of a word");
        assert!(meant("id.data", None).is_err(), "all have it");
    }

    #[test]
    fn a_list_says_what_is_over_what_was_asked_for_and_what_nobody_has() {
        let text = text(&[
            volume(Some("shop/production/db"), "one", Some(2 << 30)),
            volume(None, "two", None),
        ]);
        assert!(text.contains("2.0 GiB of 1.0 GiB (over)"), "{text}");
        assert!(text.contains("left behind  ?"), "{text}");
        assert!(
            text.ends_with("1 left behind: nobody has them; `skep volume rm VOLUME` deletes one")
        );
    }
}
