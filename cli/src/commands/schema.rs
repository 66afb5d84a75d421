//! `skep schema`: the JSON Schema of files that people write, for editors.

use clap::ValueEnum;
use serde_json::Value;
use skep_model::schema;

use crate::session::Session;

/// Print the JSON Schema of a file, for editors
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep schema app > skep.schema.json
  skep schema project > skep.project.schema.json

Editors that know TOML (by Taplo, Tombi) complete and check a file whose first line names it:
  #:schema ./skep.schema.json
A schema knows keys and types. Whether an amount can be read, a name is free or two keys go together says
`skep up`, and `skep diff` of a project's file.")]
pub(crate) struct Args {
    /// Of which file
    #[arg(value_name = "FILE")]
    file: File,
}

/// A file that people write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum File {
    /// skep.toml
    App,
    /// skep.project.toml
    Project,
}

impl File {
    fn schema(self) -> Value {
        match self {
            Self::App => schema::app(),
            Self::Project => schema::project(),
        }
    }
}

/// Runs the command: no server is asked.
pub(crate) fn run(args: &Args, session: &Session) {
    session.out.document(&text(args.file));
}

fn text(file: File) -> String {
    format!("{:#}\n", file.schema())
}

#[cfg(test)]
mod tests;
