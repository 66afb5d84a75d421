//! `skep host`: the physical hosts under the nodes.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{
    HostDrainRequest, HostPlanView, HostsView, NodeView, NodesView, PhysicalHostView,
};
use skep_model::maintenance::Cause;
use tokio::time::Instant;

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::{table, time};
use crate::session::Session;

/// Between two looks at nodes that are drained: the API has no event for nodes.
const LOOK: Duration = Duration::from_millis(250);
/// What is stopped at the deadline may take its grace to end.
const STOP_MARGIN: Duration = Duration::from_secs(90);

/// The physical hosts under the nodes
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List them: their nodes, the services that would end with one, and memory where a provider tells of it
    #[command(visible_alias = "list")]
    Ls,
    /// Empty one for maintenance: each allocation goes when its replacement on another host is healthy
    #[command(after_help = "\
Examples:
  skep host drain pve1 --plan              says what moves, where to, and what cannot
  skep host drain pve1                     stays until its nodes are empty
  skep host drain pve1 --deadline 10m      after ten minutes the rest is stopped
  skep host undrain pve1                   takes it back

All of its nodes take nothing new from the first moment on, and so do nodes that join or are moved there. A node
says its host as metadata: `skep node meta set NODE host=pve1`; of nodes of Proxmox pools it is known.")]
    Drain {
        /// Its name
        #[arg(value_name = "HOST")]
        host: String,
        /// Say what would be done, and do nothing of it
        #[arg(long)]
        plan: bool,
        /// After this what is left there is stopped: 90s, 15m, 1h, 7d
        #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = time::parse_span)]
        deadline: Duration,
        /// Do not stay until its nodes are empty
        #[arg(long)]
        no_wait: bool,
    },
    /// End a host's maintenance: its nodes are what they were before
    Undrain {
        /// Its name
        #[arg(value_name = "HOST")]
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
            let view: HostsView = client.get("/v1/hosts").await?;
            session.out.result(&view, || list(&view));
        }
        Command::Drain {
            host,
            plan,
            deadline,
            no_wait,
        } => {
            let query = if plan { "?plan=true" } else { "" };
            let request = HostDrainRequest {
                deadline_ms: Some(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX)),
            };
            let path = format!("{}{query}", path(&host));
            let view: HostPlanView = client.send(Method::POST, &path, &request).await?;
            if plan || no_wait {
                session.out.result(&view, || foreseen(&view, plan));
                return Ok(());
            }
            session.out.progress(&foreseen(&view, false));
            emptied(&client, session, (&view, deadline)).await?;
        }
        Command::Undrain { host } => {
            let _: Value = client
                .send(Method::DELETE, &path(&host), &json!({}))
                .await?;
            session.out.result(&json!({ "undrained": host }), || {
                format!("the nodes on {host} are what they were before")
            });
        }
    }
    Ok(())
}

fn path(host: &str) -> String {
    format!("/v1/hosts/{}/drain", escape(host))
}

/// Stays until nothing is left on a host's nodes.
async fn emptied(
    client: &Client,
    session: &Session,
    (view, deadline): (&HostPlanView, Duration),
) -> Result<(), Failure> {
    let ends = Instant::now() + deadline + STOP_MARGIN;
    let mut before = None;
    loop {
        let found: NodesView = client.get("/v1/nodes").await?;
        let its = |node: &&NodeView| view.nodes.contains(&node.name);
        let left: u32 = found
            .nodes
            .iter()
            .filter(its)
            .map(|it| it.allocations)
            .sum();
        if left == 0 {
            let host = &view.host;
            session.out.result(view, || {
                format!("{host} is empty; `skep host undrain {host}` takes it back")
            });
            return Ok(());
        }
        if before.replace(left) != Some(left) {
            session
                .out
                .progress(&format!("{}: {left} allocations left", view.host));
        }
        if Instant::now() >= ends {
            let message = format!("{left} allocations are still on {}", view.host);
            return Err(Failure::failed(message)
                .hint("`skep ps` shows them; are the agents of its nodes there?"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn foreseen(view: &HostPlanView, is_plan: bool) -> String {
    let rows = view.moves.iter().map(|step| {
        let to = match (&step.to, &step.against) {
            (Some(to), _) => to.clone(),
            (None, Some(why)) => format!("nowhere: {why}"),
            (None, None) => String::new(),
        };
        vec![
            step.service.clone(),
            step.allocation.short(),
            step.from.clone(),
            to,
        ]
    });
    let stuck = view.moves.iter().filter(|step| step.to.is_none()).count();
    let (would, is) = match is_plan {
        true => ("would be ", "would be"),
        false => ("", "are"),
    };
    let mut parts = vec![
        format!("{} {is} drained: {}", view.host, view.nodes.join(" ")),
        table::render(
            &["SERVICE", "ALLOCATION", "FROM", "TO"],
            rows.collect(),
            "nothing of a service runs there",
        ),
    ];
    if stuck > 0 {
        parts.push(format!(
            "{stuck} cannot move as things are: they stay until they can, and {would}stopped at the deadline"
        ));
    }
    parts.join("\n\n")
}

fn list(view: &HostsView) -> String {
    let rows = view.hosts.iter().map(|host| {
        vec![
            host.name.clone(),
            state(host),
            memory(host),
            host.nodes.join(" "),
            host.services.join(" "),
        ]
    });
    let columns = ["HOST", "STATE", "PROMISED GIB", "NODES", "ENDS WITH IT"];
    let empty = "no node says on which host it is: `skep node meta set NODE host=NAME`";
    let mut parts = vec![table::render(&columns, rows.collect(), empty)];
    if !view.unknown.is_empty() && !view.hosts.is_empty() {
        parts.push(format!(
            "nodes that do not say their host, and are taken to be on one: {}",
            view.unknown.join(" ")
        ));
    }
    for why in &view.unasked {
        parts.push(format!("provider {why}"));
    }
    parts.join("\n\n")
}

fn state(host: &PhysicalHostView) -> String {
    let drained = host.maintenance.map(|it| match it.cause {
        Cause::Operator => "drained",
        Cause::Provider => "drained: its provider has it under maintenance",
    });
    match (drained, &host.memory) {
        (Some(word), _) => word.to_owned(),
        (None, Some(said)) if !said.online => "away".to_owned(),
        (None, Some(said)) if said.maintenance => "maintenance".to_owned(),
        _ => "in use".to_owned(),
    }
}

fn memory(host: &PhysicalHostView) -> String {
    let gib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 30));
    host.memory.as_ref().map_or_else(String::new, |said| {
        let is_over = said.memory_bytes > 0 && said.promised_bytes > said.memory_bytes;
        let mark = if is_over { " (more than it has)" } else { "" };
        let (promised, has) = (gib(said.promised_bytes), gib(said.memory_bytes));
        format!("{promised} of {has}{mark}")
    })
}
