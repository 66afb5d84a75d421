//! `skep top`: what services, allocations and nodes use now.

use std::time::Duration;

use skep_control_plane::api::types::SamplesView;

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::samples;
use crate::session::Session;
use crate::target::{self, Scope};

/// Between two looks: as often as nodes say it.
const LOOK: Duration = Duration::from_secs(2);

/// Show what services use: CPU, memory, requests
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
CPU is in thousandths of a core. Both CPU and memory are shown as used of requested. Requests are those
through Skep's own ingress; a dash means that it is not known.

--wide shows each allocation: restarts, the most memory its container used, how many of 100 periods its CPU
limit held it back, how many of 100 moments it waited for CPU, memory and disks (the kernel's PSI; control
groups of version 2 alone), and what it reads and writes a second on disks and network.

Examples:
  skep top
  skep top web -w
  skep top web --wide
  skep top --nodes --json")]
pub(crate) struct Args {
    /// Only this service, with each of its allocations
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// The nodes instead of the services
    #[arg(long, conflicts_with = "service")]
    nodes: bool,
    /// All allocations, and everything that is known of them
    #[arg(long, conflicts_with = "nodes")]
    wide: bool,
    /// Again every two seconds, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let path = path(&args, &client).await?;
    loop {
        let found: SamplesView = client.get(&path).await?;
        if !args.watch {
            session.out.result(&found, || text(&args, &found));
            return Ok(());
        }
        session.out.refreshed(&found, || text(&args, &found));
        tokio::time::sleep(LOOK).await;
    }
}

async fn path(args: &Args, client: &Client) -> Result<String, Failure> {
    if let Some(text) = &args.service {
        let target = target::find(client, Some(text), &args.scope).await?;
        return Ok(format!("/v1/samples?{}&allocations=true", target.query()));
    }
    let mut path = format!("/v1/samples?nodes={}&allocations={}", args.nodes, args.wide);
    let scope = [
        ("project", &args.scope.project),
        ("environment", &args.scope.environment),
    ];
    for (name, value) in scope {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", escape(value)));
        }
    }
    Ok(path)
}

fn text(args: &Args, found: &SamplesView) -> String {
    if args.nodes {
        return samples::nodes(found.nodes.as_deref().unwrap_or_default());
    }
    let services = samples::services(&found.services);
    if args.wide {
        return format!("{services}\n\n{}", samples::wide(&found.services));
    }
    let allocations = found
        .services
        .iter()
        .find_map(|it| it.allocations.as_deref());
    match allocations {
        Some(allocations) if args.service.is_some() => {
            format!("{services}\n\n{}", samples::allocations(allocations))
        }
        _ => services,
    }
}
