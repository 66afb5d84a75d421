//! `skep ca`: the cluster's certificate authority, and replacing it without an outage.

use std::time::Duration;

use http::Method;
use skep_control_plane::api::types::{CaPhase, CaStep, CaView, RotateCaRequest, TrustedCa};
use skep_model::problem::{Code, Problem};

use crate::client::Client;
use crate::context::Contexts;
use crate::failure::Failure;
use crate::output::table;
use crate::session::Session;

/// Between two looks at who is still behind.
const LOOK: Duration = Duration::from_secs(1);
/// Names in the line of text that says who is waited for.
const NAMES_SHOWN: usize = 3;

/// The cluster's certificate authority
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Show the CAs that are trusted, and whom the next step of a replacement would leave behind
    Show,
    /// Replace the CA: three steps, no outage
    #[command(after_help = "\
Examples:
  skep ca rotate --auto
  skep ca rotate --step begin && skep ca rotate --step activate && skep ca show
  skep ca rotate --step finish

begin      a new CA is trusted beside the old one
activate   the new one signs, and everybody renews; tokens and contexts of the old one stay good
finish     the old one is trusted no more: tokens made before are void, other people log in again

A step that would leave a server or a node behind is refused. --auto does what is left of the three,
each as soon as nobody is left behind; it may be stopped and started again at any point.")]
    Rotate(Rotate),
}

/// How far.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Rotate {
    /// The step to do
    #[arg(long, value_name = "STEP", required_unless_present = "auto")]
    step: Option<Step>,
    /// Do all steps that are left, waiting for everybody in between
    #[arg(long, conflicts_with = "step")]
    auto: bool,
    /// Do the step though servers or nodes are left behind: they have to join again
    #[arg(long, requires = "step")]
    force: bool,
    /// With --auto: give up waiting after this long (90s, 15m, 1h, 7d)
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = crate::output::time::parse_span)]
    timeout: Duration,
}

/// A step.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Step {
    Begin,
    Activate,
    Finish,
}

impl From<Step> for CaStep {
    fn from(step: Step) -> Self {
        match step {
            Step::Begin => Self::Begin,
            Step::Activate => Self::Activate,
            Step::Finish => Self::Finish,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Not reachable, refused, or somebody stays behind for too long.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let view = match command {
        Command::Show => client.get("/v1/ca").await?,
        Command::Rotate(Rotate {
            step: Some(step),
            force,
            ..
        }) => rotate(&client, session, step.into(), force).await?,
        Command::Rotate(Rotate { timeout, .. }) => all(&client, session, timeout).await?,
    };
    keep_pin(session, &view)?;
    session.out.result(&view, || text(&view));
    Ok(())
}

async fn rotate(
    client: &Client,
    session: &Session,
    step: CaStep,
    force: bool,
) -> Result<CaView, Failure> {
    let request = RotateCaRequest { step, force };
    let view: CaView = client.send(Method::POST, "/v1/ca/rotate", &request).await?;
    keep_pin(session, &view)?;
    Ok(view)
}

/// Whatever is left to do, one step after the other.
async fn all(client: &Client, session: &Session, timeout: Duration) -> Result<CaView, Failure> {
    let mut view: CaView = client.get("/v1/ca").await?;
    if view.phase == CaPhase::Steady {
        view = rotate(client, session, CaStep::Begin, false).await?;
        session.out.progress("a new CA is trusted");
    }
    if view.phase == CaPhase::Begun {
        wait(client, session, view, timeout).await?;
        view = rotate(client, session, CaStep::Activate, false).await?;
        session.out.progress("the new CA signs");
    }
    wait(client, session, view, timeout).await?;
    // A new connection may be needed for it: the pin of this command still holds until it is done.
    rotate(client, session, CaStep::Finish, false).await
}

async fn wait(
    client: &Client,
    session: &Session,
    mut view: CaView,
    timeout: Duration,
) -> Result<(), Failure> {
    let begun = std::time::Instant::now();
    let mut told = 0;
    while view.waiting_count > 0 {
        if begun.elapsed() > timeout {
            let problem = Problem::new(Code::Timeout, waiting(&view));
            let hint =
                "`skep ca rotate --auto` goes on from here; `skep ca show` names all of them";
            return Err(problem.hint(hint).into());
        }
        if told != view.waiting_count {
            session.out.progress(&waiting(&view));
            told = view.waiting_count;
        }
        tokio::time::sleep(LOOK).await;
        view = client.get("/v1/ca").await?;
    }
    Ok(())
}

fn waiting(view: &CaView) -> String {
    let names = view.waiting_for.iter().take(NAMES_SHOWN);
    let names: Vec<_> = names
        .map(|it| format!("{} ({})", it.name, it.why))
        .collect();
    let more = view.waiting_count - names.len();
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("waiting for {}{rest}", names.join(", "))
}

/// From the moment that the new CA signs it is the one to recognise the cluster by.
fn keep_pin(session: &Session, view: &CaView) -> Result<(), Failure> {
    let Some(signing) = view.trusted.iter().find(|it| it.signs) else {
        return Ok(());
    };
    let known = session.context()?;
    if known.fingerprint == signing.fingerprint {
        return Ok(());
    }
    Contexts::update(|contexts| {
        contexts.keep_fingerprint(&known, &signing.fingerprint);
        Ok(())
    })
}

fn text(view: &CaView) -> String {
    let phase = match view.phase {
        CaPhase::Steady => "nothing is being replaced",
        CaPhase::Begun => "a new CA is trusted, the old one still signs; next: activate",
        CaPhase::Activated => "the new CA signs, the old one is still trusted; next: finish",
    };
    let row = |ca: &TrustedCa| {
        let word = if ca.signs { "signs" } else { "is trusted" };
        vec![ca.fingerprint.clone(), word.to_owned()]
    };
    let cas = view.trusted.iter().map(row).collect();
    let mut text = table::render(&["CA", "ROLE"], cas, "none");
    text = format!("{}\n{phase}", text.trim_end());
    for behind in &view.waiting_for {
        let kind = if behind.is_server { "server" } else { "node" };
        text.push_str(&format!("\n{kind} {}: {}", behind.name, behind.why));
    }
    text
}

#[cfg(test)]
mod tests {
    use skep_control_plane::api::types::WaitingFor;

    use super::*;

    fn view(count: usize) -> CaView {
        let behind = |n: usize| WaitingFor {
            name: format!("n{n}"),
            is_server: n == 0,
            why: "it does not answer".into(),
        };
        CaView {
            phase: CaPhase::Activated,
            trusted: Vec::new(),
            waiting_count: count,
            waiting_for: (0..count).map(behind).collect(),
        }
    }

    #[test]
    fn who_is_waited_for_is_named_and_the_rest_counted() {
        let one = waiting(&view(1));
        assert_eq!(one, "waiting for n0 (it does not answer)");
        assert!(waiting(&view(5)).ends_with("n2 (it does not answer) and 2 more"));
        assert!(
            text(&view(2)).ends_with("server n0: it does not answer\nnode n1: it does not answer")
        );
    }
}
