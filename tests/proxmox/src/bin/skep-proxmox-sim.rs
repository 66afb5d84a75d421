//! `skep-proxmox-sim`: a Proxmox cluster without machines, served over TLS; `--help` tells how.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::json;
use skep_proxmox::GuestKind;
use skep_proxmox_simulation::server::{Agents, Certificates, Program, obey, serve};
use skep_proxmox_simulation::{Line, World};
use tokio::sync::mpsc;

/// Serves a Proxmox cluster of three hosts that has no machines
#[derive(Debug, Parser)]
#[command(
    name = "skep-proxmox-sim",
    after_help = "\
Its first line of output says where the hosts are, and whom to believe: {\"hosts\": [...], \"ca\": FILE, \"token\": TOKEN}.
Each host has a template, 9000 to 9002. Commands come as lines on standard input, each answered with a line of JSON;
`help` lists them. It ends when standard input does."
)]
struct Options {
    /// A folder for the CA's file and the guests' folders
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// How long a second takes, in seconds: 0.05 is twenty times as fast
    #[arg(long, default_value_t = 1.0)]
    pace: f64,
    /// What chance is made of
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Guests are containers
    #[arg(long)]
    lxc: bool,
    /// Who may ask
    #[arg(
        long,
        default_value = "skep@pve!sim=00000000-0000-4000-8000-000000000000"
    )]
    token: String,
    /// Started in each guest that runs and was told how to join, with --mac, --uuid and --data, and in the environment
    /// that it was told
    #[arg(long, value_name = "PROGRAM")]
    agent: Option<PathBuf>,
    /// An argument of that program before those; may be given several times
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    agent_arg: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(
        options.pace > 0.0 && options.pace <= 1.0,
        "--pace is more than 0, and at most 1"
    );
    let kind = match options.lxc {
        true => GuestKind::Lxc,
        false => GuestKind::Qemu,
    };
    let line = Line::new(World::of(options.seed, kind));
    line.with(|world| world.hurry((1.0 / options.pace).round() as u32));
    let certificates = Certificates::new()?;
    let hosts = serve(&line, &options.token, &certificates).await?;
    std::fs::create_dir_all(&options.dir)?;
    let ca = options.dir.join("pve-root-ca.pem");
    std::fs::write(&ca, certificates.pem()).with_context(|| format!("{}", ca.display()))?;
    let hosts: Vec<_> = hosts
        .iter()
        .map(|host| {
            let url = format!("https://{}", host.address);
            json!({"name": host.name, "url": url, "pin": host.pin})
        })
        .collect();
    say(&json!({"hosts": hosts, "ca": ca, "token": options.token}))?;
    let Some(path) = options.agent else {
        return take_commands(&line).await;
    };
    let program = Program {
        path,
        arguments: options.agent_arg,
        folder: options.dir.join("guests"),
    };
    tokio::select! {
        ended = take_commands(&line) => ended,
        ended = Agents::new(line.clone(), program).keep() => ended,
    }
}

/// Until standard input ends.
async fn take_commands(line: &Line) -> Result<()> {
    let (sender, mut commands) = mpsc::channel(1);
    // A thread of its own: the program does not wait for it when it ends otherwise.
    std::thread::spawn(move || {
        for command in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(command).is_err() {
                return;
            }
        }
    });
    while let Some(command) = commands.recv().await {
        let answer = match line.with(|world| obey(world, command.trim())) {
            Ok(answer) => answer,
            Err(error) => json!({"error": format!("{error:#}")}),
        };
        say(&answer)?;
    }
    Ok(())
}

fn say(answer: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}
