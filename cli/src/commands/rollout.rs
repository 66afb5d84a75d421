//! `skep rollout`: how far a release is that takes over, and pause, resume, promote, abort.

use http::Method;
use skep_control_plane::api::types::{
    ComparedCounts, ComparedView, ReleaseCounts, RolloutProgressView, RolloutRequest, RolloutView,
};
use skep_model::rollout::{Control, Phase};

use crate::failure::Failure;
use crate::output::time;
use crate::session::Session;
use crate::target::{self, Scope};

/// How a release takes over from another
#[derive(Debug, Clone, clap::Subcommand)]
#[command(after_help = "\
How a service's releases take over is said in its skep.toml:
  [rollout]
  strategy = \"canary\"          or \"rolling\", \"blue_green\"
  steps = [{ percent = 10, pause = \"5m\" }, { percent = 50 }]")]
pub(crate) enum Command {
    /// Show how far it is, and what it waits for
    Status(Which),
    /// Start and withdraw nothing more; what is live is repaired all the same
    Pause(Which),
    /// Go on
    Resume(Which),
    /// Do not wait: for the next step, for the traffic to move, or until the old release is let go
    Promote {
        #[command(flatten)]
        which: Which,
        /// All further steps of a canary too
        #[arg(long)]
        full: bool,
    },
    /// Go back to the live release at once; the deployment ends as canceled
    Abort(Which),
}

/// Which service.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Status(which) => status(&which, session).await,
        Command::Pause(which) => control(&which, (Control::Pause, false), session).await,
        Command::Resume(which) => control(&which, (Control::Resume, false), session).await,
        Command::Promote { which, full } => {
            control(&which, (Control::Promote, full), session).await
        }
        Command::Abort(which) => control(&which, (Control::Abort, false), session).await,
    }
}

async fn status(which: &Which, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, which.service.as_deref(), &which.scope).await?;
    let view: RolloutView = client.get(&format!("{}/rollout", target.path())).await?;
    session.out.result(&view, || text(&view, time::now_ms()));
    Ok(())
}

async fn control(
    which: &Which,
    (action, full): (Control, bool),
    session: &Session,
) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, which.service.as_deref(), &which.scope).await?;
    let path = format!("{}/rollout", target.path());
    let request = RolloutRequest {
        action,
        full,
        deployment: None,
    };
    let view: RolloutView = client.send(Method::POST, &path, &request).await?;
    session.out.result(&view, || text(&view, time::now_ms()));
    Ok(())
}

fn text(view: &RolloutView, now_ms: u64) -> String {
    let name = format!("{}/{}/{}", view.project, view.environment, view.service);
    let live = view.live.map(|live| line("live", &live));
    let lines = match &view.rollout {
        None => vec![Some(format!("{name}: nothing is being rolled out")), live],
        Some(rollout) => vec![
            Some(format!("{name}: {}", phase(view, rollout, now_ms))),
            live,
            Some(line("new", &rollout.new)),
            rollout.compared.map(|both| compared(&both)),
            Some(format!("waits for {}", rollout.waits_for)),
        ],
    };
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn line(what: &str, counts: &ReleaseCounts) -> String {
    let serves = if counts.serves {
        ""
    } else {
        ", not in the routes"
    };
    format!(
        "  {what:<5} release {}: {} healthy{serves}",
        counts.release, counts.healthy
    )
}

fn compared(both: &ComparedView) -> String {
    let of = |counts: &ComparedCounts| {
        let slow = counts.latency_p95_ms;
        let slow = slow.map_or_else(String::new, |ms| format!(", 95% within {ms} ms"));
        format!("{} of {} failed{slow}", counts.failed, counts.requests)
    };
    format!(
        "  requests since both serve: new {}; live {}",
        of(&both.new),
        of(&both.live)
    )
}

fn phase(view: &RolloutView, rollout: &RolloutProgressView, now_ms: u64) -> String {
    let since = time::age(rollout.since_ms, now_ms);
    let paused = if rollout.paused { "paused, " } else { "" };
    let phase = match rollout.phase {
        Phase::Rolling => "taking over".to_owned(),
        Phase::Canary { step } => {
            let steps = view.policy.steps.len();
            format!("canary, step {} of {steps}", step + 1)
        }
        Phase::Trial => "on trial beside the live release".to_owned(),
        Phase::Before => "in its release phase".to_owned(),
        Phase::Kept { until_ms } => {
            let left = time::age(until_ms.max(now_ms), now_ms);
            format!("has taken over, the old release is kept for {left}")
        }
    };
    format!("{paused}{phase}, {since}")
}

#[cfg(test)]
mod tests {
    use skep_model::id::{DeploymentId, ServiceId};
    use skep_model::rollout::{CanaryStep, Policy};

    use super::*;

    fn counts(release: u64, serves: bool) -> ReleaseCounts {
        ReleaseCounts {
            release,
            deployment: DeploymentId::from_u128(1),
            healthy: 2,
            serves,
        }
    }

    #[test]
    fn each_phase_is_told_with_what_it_waits_for() {
        let step = CanaryStep {
            percent: 10,
            pause_ms: None,
        };
        let mut view = RolloutView {
            service_id: ServiceId::from_u128(1),
            project: "shop".into(),
            environment: "production".into(),
            service: "web".into(),
            policy: Policy {
                steps: vec![step],
                ..Policy::default()
            },
            live: Some(counts(1, true)),
            rollout: None,
        };
        assert_eq!(
            text(&view, 0),
            "shop/production/web: nothing is being rolled out\n  live  release 1: 2 healthy"
        );
        let mut rollout = RolloutProgressView {
            new: counts(2, false),
            wanted: 2,
            phase: Phase::Trial,
            since_ms: 0,
            paused: true,
            waits_for: "you".into(),
            compared: None,
        };
        for (phase, words) in [
            (Phase::Trial, "paused, on trial beside the live release"),
            (Phase::Rolling, "paused, taking over"),
            (Phase::Canary { step: 0 }, "paused, canary, step 1 of 1"),
            (Phase::Kept { until_ms: 0 }, "paused, has taken over"),
        ] {
            rollout.phase = phase;
            view.rollout = Some(rollout.clone());
            let text = text(&view, 5_000);
            assert!(text.contains(words), "{text}");
            assert!(
                text.contains("new   release 2: 2 healthy, not in the routes\nwaits for you"),
                "{text}"
            );
        }
        let counts = |requests, failed, latency_p95_ms| ComparedCounts {
            requests,
            failed,
            latency_p95_ms,
        };
        rollout.compared = Some(ComparedView {
            new: counts(40, 12, Some(9)),
            live: counts(0, 0, None),
        });
        view.rollout = Some(rollout);
        let text = text(&view, 5_000);
        let line =
            "  requests since both serve: new 12 of 40 failed, 95% within 9 ms; live 0 of 0 failed";
        assert!(text.lines().any(|it| it == line), "{text}");
    }
}
