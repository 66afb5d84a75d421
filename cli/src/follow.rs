//! A deployment as it happens: its steps and build log, live, through lost connections, to its end
//! and one real request. Changes nothing about it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use skep_control_plane::api::types::{
    AllocationsView, DeploymentRequest, DeploymentView, Event, EventKind, ServiceView,
};
use skep_model::deployment::{Origin, Status};
use skep_model::id::DeploymentId;
use skep_model::problem::{Code, Problem};

use crate::client::{self, Client};
use crate::failure::{Exit, Failure};
use crate::output::{Output, Style};
use crate::probe::{self, Answer};
use crate::session::Session;
use crate::target::Target;
use crate::upload;

/// Lines of the build log that are repeated beside the reason of a failure.
const TAIL: usize = 20;
/// Connections in a row that bring nothing before following is given up.
const ATTEMPTS: u32 = 60;
/// Pauses between them.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a deployment may take to notice that its upload broke off.
const NOTICE: Duration = Duration::from_secs(15);
/// What a step of a deployment that waits begins with.
const WAITING: &str = "waiting: ";
/// The last event of a stream.
const END: &str = "end";
/// The log cannot be read just now; the stream goes on.
const PROBLEM: &str = "problem";

/// A deployment to be made.
pub(crate) struct Order {
    /// Of which service.
    pub(crate) target: Target,
    /// From what.
    pub(crate) request: DeploymentRequest,
    /// What to upload, where it is a folder.
    pub(crate) folder: Option<PathBuf>,
    /// Stay until it has ended.
    pub(crate) wait: bool,
    /// Build even where there is an image of the same source.
    pub(crate) no_cache: bool,
    /// What is said to the gates of the environment.
    pub(crate) gate: Gate,
}

/// What whoever deploys says to the gates of an environment.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Gate {
    /// Approve it too, where the environment asks for that
    #[arg(long)]
    approve: bool,
    /// Begin it in a freeze too
    #[arg(long, requires = "approve")]
    despite_freeze: bool,
}

impl Order {
    /// Where it is sent.
    fn path(&self) -> String {
        let said = [
            (self.no_cache, "no_cache=true"),
            (self.gate.approve, "approve=true"),
            (self.gate.despite_freeze, "despite_freeze=true"),
        ];
        let said = said.iter().filter(|(is_said, _)| *is_said);
        let said: Vec<&str> = said.map(|(_, text)| *text).collect();
        let question = if said.is_empty() { "" } else { "?" };
        format!(
            "{}/deployments{question}{}",
            self.target.path(),
            said.join("&")
        )
    }
}

/// Makes a deployment and follows it to its end.
///
/// # Errors
/// Refused, or it did not become live: with its reason and the last lines of the log.
pub(crate) async fn deploy(
    session: &Session,
    client: &Client,
    order: Order,
) -> Result<(), Failure> {
    let path = order.path();
    let made: DeploymentView = client.send(Method::POST, &path, &order.request).await?;
    if !order.wait {
        session.out.result(&made, || {
            format!(
                "deployment {} is {}; `skep deployments` tells how it goes",
                made.id,
                made.status.as_str()
            )
        });
        return Ok(());
    }
    attach(session, client, &made, order.folder).await
}

/// Follows a deployment that exists to its end; sends `folder` where it waits for one.
///
/// # Errors
/// It did not become live: with its reason and the last lines of the log.
pub(crate) async fn attach(
    session: &Session,
    client: &Client,
    made: &DeploymentView,
    folder: Option<PathBuf>,
) -> Result<(), Failure> {
    let mut follower = Follower::new(client, session.out, made.id);
    let view = tokio::select! {
        view = follower.run_to_end(made, folder) => view?,
        _ = tokio::signal::ctrl_c() => return Err(interrupted(made)),
    };
    conclude(session, client, &view, follower.tail).await
}

/// Follows a deployment that exists to its end without a word of how it goes; sends `folder` where it waits for one.
/// Who drops this stops to look.
///
/// # Errors
/// It did not become live, or waits for somebody's yes: with its reason and the last lines of the log.
pub(crate) async fn quietly(
    client: &Client,
    out: Output,
    (made, folder): (&DeploymentView, Option<PathBuf>),
) -> Result<DeploymentView, Failure> {
    let mut follower = Follower::new(client, out.quietly(), made.id);
    let view = follower.run_to_end(made, folder).await?;
    match view.status {
        Status::Live => Ok(view),
        _ => Err(explain(client, &view, follower.tail).await),
    }
}

/// Follows a deployment that exists to its end, as one step of several: it is no result of its own.
///
/// # Errors
/// It did not become live: with its reason and the last lines of the log.
pub(crate) async fn settle(
    session: &Session,
    client: &Client,
    made: &DeploymentView,
) -> Result<(), Failure> {
    let mut follower = Follower::new(client, session.out, made.id);
    let view = tokio::select! {
        view = follower.run() => view?,
        _ = tokio::signal::ctrl_c() => return Err(interrupted(made)),
    };
    match view.status {
        // It goes on when it is let through.
        _ if view.held => {
            warn_held(session, &view);
            Ok(())
        }
        // A newer one has the same configuration, or a newer one.
        Status::Live | Status::Superseded => Ok(()),
        _ => Err(explain(client, &view, follower.tail).await),
    }
}

/// It waits for others, not for this terminal.
fn warn_held(session: &Session, view: &DeploymentView) {
    if let Some(why) = &view.problem {
        session.out.warning(&format!("not begun yet: {why}"));
    }
}

fn interrupted(made: &DeploymentView) -> Failure {
    let message = match made.origin {
        Origin::Upload { .. } => "stopped; if the folder was not sent yet, the deployment fails",
        _ => "stopped following; the deployment goes on",
    };
    let problem = Problem::new(Code::Canceled, message)
        .hint(format!("`skep deployments {}`", Target::from(made)));
    Failure::with(Exit::Interrupted, problem)
}

/// Follows one deployment.
struct Follower<'a> {
    client: &'a Client,
    out: Output,
    deployment: DeploymentId,
    /// Sequence number of the last event that was printed; 0: none yet.
    shown: u64,
    tail: VecDeque<String>,
}

impl<'a> Follower<'a> {
    fn new(client: &'a Client, out: Output, deployment: DeploymentId) -> Self {
        Self {
            client,
            out,
            deployment,
            shown: 0,
            tail: VecDeque::new(),
        }
    }

    /// Follows, and sends the folder of a deployment that waits for one.
    async fn run_to_end(
        &mut self,
        made: &DeploymentView,
        folder: Option<PathBuf>,
    ) -> Result<DeploymentView, Failure> {
        match (folder, &made.origin) {
            (Some(folder), Origin::Upload { upload }) => {
                let path = format!("/v1/uploads/{upload}");
                let sending = upload::send(self.client, &path, folder);
                self.run_with_upload(sending).await
            }
            _ => self.run().await,
        }
    }

    /// Follows while the folder is sent. A broken upload ends the deployment.
    async fn run_with_upload(
        &mut self,
        sending: impl Future<Output = Result<(), Failure>>,
    ) -> Result<DeploymentView, Failure> {
        let mut sending = std::pin::pin!(sending);
        let (client, path) = (self.client, format!("/v1/deployments/{}", self.deployment));
        let mut following = std::pin::pin!(self.run());
        let sent = tokio::select! {
            view = &mut following => return view,
            sent = &mut sending => sent,
        };
        let Err(failure) = sent else {
            return following.await;
        };
        // The building node may know a better reason: a folder that it refused, a full disk.
        if let Ok(view) = tokio::time::timeout(NOTICE, &mut following).await {
            return view;
        }
        // Nobody may ever come for the folder.
        let canceled: Result<DeploymentView, _> = client
            .send(
                Method::POST,
                &format!("{path}/cancel"),
                &serde_json::json!({}),
            )
            .await;
        drop(canceled);
        Err(failure)
    }

    async fn run(&mut self) -> Result<DeploymentView, Failure> {
        let mut pause = PAUSE_MIN;
        let mut attempts = 0;
        let path = format!("/v1/deployments/{}", self.deployment);
        loop {
            let before = self.shown;
            match self.read(&path).await {
                Ok(Some(view)) => return Ok(view),
                Ok(None) => {}
                Err(error) if error.is_passing() && attempts + 1 < ATTEMPTS => {}
                Err(error) => return Err(error.into()),
            }
            if self.shown != before {
                (pause, attempts) = (PAUSE_MIN, 0);
            }
            attempts += 1;
            if attempts == ATTEMPTS {
                let problem =
                    Problem::new(Code::Unavailable, "the deployment's log cannot be followed")
                        .hint("it goes on without this terminal: `skep deployments`");
                return Err(problem.into());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Prints one stream, to the deployment's end or to where it waits for others; none: the stream broke off.
    async fn read(&mut self, path: &str) -> Result<Option<DeploymentView>, client::Error> {
        let behind = (self.shown > 0).then(|| self.shown.to_string());
        let logs = format!("{path}/logs");
        let mut events = self.client.events(&logs, behind.as_deref()).await?;
        // A stream that breaks is simply opened again, behind what has been printed.
        while let Ok(Some(event)) = events.next().await {
            match event.kind.as_str() {
                END => return Ok(Some(self.client.get(path).await?)),
                PROBLEM => {
                    if let Ok(problem) = serde_json::from_str::<Problem>(&event.data) {
                        self.out.warning(&problem.to_string());
                    }
                }
                _ => {
                    // Each event comes once. Numbers may begin anew where the log is read at another
                    // server, so they say nothing but where to go on.
                    if let Ok(line) = serde_json::from_str::<Event>(&event.data) {
                        self.shown = line.seq;
                        self.show(&line);
                        if line.kind == EventKind::Step && line.text.starts_with(WAITING) {
                            let view: DeploymentView = self.client.get(path).await?;
                            if view.held && view.problem.is_some() {
                                return Ok(Some(view));
                            }
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    fn show(&mut self, event: &Event) {
        match event.kind {
            EventKind::Step => {
                let arrow = self.out.styled(Style::Strong, "==>");
                self.out.progress(&format!("{arrow} {}", event.text));
            }
            EventKind::Log => {
                self.out.progress(&format!("    {}", event.text));
                if self.tail.len() == TAIL {
                    self.tail.pop_front();
                }
                self.tail.push_back(event.text.clone());
            }
        }
    }
}

/// Says how it ended. A live one has to answer a real request first.
async fn conclude(
    session: &Session,
    client: &Client,
    view: &DeploymentView,
    tail: VecDeque<String>,
) -> Result<(), Failure> {
    if view.held && !view.ended {
        let why = view.problem.as_ref().map(ToString::to_string);
        session.out.result(view, || {
            format!("not begun yet: {}", why.unwrap_or_default())
        });
        return Ok(());
    }
    match view.status {
        Status::Live => {}
        // Its end is not its failure: a newer one serves.
        Status::Superseded | Status::RolledBack if view.problem.is_none() => {
            let message = format!("the deployment is {} already", view.status.as_str());
            return Err(Failure::with(
                Exit::Failed,
                Problem::new(Code::Canceled, message),
            ));
        }
        _ => return Err(explain(client, view, tail).await),
    }
    let out = session.out;
    if let Some(url) = view.urls.first() {
        answer(client, view, url, out).await?;
    }
    let what = match view.release {
        Some(release) => format!("release {release} is live"),
        None => "live".to_owned(),
    };
    out.result(view, || {
        let done = format!("{} {what}", out.styled(Style::Good, "done:"));
        match view.urls.first() {
            Some(url) => format!("{done}\n{}", out.styled(Style::Strong, url)),
            None => done,
        }
    });
    Ok(())
}

async fn answer(
    client: &Client,
    view: &DeploymentView,
    url: &str,
    out: Output,
) -> Result<(), Failure> {
    if url.starts_with("https:") {
        // Its certificate may come later than the release: the browser will tell.
        return Ok(());
    }
    match probe::ask(url).await {
        Answer::App(status) => {
            out.progress(&format!(
                "{} {url} answers {status}",
                out.styled(Style::Strong, "==>")
            ));
            Ok(())
        }
        Answer::None(why) => {
            let service: ServiceView = client.get(&Target::from(view).path()).await?;
            if service.allocations.wanted == 0 {
                out.warning("the service has no allocations: `skep scale` gives it some");
                return Ok(());
            }
            let message = format!("it is live, but {url} does not answer: {why}");
            Err(Failure::with(
                Exit::Failed,
                Problem::new(Code::Unavailable, message)
                    .hint("does the name lead to the ingress, and does `skep ps` show it healthy?"),
            ))
        }
    }
}

/// Why it did not become live, with what helps to understand it.
async fn explain(client: &Client, view: &DeploymentView, tail: VecDeque<String>) -> Failure {
    let ended = view.status.as_str();
    let problem = view.problem.clone().unwrap_or_else(|| {
        Problem::new(
            Code::Internal,
            format!("the deployment is {ended}, and gives no reason"),
        )
    });
    let is_from_app = matches!(
        problem.code,
        Code::Crashed | Code::NeverHealthy | Code::Runtime
    );
    let written = if is_from_app {
        written_by_app(client, view).await
    } else {
        Vec::new()
    };
    let context = if written.is_empty() && !is_from_app {
        tail.into()
    } else {
        written
    };
    let message = format!("deployment {ended}: {}", problem.message);
    // The problem's own class says what failed there, not how this command went.
    Failure {
        own: None,
        context,
        ..Failure::with(Exit::Failed, Problem { message, ..problem })
    }
}

async fn written_by_app(client: &Client, view: &DeploymentView) -> Vec<String> {
    let path = format!("/v1/allocations?{}&all=true", Target::from(view).query());
    let Ok(allocations) = client.get::<AllocationsView>(&path).await else {
        return Vec::new();
    };
    let mut mine = allocations
        .allocations
        .iter()
        .filter(|it| it.deployment == view.id);
    let newest = mine.rfind(|it| !it.log_tail.is_empty());
    newest.map_or(Vec::new(), |it| {
        it.log_tail.lines().map(str::to_owned).collect()
    })
}
