//! `skep deploy`: deploys a git repository or a ready image, and remembers where it came from.

use std::path::Path;

use skep_control_plane::api::types::DeploymentRequest;
use skep_model::name;
use skep_model::problem::Problem;

use super::up::{Settings, base_of, existing, put};
use crate::failure::Failure;
use crate::folder::{App, complete};
use crate::follow::{self, Gate, Order};
use crate::output::Style;
use crate::session::Session;
use crate::target::{Scope, Target};

/// Deploy a git repository or an image
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep deploy --repo https://github.com/acme/shop --branch main
  skep deploy --repo ../shop.git --branch main --directory web --service web --project shop
  skep deploy --image nginx:1.27 --service proxy --port 80

Once built, the source is the service's: a webhook deploys pushes to the branch from then on. A path is one on
the machine that builds.")]
#[command(group = clap::ArgGroup::new("origin").required(true).args(["repo", "image"]))]
pub(crate) struct Args {
    /// URL or path of a git repository
    #[arg(long, value_name = "URL|PATH")]
    repo: Option<String>,
    /// Its branch
    #[arg(
        long,
        value_name = "NAME",
        default_value = "main",
        conflicts_with = "image"
    )]
    branch: String,
    /// A commit of it, in full [default: the newest of the branch]
    #[arg(long, value_name = "SHA", requires = "repo", value_parser = parse_commit)]
    commit: Option<String>,
    /// The app's folder inside the repository
    #[arg(
        long,
        value_name = "PATH",
        requires = "repo",
        default_value = "",
        hide_default_value = true
    )]
    directory: String,
    /// A ready image: name[:tag][@digest]
    #[arg(long, value_name = "REF")]
    image: Option<String>,
    /// Name of the service [default: from skep.toml, else the repository's or the image's]
    #[arg(long, value_name = "NAME", env = "SKEP_SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    settings: Settings,
    /// Build even where there is an image of the same commit and configuration, and without Docker's cache
    #[arg(long, requires = "repo")]
    no_cache: bool,
    /// Do not stay until it is live
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    gate: Gate,
}

/// Runs the command.
///
/// # Errors
/// Bad input, refused, or not live.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let request = origin(&args)?;
    let target = target(&args).await?;
    let client = session.client()?;
    let existing = existing(&client, &target).await?;
    let mut spec = base_of(existing.as_ref());
    args.settings.apply(&mut spec);
    spec.check()?;
    let verb = if existing.is_some() {
        "deploying to"
    } else {
        "creating"
    };
    session.out.progress(
        &session
            .out
            .styled(Style::Strong, &format!("{verb} {target}")),
    );
    put(&client, &target, existing.as_ref(), spec, Vec::new()).await?;
    let order = Order {
        target,
        request,
        folder: None,
        wait: !args.no_wait,
        no_cache: args.no_cache,
        gate: args.gate,
    };
    follow::deploy(session, &client, order).await
}

/// The deployment brings the source along: it becomes the service's once it has made a release.
fn origin(args: &Args) -> Result<DeploymentRequest, Failure> {
    if let Some(reference) = args.image.clone() {
        return Ok(DeploymentRequest::Image { reference });
    }
    let repo = args
        .repo
        .as_deref()
        .ok_or_else(|| Failure::usage("--repo or --image"))?;
    let repository = repository(repo)?;
    Ok(DeploymentRequest::Git {
        repository,
        branch: args.branch.clone(),
        commit: args.commit.clone(),
        directory: args.directory.clone(),
    })
}

/// URLs as they are; a path made absolute, since the builder works elsewhere.
fn repository(text: &str) -> Result<String, Problem> {
    if !is_path(text) {
        return Ok(text.to_owned());
    }
    let bad = |why: String| {
        Problem::invalid("repo", format!("`{}`: {why}", text.escape_debug()))
            .hint("a path to a repository, or a URL: https://..., ssh://..., git@host:path")
    };
    let path = Path::new(text)
        .canonicalize()
        .map_err(|error| bad(error.to_string()))?;
    path.into_os_string()
        .into_string()
        .map_err(|_| bad("the path is not text".to_owned()))
}

/// As git tells them apart: `scheme://` and `host:path` (no slash before the colon) are not paths.
fn is_path(text: &str) -> bool {
    if text.contains("://") {
        return false;
    }
    match (text.find(':'), text.find('/')) {
        (Some(colon), Some(slash)) => slash < colon,
        (Some(_), None) => false,
        _ => true,
    }
}

async fn target(args: &Args) -> Result<Target, Failure> {
    let app = App::read(Path::new(".")).await?;
    // A folder's file speaks of the folder's own app: it names this one only where nothing else does.
    if args.service.is_none() && app.manifest.as_ref().is_some_and(|it| it.name.is_some()) {
        return Ok(app.target(&args.scope, None)?);
    }
    let service = match &args.service {
        Some(name) => name.clone(),
        None => suggested(args).ok_or_else(|| {
            Failure::of(
                Problem::invalid("service", "no name can be made of the source's")
                    .hint("--service NAME"),
            )
        })?,
    };
    let project = args
        .scope
        .project
        .clone()
        .unwrap_or_else(|| service.clone());
    Ok(complete(&args.scope, service, project)?)
}

fn suggested(args: &Args) -> Option<String> {
    let text = match (&args.image, &args.repo) {
        (Some(image), _) => {
            let name = image.split('@').next().unwrap_or(image);
            let name = name.rsplit('/').next().unwrap_or(name);
            name.split(':').next().unwrap_or(name)
        }
        (None, Some(repo)) => {
            let path = repo.trim_end_matches('/');
            let name = path.rsplit(['/', ':']).next().unwrap_or(path);
            name.strip_suffix(".git").unwrap_or(name)
        }
        (None, None) => return None,
    };
    name::suggest(text)
}

fn parse_commit(text: &str) -> Result<String, String> {
    let is_hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hex && (text.len() == 40 || text.len() == 64) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("a commit is written in full: 40 hex digits, as `git rev-parse` prints them".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(arguments: &[&str]) -> Result<Args, clap::Error> {
        let line = std::iter::once("deploy").chain(arguments.iter().copied());
        Line::try_parse_from(line).map(|line| line.args)
    }

    #[test]
    fn paths_and_urls_are_told_apart_as_git_does() {
        for path in ["shop", "../shop.git", "/srv/shop", "./a:b"] {
            assert!(is_path(path), "{path}");
        }
        for url in ["https://a.b/c", "git@host:c/d", "host:c", "file:///srv/x"] {
            assert!(!is_path(url), "{url}");
        }
        let problem = repository("no/such/place").expect_err("missing");
        assert_eq!(problem.field.as_deref(), Some("repo"));
        assert!(Path::new(&repository(".").expect("here")).is_absolute());
    }

    #[test]
    fn names_are_made_of_the_source() {
        for (arguments, name) in [
            (
                ["--repo", "https://github.com/acme/My_Shop.git"],
                Some("my-shop"),
            ),
            (["--repo", "git@host:shop.git"], Some("shop")),
            (["--image", "registry.local:5000/team/api:1.2"], Some("api")),
            (["--image", "nginx@sha256:abc"], Some("nginx")),
            (["--repo", "https://a.b/123"], None),
        ] {
            let args = parse(&arguments).expect("accepted");
            assert_eq!(suggested(&args).as_deref(), name, "{arguments:?}");
        }
    }

    #[test]
    fn exactly_one_origin_and_whole_commits() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--repo", "x", "--image", "y"]).is_err());
        assert!(parse(&["--repo", "x", "--commit", "abc123"]).is_err());
        assert!(parse(&["--repo", "x", "--commit", &"A".repeat(40)]).is_ok());
    }
}
