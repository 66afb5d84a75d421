//! `skep plan`: what a change would do, before it is made.

use std::fmt::Write as _;
use std::path::PathBuf;

use http::Method;
use skep_control_plane::api::types::{PlanRequest, PlanView, PlannedEnd, ServiceView};
use skep_model::allocation::Desired;

use crate::failure::Failure;
use crate::folder::App;
use crate::session::Session;
use crate::target::{self, Scope};

/// Show what a change of a service would do, step by step; nothing is changed
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep plan web                    with the configuration that it has: what is still to be done
  skep plan web --replicas 5
  skep plan web --dir .            with what the folder's skep.toml says

Everything that is started is taken to become healthy.")]
pub(crate) struct Args {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// How many allocations
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// The folder whose skep.toml is tried
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Bad input, or a service that has no release yet.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, args.service.as_deref(), &args.scope).await?;
    let spec = match &args.dir {
        Some(dir) => {
            let service: ServiceView = client.get(&target.path()).await?;
            let manifest = App::read(dir).await?.manifest.unwrap_or_default();
            Some(manifest.apply(&service.spec)?)
        }
        None => None,
    };
    let request = PlanRequest {
        spec,
        replicas: args.replicas,
    };
    let path = format!("{}/plan", target.path());
    let view: PlanView = client.send(Method::POST, &path, &request).await?;
    session.out.result(&view, || text(&view));
    Ok(())
}

fn text(view: &PlanView) -> String {
    let mut text = String::new();
    if view.steps.is_empty() {
        text.push_str("nothing would change\n");
    } else if view.new_release {
        text.push_str("a new release of the present image, since its configuration differs\n");
    }
    for (index, step) in view.steps.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "step {}", index + 1);
        for start in &step.starts {
            let _ = writeln!(text, "  + start on {}: {}", start.node, start.reason);
        }
        for one in &step.ends {
            let _ = writeln!(text, "  - {}", end(one));
        }
        for one in &step.displaced {
            let _ = writeln!(text, "  ! displace: {}", end(one));
        }
    }
    if view.is_cut {
        text.push_str("and so on\n");
    }
    if let Some(refusal) = &view.refusal {
        let _ = writeln!(text, "not all of it would run: {}", refusal.message);
        if let Some(hint) = &refusal.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn end(one: &PlannedEnd) -> String {
    let word = match one.desired {
        Desired::Run => "keep",
        Desired::Drain => "drain",
        Desired::Stop => "stop",
    };
    let which = one
        .allocation
        .map_or_else(|| "a new one".to_owned(), |id| id.to_string());
    format!("{word} {which} on {}: {}", one.node, one.reason)
}
