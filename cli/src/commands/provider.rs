//! `skep provider`: who makes the nodes of pools.

mod set;

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{
    MachineStateView, ProgramStateView, ProviderStateView, ProviderView, ProvidersView,
};
use skep_model::provider::{Trust, WayKind};

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::table;
use crate::session::Session;

/// Who makes the nodes of pools: Proxmox clusters, programs, lists of machines
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List them
    #[command(visible_alias = "list")]
    Ls,
    /// Ask one: a Proxmox cluster's hosts, what the token lacks and guests that nobody knows of; whether a program is there;
    /// who has which machine
    Show {
        /// Its name
        #[arg(value_name = "PROVIDER")]
        provider: String,
    },
    /// Say how a Proxmox cluster is reached (it is asked before that is kept), which program makes machines, or which exist
    Set(Box<set::Set>),
    /// Forget one; refused while a pool is made by it
    Rm {
        /// Its name
        #[arg(value_name = "PROVIDER")]
        provider: String,
    },
}

fn path(name: &str) -> String {
    format!("/v1/providers/{}", escape(name))
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Ls => {
            let view: ProvidersView = client.get("/v1/providers").await?;
            session.out.result(&view, || list(&view.providers));
        }
        Command::Show { provider } => show(&client, &provider, session).await?,
        Command::Set(set) => {
            let request = set.request()?;
            let view: ProviderView = client
                .send(Method::PUT, &path(set.provider()), &request)
                .await?;
            session
                .out
                .result(&view, || list(std::slice::from_ref(&view)));
        }
        Command::Rm { provider } => {
            let _: Value = client
                .send(Method::DELETE, &path(&provider), &json!({}))
                .await?;
            session.out.result(&json!({ "removed": provider }), || {
                format!("{provider} is asked for nothing any more")
            });
        }
    }
    Ok(())
}

async fn show(client: &Client, name: &str, session: &Session) -> Result<(), Failure> {
    let view: ProviderStateView = client.get(&format!("{}/state", path(name))).await?;
    session.out.result(&view, || state(&view));
    Ok(())
}

fn list(all: &[ProviderView]) -> String {
    let row = |one: &ProviderView| {
        let trust = match &one.trust {
            Some(Trust::Ca(_)) => ", by a CA".to_owned(),
            Some(Trust::Pins(pins)) => format!(", by {} fingerprints", pins.len()),
            None => String::new(),
        };
        let (by, as_whom) = match (&one.kind, &one.program) {
            (WayKind::Proxmox, _) => (
                format!("{}{trust}", one.endpoints.join(" ")),
                one.token_id.clone().unwrap_or_default(),
            ),
            (WayKind::Exec, Some(program)) => {
                let parameters = program.parameters.iter();
                let parameters: Vec<String> = parameters
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                (program.file.clone(), parameters.join(" "))
            }
            (WayKind::Exec, None) => (String::new(), String::new()),
            (WayKind::Static, _) => (format!("{} machines", one.machines.len()), String::new()),
        };
        vec![one.name.clone(), kind(one.kind).to_owned(), by, as_whom]
    };
    let empty = "no provider is set: `skep provider set --help`";
    table::render(
        &["PROVIDER", "KIND", "BY", "TOKEN OR PARAMETERS"],
        all.iter().map(row).collect(),
        empty,
    )
}

const fn kind(kind: WayKind) -> &'static str {
    match kind {
        WayKind::Proxmox => "Proxmox",
        WayKind::Exec => "program",
        WayKind::Static => "machines",
    }
}

fn program(state: &ProgramStateView) -> String {
    let whose = if state.leads {
        "which leads"
    } else {
        "which does not lead"
    };
    let mut parts = vec![match (&state.path, &state.problem) {
        (Some(path), _) => format!(
            "{path} is there and may be run on {}, {whose}",
            state.server
        ),
        (None, why) => format!(
            "it would not be run on {}, {whose}: {}",
            state.server,
            why.as_deref().unwrap_or("nobody knows why")
        ),
    }];
    parts.push(format!("an answer may take {} s", state.program.deadline_s));
    let parameters = state.program.parameters.iter();
    parts.extend(parameters.map(|(key, value)| format!("  {key}={value}")));
    let rows = state.guests.iter().map(|one| {
        vec![
            one.name.clone(),
            one.pool.clone(),
            super::pool::nodes::phase(one.phase).to_owned(),
            one.problem.clone().unwrap_or_default(),
        ]
    });
    let columns = ["GUEST", "POOL", "PHASE", "NOTES"];
    let guests = table::render(&columns, rows.collect(), "it has made no guests");
    format!("{}\n\n{guests}", parts.join("\n"))
}

fn machines(all: &[MachineStateView]) -> String {
    let rows = all.iter().map(|one| {
        let phase = one.phase.map(super::pool::nodes::phase);
        vec![
            one.machine.name.clone(),
            one.machine.address.to_string(),
            one.machine.mac.clone(),
            one.guest.clone().unwrap_or_else(|| "free".to_owned()),
            one.pool.clone().unwrap_or_default(),
            phase.unwrap_or_default().to_owned(),
        ]
    });
    let columns = ["MACHINE", "ADDRESS", "MAC", "GUEST", "POOL", "PHASE"];
    table::render(&columns, rows.collect(), "there are no machines")
}

fn state(view: &ProviderStateView) -> String {
    match (view.kind, &view.program) {
        (WayKind::Exec, Some(state)) => return program(state),
        (WayKind::Static, _) => return machines(&view.machines),
        (WayKind::Exec, None) | (WayKind::Proxmox, _) => {}
    }
    let gib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 30));
    let rows = view.hosts.iter().map(|host| {
        let standing = match (host.online, host.maintenance) {
            (false, _) => "away",
            (true, true) => "maintenance",
            (true, false) => "online",
        };
        let over = host.promised_bytes > host.memory_bytes && host.memory_bytes > 0;
        let mark = if over { " (more than it has)" } else { "" };
        vec![
            host.name.clone(),
            standing.to_owned(),
            format!(
                "{} of {}{mark}",
                gib(host.promised_bytes),
                gib(host.memory_bytes)
            ),
            host.guests.to_string(),
            host.nodes.join(" "),
        ]
    });
    let columns = ["HOST", "STATE", "PROMISED GIB", "GUESTS", "NODES"];
    let mut parts = vec![
        format!("Proxmox VE {}", view.version),
        table::render(&columns, rows.collect(), "it shows no host"),
    ];
    if !view.missing.is_empty() {
        parts.push(format!("the token lacks:\n  {}", view.missing.join("\n  ")));
    }
    if !view.orphans.is_empty() {
        let rows = view.orphans.iter().map(|one| {
            vec![
                one.vmid.to_string(),
                one.host.clone().unwrap_or_default(),
                one.name.clone().unwrap_or_default(),
                one.why.clone(),
            ]
        });
        let columns = ["VMID", "HOST", "NAME", "WHY IT MAY BE OURS"];
        parts.push(format!(
            "guests that nobody knows of; they are left alone, remove them by hand:\n{}",
            table::render(&columns, rows.collect(), "")
        ));
    }
    parts.join("\n\n")
}
