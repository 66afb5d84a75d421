//! `skep node resize`: another size for the guest that a node runs in.

use std::time::Duration;

use http::Method;
use skep_control_plane::api::types::{NodePlanView, ResizePlanView, ResizeRequest};
use skep_model::problem::Problem;

use super::nodes;
use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::{confirm, time};
use crate::session::Session;

/// How large, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep node resize skep-01m8... --memory 16384 --plan     what would be done, and stopped
  skep node resize skep-01m8... --cores 8 --memory 16384
  skep node resize skep-01m8... --disk 64                 its disk grows while it runs

What is not named stays. A container changes while it runs; a VM is drained, shut down, changed and
started, unless its configuration has hot-plug for it. A disk never becomes smaller. Said again, the
newest size counts: the size that it has ends it.")]
pub(crate) struct Args {
    /// Its name or id
    #[arg(value_name = "NODE")]
    node: String,
    /// Processors
    #[arg(long, value_name = "N", required_unless_present_any = ["memory", "disk"])]
    cores: Option<u32>,
    /// Memory, MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Disk, GiB: as large as it is, or larger
    #[arg(long, value_name = "GIB")]
    disk: Option<u32>,
    /// Where it has to be shut down: after this what is left there is stopped: 90s, 15m, 1h
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = time::parse_span)]
    deadline: Duration,
    /// Say what would be done, and do nothing of it
    #[arg(long)]
    plan: bool,
    /// Do not ask: what has its data on that node alone may be stopped meanwhile
    #[arg(long, short)]
    yes: bool,
}

/// Has it done, or says what that would be.
pub(super) async fn run(client: &Client, session: &Session, args: &Args) -> Result<(), Failure> {
    let node = &args.node;
    let request = ResizeRequest {
        cores: args.cores,
        memory_mib: args.memory,
        disk_gib: args.disk,
        interrupt: args.yes,
        deadline_ms: Some(u64::try_from(args.deadline.as_millis()).unwrap_or(u64::MAX)),
    };
    let at = format!("/v1/nodes/{}/resize", escape(node));
    let plan: ResizePlanView = client
        .send(Method::POST, &format!("{at}?plan=true"), &request)
        .await?;
    if args.plan {
        session.out.result(&plan, || {
            let plan = NodePlanView {
                steps: plan.steps.clone(),
                against: plan.against.clone(),
            };
            nodes::foreseen(&plan)
        });
        return Ok(());
    }
    let mut request = request;
    if plan.against.is_empty() && !plan.interrupts.is_empty() && !args.yes {
        let stopped = plan.interrupts.join(", ");
        let question = format!("Resize {node}? Meanwhile these are stopped: {stopped}.");
        if !confirm(&question) {
            let text = format!("the node stays as it is: {stopped} would be stopped meanwhile");
            return Err(Problem::invalid("--yes", text)
                .hint("answer y on a terminal, or say --yes")
                .into());
        }
        request.interrupt = true;
    }
    let view: ResizePlanView = client.send(Method::POST, &at, &request).await?;
    session.out.result(&view, || {
        format!(
            "{}\n`skep pool show` and `skep node show {node}` show how far that is",
            view.steps.join("\n")
        )
    });
    Ok(())
}
