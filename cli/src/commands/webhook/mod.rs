//! `skep webhook`: what a git server calls on a push.

mod push;
mod repository;

use http::Method;
use serde::Serialize;
use serde_json::json;
use skep_control_plane::api::types::WebhookView;
use skep_model::problem::{Code, Problem};

use crate::client::Client;
use crate::failure::Failure;
use crate::output::table::facts;
use crate::session::Session;
use crate::target::{self, Scope};

/// Webhooks: what a git server calls on a push
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Show where a git server sends pushes of a service's branch
    Show(Which),
    /// Make the secret that deliveries are signed with; it is shown this once
    Create(Which),
    /// Replace the secret; the old one is refused from then on
    Rotate(Which),
    /// Deliver a push, as a git server would
    Push(Box<push::Args>),
    /// One webhook for all services of a repository
    #[command(subcommand)]
    Repository(repository::Command),
}

/// Of which service.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
}

/// A webhook with its whole address: what the server itself cannot know.
#[derive(Debug, Serialize)]
struct Webhook {
    url: String,
    #[serde(flatten)]
    view: WebhookView,
}

/// Runs the command.
///
/// # Errors
/// Bad input, not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Show(which) => {
            let (client, path) = find(session, &which).await?;
            let view = client.get(&path).await?;
            show(session, &client, view);
        }
        Command::Create(which) => {
            let (client, path) = find(session, &which).await?;
            let present: WebhookView = client.get(&path).await?;
            if present.has_secret {
                let problem = Problem::new(
                    Code::Conflict,
                    "the webhook has a secret, which is never shown again",
                );
                return Err(problem.hint("`skep webhook rotate` replaces it").into());
            }
            let view = client.send(Method::POST, &path, &json!({})).await?;
            show(session, &client, view);
        }
        Command::Rotate(which) => {
            let (client, path) = find(session, &which).await?;
            let view = client.send(Method::POST, &path, &json!({})).await?;
            show(session, &client, view);
        }
        Command::Push(args) => push::run(*args, session).await?,
        Command::Repository(command) => repository::run(command, session).await?,
    }
    Ok(())
}

async fn find(session: &Session, which: &Which) -> Result<(Client, String), Failure> {
    let client = session.client()?;
    let target = target::find(&client, which.service.as_deref(), &which.scope).await?;
    Ok((client, format!("{}/webhook", target.path())))
}

fn show(session: &Session, client: &Client, view: WebhookView) {
    let webhook = Webhook {
        url: format!("{}{}", client.hooks_base(), view.path),
        view,
    };
    session.out.result(&webhook, || {
        let secret = match (&webhook.view.secret, webhook.view.has_secret) {
            (Some(secret), _) => format!("{secret}   (shown this once)"),
            (None, true) => "set; `skep webhook rotate` replaces it".to_owned(),
            (None, false) => "none, so deliveries are refused: `skep webhook create`".to_owned(),
        };
        let key = webhook.view.signing_key.clone();
        let mut all = vec![("url", webhook.url.clone()), ("secret", secret)];
        all.extend(key.map(|key| ("signing key", format!("{key}   (the same, for GitLab)"))));
        all.extend([
            ("content type", "application/json".to_owned()),
            ("events", "push, tag".to_owned()),
        ]);
        facts(&all)
    });
}
