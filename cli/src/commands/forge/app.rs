//! `skep forge app`: GitHub Apps, which are made and installed in a browser.

use std::path::PathBuf;

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{
    BrowserStepView, ForgeAppRequest, ForgeAppView, ForgeAppsView, InstallationView,
    RotateAppRequest,
};
use skep_model::problem::{Code, Problem};

use super::{Stdin, from_stdin, read_ca};
use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::table::{self, facts};
use crate::output::time;
use crate::session::Session;

const PATH: &str = "/v1/forge-apps";
/// Longest key that is read: GitHub's have 2 KiB.
const MAX_KEY: usize = 16 << 10;

/// GitHub Apps: no token of a person, no webhook of a repository, and tokens that end by themselves
#[derive(Debug, Clone, clap::Subcommand)]
#[command(after_help = "\
Examples:
  skep forge app create --organization acme
  skep forge app create --host github.example.com --url https://skep.example.com
  skep forge app install
  skep forge app rotate skep-4f2a --key-stdin < key.pem

`create` prints a URL: open it in a browser, press the button, and choose the repositories. From then on services that
come from there are fetched, deployed on pushes and shown at their commits. GitHub has to reach the URL of the cluster.")]
pub(crate) enum Command {
    /// List the Apps, and where they are installed
    #[command(visible_alias = "list")]
    Ls,
    /// Print a URL that makes an App in a browser, good once and for an hour
    Create(Create),
    /// Print a URL that installs an App at an account, good once and for an hour
    Install(Maybe),
    /// Show an App, and where it is installed
    Show(Maybe),
    /// Replace the secret of an App's webhook, here and at GitHub; or its key
    Rotate(Rotate),
    /// Remove an App and its installations from the cluster; at GitHub its owner deletes it
    #[command(visible_alias = "remove")]
    Rm(Which),
}

/// An App that is made.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Create {
    /// The organization that it belongs to [default: whoever makes it]
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
    /// Where GitHub is, as URLs of repositories have it
    #[arg(long, value_name = "HOST", default_value = "github.com")]
    host: String,
    /// What it is called, which nobody else's App may be [default: skep- and some digits]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where browsers and GitHub reach the cluster [default: where webhooks reach it]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Where the API is [default: where GitHub has it]
    #[arg(long, value_name = "URL")]
    api_url: Option<String>,
    /// Where people see GitHub [default: https://HOST]
    #[arg(long, value_name = "URL")]
    web_url: Option<String>,
    /// The CA of its certificate, PEM [default: those that the servers' machines trust]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// An App.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    /// What GitHub names it in URLs, or its id
    #[arg(value_name = "APP")]
    app: String,
}

/// An App, which need not be said where there is one.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Maybe {
    /// What GitHub names it in URLs, or its id [default: the only one]
    #[arg(value_name = "APP")]
    app: Option<String>,
}

/// What is replaced.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Rotate {
    #[command(flatten)]
    which: Maybe,
    /// Read a key that GitHub made from stdin, in place of a new secret of the webhook
    #[arg(long)]
    key_stdin: bool,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, refused, or GitHub does not take it.
pub(super) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Ls => {
            let view: ForgeAppsView = client.get(PATH).await?;
            session.out.result(&view, || list(&view.apps));
        }
        Command::Create(create) => {
            let request = request(&client, create)?;
            let step: BrowserStepView = client.send(Method::POST, PATH, &request).await?;
            session.out.result(&step, || opened("make the App", &step));
        }
        Command::Install(which) => {
            let path = format!("{}/install", path_of(&client, which).await?);
            let step: BrowserStepView = client.send(Method::POST, &path, &json!({})).await?;
            session
                .out
                .result(&step, || opened("install the App", &step));
        }
        Command::Show(which) => {
            let path = path_of(&client, which).await?;
            let view: ForgeAppView = client.get(&path).await?;
            session.out.result(&view, || shown(&client, &view));
        }
        Command::Rotate(rotate) => {
            let private_key = match rotate.key_stdin {
                true => Some(from_stdin(&KEY)?),
                false => None,
            };
            let path = format!("{}/rotate", path_of(&client, rotate.which).await?);
            let request = RotateAppRequest { private_key };
            let view: ForgeAppView = client.send(Method::POST, &path, &request).await?;
            session.out.result(&view, || shown(&client, &view));
        }
        Command::Rm(which) => {
            let path = format!("{PATH}/{}", escape(&which.app));
            let view: ForgeAppView = client.get(&path).await?;
            let _: Value = client.send(Method::DELETE, &path, &json!({})).await?;
            session.out.result(&json!({ "removed": view.slug }), || {
                format!(
                    "{} is gone from here; its owner deletes it at {}",
                    view.slug, view.url
                )
            });
        }
    }
    Ok(())
}

const KEY: Stdin = Stdin {
    what: "key",
    example: "skep forge app rotate APP --key-stdin < key.pem",
    most: MAX_KEY,
};

fn request(client: &Client, create: Create) -> Result<ForgeAppRequest, Failure> {
    let cluster_url = create.url.unwrap_or_else(|| client.hooks_base().to_owned());
    Ok(ForgeAppRequest {
        cluster_url,
        host: Some(create.host.to_lowercase()),
        organization: create.organization,
        name: create.name,
        api_url: create.api_url,
        web_url: create.web_url,
        ca_pem: read_ca(create.ca.as_deref())?,
    })
}

/// The path of an App that is said, or of the only one.
async fn path_of(client: &Client, which: Maybe) -> Result<String, Failure> {
    if let Some(app) = which.app {
        return Ok(format!("{PATH}/{}", escape(&app)));
    }
    let all: ForgeAppsView = client.get(PATH).await?;
    match &all.apps[..] {
        [one] => Ok(format!("{PATH}/{}", one.id)),
        [] => Err(Problem::new(Code::NotFound, "there is no GitHub App")
            .hint("`skep forge app create` makes one")
            .into()),
        several => {
            let names: Vec<&str> = several.iter().map(|it| it.slug.as_str()).collect();
            Err(Failure::usage("which App is meant?").hint(names.join(", ")))
        }
    }
}

fn opened(what: &str, step: &BrowserStepView) -> String {
    let left = time::age(step.expires_ms, time::now_ms());
    format!(
        "to {what}, open this in a browser, once and within {left}; whoever has it can do so:\n\n  {}\n",
        step.url
    )
}

/// Where an App is installed, in a few words.
fn places(all: &[InstallationView]) -> String {
    let one = |at: &InstallationView| match (at.suspended, at.missing.is_empty()) {
        (true, _) => format!("{} (suspended)", at.account),
        (false, false) => format!("{} (lacks {})", at.account, at.missing.join(", ")),
        (false, true) => at.account.clone(),
    };
    match all.is_empty() {
        true => "nowhere: `skep forge app install`".to_owned(),
        false => all.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

fn list(all: &[ForgeAppView]) -> String {
    let row = |one: &ForgeAppView| {
        vec![
            one.slug.clone(),
            one.host.clone(),
            one.owner.clone(),
            places(&one.installations),
        ]
    };
    let columns = ["APP", "HOST", "OWNER", "INSTALLED AT"];
    let empty = "there is no GitHub App: `skep forge app create` makes one";
    table::render(&columns, all.iter().map(row).collect(), empty)
}

fn shown(client: &Client, one: &ForgeAppView) -> String {
    let mut rows = vec![
        ("app", one.slug.clone()),
        ("id", one.id.to_string()),
        ("host", one.host.clone()),
        ("owner", one.owner.clone()),
        ("page", one.url.clone()),
        ("webhook", format!("{}{}", client.hooks_base(), one.hook)),
    ];
    rows.extend(installed(&one.installations));
    facts(&rows)
}

/// A line of each installation, and of each repository that has another name.
pub(super) fn installed(all: &[InstallationView]) -> Vec<(&'static str, String)> {
    let mut rows = vec![("installed at", places(all))];
    let renamed = all.iter().flat_map(|it| &it.renamed);
    rows.extend(renamed.map(|it| ("renamed", it.clone())));
    rows
}

/// What is in the way, in a word; none: nothing.
pub(super) fn state(all: &[InstallationView]) -> Option<&'static str> {
    match all {
        [] => Some("not installed"),
        all if all.iter().any(|it| it.suspended) => Some("suspended"),
        all if all.iter().any(|it| !it.missing.is_empty()) => Some("lacks rights"),
        all if all.iter().any(|it| !it.renamed.is_empty()) => Some("renamed"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_says_what_is_wrong_with_it() {
        let mut at = InstallationView {
            app: "skep-1".into(),
            number: 7,
            account: "acme".into(),
            organization: true,
            suspended: false,
            missing: Vec::new(),
            renamed: Vec::new(),
        };
        assert_eq!(state(&[]), Some("not installed"));
        assert_eq!(state(std::slice::from_ref(&at)), None);
        assert_eq!(places(std::slice::from_ref(&at)), "acme");
        at.renamed = vec!["acme/shop is acme/store".into()];
        assert_eq!(state(std::slice::from_ref(&at)), Some("renamed"));
        at.missing = vec!["statuses: write".into()];
        assert_eq!(state(std::slice::from_ref(&at)), Some("lacks rights"));
        assert_eq!(
            places(std::slice::from_ref(&at)),
            "acme (lacks statuses: write)"
        );
        at.suspended = true;
        assert_eq!(state(std::slice::from_ref(&at)), Some("suspended"));
    }
}
