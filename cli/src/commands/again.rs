//! `skep redeploy`, `restart`, `rollback` and `promote`: deployments from releases that exist. No build.

use skep_control_plane::api::types::DeploymentRequest;

use super::gates;
use crate::failure::Failure;
use crate::follow::{self, Gate, Order};
use crate::session::Session;
use crate::target::{self, Scope};

/// Which service, and whether to stay.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    #[command(flatten)]
    scope: Scope,
    /// Do not stay until it is live
    #[arg(long)]
    no_wait: bool,
}

/// Deploy the live release's image again, with today's configuration
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  skep redeploy shop/web")]
pub(crate) struct Redeploy {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    gate: Gate,
}

/// Run the live release in new containers
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  skep restart shop/web")]
pub(crate) struct Restart {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Go back to an earlier release, at once
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep rollback web        the release that was live before
  skep rollback web 7      release 7 (`skep releases` lists them)
  skep rollback web --pin  and nothing new comes until `skep unpin web`")]
pub(crate) struct Rollback {
    /// The service, and the number of the release
    #[arg(value_names = ["SERVICE", "N"], num_args = 0..=2)]
    arguments: Vec<String>,
    /// Pin the service to it: what is pushed waits until `skep unpin`
    #[arg(long)]
    pin: bool,
    #[command(flatten)]
    common: Common,
}

/// Deploy a release of another environment, without a build
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
The image is the other environment's; configuration, variables, replicas and domains are those of this one.

Examples:
  skep promote web --from staging              what is live there, to production
  skep promote web --from staging --release 7 -e production")]
pub(crate) struct Promote {
    /// The service that gets it [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    /// The environment whose release it is
    #[arg(long, value_name = "ENVIRONMENT")]
    from: String,
    /// The release's number there [default: the live one]
    #[arg(long, value_name = "N")]
    release: Option<u64>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    gate: Gate,
}

/// Runs `skep promote`.
///
/// # Errors
/// Refused, or not live.
pub(crate) async fn promote(args: Promote, session: &Session) -> Result<(), Failure> {
    let request = DeploymentRequest::Promote {
        from: args.from,
        release: args.release,
    };
    deploy(
        session,
        args.service.as_deref(),
        (&args.common, args.gate),
        request,
    )
    .await
}

/// Runs `skep redeploy`.
///
/// # Errors
/// Refused, or not live.
pub(crate) async fn redeploy(args: Redeploy, session: &Session) -> Result<(), Failure> {
    deploy(
        session,
        args.service.as_deref(),
        (&args.common, args.gate),
        DeploymentRequest::Redeploy,
    )
    .await
}

/// Runs `skep restart`.
///
/// # Errors
/// Refused, or not live.
pub(crate) async fn restart(args: Restart, session: &Session) -> Result<(), Failure> {
    deploy(
        session,
        args.service.as_deref(),
        (&args.common, Gate::default()),
        DeploymentRequest::Restart,
    )
    .await
}

/// Runs `skep rollback`.
///
/// # Errors
/// Refused, or not live.
pub(crate) async fn rollback(args: Rollback, session: &Session) -> Result<(), Failure> {
    let (service, number) = with_number(&args.arguments);
    let release = match number {
        Some(text) => Some(text.parse().map_err(|_| {
            Failure::usage(format!(
                "`{}` is not the number of a release",
                text.escape_debug()
            ))
            .hint("`skep releases` lists them")
        })?),
        None => None,
    };
    if args.pin {
        // First: what is pushed meanwhile would take its place.
        gates::set_pin(session, service, &args.common.scope, "rolled back").await?;
    }
    deploy(
        session,
        service,
        (&args.common, Gate::default()),
        DeploymentRequest::Rollback { release },
    )
    .await
}

async fn deploy(
    session: &Session,
    service: Option<&str>,
    (common, gate): (&Common, Gate),
    request: DeploymentRequest,
) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, service, &common.scope).await?;
    let order = Order {
        no_cache: false,
        target,
        request,
        folder: None,
        wait: !common.no_wait,
        gate,
    };
    follow::deploy(session, &client, order).await
}

/// `[SERVICE] [N]`: names begin with a letter, so a number alone is a number.
pub(crate) fn with_number(arguments: &[String]) -> (Option<&str>, Option<&str>) {
    match arguments {
        [] => (None, None),
        [one] if one.starts_with(|c: char| c.is_ascii_digit()) => (None, Some(one)),
        [one] => (Some(one), None),
        [one, two, ..] => (Some(one), Some(two)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_not_a_service() {
        let split = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            let (service, number) = with_number(&words);
            (service.map(str::to_owned), number.map(str::to_owned))
        };
        assert_eq!(split(&[]), (None, None));
        assert_eq!(split(&["3"]), (None, Some("3".into())));
        assert_eq!(split(&["web"]), (Some("web".into()), None));
        assert_eq!(split(&["web", "x"]), (Some("web".into()), Some("x".into())));
    }
}
