//! `skep webhook repository`: one URL for all services that come from a repository.

use http::Method;
use serde::Serialize;
use serde_json::{Value, json};
use skep_control_plane::api::types::{
    RepositoryWebhookRequest, RepositoryWebhookView, RepositoryWebhooksView,
};
use skep_model::problem::{Code, Problem};

use crate::client::Client;
use crate::failure::Failure;
use crate::output::table::{self, facts};
use crate::session::Session;

const PATH: &str = "/v1/repository-webhooks";

/// One webhook for all services of a repository
#[derive(Debug, Clone, clap::Subcommand)]
#[command(after_help = "\
Example:
  skep webhook repository create https://github.com/team/monorepo.git

A push is decided on for each service whose source is that repository, however its URL is written: by its branch, and by the
files that it watches (`[source] watch` in skep.toml). All deployments are made at once.")]
pub(crate) enum Command {
    /// List them
    #[command(visible_alias = "list")]
    Ls,
    /// Make one; its secret is shown this once
    Create {
        /// A URL that the repository is cloned by
        #[arg(value_name = "URL")]
        url: String,
    },
    /// Replace the secret; the old one is refused from then on
    Rotate {
        /// A URL that the repository is cloned by
        #[arg(value_name = "URL")]
        url: String,
    },
    /// Show where it is, and which services it is for
    Show {
        /// A URL that the repository is cloned by
        #[arg(value_name = "URL")]
        url: String,
    },
    /// Remove one
    Rm {
        /// A URL that the repository is cloned by
        #[arg(value_name = "URL")]
        url: String,
    },
}

/// A webhook with its whole address: what the server itself cannot know.
#[derive(Debug, Serialize)]
struct Shown {
    url: String,
    #[serde(flatten)]
    view: RepositoryWebhookView,
}

/// Runs the command.
///
/// # Errors
/// Bad input, not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Ls => {
            let all: RepositoryWebhooksView = client.get(PATH).await?;
            session.out.result(&all, || text(&client, &all.webhooks));
        }
        Command::Create { url } => {
            if find(&client, &url).await?.is_some() {
                let text = "the repository has a webhook, whose secret is never shown again";
                return Err(Problem::new(Code::Conflict, text)
                    .hint("`skep webhook repository rotate` replaces it")
                    .into());
            }
            show(session, &client, make(&client, url).await?);
        }
        Command::Rotate { url } => {
            known(&client, &url).await?;
            show(session, &client, make(&client, url).await?);
        }
        Command::Show { url } => show(session, &client, known(&client, &url).await?),
        Command::Rm { url } => {
            let view = known(&client, &url).await?;
            let path = format!("{PATH}/{}", view.id);
            let _: Value = client.send(Method::DELETE, &path, &json!({})).await?;
            session
                .out
                .result(&json!({ "removed": view.repository }), || {
                    format!("deliveries for {} are not taken any more", view.repository)
                });
        }
    }
    Ok(())
}

async fn make(client: &Client, repository: String) -> Result<RepositoryWebhookView, Failure> {
    let request = RepositoryWebhookRequest { repository };
    Ok(client.send(Method::POST, PATH, &request).await?)
}

/// The webhook of the repository of this URL, by the one name that the server has for it.
async fn find(client: &Client, url: &str) -> Result<Option<RepositoryWebhookView>, Failure> {
    let name = skep_control_plane::api::repository_name(url).ok_or_else(|| {
        Problem::invalid("URL", "it is not a repository at a forge")
            .hint("a URL that it is cloned by: https://forge.example.com/team/shop.git")
    })?;
    let all: RepositoryWebhooksView = client.get(PATH).await?;
    let mut all = all.webhooks.into_iter();
    Ok(all.find(|one| one.repository == name))
}

async fn known(client: &Client, url: &str) -> Result<RepositoryWebhookView, Failure> {
    let found = find(client, url).await?;
    Ok(found.ok_or_else(|| {
        Problem::new(Code::NotFound, "the repository has no webhook")
            .hint("`skep webhook repository create` makes one, `ls` lists those that there are")
    })?)
}

fn show(session: &Session, client: &Client, view: RepositoryWebhookView) {
    let shown = Shown {
        url: format!("{}{}", client.hooks_base(), view.path),
        view,
    };
    session.out.result(&shown, || {
        let secret = match &shown.view.secret {
            Some(secret) => format!("{secret}   (shown this once)"),
            None => "set; `skep webhook repository rotate` replaces it".to_owned(),
        };
        let services = match shown.view.services.is_empty() {
            true => "none comes from it yet".to_owned(),
            false => shown.view.services.join(", "),
        };
        let key = shown.view.signing_key.clone();
        let mut all = vec![
            ("repository", shown.view.repository.clone()),
            ("url", shown.url.clone()),
            ("secret", secret),
        ];
        all.extend(key.map(|key| ("signing key", format!("{key}   (the same, for GitLab)"))));
        all.extend([
            ("services", services),
            ("content type", "application/json".to_owned()),
            ("events", "push, tag".to_owned()),
        ]);
        facts(&all)
    });
}

fn text(client: &Client, all: &[RepositoryWebhookView]) -> String {
    let row = |one: &RepositoryWebhookView| {
        vec![
            one.repository.clone(),
            one.services.len().to_string(),
            format!("{}{}", client.hooks_base(), one.path),
        ]
    };
    let empty = "no webhooks of repositories: `skep webhook repository create URL` makes one";
    table::render(
        &["REPOSITORY", "SERVICES", "URL"],
        all.iter().map(row).collect(),
        empty,
    )
}
