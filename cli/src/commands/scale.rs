//! `skep scale`: how many allocations a service has.

use http::Method;
use skep_control_plane::api::types::{ScaleRequest, ServiceView};

use super::again::with_number;
use crate::failure::Failure;
use crate::session::Session;
use crate::target::{self, Scope};

/// Say how many allocations a service has
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  skep scale web 3\n  skep scale 3        in a folder with a skep.toml"
)]
pub(crate) struct Args {
    /// The service, and the number
    #[arg(value_names = ["SERVICE", "N"], num_args = 1..=2, required = true)]
    arguments: Vec<String>,
    #[command(flatten)]
    scope: Scope,
}

/// Runs the command.
///
/// # Errors
/// Bad input, or refused.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let (service, number) = with_number(&args.arguments);
    let replicas = number.and_then(|text| text.parse().ok()).ok_or_else(|| {
        Failure::usage(format!(
            "`{}` is not a number of allocations",
            number.unwrap_or_default()
        ))
        .hint("`skep scale SERVICE N`, with N from 0 to 1000")
    })?;
    let client = session.client()?;
    let target = target::find(&client, service, &args.scope).await?;
    let path = format!("{}/scale", target.path());
    let view: ServiceView = client
        .send(Method::POST, &path, &ScaleRequest { replicas })
        .await?;
    let stack = view.stack.as_ref();
    if stack.is_some_and(|it| it.says.iter().any(|path| path == "replicas")) {
        let text = "the Compose file of its stack says how many: that is in force again at the next push of it";
        session.out.warning(text);
    }
    session.out.result(&view, || {
        format!(
            "{target} shall have {replicas}; {} are healthy (`skep ps`)",
            view.allocations.healthy
        )
    });
    Ok(())
}
