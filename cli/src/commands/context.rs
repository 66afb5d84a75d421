//! `skep context`: the clusters that are known here.

use serde_json::json;

use crate::context::Contexts;
use crate::failure::Failure;
use crate::output::table;
use crate::session::Session;

/// The clusters that are known here
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List them
    Ls,
    /// Make one the current context
    Use {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Forget one
    Rm {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// Runs the command.
///
/// # Errors
/// No such context, or the file cannot be read or written.
pub(crate) fn run(command: &Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Ls => list(session)?,
        Command::Use { name } => {
            Contexts::update(|contexts| {
                contexts.pick(Some(name))?;
                contexts.current = Some(name.clone());
                Ok(())
            })?;
            session.out.result(&json!({ "current": name }), || {
                format!("`{name}` is the current context")
            });
        }
        Command::Rm { name } => {
            Contexts::update(|contexts| contexts.remove(name))?;
            session.out.result(&json!({ "removed": name }), || {
                format!("`{name}` is forgotten")
            });
        }
    }
    Ok(())
}

fn list(session: &Session) -> Result<(), Failure> {
    let contexts = Contexts::load()?;
    let is_current = |name: &String| contexts.current.as_ref() == Some(name);
    // Without tokens: lists end up in bug reports.
    let items: Vec<_> = contexts
        .contexts
        .iter()
        .map(|(name, context)| {
            json!({
                "name": name,
                "server": context.server,
                "fingerprint": context.fingerprint,
                "current": is_current(name),
            })
        })
        .collect();
    session.out.result(&items, || {
        let row = |(name, context): (&String, &crate::context::Context)| {
            let mark = if is_current(name) { "*" } else { "" };
            vec![mark.to_owned(), name.clone(), context.server.clone()]
        };
        let rows = contexts.contexts.iter().map(row).collect();
        table::render(
            &["", "CONTEXT", "SERVER"],
            rows,
            "none yet: `skep dev` or `skep login`",
        )
    });
    Ok(())
}
