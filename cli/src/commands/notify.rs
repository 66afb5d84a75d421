//! `skep notify`: whom a project tells of its deployments, and what became of that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use http::Method;
use serde_json::{Value, json};
use skep_control_plane::api::types::{
    NotificationState, NotificationView, NotificationsView, OwnRequest, ReceiverRequest,
    ReceiverView, ReceiversView, RetryRequest,
};
use skep_model::notify::Event;
use skep_model::problem::{Code, Problem};

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::folder::App;
use crate::output::table::{self, facts};
use crate::output::time;
use crate::session::Session;
use crate::target::Scope;

const PATH: &str = "/v1/receivers";

/// Tell others how deployments end
#[derive(Debug, Clone, clap::Subcommand)]
#[command(after_help = "\
Examples:
  skep notify add ci https://ci.example.com/hooks/skep --project shop
  skep notify add pager https://pager.example.com/in --event deployment.failed --project shop
  skep notify add cdn https://api.fastly.com/service/ID/purge_all --project shop --service www \\
    --event deployment.live --headers-file headers.txt --body '{}'
  skep notify test ci --project shop
  skep notify show ci --project shop

A receiver gets a POST of JSON for each event of its project's deployments, signed with the secret
that `add` prints as standardwebhooks.com says. What is not answered by 2xx within 10 s is sent
again for a day, under the same `webhook-id`. With --body it gets that in place of Skep's own JSON:
{{event}}, {{status}}, {{project}}, {{environment}}, {{service}}, {{deployment}}, {{release}},
{{commit}}, {{url}} and {{host}} are filled in. In a folder with a skep.toml the project may be left
out.")]
pub(crate) enum Command {
    /// List the receivers of all projects
    #[command(visible_alias = "list")]
    Ls,
    /// Make a receiver; its secret is shown this once
    Add(Add),
    /// Change a receiver: what is not named stays
    Set(Set),
    /// Show a receiver, and what became of what it was told
    Show(Which),
    /// Send a receiver a test, and wait for its answer
    Test(Which),
    /// Send again what has not arrived, now; or one notification, also one that has arrived
    Retry(Retry),
    /// Remove a receiver, and all that waits for it
    #[command(visible_alias = "remove")]
    Rm(Which),
}

/// A receiver.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    /// The receiver
    #[arg(value_name = "NAME")]
    name: String,
    /// Its project [default: of the folder's skep.toml]
    #[arg(long, value_name = "NAME", env = "SKEP_PROJECT")]
    project: Option<String>,
}

/// A new receiver.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Add {
    #[command(flatten)]
    which: Which,
    /// Where notifications are posted: http:// or https://
    #[arg(value_name = "URL")]
    url: String,
    /// What it is told of; repeatable [default: every end of a deployment]
    #[arg(long = "event", value_name = "EVENT", value_parser = event())]
    events: Vec<Event>,
    /// Tell it of this service alone; repeatable [default: all of the project]
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    #[command(flatten)]
    own: Posted,
}

/// What is posted in place of Skep's own JSON.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Posted {
    /// Post this in place of Skep's own JSON; {{service}}, {{environment}}, {{host}} and others are filled in
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// Headers for it from a file, or `-` for stdin: a line each, `Authorization: Bearer ...`
    #[arg(long, value_name = "FILE", requires = "body")]
    headers_file: Option<PathBuf>,
}

/// What is changed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Set {
    #[command(flatten)]
    which: Which,
    /// Where notifications are posted
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// What it is told of from now on; repeatable
    #[arg(long = "event", value_name = "EVENT", value_parser = event())]
    events: Vec<Event>,
    /// Tell it of this service alone from now on; repeatable
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    /// Tell it of all services of the project
    #[arg(long, conflicts_with = "services")]
    all_services: bool,
    #[command(flatten)]
    own: Posted,
    /// Post Skep's own JSON again
    #[arg(long, conflicts_with = "body")]
    no_body: bool,
    /// Switch it on
    #[arg(long, conflicts_with = "off")]
    on: bool,
    /// Tell it nothing new; what waits goes on waiting
    #[arg(long)]
    off: bool,
    /// Replace its secret; the new one is shown this once
    #[arg(long)]
    new_secret: bool,
}

/// What is sent again.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    which: Which,
    /// Id of a notification, as `show` lists it [default: all that have not arrived]
    #[arg(value_name = "ID")]
    id: Option<String>,
}

fn event() -> impl clap::builder::TypedValueParser<Value = Event> {
    PossibleValuesParser::new(Event::CHOICES.map(Event::as_str)).map(|text| {
        let found = Event::CHOICES.into_iter().find(|it| it.as_str() == text);
        found.expect("one of those that are possible")
    })
}

impl Posted {
    /// None: nothing is said of it.
    async fn request(&self) -> Result<Option<OwnRequest>, Failure> {
        let Some(body) = &self.body else {
            return Ok(None);
        };
        let text = match &self.headers_file {
            None => String::new(),
            Some(path) => read(path).await?,
        };
        Ok(Some(OwnRequest {
            headers: headers(&text)?,
            body: Some(body.clone()),
        }))
    }
}

async fn read(path: &Path) -> Result<String, Failure> {
    let text = match path == Path::new("-") {
        true => tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()))
            .await
            .unwrap_or_else(|error| Err(error.into())),
        false => tokio::fs::read_to_string(path).await,
    };
    text.map_err(|error| {
        let text = format!("{} cannot be read: {error}", path.display());
        Failure::of(Problem::invalid("headers-file", text))
    })
}

/// Headers, one a line. Values are secrets: an error shows none.
fn headers(text: &str) -> Result<BTreeMap<String, String>, Failure> {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| match line.split_once(':') {
            Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
            None => {
                let text = format!("line {} is no header", number + 1);
                let problem = Problem::invalid("headers-file", text);
                Err(Failure::of(problem.hint("`Name: value`, one a line")))
            }
        })
        .collect()
}

impl Which {
    /// Its path in the API.
    async fn path(&self) -> Result<String, Failure> {
        let app = App::read(Path::new(".")).await?;
        if self.project.is_none() && app.manifest.is_none() {
            let problem = Problem::invalid("project", "nothing says of which project");
            return Err(Failure::of(problem.hint("--project NAME")));
        }
        let scope = Scope {
            project: self.project.clone(),
            environment: None,
        };
        let project = app.target(&scope, None)?.project;
        let (project, name) = (escape(&project), escape(&self.name));
        Ok(format!("/v1/projects/{project}/receivers/{name}"))
    }
}

/// Runs the command.
///
/// # Errors
/// Not reachable, refused, or a test that did not arrive.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        Command::Ls => {
            let view: ReceiversView = client.get(PATH).await?;
            session.out.result(&view, || receivers(&view.receivers));
        }
        Command::Add(add) => {
            let view = make(&client, &add).await?;
            session.out.result(&view, || receiver(&view));
        }
        Command::Set(set) => {
            let view = change(&client, set).await?;
            session.out.result(&view, || receiver(&view));
        }
        Command::Show(which) => {
            let view = notifications(&client, &which.path().await?).await?;
            let now_ms = time::now_ms();
            session.out.result(&view, || shown(&view, now_ms));
        }
        Command::Test(which) => test(session, &client, &which).await?,
        Command::Retry(retry) => {
            let path = format!("{}/retry", retry.which.path().await?);
            let request = RetryRequest {
                notification: retry.id,
            };
            let view: ReceiverView = client.send(Method::POST, &path, &request).await?;
            session.out.result(&view, || {
                format!("{} wait for {}, and are sent now", view.pending, view.name)
            });
        }
        Command::Rm(which) => {
            let path = which.path().await?;
            let _: Value = client.send(Method::DELETE, &path, &json!({})).await?;
            let name = which.name;
            let text = format!("{name} is told nothing any more");
            session.out.result(&json!({ "removed": name }), || text);
        }
    }
    Ok(())
}

async fn notifications(client: &Client, path: &str) -> Result<NotificationsView, Failure> {
    Ok(client.get(&format!("{path}/notifications")).await?)
}

async fn make(client: &Client, add: &Add) -> Result<ReceiverView, Failure> {
    let path = add.which.path().await?;
    let all: ReceiversView = client.get(PATH).await?;
    let is_this = |one: &ReceiverView| {
        path == format!(
            "/v1/projects/{}/receivers/{}",
            escape(&one.project),
            escape(&one.name)
        )
    };
    if all.receivers.iter().any(is_this) {
        let text = "the project has a receiver of this name";
        let problem = Problem::new(Code::Conflict, text).at("name");
        return Err(problem.hint("`skep notify set` changes it").into());
    }
    let request = ReceiverRequest {
        url: add.url.clone(),
        events: add.events.clone(),
        off: false,
        new_secret: false,
        services: add.services.clone(),
        own: add.own.request().await?,
    };
    Ok(client.send(Method::PUT, &path, &request).await?)
}

async fn change(client: &Client, set: Set) -> Result<ReceiverView, Failure> {
    let path = set.which.path().await?;
    let known = notifications(client, &path).await?.receiver;
    let request = ReceiverRequest {
        url: set.url.unwrap_or(known.url),
        events: match set.events.is_empty() {
            true => known.events,
            false => set.events,
        },
        off: set.off || (known.off && !set.on),
        new_secret: set.new_secret,
        services: match (set.all_services, set.services.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => known.services,
            (false, false) => set.services,
        },
        own: match set.no_body {
            true => Some(OwnRequest {
                headers: BTreeMap::new(),
                body: None,
            }),
            false => set.own.request().await?,
        },
    };
    Ok(client.send(Method::PUT, &path, &request).await?)
}

async fn test(session: &Session, client: &Client, which: &Which) -> Result<(), Failure> {
    let path = format!("{}/test", which.path().await?);
    let view: NotificationView = client.send(Method::POST, &path, &json!({})).await?;
    let name = &which.name;
    if view.state == NotificationState::Delivered {
        let text = format!("{name} has taken {}", view.id);
        session.out.result(&view, || text);
        return Ok(());
    }
    let why = view.last.and_then(|last| last.problem);
    let why = why.unwrap_or_else(|| "no answer yet".to_owned());
    let problem = Problem::new(Code::Unavailable, format!("{name} has not taken it: {why}"));
    let hint = "it is sent again as any other; `skep notify show` tells what becomes of it";
    Err(Failure::with(
        crate::failure::Exit::Failed,
        problem.hint(hint),
    ))
}

fn events(all: &[Event]) -> String {
    let words: Vec<_> = all.iter().map(|event| event.as_str()).collect();
    words.join(", ")
}

fn state(one: &ReceiverView) -> String {
    match (one.off, &one.problem) {
        (false, _) => "on".to_owned(),
        (true, None) => "off".to_owned(),
        (true, Some(why)) => format!("off: {why}"),
    }
}

fn receivers(all: &[ReceiverView]) -> String {
    let row = |one: &ReceiverView| {
        vec![
            one.project.clone(),
            one.name.clone(),
            state(one),
            one.pending.to_string(),
            one.dropped.to_string(),
            one.url.clone(),
        ]
    };
    let columns = ["PROJECT", "RECEIVER", "STATE", "WAITING", "DROPPED", "URL"];
    let empty = "nobody is told: `skep notify add NAME URL --project PROJECT` makes a receiver";
    table::render(&columns, all.iter().map(row).collect(), empty)
}

fn receiver(one: &ReceiverView) -> String {
    let mut rows = vec![
        ("receiver", format!("{}/{}", one.project, one.name)),
        ("url", one.url.clone()),
        ("events", events(&one.events)),
        (
            "services",
            match one.services.is_empty() {
                true => "all".to_owned(),
                false => one.services.join(", "),
            },
        ),
        ("state", state(one)),
    ];
    if one.own {
        rows.push(("posts", "a body and headers of its own".to_owned()));
    }
    if let Some(secret) = &one.secret {
        rows.push(("secret", format!("{secret}   (shown this once)")));
    }
    rows.push(("waiting", one.pending.to_string()));
    if one.dropped > 0 {
        rows.push(("dropped", one.dropped.to_string()));
    }
    facts(&rows)
}

fn shown(view: &NotificationsView, now_ms: u64) -> String {
    let rows = view.notifications.iter().map(|one| row(one, now_ms));
    let columns = [
        "AGE",
        "EVENT",
        "SERVICE",
        "STATE",
        "ATTEMPTS",
        "LAST ANSWER",
        "ID",
    ];
    let list = table::render(&columns, rows.collect(), "it was told nothing yet");
    format!("{}\n\n{list}", receiver(&view.receiver))
}

fn row(one: &NotificationView, now_ms: u64) -> Vec<String> {
    let state = match (one.state, one.next_ms) {
        (NotificationState::Delivered, _) => "delivered".to_owned(),
        (NotificationState::GivenUp, _) => "given up".to_owned(),
        (NotificationState::Pending, Some(at_ms)) if at_ms > now_ms => {
            format!("again in {}", time::age(at_ms, now_ms))
        }
        (NotificationState::Pending, _) => "now".to_owned(),
    };
    let last = one
        .last
        .as_ref()
        .map(|last| match (&last.problem, last.status) {
            (Some(why), _) => why.clone(),
            (None, Some(status)) => status.to_string(),
            (None, None) => "-".to_owned(),
        });
    vec![
        time::age(now_ms, one.at_ms),
        one.event.as_str().to_owned(),
        one.service.clone().unwrap_or_else(|| "-".to_owned()),
        state,
        one.attempts.to_string(),
        last.unwrap_or_else(|| "-".to_owned()),
        one.id.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use skep_control_plane::api::types::AttemptView;

    use super::*;

    #[test]
    fn headers_are_lines_and_no_value_is_shown() {
        let read = headers("Authorization: Bearer a:b\n\nX-Zone:1\n").expect("two");
        assert_eq!(read["Authorization"], "Bearer a:b");
        assert_eq!(read["X-Zone"], "1");
        let Err(failure) = headers("hunter2") else {
            panic!("no header");
        };
        assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    }

    #[test]
    fn what_became_of_a_notification_is_told() {
        let mut one = NotificationView {
            id: "01k.deployment.failed".into(),
            event: Event::Failed,
            at_ms: 1_000,
            service: Some("production/web".into()),
            deployment: None,
            state: NotificationState::Pending,
            attempts: 2,
            next_ms: Some(21_000),
            last: Some(AttemptView {
                at_ms: 10_000,
                status: Some(500),
                problem: Some("500 Internal Server Error".into()),
            }),
        };
        let cells = row(&one, 11_000);
        assert_eq!(
            &cells[..6],
            [
                "10s",
                "deployment.failed",
                "production/web",
                "again in 10s",
                "2",
                "500 Internal Server Error"
            ]
        );
        (one.state, one.next_ms) = (NotificationState::GivenUp, None);
        assert_eq!(row(&one, 11_000)[3], "given up");
        one.state = NotificationState::Delivered;
        one.last = Some(AttemptView {
            at_ms: 10_000,
            status: Some(204),
            problem: None,
        });
        assert_eq!(&row(&one, 11_000)[3..6], ["delivered", "2", "204"]);
    }
}
