//! How a service runs: kept running, once on every node, to completion, or to completion by the
//! clock. Owns the rules of these settings; when a schedule is due is `schedule`'s part.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::schedule::{MAX_EXPRESSION, MAX_TIME_ZONE, Schedule, UTC};

/// Most further attempts of a job that failed.
pub const MAX_RETRIES: u32 = 100;
/// Longest deadline of a job, in ms: 30 days.
pub const MAX_DEADLINE_MS: u64 = 30 * 86_400_000;
/// Longest pause between attempts, in ms.
pub const MAX_BACKOFF_MS: u64 = 86_400_000;
/// Oldest scheduled time that may still be run, in ms.
pub const MAX_CATCH_UP_MS: u64 = 7 * 86_400_000;

/// The four ways in which a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = RunMode))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// `replicas` allocations, kept running.
    #[default]
    Service,
    /// One allocation on every node that may take it, kept running.
    System,
    /// A job for each deployment, run to completion.
    Batch,
    /// A job for each time of a schedule, run to completion.
    Cron,
}

impl Mode {
    /// Every mode, in the order of the stored format: append only.
    pub const ALL: [Self; 4] = [Self::Service, Self::System, Self::Batch, Self::Cron];

    /// Whether it runs jobs, and nothing beside them.
    pub const fn runs_jobs(self) -> bool {
        matches!(self, Self::Batch | Self::Cron)
    }

    /// The word, as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::System => "system",
            Self::Batch => "batch",
            Self::Cron => "cron",
        }
    }
}

/// What happens to a job that is due while another one of the service has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Both run.
    Allow,
    /// Never two at once: a scheduled one is left out, any other waits.
    #[default]
    Forbid,
    /// The older one is stopped; the newer starts once it has ended.
    Replace,
}

impl Overlap {
    /// Every policy, in the order of the stored format: append only.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Forbid, Self::Replace];
}

/// How a service runs. All but `mode` are for jobs: of `batch`, `cron`, and (retries apart) of
/// `skep run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Which of the four ways.
    pub mode: Mode,
    /// Further attempts after the first one failed. A lost node counts as a failed attempt.
    pub retries: u32,
    /// Time for a job from its creation to its end, all attempts together, in ms; 0: no limit.
    pub deadline_ms: u64,
    /// Pause before the second attempt, in ms; doubles with each.
    pub backoff_ms: u64,
    /// Longest pause between attempts, in ms.
    pub max_backoff_ms: u64,
    /// When a cron service is due: five fields, six with seconds first, or `@daily` and the like.
    pub schedule: Option<String>,
    /// IANA name of the time zone of `schedule`.
    pub time_zone: String,
    /// What happens when a job is due while another has not ended.
    pub overlap: Overlap,
    /// A scheduled time that nobody could serve (no leader, clock set ahead) is made up for once,
    /// when it is not older than this, in ms; else it is left out and noted.
    pub catch_up_ms: u64,
    /// No job is made of the schedule (`skep cron pause`).
    pub paused: bool,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            mode: Mode::Service,
            retries: 0,
            deadline_ms: 0,
            backoff_ms: 5_000,
            max_backoff_ms: 300_000,
            schedule: None,
            time_zone: UTC.to_owned(),
            overlap: Overlap::Forbid,
            // Longer than a change of leaders or an upgrade takes, shorter than most periods.
            catch_up_ms: 600_000,
            paused: false,
        }
    }
}

impl Run {
    /// Checks what every version of Skep agrees on: bounds and what belongs together. Used where
    /// commands are applied, so it must never depend on a library's or a time zone's version.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        most(
            "run.retries",
            u64::from(self.retries),
            u64::from(MAX_RETRIES),
        )?;
        most("run.deadline_ms", self.deadline_ms, MAX_DEADLINE_MS)?;
        most("run.max_backoff_ms", self.max_backoff_ms, MAX_BACKOFF_MS)?;
        most("run.backoff_ms", self.backoff_ms, self.max_backoff_ms)?;
        most("run.catch_up_ms", self.catch_up_ms, MAX_CATCH_UP_MS)?;
        if self.time_zone.is_empty() || self.time_zone.len() > MAX_TIME_ZONE {
            return Err(Problem::invalid("run.time_zone", "not a time zone")
                .hint("a name of the IANA list, for example Europe/Berlin or UTC"));
        }
        match (&self.schedule, self.mode) {
            (None, Mode::Cron) => Err(Problem::invalid("run.schedule", "a cron service needs one")
                .hint("for example `30 2 * * *`")),
            (Some(text), Mode::Cron) if text.len() > MAX_EXPRESSION => Err(Problem::invalid(
                "run.schedule",
                format!("longer than {MAX_EXPRESSION} bytes"),
            )),
            (Some(_), Mode::Service | Mode::System | Mode::Batch) => Err(Problem::invalid(
                "run.schedule",
                format!("a service of the mode `{}` has none", self.mode.as_str()),
            )
            .hint("set `run.mode` to `cron`, or leave the schedule out")),
            _ => Ok(()),
        }
    }

    /// The same, and that the schedule means something: for what people say, before it is proposed.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check_given(&self) -> Result<(), Problem> {
        self.check()?;
        self.parse_schedule().map(|_| ())
    }

    /// The schedule, ready to be asked; none: there is none.
    ///
    /// # Errors
    /// It is not understood.
    pub fn parse_schedule(&self) -> Result<Option<Schedule>, Problem> {
        let text = self.schedule.as_deref().filter(|_| self.mode == Mode::Cron);
        text.map(|text| Schedule::parse(text, &self.time_zone))
            .transpose()
    }

    /// Pause before the attempt after `failed` ones, in ms: `backoff_ms`, doubled for each beyond the
    /// first, at most `max_backoff_ms`.
    pub fn pause_ms(backoff_ms: u64, max_backoff_ms: u64, failed: u32) -> u64 {
        let factor = 2_u64
            .checked_pow(failed.saturating_sub(1))
            .unwrap_or(u64::MAX);
        backoff_ms.saturating_mul(factor).min(max_backoff_ms)
    }
}

fn most(field: &str, value: u64, high: u64) -> Result<(), Problem> {
    if value <= high {
        return Ok(());
    }
    Err(Problem::invalid(field, format!("{value} is out of range")).hint(format!("0 to {high}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_names_its_field() {
        let cron = || Run {
            mode: Mode::Cron,
            schedule: Some("@daily".into()),
            ..Run::default()
        };
        assert_eq!(Run::default().check_given(), Ok(()));
        assert_eq!(cron().check_given(), Ok(()));
        let broken = [
            (
                "run.retries",
                Run {
                    retries: 101,
                    ..cron()
                },
            ),
            (
                "run.deadline_ms",
                Run {
                    deadline_ms: u64::MAX,
                    ..cron()
                },
            ),
            (
                "run.backoff_ms",
                Run {
                    backoff_ms: 300_001,
                    ..cron()
                },
            ),
            (
                "run.max_backoff_ms",
                Run {
                    max_backoff_ms: u64::MAX,
                    ..cron()
                },
            ),
            (
                "run.catch_up_ms",
                Run {
                    catch_up_ms: u64::MAX,
                    ..cron()
                },
            ),
            (
                "run.schedule",
                Run {
                    schedule: None,
                    ..cron()
                },
            ),
            (
                "run.schedule",
                Run {
                    mode: Mode::Batch,
                    ..cron()
                },
            ),
            (
                "run.schedule",
                Run {
                    schedule: Some("no".into()),
                    ..cron()
                },
            ),
            (
                "run.time_zone",
                Run {
                    time_zone: String::new(),
                    ..cron()
                },
            ),
            (
                "run.time_zone",
                Run {
                    time_zone: "Nowhere".into(),
                    ..cron()
                },
            ),
        ];
        for (field, run) in broken {
            let problem = run.check_given().expect_err(field);
            assert_eq!(problem.field.as_deref(), Some(field));
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<u64> = (1..=5)
            .map(|failed| Run::pause_ms(100, 700, failed))
            .collect();
        assert_eq!(pauses, [100, 200, 400, 700, 700]);
        assert_eq!(Run::pause_ms(1, 9, 1_000), 9);
    }
}
