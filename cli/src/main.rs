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
    let cli = args::Cli::parse();
    let failure_output = output::Output::new(cli.global.json);
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure_output.failure(&failure);
            failure.exit.into()
        }
    }
}
