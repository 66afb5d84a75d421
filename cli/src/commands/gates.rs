//! `skep gate`, `skep approve`, `skep cancel`, `skep pin` and `skep unpin`: what holds deployments up, and letting them through.

use http::Method;
use serde_json::json;
use skep_control_plane::api::types::{
    ApproveRequest, DeploymentView, DeploymentsView, GatesRequest, GatesView, PinRequest,
    ServiceView,
};
use skep_model::gate::{Freeze, Gates, Window};
use skep_model::problem::{Code, Problem};
use skep_model::schedule::{UTC, utc};

use super::quota::Whose;
use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::output::{table, time, view};
use crate::session::Session;
use crate::target::{self, Scope, Target};

/// What deployments have to get through before they begin
#[derive(Debug, Clone, clap::Subcommand)]
#[command(after_help = "\
What is new waits at the gates of its environment: for somebody's yes, for the end of a freeze.
What runs is never touched by that; `skep restart` and `skep rollback` go through always.
`skep approve` lets a deployment through. A workspace's gates (without --project) hold for every
environment in it. Previews have none.")]
pub(crate) enum Command {
    /// Show what holds deployments up, and what waits
    Show(Whose),
    /// Say whether each deployment has to be approved
    #[command(after_help = "\
Examples:
  skep gate approval on --project shop -e production
  skep gate approval off --project shop -e production")]
    Approval {
        /// Whether it has to be
        #[arg(value_enum)]
        approval: Switch,
        #[command(flatten)]
        whose: Whose,
    },
    /// Say when nothing begins
    #[command(after_help = "\
Examples:
  skep gate freeze weekend --schedule '0 16 * * FRI' --for 62h --time-zone Europe/Berlin --project shop -e production
  skep gate freeze holidays --from 2026-12-20T00:00:00Z --until 2027-01-02T00:00:00Z --reason 'nobody is here'")]
    Freeze(Box<FreezeArgs>),
    /// Take a freeze away
    Thaw {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        whose: Whose,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Switch {
    /// It has to be.
    On,
    /// It has not.
    Off,
}

/// A freeze.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FreezeArgs {
    /// Its name; one of this name is replaced
    #[arg(value_name = "NAME")]
    name: String,
    /// When it begins, again and again: minute hour day month weekday
    #[arg(
        long,
        value_name = "CRON",
        requires = "span",
        required_unless_present = "from"
    )]
    schedule: Option<String>,
    /// How long it holds each time, like 62h
    #[arg(long = "for", id = "span", value_name = "TIME", value_parser = time::parse_span, requires = "schedule")]
    span: Option<std::time::Duration>,
    /// The time zone of the schedule
    #[arg(long, value_name = "ZONE", default_value = UTC)]
    time_zone: String,
    /// When it begins, once: a time like 2026-12-20T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "until", conflicts_with = "schedule")]
    from: Option<u64>,
    /// When it ends
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "from")]
    until: Option<u64>,
    /// Why, for those who wait
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    whose: Whose,
}

/// Let a deployment through that waits for somebody's yes
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep approve web -e production
  skep approve web --deployment 01ab… --despite-freeze
`skep cancel web` says no.")]
pub(crate) struct Approve {
    #[command(flatten)]
    which: Which,
    /// That very deployment: refused where another one waits by now
    #[arg(long, value_name = "ID")]
    deployment: Option<String>,
    /// Begin it in a freeze too
    #[arg(long)]
    despite_freeze: bool,
}

/// End a deployment that waits or is on its way; what is live goes on
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  skep cancel web -e production")]
pub(crate) struct Cancel {
    #[command(flatten)]
    which: Which,
}

/// Keep a service as it is: what is new waits
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep pin web --reason 'the new checkout loses orders'
  skep unpin web            what waits goes on

What is live may be restarted, scaled and rolled back.")]
pub(crate) struct Pin {
    #[command(flatten)]
    which: Which,
    /// Why, for those who wait
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Let what is new come to a service again
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  skep unpin web")]
pub(crate) struct Unpin {
    #[command(flatten)]
    which: Which,
}

/// Which service.
#[derive(Debug, Clone, clap::Args)]
struct Which {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
}

impl Which {
    async fn find(&self, client: &Client) -> Result<Target, Failure> {
        target::find(client, self.service.as_deref(), &self.scope).await
    }
}

/// Runs `skep gate`.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let (whose, request) = match command {
        Command::Show(whose) => {
            let found: GatesView = client.get(&format!("{}/gates", whose.path())).await?;
            session.out.result(&found, || text(&found, time::now_ms()));
            return Ok(());
        }
        Command::Approval { approval, whose } => {
            let request = GatesRequest {
                approval: Some(approval == Switch::On),
                ..GatesRequest::default()
            };
            (whose, request)
        }
        Command::Freeze(args) => {
            let freeze = args.freeze()?;
            let request = GatesRequest {
                put_freeze: Some(freeze),
                ..GatesRequest::default()
            };
            (args.whose, request)
        }
        Command::Thaw { name, whose } => {
            let request = GatesRequest {
                remove_freeze: Some(name),
                ..GatesRequest::default()
            };
            (whose, request)
        }
    };
    let path = format!("{}/gates", whose.path());
    let found: GatesView = client.send(Method::PATCH, &path, &request).await?;
    session.out.result(&found, || text(&found, time::now_ms()));
    Ok(())
}

impl FreezeArgs {
    fn freeze(&self) -> Result<Freeze, Failure> {
        let window = match (&self.schedule, self.span, self.from, self.until) {
            (Some(schedule), Some(span), ..) => Window::Again {
                schedule: schedule.clone(),
                time_zone: self.time_zone.clone(),
                for_ms: u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
            },
            (_, _, Some(from_ms), Some(until_ms)) => Window::Once { from_ms, until_ms },
            _ => {
                let text = "a freeze needs --schedule and --for, or --from and --until";
                return Err(Failure::usage(text.to_owned()));
            }
        };
        let freeze = Freeze {
            name: self.name.clone(),
            window,
            reason: self.reason.clone(),
        };
        freeze.check()?;
        Ok(freeze)
    }
}

/// Runs `skep approve`.
///
/// # Errors
/// Nothing waits, or not reachable.
pub(crate) async fn approve(args: Approve, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = args.which.find(&client).await?;
    let found = active(&client, &target).await?;
    let held = found.into_iter().find(|it| it.held);
    let held = held.ok_or_else(|| nothing("no deployment of it waits at a gate", &target))?;
    if let Some(wanted) = &args.deployment
        && *wanted != held.id.to_string()
    {
        let text = format!("{} waits, not {wanted}", held.id);
        return Err(nothing(&text, &target).into());
    }
    let request = ApproveRequest {
        despite_freeze: args.despite_freeze,
    };
    let path = format!("/v1/deployments/{}/approve", held.id);
    let view: DeploymentView = client.send(Method::POST, &path, &request).await?;
    let gates: GatesView = client.get(&gates_of(&target)).await?;
    let frozen = gates.frozen.filter(|_| !args.despite_freeze);
    session.out.result(&view, || {
        let what = view.commit.as_deref().map_or(String::new(), |commit| {
            format!(" of commit {}", &commit[..commit.len().min(10)])
        });
        let done = format!("approved: deployment {}{what}", view.id);
        match frozen {
            Some(frozen) => format!(
                "{done}; it begins after the freeze `{}`, {}",
                frozen.name,
                utc(frozen.until_ms)
            ),
            None => done,
        }
    });
    Ok(())
}

/// Runs `skep cancel`.
///
/// # Errors
/// Nothing is on its way, or not reachable.
pub(crate) async fn cancel(args: Cancel, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = args.which.find(&client).await?;
    let found = active(&client, &target).await?;
    // What waits was asked for last.
    let newest = found.into_iter().max_by_key(|it| (it.held, it.created_ms));
    let newest = newest.ok_or_else(|| nothing("nothing of it is on its way", &target))?;
    let path = format!("/v1/deployments/{}/cancel", newest.id);
    let view: DeploymentView = client.send(Method::POST, &path, &json!({})).await?;
    session
        .out
        .result(&view, || format!("canceled: deployment {}", view.id));
    Ok(())
}

/// The gates of a service's environment.
fn gates_of(target: &Target) -> String {
    let (project, environment) = (escape(&target.project), escape(&target.environment));
    format!("/v1/projects/{project}/environments/{environment}/gates")
}

async fn active(client: &Client, target: &Target) -> Result<Vec<DeploymentView>, Failure> {
    let path = format!("{}/deployments", target.path());
    let found: DeploymentsView = client.get(&path).await?;
    let all = found.deployments.into_iter();
    Ok(all.filter(|it| !it.ended).collect())
}

fn nothing(text: &str, target: &Target) -> Problem {
    Problem::new(Code::Conflict, text.to_owned())
        .hint(format!("`skep deployments {}` shows them", target.service))
}

/// Runs `skep pin`.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn pin(args: Pin, session: &Session) -> Result<(), Failure> {
    let Which { service, scope } = &args.which;
    set_pin(session, service.as_deref(), scope, &args.reason).await
}

/// Pins a service.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn set_pin(
    session: &Session,
    service: Option<&str>,
    scope: &Scope,
    reason: &str,
) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, service, scope).await?;
    let request = PinRequest {
        reason: reason.to_owned(),
    };
    let path = format!("{}/pin", target.path());
    let _: ServiceView = client.send(Method::PUT, &path, &request).await?;
    session.out.progress(&format!(
        "pinned {target}: what is new waits until `skep unpin {}`",
        target.service
    ));
    Ok(())
}

/// Runs `skep unpin`.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn unpin(args: Unpin, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = args.which.find(&client).await?;
    let path = format!("{}/pin", target.path());
    let _: ServiceView = client.send(Method::DELETE, &path, &json!({})).await?;
    session.out.progress(&format!("unpinned {target}"));
    Ok(())
}

/// A time in ms since the epoch.
fn moment(text: &str) -> Result<u64, String> {
    let at = humantime::parse_rfc3339_weak(text)
        .or_else(|_| humantime::parse_rfc3339_weak(&format!("{text} 00:00:00")));
    let at = at.map_err(|_| "a time in UTC, like 2026-12-20T00:00:00Z or 2026-12-20".to_owned())?;
    let since = at.duration_since(std::time::UNIX_EPOCH);
    let since = since.map_err(|_| "a time after 1970".to_owned())?;
    u64::try_from(since.as_millis()).map_err(|_| "a time that is nearer".to_owned())
}

fn text(found: &GatesView, now_ms: u64) -> String {
    let mut rows = Vec::new();
    let own = match (&found.project, &found.environment) {
        (Some(project), Some(environment)) => format!("{project}/{environment}"),
        _ => format!("workspace {}", found.workspace),
    };
    rows.extend(lines(&own, &found.own));
    if found.project.is_some() {
        let above = format!("workspace {}", found.workspace);
        rows.extend(lines(&above, &found.workspace_gates));
    }
    let mut text = table::render(
        &["OF", "GATE", "WHEN", "REASON"],
        rows,
        "nothing holds deployments up",
    );
    if let Some(frozen) = &found.frozen {
        let until = utc(frozen.until_ms);
        text.push_str(&format!("\nfrozen until {until} (`{}`)", frozen.name));
    }
    if !found.held.is_empty() {
        text.push_str("\n\n");
        text.push_str(&view::waiting(&found.held, now_ms));
    }
    text
}

fn lines(of: &str, gates: &Gates) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if gates.approval {
        rows.push(vec![
            of.to_owned(),
            "approval".into(),
            "always".into(),
            String::new(),
        ]);
    }
    for freeze in &gates.freezes {
        let when = match &freeze.window {
            Window::Once { from_ms, until_ms } => {
                format!("{} to {}", utc(*from_ms), utc(*until_ms))
            }
            Window::Again {
                schedule,
                time_zone,
                for_ms,
            } => {
                let span = humantime::format_duration(std::time::Duration::from_millis(*for_ms));
                format!("`{schedule}` {time_zone}, for {span}")
            }
        };
        let gate = format!("freeze {}", freeze.name);
        rows.push(vec![of.to_owned(), gate, when, freeze.reason.clone()]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_the_hour() {
        assert_eq!(moment("2026-12-20"), moment("2026-12-20T00:00:00Z"));
        moment("tomorrow").expect_err("no time");
    }

    #[test]
    fn each_gate_is_a_line() {
        let again = Window::Again {
            schedule: "0 16 * * FRI".into(),
            time_zone: "Europe/Berlin".into(),
            for_ms: 62 * 3_600_000,
        };
        let freeze = Freeze {
            name: "weekend".into(),
            window: again,
            reason: "rest".into(),
        };
        let found = GatesView {
            workspace: "default".into(),
            project: Some("shop".into()),
            environment: Some("production".into()),
            own: Gates {
                approval: true,
                freezes: Vec::new(),
            },
            workspace_gates: Gates {
                approval: false,
                freezes: vec![freeze],
            },
            frozen: None,
            held: Vec::new(),
        };
        let text = text(&found, 0);
        for part in [
            "shop/production",
            "approval",
            "workspace default",
            "freeze weekend",
            "`0 16 * * FRI` Europe/Berlin, for 2days 14h",
            "rest",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
