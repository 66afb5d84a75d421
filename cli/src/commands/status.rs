//! `skep status`: the cluster and its services, or one service in full.

use serde_json::json;
use skep_control_plane::api::types::{ServiceView, ServicesView, StatusView};

use crate::failure::Failure;
use crate::output::{time, view};
use crate::session::Session;
use crate::target::{self, Scope};

/// Show what services there are, or one in full
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  skep status\n  skep status web")]
pub(crate) struct Args {
    /// One service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    if let Some(text) = &args.service {
        let target = target::find(&client, Some(text), &args.scope).await?;
        let found: ServiceView = client.get(&target.path()).await?;
        session
            .out
            .result(&found, || view::service(&found, time::now_ms()));
        return Ok(());
    }
    let status: StatusView = client.get("/v1/status").await?;
    let mut found: ServicesView = client.get("/v1/services").await?;
    let in_scope =
        |given: &Option<String>, value: &str| given.as_deref().is_none_or(|it| it == value);
    found.services.retain(|it| {
        in_scope(&args.scope.project, &it.project)
            && in_scope(&args.scope.environment, &it.environment)
    });
    let both = json!({ "cluster": status, "services": found.services });
    session.out.result(&both, || {
        let server = client.server();
        format!(
            "{}\napi       {server}\n\n{}",
            view::status(&status),
            view::services(&found.services)
        )
    });
    Ok(())
}
