//! `skep rebalance`: what could move so that fewer nodes are in use, and whether it does.

use http::Method;
use skep_control_plane::api::types::{BegunView, MoveView, RebalanceRequest, RebalanceView};
use skep_model::rebalance::Mode;

use crate::failure::Failure;
use crate::output::table;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  skep rebalance                                 what is advised, and what it saves
  skep rebalance run                             begin what is advised, once
  skep rebalance set auto --moves-per-minute 4   let the leader move it
  skep rebalance set off

A move starts the allocation on its new node first; the old one leaves when the new one is
healthy. What was moved stays for an hour. Services with a spread, affinities, ports, devices,
another strategy than binpack, `max_surge = 0` or `max_unavailable = 0` are not moved.";

/// Show and change whether allocations are moved so that fewer nodes are in use
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do about it; nothing: show what is advised.
#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Say whether it is done, and how fast
    Set {
        /// off: nothing; advise: show it; auto: move it
        mode: Word,
        /// Moves that begin in a minute at most, 1 to 60 [default: as it is; at first 2]
        #[arg(long, value_name = "N")]
        moves_per_minute: Option<u32>,
    },
    /// Begin the moves that are advised and have room now
    Run,
}

/// A mode, as it is typed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Word {
    Off,
    Advise,
    Auto,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match args.command {
        None => {
            let shown: RebalanceView = client.get("/v1/rebalance").await?;
            session.out.result(&shown, || text(&shown));
        }
        Some(Command::Set {
            mode,
            moves_per_minute,
        }) => {
            let request = RebalanceRequest {
                mode: match mode {
                    Word::Off => Mode::Off,
                    Word::Advise => Mode::Advise,
                    Word::Auto => Mode::Auto,
                },
                moves_per_minute,
            };
            let shown: RebalanceView = client.send(Method::PUT, "/v1/rebalance", &request).await?;
            session.out.result(&shown, || text(&shown));
        }
        Some(Command::Run) => {
            let begun: BegunView = client.send(Method::POST, "/v1/rebalance/run", &()).await?;
            session.out.result(&begun, || begun_text(&begun));
        }
    }
    Ok(())
}

fn text(shown: &RebalanceView) -> String {
    let mode = shown.mode.as_str();
    let mut text = format!(
        "mode {mode}, at most {} moves a minute\n",
        shown.moves_per_minute
    );
    if !shown.under_way.is_empty() {
        text.push_str(&format!("\nunder way:\n{}\n", moves(&shown.under_way)));
    }
    if shown.mode == Mode::Off {
        text.push_str("nothing is advised: `skep rebalance set advise`");
    } else if shown.moves.is_empty() {
        text.push_str("no move would empty a node");
    } else {
        text.push_str(&format!(
            "\n{}\n\n{} moves empty {}: {}",
            moves(&shown.moves),
            shown.moves.len(),
            nodes(shown.emptied.len()),
            shown.emptied.join(", ")
        ));
    }
    text
}

fn begun_text(begun: &BegunView) -> String {
    match (begun.begun.len(), begun.left) {
        (0, 0) => "no move would empty a node".to_owned(),
        (0, left) => format!("none of the {left} moves has room now"),
        (count, 0) => format!(
            "{}\n\n{count} moves are begun: `skep ps`",
            moves(&begun.begun)
        ),
        (count, left) => format!(
            "{}\n\n{count} moves are begun; {left} more have no room before: `skep rebalance run` again",
            moves(&begun.begun)
        ),
    }
}

fn moves(moves: &[MoveView]) -> String {
    let row = |one: &MoveView| {
        let id = one.allocation.short().to_string();
        vec![id, one.service.clone(), one.from.clone(), one.to.clone()]
    };
    let rows = moves.iter().map(row).collect();
    table::render(&["ALLOCATION", "SERVICE", "FROM", "TO"], rows, "none")
}

fn nodes(count: usize) -> String {
    match count {
        1 => "1 node".to_owned(),
        many => format!("{many} nodes"),
    }
}
