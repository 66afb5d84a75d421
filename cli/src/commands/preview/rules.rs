//! `skep preview rules`: what an environment says of its previews.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{AllPreviewRulesView, PreviewRulesRequest, PreviewRulesView};
use skep_model::preview::Seed;
use skep_model::problem::Problem;
use skep_model::variable::VariableInput;

use super::{millis, project};
use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::table::{self, facts};
use crate::output::{time, view};
use crate::session::Session;

const PATH: &str = "/v1/preview-rules";

/// What an environment says of its previews
#[derive(Debug, Clone, clap::Subcommand)]
#[command(after_help = "\
Examples:
  skep preview rules set --project shop
  skep preview rules set --service web --service db --ttl 3d --max 5 --idle 10m --project shop
  skep preview rules set --var PAYMENTS=sandbox --secret-var API_KEY=test-123 --project shop
  skep preview rules set --seed-service web --seed 'bin/seed --small' --project shop
  skep preview rules off --project shop

What is not named stays as it is.")]
pub(crate) enum Command {
    /// Give pull requests previews, or change what they are like
    Set(Box<Set>),
    /// Show what environments say
    Show,
    /// Pull requests get no previews any more; those that there are stay until they end
    Off(Of),
}

/// Whose rules.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Of {
    /// The environment that previews are a copy of
    #[arg(long = "env", value_name = "NAME", default_value = "production")]
    environment: String,
    /// Its project [default: of the folder's skep.toml]
    #[arg(long, value_name = "NAME", env = "SKEP_PROJECT")]
    project: Option<String>,
}

/// What is said.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Set {
    #[command(flatten)]
    of: Of,
    /// A service that is copied; repeatable [default: all]
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    /// All services are copied
    #[arg(long, conflicts_with = "services")]
    all_services: bool,
    /// A shared variable that previews have beside, or in place of, the environment's; repeatable
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
    /// The same, never shown again, and not given to forks; repeatable
    #[arg(long = "secret-var", value_name = "NAME=VALUE", value_parser = variable)]
    secrets: Vec<(String, String)>,
    /// Forget such a variable; repeatable
    #[arg(long = "unset-var", value_name = "NAME")]
    unset: Vec<String>,
    /// What generated names of previews end in; "" for the cluster's base domain
    #[arg(long, value_name = "DOMAIN")]
    base_domain: Option<String>,
    /// How long one lives after the last push: 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = time::parse_span)]
    ttl: Option<Duration>,
    /// Most at once
    #[arg(long, value_name = "N")]
    max: Option<u32>,
    /// Pull requests from other repositories get one, too, without variables of the environment
    #[arg(long, conflicts_with = "no_forks")]
    forks: bool,
    /// They get none
    #[arg(long)]
    no_forks: bool,
    /// How long nothing is asked of a service until it sleeps: 30m, or never
    #[arg(long, value_name = "TIME", value_parser = idle)]
    idle: Option<u64>,
    /// The service whose image fills a preview with data
    #[arg(long, value_name = "NAME", requires = "seed")]
    seed_service: Option<String>,
    /// What it runs for that, once, before it is live for the first time; "" for nothing
    #[arg(long, value_name = "COMMAND")]
    seed: Option<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let found = text.split_once('=');
    let found = found.filter(|(name, _)| !name.is_empty());
    found
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "NAME=VALUE is expected".to_owned())
}

fn idle(text: &str) -> Result<u64, String> {
    match text {
        "never" => Ok(0),
        span => time::parse_span(span)
            .map(millis)
            .map_err(|accepted| format!("`never`, or {accepted}")),
    }
}

impl Of {
    async fn names(&self) -> Result<(String, String), Failure> {
        let project = project(self.project.as_ref()).await?;
        Ok((project, self.environment.clone()))
    }
}

pub(super) async fn run(
    command: Command,
    session: &Session,
    client: &Client,
) -> Result<(), Failure> {
    match command {
        Command::Set(set) => {
            let (project, environment) = set.of.names().await?;
            let all: AllPreviewRulesView = client.get(PATH).await?;
            let mut known = all.rules.into_iter();
            let known = known.find(|it| it.project == project && it.environment == environment);
            let request = wanted(*set, known)?;
            let path = path(&project, &environment);
            let view: PreviewRulesView = client.send(Method::PUT, &path, &request).await?;
            session.out.result(&view, || rules(&view));
        }
        Command::Show => {
            let all: AllPreviewRulesView = client.get(PATH).await?;
            session.out.result(&all, || shown(&all.rules));
        }
        Command::Off(of) => {
            let (project, environment) = of.names().await?;
            let path = path(&project, &environment);
            let _: Value = client.send(Method::DELETE, &path, &json!({})).await?;
            let name = format!("{project}/{environment}");
            let text = format!("pull requests get no previews of {name} any more");
            session.out.result(&json!({ "off": name }), || text);
        }
    }
    Ok(())
}

fn path(project: &str, environment: &str) -> String {
    format!("{PATH}/{}/{}", escape(project), escape(environment))
}

/// What was known, with what is named in its place.
fn wanted(set: Set, known: Option<PreviewRulesView>) -> Result<PreviewRulesRequest, Failure> {
    let mut request =
        known.map_or_else(PreviewRulesRequest::default, |known| PreviewRulesRequest {
            services: known.services,
            base_domain: known.base_domain,
            ttl_ms: known.ttl_ms,
            max: known.max,
            forks: known.forks,
            idle_ms: known.idle_ms,
            seed: known.seed,
            ..PreviewRulesRequest::default()
        });
    if set.all_services || !set.services.is_empty() {
        request.services = set.services;
    }
    if let Some(base) = set.base_domain {
        request.base_domain = Some(base).filter(|base| !base.is_empty());
    }
    request.ttl_ms = set.ttl.map_or(request.ttl_ms, millis);
    request.max = set.max.unwrap_or(request.max);
    request.forks = set.forks || (request.forks && !set.no_forks);
    request.idle_ms = set.idle.unwrap_or(request.idle_ms);
    if let Some(text) = set.seed {
        request.seed = seed(&text, set.seed_service, request.seed)?;
    }
    request.set = inputs(set.variables, false)
        .chain(inputs(set.secrets, true))
        .collect();
    request.unset = set.unset;
    Ok(request)
}

fn seed(text: &str, service: Option<String>, old: Option<Seed>) -> Result<Option<Seed>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |text: &str, hint: &str| Failure::of(Problem::invalid("seed", text).hint(hint));
    let command = shlex::split(text)
        .ok_or_else(|| wrong("a quote is not closed", "write it as in a shell"))?;
    let service = service.or(old.map(|old| old.service));
    let service =
        service.ok_or_else(|| wrong("nothing says in which image", "--seed-service NAME"))?;
    Ok(Some(Seed { service, command }))
}

fn inputs(all: Vec<(String, String)>, secret: bool) -> impl Iterator<Item = VariableInput> {
    all.into_iter().map(move |(name, value)| VariableInput {
        name,
        value,
        secret,
    })
}

fn span(ms: u64) -> String {
    time::span(Duration::from_millis(ms))
}

fn rules(one: &PreviewRulesView) -> String {
    let services = match one.services.is_empty() {
        true => "all".to_owned(),
        false => one.services.join(", "),
    };
    let mut rows = vec![
        (
            "environment",
            format!("{}/{}", one.project, one.environment),
        ),
        ("services", services),
        ("lives", format!("{} after the last push", span(one.ttl_ms))),
        ("at once", format!("{} of {}", one.used, one.max)),
        (
            "forks",
            if one.forks {
                "yes, without variables"
            } else {
                "no"
            }
            .to_owned(),
        ),
        (
            "sleeps",
            match one.idle_ms {
                0 => "never".to_owned(),
                ms => format!("after {}", span(ms)),
            },
        ),
    ];
    if let Some(base) = &one.base_domain {
        rows.push(("base domain", base.clone()));
    }
    if let Some(seed) = &one.seed {
        rows.push((
            "seed",
            format!("{}: {}", seed.service, seed.command.join(" ")),
        ));
    }
    match one.variables.is_empty() {
        true => facts(&rows),
        false => format!("{}\n\n{}", facts(&rows), view::variables(&one.variables)),
    }
}

fn shown(all: &[PreviewRulesView]) -> String {
    match all.is_empty() {
        true => table::render(
            &[],
            Vec::new(),
            "no environment has previews: `skep preview rules set --project PROJECT` gives it some",
        ),
        false => {
            let texts: Vec<_> = all.iter().map(rules).collect();
            texts.join("\n\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn request(line: &str, known: Option<PreviewRulesView>) -> PreviewRulesRequest {
        let words = std::iter::once("rules").chain(line.split(' '));
        let Command::Set(set) = Line::parse_from(words).command else {
            panic!("it sets");
        };
        wanted(*set, known).expect("sound")
    }

    #[test]
    fn what_is_not_named_stays() {
        let first = request(
            "set --ttl 3d --max 5 --forks --idle never --service web",
            None,
        );
        assert_eq!(
            (first.ttl_ms, first.max, first.idle_ms),
            (259_200_000, 5, 0)
        );
        let known = PreviewRulesView {
            project: "shop".into(),
            environment: "production".into(),
            services: first.services.clone(),
            base_domain: Some("preview.test".into()),
            ttl_ms: first.ttl_ms,
            max: first.max,
            used: 1,
            forks: true,
            idle_ms: 0,
            seed: Some(Seed {
                service: "web".into(),
                command: vec!["seed".into()],
            }),
            variables: Vec::new(),
        };
        let text = rules(&known);
        for part in ["3d0h after the last push", "1 of 5", "never", "web: seed"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let same = request("set --var A=b=c --secret-var KEY=x", Some(known.clone()));
        assert_eq!(same.services, ["web"]);
        assert!(same.forks && same.seed.is_some());
        let said: Vec<_> = same
            .set
            .iter()
            .map(|it| (&*it.name, &*it.value, it.secret))
            .collect();
        assert_eq!(said, [("A", "b=c", false), ("KEY", "x", true)]);
        let other = request("set --all-services --no-forks --base-domain=", Some(known));
        assert!(other.services.is_empty() && !other.forks);
        assert_eq!(other.base_domain, None);
    }

    #[test]
    fn a_seed_is_read_as_in_a_shell() {
        let old = || None;
        let read = seed("bin/seed 'a b'", Some("web".into()), old()).expect("sound");
        assert_eq!(read.expect("one").command, ["bin/seed", "a b"]);
        assert!(seed("", None, old()).expect("sound").is_none());
        assert!(seed("'", Some("web".into()), old()).is_err());
        assert!(seed("x", None, old()).is_err());
    }
}
