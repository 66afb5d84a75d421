//! `skep rm`: removes a service and what belongs to it.

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::VolumeView;
use skep_model::problem::{Code, Problem};
use tokio::time::Instant;

use super::stop::{END_DEADLINE, LOOK};
use super::up::existing;
use super::volume;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::confirm;
use crate::session::Session;
use crate::target::{self, Scope};

/// Remove a service and all that belongs to it
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Its volumes stay on their node unless --volumes is said: `skep volume ls` shows them. What is on shared storage stays in
any case: whoever has that removes it there.

Example:
  skep rm shop/staging/web --yes")]
pub(crate) struct Args {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Delete its volumes, too: what is in them does not come back
    #[arg(long, conflicts_with = "no_wait")]
    volumes: bool,
    /// Do not stay until its containers have ended
    #[arg(long)]
    no_wait: bool,
}

/// Runs the command.
///
/// # Errors
/// Not confirmed, refused, or containers that do not end.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, args.service.as_deref(), &args.scope).await?;
    let volumes = volume::of_service(&client, &target.to_string()).await?;
    let also = if args.volumes && !volumes.is_empty() {
        ", and what is in its volumes"
    } else {
        ""
    };
    let question = format!("Remove {target}, its variables and releases{also}?");
    if !args.yes && !confirm(&question) {
        let problem = Problem::invalid("--yes", format!("{target} is not removed: not confirmed"));
        return Err(problem.hint("answer y on a terminal, or say --yes").into());
    }
    let _: Value = client
        .send(Method::DELETE, &target.path(), &json!({}))
        .await?;
    let deadline = Instant::now() + END_DEADLINE;
    while !args.no_wait && existing(&client, &target).await?.is_some() {
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!("{target} is still being removed"))
                .hint("`skep ps` shows what has not ended"));
        }
        tokio::time::sleep(LOOK).await;
    }
    if args.volumes {
        for one in &volumes {
            give_up(&client, one, deadline).await?;
        }
    }
    let ids: Vec<&str> = volumes.iter().map(|one| &*one.id).collect();
    let told = match args.volumes {
        true => json!({ "removed": target.to_string(), "volumes_removed": ids }),
        false => json!({ "removed": target.to_string(), "volumes_kept": ids }),
    };
    session.out.result(&told, || {
        let mut text = format!("{target} is removed");
        for one in &volumes {
            text.push_str(&match args.volumes {
                true => format!("\nits volume `{}` is deleted", one.name),
                false => format!(
                    "\nits volume `{}` stays on {}: `skep volume rm {}` deletes it",
                    one.name, one.node, one.id
                ),
            });
        }
        text
    });
    Ok(())
}

/// Deletes a volume of a service that is gone, as soon as its last container is.
async fn give_up(client: &Client, one: &VolumeView, deadline: Instant) -> Result<(), Failure> {
    loop {
        let Err(failure) = volume::delete(client, one, None).await else {
            return Ok(());
        };
        let again = failure.problem.code == Code::Conflict;
        if !again || Instant::now() >= deadline {
            return Err(failure.hint(format!(
                "the service is removed and the volume is not: `skep volume rm {}`",
                one.id
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}
