//! The command line as people type it: options, help, examples. Decides nothing.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::commands;
use crate::{dev, parts};

const ABOUT: &str = "Push your app: Skep builds it, places it, runs it and routes it";

const AFTER_HELP: &str = "\
Getting started:
  skep dev                 all of Skep on this machine, until Ctrl-C
  skep up                  deploy the folder you are in (it needs a Dockerfile)
  skep logs -f             what the app says

A SERVICE is written `name`, `project/name` or `project/environment/name`. In a folder with a
skep.toml it may be left out. --json prints the API's own JSON on stdout.

Exit codes:
  0  done
  1  the operation failed or was refused (a deployment failed, no such service)
  2  wrong usage, or an input that is not accepted
  3  the server is not reachable, cannot answer now, or does not know you
  130  Ctrl-C while following something that goes on without you
`skep run` and `skep exec` exit with what the command exited with, `skep attach` with what the
container did.";

/// A self-hosted platform in one binary
#[derive(Debug, Parser)]
#[command(name = "skep", version, about = ABOUT, after_help = AFTER_HELP, propagate_version = true)]
#[command(arg_required_else_help = true, infer_subcommands = false)]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// Speak to this context's server instead of the current one's
    #[arg(long, global = true, value_name = "NAME", env = "SKEP_CONTEXT")]
    pub(crate) context: Option<String>,
    /// Print JSON for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Everything that `skep` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run all of Skep on this machine until Ctrl-C
    Dev(dev::Args),
    /// Deploy a folder
    Up(commands::up::Args),
    /// Deploy a git repository or an image
    Deploy(commands::deploy::Args),
    /// Make services of a Compose file
    Import(commands::import::Args),
    /// Compose files in repositories that environments follow
    #[command(subcommand)]
    Stack(commands::stack::Command),
    /// Deploy the live release's image again, with today's configuration
    Redeploy(commands::again::Redeploy),
    /// Run the live release in new containers
    Restart(commands::again::Restart),
    /// Go back to an earlier release, at once
    Rollback(commands::again::Rollback),
    /// Deploy a release of another environment, without a build
    Promote(commands::again::Promote),
    /// What deployments have to get through before they begin
    #[command(subcommand)]
    Gate(commands::gates::Command),
    /// Let a deployment through that waits for somebody's yes
    Approve(commands::gates::Approve),
    /// End a deployment that waits or is on its way; what is live goes on
    Cancel(commands::gates::Cancel),
    /// Keep a service as it is: what is new waits
    Pin(commands::gates::Pin),
    /// Let what is new come to a service again
    Unpin(commands::gates::Unpin),
    /// How a release takes over: show, pause, resume, promote, abort
    #[command(subcommand)]
    Rollout(commands::rollout::Command),
    /// Say how many allocations a service has
    Scale(commands::scale::Args),
    /// Let load say how many allocations a service has
    #[command(subcommand)]
    Autoscale(commands::autoscale::Command),
    /// Stop a service; the next deployment starts it again
    Stop(commands::stop::Args),
    /// Remove a service and all that belongs to it
    Rm(commands::rm::Args),
    /// Show what services there are, or one in full
    Status(commands::status::Args),
    /// Show what runs where
    Ps(commands::ps::Args),
    /// Show why a service runs where it runs, and why not elsewhere
    Why(commands::why::Args),
    /// Show what a change of a service would do, step by step; nothing is changed
    Plan(commands::plan::Args),
    /// Show what a project's file would change; nothing is changed
    Diff(commands::project::DiffArgs),
    /// Make a project as its file says
    Apply(commands::project::ApplyArgs),
    /// Print the file that says what there is of a project
    Export(commands::project::ExportArgs),
    /// Change a project in an editor: shown as a difference, applied as one
    Edit(commands::project::EditArgs),
    /// Print the JSON Schema of a file, for editors
    Schema(commands::schema::Args),
    /// Services that somebody has written down, with questions
    #[command(subcommand)]
    Template(commands::template::Command),
    /// Show what services use: CPU, memory, requests
    Top(commands::top::Args),
    /// Show what an app writes
    Logs(commands::logs::Args),
    /// Run a command in a running container
    Exec(commands::exec::Args),
    /// Watch what a running container writes, until it ends
    Attach(commands::attach::Args),
    /// Copy files into and out of a running container
    Cp(commands::cp::Args),
    /// Reach ports of a running container from this machine
    PortForward(commands::port_forward::Args),
    /// Run one command with a service's release
    Run(commands::run::Args),
    /// Show jobs: what runs to completion
    Jobs(commands::jobs::Args),
    /// Services that run by the clock
    #[command(subcommand)]
    Cron(commands::cron::Command),
    /// Show the deployments of a service
    Deployments(commands::deployments::Args),
    /// Show the releases of a service
    Releases(commands::releases::Args),
    /// Show and change variables
    #[command(subcommand)]
    Env(commands::env::Command),
    /// Webhooks: what a git server calls on a push
    #[command(subcommand)]
    Webhook(commands::webhook::Command),
    /// Push with git: remotes that deploy what is pushed to them
    #[command(subcommand)]
    Git(commands::git::Command),
    /// Show deployments at their commits, and previews at their pull requests, at the forge they come from
    #[command(subcommand)]
    Forge(commands::forge::Command),
    /// Tell others how deployments end
    #[command(subcommand)]
    Notify(commands::notify::Command),
    /// Environments that come and go with pull requests
    #[command(subcommand)]
    Preview(commands::preview::Command),
    /// Private networks, and the network between nodes
    #[command(subcommand)]
    Network(commands::network::Command),
    /// The nodes of the cluster
    #[command(subcommand)]
    Node(commands::node::Command),
    /// The physical hosts under the nodes
    #[command(subcommand)]
    Host(commands::host::Command),
    /// Print the cluster as an inventory for Ansible
    Inventory(commands::inventory::Args),
    /// Show and change whether allocations are moved so that fewer nodes are in use
    Rebalance(commands::rebalance::Args),
    /// Pools of nodes: how they are filled, what their nodes have in common, and how they are made
    #[command(subcommand)]
    Pool(commands::pool::Command),
    /// Who makes the nodes of pools: Proxmox clusters, programs, lists of machines
    #[command(subcommand)]
    Provider(commands::provider::Command),
    /// What services keep on nodes
    #[command(subcommand)]
    Volume(commands::volume::Command),
    /// Registries: as whom nodes pull, and where images are pushed
    #[command(subcommand)]
    Registry(commands::registry::Command),
    /// The bucket that keeps what is built, so that sites and images come back where no node has them
    #[command(subcommand)]
    Bucket(commands::bucket::Command),
    /// Certificates that apps are shown with under TLS
    #[command(subcommand, visible_alias = "certs")]
    Certificates(commands::certificates::Command),
    /// Which hosts projects have, and what generated names end in
    Domains(commands::domains::Args),
    /// Ports of the nodes that services may have for TCP connections
    TcpPorts(commands::tcp_ports::Args),
    /// What workspaces and environments may have
    #[command(subcommand)]
    Quota(commands::quota::Command),
    /// Make constraints on nodes preferences in an environment, or take that back
    Relax(commands::relax::Args),
    /// Deploy, request, scale, roll back and remove a small app, to see that the cluster works
    Smoke(commands::smoke::Args),
    /// Show who changed what
    Audit(commands::audit::Args),
    /// Tokens that let nodes and servers join
    #[command(subcommand)]
    Token(commands::token::Command),
    /// Certificates for operators and automation
    #[command(subcommand)]
    Operator(commands::operator::Command),
    /// The cluster's certificate authority
    #[command(subcommand)]
    Ca(commands::ca::Command),
    /// Allocations, and what is in quarantine after a restore
    #[command(subcommand)]
    Alloc(commands::alloc::Command),
    /// Backups of the cluster's state
    #[command(subcommand)]
    Backup(commands::backup::Command),
    /// Make the data folder of a new server out of a backup
    Restore(commands::restore::Args),
    /// Print what lets a shell complete `skep`
    Completions(commands::completions::Args),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man(commands::completions::ManArgs),
    /// Learn to know a server
    Login(commands::login::Args),
    /// The clusters that are known here
    #[command(subcommand)]
    Context(commands::context::Command),
    /// Run a server of the control plane; see and change which servers there are
    #[command(subcommand)]
    Server(commands::server::Command),
    /// List the servers of the control plane, like `server ls`
    Servers,
    /// Run the agent of this node
    #[command(subcommand)]
    Agent(parts::agent::Part),
    /// Run the data plane of this node: ingress and Traefik's endpoint
    Net(Box<parts::net::Args>),
}

/// The commands that run for ever. They are parsed by themselves: the tree of all other commands
/// would stay in the memory of every part.
#[derive(Debug, Parser)]
#[command(name = "skep", version, propagate_version = true)]
pub(crate) struct PartCli {
    /// Which part.
    #[command(subcommand)]
    pub(crate) command: PartCommand,
}

/// Parts of Skep as processes.
#[derive(Debug, Subcommand)]
pub(crate) enum PartCommand {
    /// Run a server of the control plane; see and change which servers there are
    #[command(subcommand)]
    Server(parts::server::Part),
    /// Run the agent of this node
    #[command(subcommand)]
    Agent(parts::agent::Part),
    /// Run the data plane of this node: ingress and Traefik's endpoint
    Net(Box<parts::net::Args>),
}

/// `skep server` or `skep agent` alone, and with nothing but options, runs one: the word that says so is put in.
pub(crate) fn spelled_out(mut line: Vec<OsString>) -> Vec<OsString> {
    let is_either = (line.get(1)).is_some_and(|first| first == "server" || first == "agent");
    let says_more = line.get(2).and_then(|second| second.to_str());
    let is_run = match says_more {
        None => line.len() == 2,
        Some("-h" | "--help" | "-V" | "--version") => false,
        Some(second) => second.starts_with('-'),
    };
    if is_either && is_run {
        line.insert(2, "run".into());
    }
    line
}

impl PartCommand {
    /// Whether these arguments start a part.
    pub(crate) fn is_named_by(line: &[OsString]) -> bool {
        let word = |place: usize| line.get(place).and_then(|word| word.to_str());
        match word(1) {
            Some("agent" | "net") => true,
            Some("server") => word(2).is_some_and(|it| parts::server::Part::NAMES.contains(&it)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        PartCli::command().debug_assert();
    }

    /// Both ways to parse a part are one to the user.
    #[test]
    fn parts_read_the_same_alone_and_among_all_commands() {
        let all = Cli::command();
        for part in PartCli::command().get_subcommands() {
            let same = all.find_subcommand(part.get_name()).expect("in both");
            assert_eq!(
                same.get_about().map(ToString::to_string),
                part.get_about().map(ToString::to_string)
            );
        }
    }

    #[test]
    fn servers_are_run_and_spoken_of_by_the_same_word() {
        let line = |text: &str| -> Vec<OsString> {
            let words = text.split_whitespace().map(OsString::from);
            spelled_out(words.collect())
        };
        for (text, is_part) in [
            ("skep server", true),
            ("skep server --data-dir d", true),
            ("skep server run --data-dir d", true),
            ("skep server init", true),
            ("skep server join --token t", true),
            ("skep server rebuild", true),
            ("skep server ls", false),
            ("skep server leave one", false),
            ("skep server recover --data-dir d", false),
            ("skep server --help", false),
            ("skep servers", false),
            ("skep agent --help", true),
            ("skep agent --data-dir d", true),
            ("skep agent doctor --json", true),
            ("skep net", true),
            ("skep up", false),
        ] {
            assert_eq!(PartCommand::is_named_by(&line(text)), is_part, "{text}");
        }
        let server = Cli::command();
        let server = server.find_subcommand("server").expect("there");
        for name in parts::server::Part::NAMES {
            assert!(server.find_subcommand(name).is_some(), "{name}");
        }
    }

    /// What a newcomer sees first, command by command: changes here are seen by every user.
    #[test]
    fn the_commands_are_the_documented_ones() {
        let command = Cli::command();
        let lines: Vec<_> = command
            .get_subcommands()
            .map(|sub| {
                let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
                format!("{:<12} {about}\n", sub.get_name())
            })
            .collect();
        assert_eq!(lines.concat(), include_str!("../golden/commands.txt"));
    }

    #[test]
    fn the_footer_tells_every_exit_code() {
        let help = Cli::command().render_help().to_string();
        for line in [
            "0  done",
            "1  the operation",
            "2  wrong usage",
            "3  the server",
            "130  Ctrl-C",
        ] {
            assert!(help.contains(line), "{line}");
        }
    }
}
