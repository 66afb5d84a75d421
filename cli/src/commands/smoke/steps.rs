//! The steps of a smoke test: each is told with its time when it has ended. Knows nothing of what they do.

use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::output::{Output, Style};

/// The longest name, and a blank.
const NAME_WIDTH: usize = 15;

/// A step that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) ok: bool,
    pub(super) duration_ms: u64,
    /// What was seen, or what went wrong.
    pub(super) told: String,
}

/// All steps so far, and the one at hand.
pub(super) struct Steps {
    out: Output,
    begun: Instant,
    done: Vec<Step>,
    current: Option<(&'static str, Instant)>,
}

impl Steps {
    pub(super) fn new(out: Output) -> Self {
        Self {
            out,
            begun: Instant::now(),
            done: Vec::new(),
            current: None,
        }
    }

    /// Does one. What it answers is told by its own words. A step that fails, or is dropped on its way, is closed
    /// by [`Steps::broken`].
    ///
    /// # Errors
    /// Those of the work.
    pub(super) async fn take<T: Display>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.current = Some((name, Instant::now()));
        let seen = work.await?;
        self.close(true, seen.to_string());
        Ok(seen)
    }

    /// The step at hand went wrong.
    pub(super) fn broken(&mut self, failure: &Failure) {
        self.close(false, failure.problem.message.clone());
    }

    /// Says something beside the steps.
    pub(super) fn warn(&self, text: &str) {
        self.out.warning(text);
    }

    /// How long all of it has taken.
    pub(super) fn total_ms(&self) -> u64 {
        millis(self.begun.elapsed())
    }

    pub(super) fn into_done(self) -> Vec<Step> {
        self.done
    }

    fn close(&mut self, ok: bool, told: String) {
        let Some((name, begun)) = self.current.take() else {
            return;
        };
        let step = Step {
            name,
            ok,
            duration_ms: millis(begun.elapsed()),
            told,
        };
        let (style, word) = match ok {
            true => (Style::Good, "ok  "),
            false => (Style::Bad, "FAIL"),
        };
        let line = line(&self.out.styled(style, word), &step);
        self.out.progress(&line);
        self.done.push(step);
    }
}

fn line(word: &str, step: &Step) -> String {
    let seconds = Duration::from_millis(step.duration_ms).as_secs_f64();
    format!(
        "{word}  {:NAME_WIDTH$}{seconds:>6.1} s  {}",
        step.name, step.told
    )
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(steps: Steps) -> Vec<(&'static str, bool, String)> {
        let done = steps.into_done().into_iter();
        done.map(|step| (step.name, step.ok, step.told)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_fails_or_is_dropped_is_told_as_broken() {
        let mut steps = Steps::new(Output::new(true));
        let work = async {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            Ok("seen")
        };
        steps.take("first", work).await.expect("it works");
        let failed = steps.take("second", async { Err::<&str, _>(Failure::failed("no")) });
        let failure = failed.await.expect_err("it fails");
        steps.broken(&failure);
        let never = steps.take("third", std::future::pending::<Result<&str, _>>());
        let dropped = tokio::time::timeout(Duration::from_secs(9), never).await;
        dropped.expect_err("it never ends");
        steps.broken(&Failure::failed("late"));
        // Nothing is at hand: nothing is told twice.
        steps.broken(&Failure::failed("again"));
        assert_eq!(
            line("ok  ", &steps.done[0]),
            "ok    first             1.5 s  seen"
        );
        assert_eq!(steps.total_ms(), 10_500);
        assert_eq!(
            told(steps),
            [
                ("first", true, "seen".to_owned()),
                ("second", false, "no".to_owned()),
                ("third", false, "late".to_owned()),
            ]
        );
    }
}
