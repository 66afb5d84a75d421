//! `skep completions` and `skep man`: what shells and `man` know of the command line, made of the very tree that
//! reads it. Packages have both; asks no server.

use std::path::PathBuf;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::{Failure, chain};

/// Print what lets a shell complete `skep`
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep completions bash > ~/.local/share/bash-completion/completions/skep
  skep completions zsh > ~/.zfunc/_skep            with ~/.zfunc in fpath
  skep completions fish > ~/.config/fish/completions/skep.fish

The .deb package has brought those of bash, zsh and fish.")]
pub(crate) struct Args {
    /// For which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Write the manual pages into a folder
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  skep man ~/.local/share/man/man1      then `man skep`, `man skep-up`, `man skep-node-drain`

The .deb package has brought them.")]
pub(crate) struct ManArgs {
    /// A folder that is there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints a shell's completions.
pub(crate) fn run(args: &Args) {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "skep", &mut text);
    // A reader that went away wants no more of it.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), &text);
}

/// Writes a page for `skep` and for each of its commands.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    clap_mangen::generate_to(tree(), &args.dir).map_err(|error| {
        let text = format!("no pages in {}: {}", args.dir.display(), chain(&error));
        Failure::failed(text).hint("name a folder that is there and can be written to")
    })
}

/// All commands, without the one that is no use to anybody who reads.
fn tree() -> Command {
    Cli::command().disable_help_subcommand(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().expect("a folder");
        let args = ManArgs {
            dir: dir.path().to_owned(),
        };
        man(&args).expect("written");
        let page = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect(name);
        assert!(page("skep.1").contains("Push your app"));
        assert!(page("skep-node-drain.1").contains("deadline"));
        for command in tree().get_subcommands().filter(|it| !it.is_hide_set()) {
            page(&format!("skep-{}.1", command.get_name()));
        }
        let failure = man(&ManArgs {
            dir: dir.path().join("none"),
        });
        failure.expect_err("no such folder");
    }

    #[test]
    fn every_shell_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "skep", &mut text);
            let text = String::from_utf8(text).expect("text");
            for word in ["port-forward", "drain", "no-wait"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }
}
