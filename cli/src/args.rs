//! The command line as people type it: options, help, examples. Decides nothing.

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
  130  Ctrl-C while following something that goes on without you";

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
    /// Deploy the live release's image again, with today's configuration
    Redeploy(commands::again::Redeploy),
    /// Run the live release in new containers
    Restart(commands::again::Restart),
    /// Go back to an earlier release, at once
    Rollback(commands::again::Rollback),
    /// Say how many allocations a service has
    Scale(commands::scale::Args),
    /// Stop a service; the next deployment starts it again
    Stop(commands::stop::Args),
    /// Remove a service and all that belongs to it
    Rm(commands::rm::Args),
    /// Show what services there are, or one in full
    Status(commands::status::Args),
    /// Show what runs where
    Ps(commands::ps::Args),
    /// Show what an app writes
    Logs(commands::logs::Args),
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
    /// The nodes of the cluster
    #[command(subcommand)]
    Node(commands::node::Command),
    /// Tokens that let nodes join
    #[command(subcommand)]
    Token(commands::token::Command),
    /// Learn to know a server
    Login(commands::login::Args),
    /// The servers that are known here
    #[command(subcommand)]
    Context(commands::context::Command),
    /// Run a server of the control plane
    Server(Box<parts::server::Args>),
    /// Run the agent of this node
    Agent(Box<parts::agent::Args>),
    /// Run the data plane of this node: ingress and Traefik's endpoint
    Net(parts::net::Args),
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
    /// Run a server of the control plane
    Server(Box<parts::server::Args>),
    /// Run the agent of this node
    Agent(Box<parts::agent::Args>),
    /// Run the data plane of this node: ingress and Traefik's endpoint
    Net(parts::net::Args),
}

impl PartCommand {
    /// Whether the first argument names a part.
    pub(crate) fn is_named_by(first: Option<&std::ffi::OsStr>) -> bool {
        first.is_some_and(|first| first == "server" || first == "agent" || first == "net")
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
            assert!(PartCommand::is_named_by(Some(part.get_name().as_ref())));
            let same = all.find_subcommand(part.get_name()).expect("in both");
            assert_eq!(
                same.get_about().map(ToString::to_string),
                part.get_about().map(ToString::to_string)
            );
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
