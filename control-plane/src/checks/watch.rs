//! One deployment that waits for the checks of its commit: when the forge is asked, and what it said. Pure.

use std::sync::Arc;

use skep_forge::api::{Checks, Colour};
use skep_model::deployment::{Deployment, Origin};
use skep_model::forge::Connection;
use skep_state::State;

use super::Seen;
use crate::deploy::gate::waits_for_checks;

/// Pause between two questions, in ms: at first, and at last.
const FIRST_MS: u64 = 15_000;
const LAST_MS: u64 = 60_000;
/// So long a leader asks before it says that time is over, in ms: what was green waits in a freeze, too.
const GRACE_MS: u64 = 2 * LAST_MS;

/// Whose checks are wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// At whom to ask.
    pub(crate) connection: Arc<Connection>,
    /// `owner/name`.
    pub(crate) repository: String,
    pub(crate) commit: String,
    pub(crate) branch: String,
}

/// What a forge answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This.
    Told(Checks),
    /// Nothing that helps, and why; how long it wants to be left in peace, in ms.
    Nothing(String, Option<u64>),
}

/// What is known of one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    /// As the gate is told.
    pub(crate) seen: Seen,
    /// When it is asked for, ms since the epoch.
    pub(crate) next_ms: u64,
    /// Since when, ms since the epoch.
    since_ms: u64,
    asked: u32,
    /// All was green at the last look, and the branch asks for no check by its name.
    was_green: bool,
    /// How often the forge had told of the commit then.
    heard: u32,
}

impl Watched {
    /// Nothing is known yet.
    pub(crate) fn new(now_ms: u64, heard: u32) -> Self {
        Self {
            seen: Seen::Pending("the forge is asked".to_owned()),
            next_ms: now_ms,
            since_ms: now_ms,
            asked: 0,
            was_green: false,
            heard,
        }
    }

    /// What the gate is told at this moment.
    pub(crate) fn told(&self, now_ms: u64) -> Seen {
        match &self.seen {
            Seen::Pending(why) if now_ms < self.since_ms.saturating_add(GRACE_MS) => {
                Seen::Unknown(why.clone())
            }
            seen => seen.clone(),
        }
    }

    /// The forge told of the commit so often: if it is more than before, it is asked now.
    pub(crate) fn hear(&mut self, heard: u32, now_ms: u64) {
        if heard != self.heard {
            self.heard = heard;
            self.asked = 0;
            // Green is believed at a second look, which this is not.
            if !self.was_green {
                self.next_ms = self.next_ms.min(now_ms);
            }
        }
    }

    /// What was answered at this moment.
    pub(crate) fn learn(&mut self, answer: &Answer, now_ms: u64) {
        let pause = FIRST_MS.saturating_mul(u64::from(self.asked / 4 + 1));
        let mut pause = pause.min(LAST_MS);
        self.asked = self.asked.saturating_add(1);
        self.seen = match answer {
            Answer::Nothing(why, longer) => {
                pause = pause.max(longer.unwrap_or_default());
                Seen::Pending(why.clone())
            }
            Answer::Told(checks) => match checks.colour() {
                Colour::Red(name) => Seen::Red(format!("`{name}`")),
                Colour::Pending(why) => Seen::Pending(why),
                // One that begins late is not there yet.
                Colour::Green if checks.required.is_empty() && !self.was_green => {
                    pause = FIRST_MS;
                    self.was_green = true;
                    self.next_ms = now_ms.saturating_add(pause);
                    let text = "all that there are have ended well; it is looked once more, as the branch asks for none by name";
                    self.seen = Seen::Pending(text.to_owned());
                    return;
                }
                Colour::Green => Seen::Green,
            },
        };
        self.was_green = self.seen == Seen::Green;
        self.next_ms = now_ms.saturating_add(pause);
    }
}

/// What is to be asked for a deployment; none: it does not wait for checks.
///
/// # Errors
/// Nobody can be asked, and what to do about that.
pub(crate) fn wanted(view: &State, deployment: &Deployment) -> Option<Result<Wanted, String>> {
    let service = view.service(deployment.service)?;
    let project = view.environment(service.environment)?.project;
    let workspace = view.project(project)?.workspace;
    let Origin::Git {
        repository,
        branch,
        commit: Some(commit),
        ..
    } = &deployment.origin
    else {
        return None;
    };
    if !waits_for_checks(service, deployment) {
        return None;
    }
    let Some((host, repository)) = skep_forge::place(repository) else {
        return Some(Err("its repository is at no forge".to_owned()));
    };
    let Some(connection) = view.forge(workspace, &host) else {
        return Some(Err(format!(
            "there is no connection to {host}: `skep forge add {host}`"
        )));
    };
    Some(Ok(Wanted {
        connection: Arc::clone(connection),
        repository,
        commit: commit.clone(),
        branch: branch.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_forge::api::Part;
    use skep_model::forge::Kind;

    fn told(required: &str, runs: &str) -> Answer {
        let mut checks = Checks::default();
        let required = format!(
            r#"{{"protection": {{"required_status_checks": {{"contexts": [{required}]}}}}}}"#
        );
        let add = |checks: &mut Checks, part, body: &str| {
            checks
                .add(Kind::GitHub, part, body.as_bytes())
                .expect("read");
        };
        add(&mut checks, Part::Required, &required);
        add(
            &mut checks,
            Part::Runs,
            &format!(r#"{{"check_runs": [{runs}]}}"#),
        );
        Answer::Told(checks)
    }

    const GREEN: &str = r#"{"name": "build", "status": "completed", "conclusion": "success"}"#;
    const RED: &str = r#"{"name": "build", "status": "completed", "conclusion": "timed_out"}"#;
    const RUNS: &str = r#"{"name": "build", "status": "in_progress", "conclusion": null}"#;

    #[test]
    fn green_without_a_list_is_believed_at_the_second_look() {
        let mut watched = Watched::new(0, 0);
        watched.learn(&told("", GREEN), 0);
        assert!(matches!(watched.seen, Seen::Pending(_)), "{watched:?}");
        assert_eq!(watched.next_ms, 15_000);
        // A late one appears between the looks.
        watched.learn(&told("", RUNS), 15_000);
        watched.learn(&told("", GREEN), 30_000);
        assert!(matches!(watched.seen, Seen::Pending(_)), "{watched:?}");
        watched.learn(&told("", GREEN), 45_000);
        assert_eq!(watched.seen, Seen::Green);
        let mut watched = Watched::new(0, 0);
        watched.learn(&told("\"build\"", GREEN), 0);
        assert_eq!(watched.seen, Seen::Green, "the branch asks for it by name");
    }

    #[test]
    fn a_new_leader_does_not_say_at_once_that_time_is_over() {
        let mut watched = Watched::new(1_000, 0);
        watched.learn(&told("", RUNS), 1_000);
        assert!(matches!(watched.told(120_999), Seen::Unknown(_)));
        assert!(matches!(watched.told(121_000), Seen::Pending(_)));
        watched.learn(&told("\"build\"", GREEN), 2_000);
        assert_eq!(watched.told(2_000), Seen::Green);
    }

    #[test]
    fn it_is_asked_ever_less_often_and_at_once_when_the_forge_tells() {
        let mut watched = Watched::new(0, 7);
        let mut pauses = Vec::new();
        for _ in 0..14 {
            let before = watched.next_ms;
            watched.learn(&told("", RUNS), before);
            pauses.push((watched.next_ms - before) / 1_000);
        }
        assert_eq!(pauses[..5], [15, 15, 15, 15, 30]);
        assert_eq!(pauses[12..], [60, 60]);
        let at = watched.next_ms - 50_000;
        watched.hear(7, at);
        assert_eq!(watched.next_ms, at + 50_000);
        watched.hear(8, at);
        assert_eq!(watched.next_ms, at);
        watched.learn(&Answer::Nothing("429".into(), Some(600_000)), at);
        assert_eq!(watched.next_ms, at + 600_000, "left in peace");
        watched.learn(&told("", RED), at);
        assert_eq!(watched.seen, Seen::Red("`build`".into()));
    }
}
