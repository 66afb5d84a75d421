//! `skep provider`: who makes the nodes of pools.

use std::io::Read as _;
use std::path::PathBuf;

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{
    ProviderRequest, ProviderStateView, ProviderView, ProvidersView,
};
use skep_model::provider::Trust;

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::table;
use crate::session::Session;

/// Largest secret that is read, in bytes.
const SECRET_MAX: u64 = 4_096;

/// Who makes the nodes of pools: Proxmox clusters
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List them
    #[command(visible_alias = "list")]
    Ls,
    /// Ask one: its version, its hosts and what they have promised, what the token lacks, guests that nobody knows of
    Show {
        /// Its name
        #[arg(value_name = "PROVIDER")]
        provider: String,
    },
    /// Say how a Proxmox cluster is reached; it is asked before that is kept
    Set(Set),
    /// Forget one; refused while a pool is made by it
    Rm {
        /// Its name
        #[arg(value_name = "PROVIDER")]
        provider: String,
    },
}

/// How a Proxmox cluster is reached.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep provider set home --host https://pve1.lan:8006 --host https://pve2.lan:8006 \\
    --ca pve-root-ca.pem --token-id 'skep@pve!skep' --secret-stdin < secret.txt
  skep provider set home --host https://pve1.lan:8006 --pin AA:BB:... \\
    --token-id 'skep@pve!skep' --secret-stdin < secret.txt

The CA is /etc/pve/pve-root-ca.pem of any host; a fingerprint is what `pvenode cert info` shows, of
each host. With neither, nobody is asked: whoever is, gets the token. The rights that it needs are
in docs/install-proxmox.md. Whoever changes the CA, the fingerprints or the token's name says the
secret again.")]
pub(crate) struct Set {
    /// What it is called here
    #[arg(value_name = "PROVIDER")]
    provider: String,
    /// The API of a host, https://pve1.lan:8006; repeatable: the next is asked where one does not answer
    #[arg(long = "host", value_name = "URL", required = true)]
    hosts: Vec<String>,
    /// The CA that has signed the hosts' certificates, a PEM file
    #[arg(long, value_name = "FILE", required_unless_present = "pins")]
    ca: Option<PathBuf>,
    /// SHA-256 of a host's certificate, in its place; repeatable: one for each host, and for the next certificate
    #[arg(long = "pin", value_name = "FINGERPRINT", conflicts_with = "ca")]
    pins: Vec<String>,
    /// The API token's name: USER@REALM!NAME
    #[arg(long, value_name = "ID")]
    token_id: String,
    /// Read the API token's secret from stdin: the one way, so that no shell remembers it; without it the one that is
    /// there already stays
    #[arg(long)]
    secret_stdin: bool,
}

impl Set {
    fn request(&self) -> Result<ProviderRequest, Failure> {
        let trust = match &self.ca {
            Some(path) => Trust::Ca(std::fs::read_to_string(path).map_err(|error| {
                Failure::usage(format!("{} cannot be read: {error}", path.display()))
                    .hint("copy /etc/pve/pve-root-ca.pem from any host of the cluster")
            })?),
            None => Trust::Pins(self.pins.clone()),
        };
        let secret = match self.secret_stdin {
            false => None,
            true => {
                let mut text = String::new();
                let mut input = std::io::stdin().take(SECRET_MAX);
                input.read_to_string(&mut text).map_err(|error| {
                    Failure::usage(format!("the secret cannot be read: {error}"))
                })?;
                Some(text.trim().to_owned())
            }
        };
        Ok(ProviderRequest {
            endpoints: self.hosts.clone(),
            trust,
            token_id: self.token_id.clone(),
            secret,
        })
    }
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
                .send(Method::PUT, &path(&set.provider), &request)
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
            Trust::Ca(_) => "CA".to_owned(),
            Trust::Pins(pins) => format!("{} fingerprints", pins.len()),
        };
        vec![
            one.name.clone(),
            one.endpoints.join(" "),
            one.token_id.clone(),
            trust,
        ]
    };
    let empty = "no provider is set: `skep provider set --help`";
    table::render(
        &["PROVIDER", "HOSTS", "TOKEN", "TRUST"],
        all.iter().map(row).collect(),
        empty,
    )
}

fn state(view: &ProviderStateView) -> String {
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
