//! `skep`: the one binary. Owns nothing but the way from the arguments to a command and from its
//! outcome to an exit code.

mod address;
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
mod shell;
mod target;
mod upload;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    #[cfg(feature = "next-level")]
    skep_control_plane::stand_for_next();
    let line = args::spelled_out(std::env::args_os().collect());
    let (json, result) = if args::PartCommand::is_named_by(&line) {
        let cli = args::PartCli::parse_from(line);
        (false, commands::run_part(cli.command))
    } else {
        let cli = args::Cli::parse_from(line);
        (cli.global.json, commands::run(cli))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_told {
                output::Output::new(json).failure(&failure);
            }
            failure
                .own
                .map_or_else(|| failure.exit.into(), ExitCode::from)
        }
    }
}
