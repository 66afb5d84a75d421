//! `skep why`: where a service could run, and why its allocations are where they are.

use skep_control_plane::api::types::{NodeAnswer, WhyView};

use crate::failure::Failure;
use crate::output::table;
use crate::session::Session;
use crate::target::{self, Scope};

/// Show why a service runs where it runs, and why not elsewhere
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep why web
  skep why            in a folder with a skep.toml")]
pub(crate) struct Args {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or nothing is to be placed.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, args.service.as_deref(), &args.scope).await?;
    let view: WhyView = client.get(&format!("{}/why", target.path())).await?;
    session.out.result(&view, || text(&view));
    Ok(())
}

fn text(view: &WhyView) -> String {
    let there = view
        .allocations
        .iter()
        .map(|one| vec![one.id.to_string(), one.node.clone(), one.reason.clone()]);
    let answer = |node: &NodeAnswer| {
        let (can, why) = match node.rank {
            Some(1) => ("yes, the best".to_owned(), String::new()),
            Some(rank) => (format!("yes, choice {rank}"), String::new()),
            None => ("no".to_owned(), node.reasons.join("; ")),
        };
        vec![node.node.clone(), node.allocations.to_string(), can, why]
    };
    let mut text = table::render(
        &["ALLOCATION", "NODE", "WHY THERE"],
        there.collect(),
        "nothing runs",
    );
    text.push_str("\n\n");
    text.push_str(&table::render(
        &["NODE", "RUNS", "ONE MORE", "WHY NOT"],
        view.nodes.iter().map(answer).collect(),
        "the cluster has no nodes: `skep token create` lets one join",
    ));
    if let Some(scope) = &view.relaxed_by {
        text.push_str(&format!(
            "\n\nconstraints are preferences here: {scope} is relaxed (`skep relax`)"
        ));
    }
    if let Some(refusal) = &view.refusal {
        text.push_str(&format!("\n\n{}", refusal.message));
        if let Some(hint) = &refusal.hint {
            text.push_str(&format!("\nhint: {hint}"));
        }
    }
    text
}
