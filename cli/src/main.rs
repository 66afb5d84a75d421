//! `skep`: the one binary. Owns nothing but the way from the arguments to a command and from its
//! outcome to an exit code.

mod args;
mod client;
mod commands;
mod context;
mod dev;
mod failure;
mod folder;
mod follow;
mod output;
mod parts;
mod probe;
mod session;
mod target;
mod upload;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let first = std::env::args_os().nth(1);
    let (json, result) = if args::PartCommand::is_named_by(first.as_deref()) {
        (false, commands::run_part(args::PartCli::parse().command))
    } else {
        let cli = args::Cli::parse();
        (cli.global.json, commands::run(cli))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::Output::new(json).failure(&failure);
            failure.exit.into()
        }
    }
}
