//! `skep preview`: environments that come and go with pull requests, or are made by hand.

mod rules;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::json;
use skep_control_plane::api::types::{
    CommentState, CommentView, ExtendRequest, PreviewRequest, PreviewView, PreviewsView,
};
use skep_model::problem::Problem;

use crate::client::escape;
use crate::failure::Failure;
use crate::folder::App;
use crate::output::table::{self, facts};
use crate::output::time;
use crate::session::Session;
use crate::target::Scope;

const PATH: &str = "/v1/previews";

/// Environments that come and go with pull requests
#[derive(Debug, Clone, clap::Subcommand)]
#[command(after_help = "\
Examples:
  skep preview rules set --project shop                 pull requests get previews from now on
  skep preview create try-it --branch new-checkout --project shop
  skep preview create try-it --image web=registry.example.com/web:next --ttl 2h --project shop
  skep preview ls
  skep preview extend pr-12 --ttl 14d --project shop
  skep preview rm pr-12 --project shop

A preview is a copy of an environment with names, empty volumes and a private network of its own;
`-e pr-12` works with every command. It ends by itself: when its pull request is closed, or when
nothing was pushed for the time that the rules say. In a folder with a skep.toml the project may be
left out.")]
pub(crate) enum Command {
    /// List the previews of all projects
    #[command(visible_alias = "list")]
    Ls,
    /// Make one by hand
    Create(Create),
    /// Show one: what it is for, where it answers, when it ends, and what its pull request was told
    Show(Which),
    /// Put its end off
    Extend(Extend),
    /// End one: its services go with all that they have, and then its environment
    #[command(visible_alias = "remove")]
    Rm(Which),
    /// What an environment says of its previews
    #[command(subcommand)]
    Rules(rules::Command),
}

/// A preview.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    /// The preview
    #[arg(value_name = "NAME")]
    name: String,
    /// Its project [default: of the folder's skep.toml]
    #[arg(long, value_name = "NAME", env = "SKEP_PROJECT")]
    project: Option<String>,
}

/// A new preview.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    which: Which,
    /// The environment that is copied
    #[arg(long, value_name = "ENV", default_value = "production")]
    from: String,
    /// The branch that services from git deploy [default: what the environment has]
    #[arg(long, value_name = "BRANCH")]
    branch: Option<String>,
    /// An image in place of what a service has; repeatable
    #[arg(long = "image", value_name = "SERVICE=REF", value_parser = image)]
    images: Vec<(String, String)>,
    /// How long it lives: 2h, 7d [default: as the rules say]
    #[arg(long, value_name = "TIME", value_parser = time::parse_span)]
    ttl: Option<Duration>,
}

/// How long one lives on.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Extend {
    #[command(flatten)]
    which: Which,
    /// From now on: 2h, 7d [default: as long as after a push]
    #[arg(long, value_name = "TIME", value_parser = time::parse_span)]
    ttl: Option<Duration>,
}

fn image(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((service, reference)) if !service.is_empty() && !reference.is_empty() => {
            Ok((service.to_owned(), reference.to_owned()))
        }
        _ => Err("SERVICE=REF is expected: web=registry.example.com/web:next".to_owned()),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The project that is meant.
async fn project(named: Option<&String>) -> Result<String, Failure> {
    let app = App::read(Path::new(".")).await?;
    if named.is_none() && app.manifest.is_none() {
        let problem = Problem::invalid("project", "nothing says of which project");
        return Err(Failure::of(problem.hint("--project NAME")));
    }
    let scope = Scope {
        project: named.cloned(),
        environment: None,
    };
    Ok(app.target(&scope, None)?.project)
}

impl Which {
    /// Its path in the API.
    async fn path(&self) -> Result<String, Failure> {
        let project = project(self.project.as_ref()).await?;
        let (project, name) = (escape(&project), escape(&self.name));
        Ok(format!("{PATH}/{project}/{name}"))
    }
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let now_ms = time::now_ms();
    match command {
        Command::Ls => {
            let view: PreviewsView = client.get(PATH).await?;
            session
                .out
                .result(&view, || previews(&view.previews, now_ms));
        }
        Command::Create(create) => {
            let request = PreviewRequest {
                from: Some(create.from),
                branch: create.branch,
                images: create.images.into_iter().collect::<BTreeMap<_, _>>(),
                ttl_ms: create.ttl.map(millis),
            };
            let path = create.which.path().await?;
            let view: PreviewView = client.send(Method::POST, &path, &request).await?;
            session.out.result(&view, || preview(&view, now_ms));
        }
        Command::Show(which) => {
            let view: PreviewView = client.get(&which.path().await?).await?;
            session.out.result(&view, || preview(&view, now_ms));
        }
        Command::Extend(extend) => {
            let path = format!("{}/extend", extend.which.path().await?);
            let request = ExtendRequest {
                ttl_ms: extend.ttl.map(millis),
            };
            let view: PreviewView = client.send(Method::POST, &path, &request).await?;
            session.out.result(&view, || preview(&view, now_ms));
        }
        Command::Rm(which) => {
            let path = which.path().await?;
            let view: PreviewView = client.send(Method::DELETE, &path, &json!({})).await?;
            let text = format!("{}/{} goes", view.project, view.name);
            session.out.result(&view, || text);
        }
        Command::Rules(command) => rules::run(command, session, &client).await?,
    }
    Ok(())
}

fn source(one: &PreviewView) -> String {
    match (&one.request, &one.branch) {
        (Some(request), _) => format!("#{} {}", request.number, request.title),
        (None, Some(branch)) => branch.clone(),
        (None, None) => "-".to_owned(),
    }
}

fn ends(one: &PreviewView, now_ms: u64) -> String {
    match one.ended {
        Some(why) => format!("going: {}", why.as_str()),
        None => format!("in {}", time::age(one.expires_ms, now_ms)),
    }
}

/// Where its first service that answers does.
fn url(one: &PreviewView) -> String {
    let first = one.services.iter().find_map(|it| it.urls.first());
    first.cloned().unwrap_or_else(|| "-".to_owned())
}

/// How it is with the comment at the pull request, and why.
fn comment(one: &CommentView, now_ms: u64) -> String {
    let state = match (one.state, one.told_ms) {
        (CommentState::Told, Some(at_ms)) => format!("told {} ago", time::age(now_ms, at_ms)),
        (CommentState::Told, None) => "told".to_owned(),
        (CommentState::Waiting, _) => "waits".to_owned(),
        (CommentState::GivenUp, _) => "given up".to_owned(),
    };
    match &one.problem {
        Some(problem) => format!("{state}: {problem}"),
        None => state,
    }
}

fn previews(all: &[PreviewView], now_ms: u64) -> String {
    let row = |one: &PreviewView| {
        vec![
            one.project.clone(),
            one.name.clone(),
            one.from.clone(),
            time::age(now_ms, one.created_ms),
            ends(one, now_ms),
            url(one),
            source(one),
        ]
    };
    let columns = ["PROJECT", "PREVIEW", "FROM", "AGE", "ENDS", "URL", "FOR"];
    let empty = "there is none: `skep preview rules set` gives pull requests one, `skep preview create` makes one";
    table::render(&columns, all.iter().map(row).collect(), empty)
}

fn preview(one: &PreviewView, now_ms: u64) -> String {
    let mut rows = vec![
        ("preview", format!("{}/{}", one.project, one.name)),
        ("from", one.from.clone()),
    ];
    if let Some(request) = &one.request {
        let fork = if request.fork { " (of a fork)" } else { "" };
        let text = format!("{}#{}{fork}", request.repository, request.number);
        rows.push(("pull request", text));
        rows.push(("title", request.title.clone()));
    }
    if let Some(branch) = &one.branch {
        rows.push(("branch", branch.clone()));
    }
    if let Some(commit) = &one.commit {
        rows.push(("commit", commit.clone()));
    }
    rows.push(("ends", ends(one, now_ms)));
    if let Some(told) = &one.comment {
        rows.push(("comment", comment(told, now_ms)));
    }
    let services = one.services.iter().map(|service| {
        vec![
            service.service.clone(),
            service.deployment.clone().unwrap_or_else(|| "-".to_owned()),
            service
                .urls
                .first()
                .cloned()
                .unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let columns = ["SERVICE", "DEPLOYMENT", "URL"];
    let list = table::render(&columns, services.collect(), "it has no services any more");
    format!("{}\n\n{list}", facts(&rows))
}

#[cfg(test)]
mod tests {
    use skep_control_plane::api::types::PullRequestView;
    use skep_model::preview::Why;

    use super::*;

    #[test]
    fn a_preview_says_what_it_is_for_and_when_it_ends() {
        let mut one = PreviewView {
            project: "shop".into(),
            name: "pr-12".into(),
            from: "production".into(),
            request: Some(PullRequestView {
                repository: "forge.test/team/shop".into(),
                number: 12,
                title: "New checkout".into(),
                url: None,
                fork: true,
            }),
            branch: Some("checkout".into()),
            commit: None,
            created_ms: 1_000,
            expires_ms: 91_000,
            ended: None,
            comment: Some(CommentView {
                state: CommentState::GivenUp,
                problem: Some("403 Forbidden".into()),
                told_ms: Some(1_000),
            }),
            services: Vec::new(),
        };
        assert_eq!(source(&one), "#12 New checkout");
        assert_eq!(ends(&one, 1_000), "in 1m30s");
        let text = preview(&one, 1_000);
        assert!(
            text.contains("forge.test/team/shop#12 (of a fork)"),
            "{text}"
        );
        assert!(text.contains("given up: 403 Forbidden"), "{text}");
        one.ended = Some(Why::Closed);
        assert_eq!(ends(&one, 1_000), "going: closed");
        one.request = None;
        assert_eq!(source(&one), "checkout");
    }

    #[test]
    fn an_image_is_of_a_service() {
        let named = image("web=r.test/web:1=x").expect("sound");
        assert_eq!(named, ("web".to_owned(), "r.test/web:1=x".to_owned()));
        assert!(image("web").is_err() && image("=x").is_err());
    }
}
