//! `skep node`: the nodes of the cluster.

mod backups;
mod resize;

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{
    AdminRequest, AdminState, FenceRequest, IntroductionView, MetaRequest, MetaView, NodePlanView,
    NodeView, NodesView, RetireRequest,
};
use skep_model::problem::{Code, Problem};
use tokio::time::Instant;

use super::pool::nodes;
use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::{confirm, node, table, time, view};
use crate::session::Session;

/// Between two looks at a node that is drained: the API has no event for nodes.
const LOOK: Duration = Duration::from_millis(250);
/// What is stopped at the deadline may take its grace to end.
const STOP_MARGIN: Duration = Duration::from_secs(90);

/// The nodes of the cluster
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List them
    Ls,
    /// Show one: its machine, what its agent reports, and what to fix
    Show {
        /// Its name or id
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Make more nodes of a pool
    Add {
        /// The pool
        #[arg(value_name = "POOL")]
        pool: String,
        /// How many more
        #[arg(long, short = 'n', value_name = "N", default_value_t = 1)]
        count: u32,
        /// Say what would be done, and do nothing of it
        #[arg(long)]
        plan: bool,
    },
    /// Make another node of its pool, then drain one and remove it
    Replace {
        /// Its name or id
        #[arg(value_name = "NODE")]
        node: String,
        /// Say what would be done, and do nothing of it
        #[arg(long)]
        plan: bool,
        /// Also when it has volumes of services that there are: what is in them is given up
        #[arg(long)]
        lose_volumes: bool,
    },
    /// Print what tells a machine of a list how to join: for /etc/skep/agent.env there, with a join token for that machine alone
    #[command(after_help = "\
Examples:
  skep node introduction m1 | ssh root@m1 'install -D -m 0600 /dev/stdin /etc/skep/agent.env'
  skep node introduction m1 --json | jq -r .mac

The token is good for an hour, once, and only for the machine with that MAC address; whoever asks
again makes the earlier one good for nothing. Where the package's skep-agent.path is enabled the agent
starts when the file is there.")]
    Introduction {
        /// The guest's name, as `skep pool show` has it, or its machine's
        #[arg(value_name = "GUEST")]
        guest: String,
    },
    /// List the copies of the guest of one, and when the next is due
    Backups {
        /// Its name or id
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Copy the guest of one now, beside the schedule of its pool
    Backup {
        /// Its name or id
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Have the guest of one become an older copy of itself; what was written since is lost
    #[command(after_help = "\
Examples:
  skep node backups skep-01m8...                    which copies there are
  skep node restore skep-01m8... --from nas:backup/vzdump-qemu-5001-2026_11_29-03_00_00.vma.zst --plan

The guest is shut down, its disks are replaced, it starts, and its agent comes back as the same
node. Volumes are as they were then. What runs there without volumes begins on other nodes.

Where that does not get on (`skep node show` says why), name another copy: it takes the first one's
place, until the guest runs.")]
    Restore {
        /// Its name or id
        #[arg(value_name = "NODE")]
        node: String,
        /// The copy: `skep node backups NODE`
        #[arg(long, value_name = "ARCHIVE")]
        from: String,
        /// Say what would be done, and do nothing of it
        #[arg(long)]
        plan: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Give the guest of one another size than others of its pool have
    Resize(resize::Args),
    /// Remove one; what runs there is placed elsewhere. A node that a pool has made is drained first, and its guest is removed
    #[command(visible_alias = "remove")]
    Rm {
        /// Its name or id
        #[arg(value_name = "NODE")]
        node: String,
        /// Of a node that a pool has made: say what would be done, and do nothing of it
        #[arg(long)]
        plan: bool,
        /// Also when it has volumes of services that there are: what is in them is given up
        #[arg(long)]
        lose_volumes: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Let it take no new allocations; those that are there stay
    Cordon {
        /// Its name or id
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Let it take allocations again
    Uncordon {
        /// Its name or id
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Move away what runs there: each allocation goes when its replacement is healthy
    #[command(after_help = "\
Examples:
  skep node drain n1                       stays until the node is empty
  skep node drain n1 --deadline 10m        after ten minutes the rest is stopped
  skep node uncordon n1                    takes it back

What is built on a node stays there while no other node can get its image: `skep why SERVICE` says so.")]
    Drain {
        /// Its name or id
        #[arg(value_name = "NODE")]
        node: String,
        /// After this what is left there is stopped: 90s, 15m, 1h, 7d
        #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = time::parse_span)]
        deadline: Duration,
        /// Do not stay until it is empty
        #[arg(long)]
        no_wait: bool,
    },
    /// Confirm that a lost node is dead: what has data on shared storage goes on elsewhere
    #[command(after_help = "\
Examples:
  skep node fence n2                       says what that would do, and what to make sure of
  skep node fence n2 --confirm             n2 is off, and stays so until its agent has dropped what it had

Nodes of a pool are fenced by the cluster itself, through their provider, unless `skep pool change --fence false`.")]
    Fence {
        /// Its name or id
        #[arg(value_name = "NODE")]
        node: String,
        /// You have made sure that its machine is off, or has no way to the storage
        #[arg(long)]
        confirm: bool,
        /// Say what would be done, and do nothing of it: the same as without --confirm
        #[arg(long, conflicts_with = "confirm")]
        plan: bool,
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

async fn find(client: &Client, node: &str) -> Result<NodeView, Failure> {
    let found: NodesView = client.get("/v1/nodes").await?;
    let mut nodes = found.nodes.into_iter();
    let found = nodes.find(|view| view.name == node || view.id.to_string() == node);
    Ok(found.ok_or_else(|| {
        let message = format!("there is no node `{}`", node.escape_debug());
        Problem::new(Code::NotFound, message).hint("`skep node ls` lists the nodes")
    })?)
}

/// Whether a pool has made a node.
async fn is_made(client: &Client, node: &str) -> Result<bool, Failure> {
    let pools = nodes::all(client).await?;
    let mut guests = pools.iter().flat_map(|pool| &pool.guests);
    Ok(guests.any(|one| {
        one.node
            .is_some_and(|id| one.name == node || id.to_string() == node)
    }))
}

/// Has a node of a pool go, or says what that would do.
async fn retire(
    client: &Client,
    session: &Session,
    (node, is_plan): (&str, bool),
    request: RetireRequest,
) -> Result<(), Failure> {
    let query = if is_plan { "?plan=true" } else { "" };
    let path = format!("/v1/nodes/{}/retire{query}", escape(node));
    let view: NodePlanView = client.send(Method::POST, &path, &request).await?;
    session.out.result(&view, || match is_plan {
        true => nodes::foreseen(&view),
        false => format!(
            "{}\n`skep pool ls` shows how far that is",
            view.steps.join("\n")
        ),
    });
    Ok(())
}

async fn meta(command: Meta, client: &Client, session: &Session) -> Result<(), Failure> {
    let (node, request) = match command {
        Meta::Ls { node } => {
            let found = find(client, &node).await?;
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

async fn administer(
    client: &Client,
    node: &str,
    state: AdminState,
    deadline: Option<Duration>,
) -> Result<NodeView, Failure> {
    let request = AdminRequest {
        state,
        deadline_ms: deadline.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
    };
    let path = format!("/v1/nodes/{}/admin", escape(node));
    Ok(client.send(Method::PUT, &path, &request).await?)
}

async fn drain(
    client: &Client,
    session: &Session,
    (node, deadline): (&str, Duration),
    no_wait: bool,
) -> Result<(), Failure> {
    let mut view = administer(client, node, AdminState::Draining, Some(deadline)).await?;
    let (id, mut left) = (view.id, view.allocations);
    let ends = Instant::now() + deadline + STOP_MARGIN;
    while !no_wait && view.allocations > 0 {
        if view.allocations != left {
            left = view.allocations;
            session
                .out
                .progress(&format!("{}: {left} allocations left", view.name));
        }
        if Instant::now() >= ends {
            let message = format!(
                "{} allocations are still on {}",
                view.allocations, view.name
            );
            return Err(Failure::failed(message).hint("`skep ps` shows them; is its agent there?"));
        }
        tokio::time::sleep(LOOK).await;
        let found: NodesView = client.get("/v1/nodes").await?;
        let found = found.nodes.into_iter().find(|found| found.id == id);
        view = found.ok_or_else(|| {
            Problem::new(Code::NotFound, "the node was removed meanwhile").at("node")
        })?;
    }
    session.out.result(&view, || match view.allocations {
        0 => format!("{} is empty", view.name),
        left => format!("{} is drained: {left} allocations move away", view.name),
    });
    Ok(())
}

/// Prints what tells a machine how to join.
async fn introduction(client: &Client, session: &Session, guest: &str) -> Result<(), Failure> {
    let path = format!("/v1/guests/{}/introduction", escape(guest));
    let view: IntroductionView = client.send(Method::POST, &path, &json!({})).await?;
    match session.out.is_json() {
        true => session.out.result(&view, String::new),
        false => session.out.document(&view.content),
    }
    Ok(())
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
        Command::Show { node } => {
            let found = find(&client, &node).await?;
            session.out.result(&found, || node::show(&found));
        }
        Command::Cordon { node } => {
            let view = administer(&client, &node, AdminState::Cordoned, None).await?;
            session
                .out
                .result(&view, || format!("{} takes no new allocations", view.name));
        }
        Command::Uncordon { node } => {
            let view = administer(&client, &node, AdminState::Eligible, None).await?;
            session
                .out
                .result(&view, || format!("{} takes allocations", view.name));
        }
        Command::Drain {
            node,
            deadline,
            no_wait,
        } => drain(&client, session, (&node, deadline), no_wait).await?,
        Command::Fence { node, confirm, .. } => {
            let path = format!("/v1/nodes/{}/fence", escape(&node));
            let view: NodePlanView = client
                .send(Method::POST, &path, &FenceRequest { confirm })
                .await?;
            session.out.result(&view, || match confirm {
                true => format!("{node} is fenced"),
                false => format!(
                    "{}\n`skep node fence {node} --confirm` does it",
                    nodes::foreseen(&view)
                ),
            });
        }
        Command::Add { pool, count, plan } => {
            let pools = nodes::all(&client).await?;
            let known = pools.into_iter().find(|it| it.name == pool);
            let wanted = known.map_or(count, |it| it.size.wanted.saturating_add(count));
            nodes::scale((&pool, wanted), plan, (&client, session)).await?;
        }
        Command::Replace {
            node,
            plan,
            lose_volumes,
        } => {
            let request = RetireRequest {
                replace: true,
                lose_volumes,
                ..RetireRequest::default()
            };
            retire(&client, session, (&node, plan), request).await?;
        }
        Command::Introduction { guest } => introduction(&client, session, &guest).await?,
        Command::Backups { node } => backups::list(&client, session, &node).await?,
        Command::Backup { node } => backups::begin(&client, session, &node).await?,
        Command::Restore {
            node,
            from,
            plan,
            yes,
        } => backups::restore(&client, session, (&node, &from), (plan, yes)).await?,
        Command::Resize(args) => resize::run(&client, session, &args).await?,
        Command::Rm {
            node,
            plan,
            lose_volumes,
            yes,
        } => {
            let is_made = is_made(&client, &node).await?;
            if plan && !is_made {
                return Err(Failure::usage(format!("no pool has made the node {node}"))
                    .hint("--plan is for nodes that a pool has made; `skep node drain` empties any other"));
            }
            if plan {
                let request = RetireRequest {
                    lose_volumes,
                    ..RetireRequest::default()
                };
                return retire(&client, session, (&node, true), request).await;
            }
            if !yes && !confirm(&format!("Remove the node {node}?")) {
                let problem = Problem::invalid("--yes", "the node is not removed: not confirmed");
                return Err(problem.hint("answer y on a terminal, or say --yes").into());
            }
            if is_made {
                let request = RetireRequest {
                    lose_volumes,
                    ..RetireRequest::default()
                };
                return retire(&client, session, (&node, false), request).await;
            }
            let lose = if lose_volumes {
                "?lose_volumes=true"
            } else {
                ""
            };
            let path = format!("/v1/nodes/{}{lose}", escape(&node));
            let _: Value = client.send(Method::DELETE, &path, &json!({})).await?;
            session
                .out
                .result(&json!({ "removed": node }), || format!("{node} is removed"));
        }
    }
    Ok(())
}
