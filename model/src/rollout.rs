//! How a release takes over from another, and where that stands. Owns the rules of these settings and
//! the order of the phases; when one follows another is the scheduler's part.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Most steps of a canary.
pub const MAX_STEPS: usize = 20;
/// Longest pause of a step, and longest time that an old release is kept, in ms: 30 days.
pub const MAX_WAIT_MS: u64 = 30 * 86_400_000;
/// Most allocations that may be missing at one time.
const MAX_UNAVAILABLE: u32 = crate::spec::MAX_REPLICAS;

/// The three ways in which a release takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = RolloutStrategy))]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Allocation by allocation.
    #[default]
    Rolling,
    /// All of the new release beside all of the old one, then all traffic at once.
    BlueGreen,
    /// A share of allocations first, in steps; then allocation by allocation.
    Canary,
}

impl Strategy {
    /// Every strategy, in the order of the stored format: append only.
    pub const ALL: [Self; 3] = [Self::Rolling, Self::BlueGreen, Self::Canary];
}

/// Who says that the traffic moves to the new release of a blue-green rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Promote {
    /// Nobody: it does once all of the new allocations are healthy.
    #[default]
    Auto,
    /// A person: `skep rollout promote`.
    Manual,
}

impl Promote {
    /// Both, in the order of the stored format: append only.
    pub const ALL: [Self; 2] = [Self::Auto, Self::Manual];
}

/// One step of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CanaryStep {
    /// So many allocations of the new release, in percent of `replicas`, rounded up; they run beside
    /// all of the old ones.
    pub percent: u32,
    /// How long they must have been healthy before the next step, in ms; none: until somebody says so
    /// (`skep rollout promote`).
    #[serde(default)]
    pub pause_ms: Option<u64>,
}

/// When a canary goes back by itself: its requests are compared with those that the live release gets meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = RolloutAnalysis))]
#[serde(deny_unknown_fields, default)]
pub struct Analysis {
    /// Nothing is compared.
    pub off: bool,
    /// So many of 100 requests more than of the live release's may fail: are answered with 5xx, or not at all.
    pub errors_percent: u32,
    /// So many of 100 requests more than of the live release's may be slow: take clearly longer than 95 of 100 of its
    /// do.
    pub slow_percent: u32,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            off: false,
            errors_percent: 1,
            slow_percent: 10,
        }
    }
}

/// How releases of a service take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = RolloutPolicy))]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Which of the three ways.
    pub strategy: Strategy,
    /// While a release takes over allocation by allocation, so many fewer than `replicas` may be
    /// healthy. Where `update.max_surge` is 0 at least 1 is, since an old one stops first.
    pub max_unavailable: u32,
    /// Of `blue_green`: who says that the traffic moves.
    pub promote: Promote,
    /// Of `blue_green`: how long the old allocations are kept after that, in ms, for an instant way
    /// back.
    pub keep_ms: u64,
    /// Of `canary`: its steps.
    pub steps: Vec<CanaryStep>,
    /// Of `canary`: when it goes back by itself.
    pub analysis: Analysis,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            strategy: Strategy::Rolling,
            max_unavailable: 0,
            promote: Promote::Auto,
            // Long enough to see the first errors of real traffic.
            keep_ms: 60_000,
            steps: Vec::new(),
            analysis: Analysis::default(),
        }
    }
}

impl Policy {
    /// Checks every field.
    ///
    /// # Errors
    /// The first that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        let out_of_range = |field: &str, value: u64, most: u64| {
            Problem::invalid(field, format!("{value} is out of range"))
                .hint(format!("at most {most}"))
        };
        if self.max_unavailable > MAX_UNAVAILABLE {
            let (value, most) = (self.max_unavailable.into(), MAX_UNAVAILABLE.into());
            return Err(out_of_range("rollout.max_unavailable", value, most));
        }
        if self.keep_ms > MAX_WAIT_MS {
            return Err(out_of_range("rollout.keep_ms", self.keep_ms, MAX_WAIT_MS));
        }
        let Analysis {
            errors_percent,
            slow_percent,
            ..
        } = self.analysis;
        for (field, percent) in [
            ("rollout.analysis.errors_percent", errors_percent),
            ("rollout.analysis.slow_percent", slow_percent),
        ] {
            if percent > 100 {
                return Err(out_of_range(field, percent.into(), 100));
            }
        }
        if self.steps.len() > MAX_STEPS {
            let count = self.steps.len() as u64;
            return Err(out_of_range("rollout.steps", count, MAX_STEPS as u64));
        }
        if self.strategy == Strategy::Canary && self.steps.is_empty() {
            return Err(
                Problem::invalid("rollout.steps", "a canary has at least one step")
                    .hint("for example steps = [{ percent = 10, pause = \"5m\" }]"),
            );
        }
        let mut before = 0;
        for (index, step) in self.steps.iter().enumerate() {
            let at = |field: &str| format!("rollout.steps[{index}].{field}");
            if step.percent <= before || step.percent > 100 {
                let text = format!("{} is not above {before} and at most 100", step.percent);
                return Err(Problem::invalid(at("percent"), text)
                    .hint("each step has more allocations than the one before"));
            }
            before = step.percent;
            if let Some(pause_ms) = step.pause_ms.filter(|pause| *pause > MAX_WAIT_MS) {
                return Err(out_of_range(&at("pause_ms"), pause_ms, MAX_WAIT_MS));
            }
        }
        Ok(())
    }

    /// What a rollout begins with, its release phase apart. Where nothing serves yet there is nothing to try a release beside.
    pub fn first_phase(&self, has_live: bool) -> Phase {
        match self.strategy {
            Strategy::BlueGreen if has_live => Phase::Trial,
            Strategy::Canary if has_live => Phase::Canary { step: 0 },
            _ => Phase::Rolling,
        }
    }

    /// What follows a phase, begun at `now_ms` (cluster time), beside a live release or with none; none:
    /// the end of the rollout.
    pub fn next_phase(&self, phase: Phase, (has_live, now_ms): (bool, u64)) -> Option<Phase> {
        match phase {
            Phase::Before => Some(self.first_phase(has_live)),
            Phase::Canary { step } => Some(match self.steps.get(step as usize + 1) {
                Some(_) => Phase::Canary { step: step + 1 },
                None => Phase::Rolling,
            }),
            Phase::Trial => Some(Phase::Kept {
                until_ms: now_ms.saturating_add(self.keep_ms),
            }),
            Phase::Rolling | Phase::Kept { .. } => None,
        }
    }

    /// How many allocations of the new release a phase works towards, of so many that are wanted.
    pub fn share(&self, phase: Phase, wanted: u32) -> u32 {
        let step = match phase {
            Phase::Before => return 0,
            Phase::Canary { step } => step,
            Phase::Rolling | Phase::Trial | Phase::Kept { .. } => return wanted,
        };
        let step = self.steps.get(step as usize);
        step.map_or(wanted, |step| {
            let share = (u64::from(wanted) * u64::from(step.percent)).div_ceil(100);
            // At most 100 percent, so it fits.
            u32::try_from(share).unwrap_or(wanted).min(wanted)
        })
    }
}

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = RolloutPhase))]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Phase {
    /// The new release takes the place of the old one, allocation by allocation.
    #[default]
    Rolling,
    /// A share of the new release runs beside all of the old one, and both serve.
    Canary {
        /// Which of the policy's steps, from 0.
        step: u32,
    },
    /// All of the new release runs beside all of the old one, which alone serves.
    Trial,
    /// The new release alone serves; the old one is kept running.
    Kept {
        /// Until this cluster time, ms since the epoch.
        until_ms: u64,
    },
    /// The release phase runs, and nothing of the new release beside it.
    Before,
}

/// A rollout's phase, and whether it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Where it stands.
    pub phase: Phase,
    /// Since when, in cluster time: since its phase began, or since it was resumed; 0: since its
    /// deployment began to roll out.
    pub since_ms: u64,
    /// It starts and withdraws nothing, and no phase follows, until it is resumed.
    pub paused: bool,
}

impl Progress {
    /// What is left once the rollout has ended, well or not: that a release which did not serve goes without a
    /// request.
    #[must_use]
    pub fn ended(self) -> Self {
        let phase = match self.phase {
            Phase::Trial | Phase::Kept { .. } => self.phase,
            _ => Phase::default(),
        };
        Self {
            phase,
            ..Self::default()
        }
    }
}

/// What somebody may want of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = RolloutControl))]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Start and withdraw nothing more; what is live is repaired all the same.
    Pause,
    /// Go on.
    Resume,
    /// Do not wait any longer: for the next step, for the traffic to move, or until the old release is
    /// let go.
    Promote,
    /// Go back to the release that is live, at once.
    Abort,
}

impl Control {
    /// Every one, in the order of the stored format: append only.
    pub const ALL: [Self; 4] = [Self::Pause, Self::Resume, Self::Promote, Self::Abort];

    /// The word, as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::Abort => "abort",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(steps: &[(u32, Option<u64>)]) -> Policy {
        let step = |(percent, pause_ms): &(u32, Option<u64>)| CanaryStep {
            percent: *percent,
            pause_ms: *pause_ms,
        };
        Policy {
            strategy: Strategy::Canary,
            steps: steps.iter().map(step).collect(),
            ..Policy::default()
        }
    }

    #[test]
    fn each_bound_is_named() {
        assert_eq!(Policy::default().check(), Ok(()));
        assert_eq!(canary(&[(10, None), (100, Some(1))]).check(), Ok(()));
        let table = [
            (canary(&[]), "rollout.steps"),
            (canary(&[(0, None)]), "rollout.steps[0].percent"),
            (canary(&[(101, None)]), "rollout.steps[0].percent"),
            (
                canary(&[(20, None), (20, None)]),
                "rollout.steps[1].percent",
            ),
            (
                canary(&[(20, Some(MAX_WAIT_MS + 1))]),
                "rollout.steps[0].pause_ms",
            ),
            (
                Policy {
                    keep_ms: MAX_WAIT_MS + 1,
                    ..Policy::default()
                },
                "rollout.keep_ms",
            ),
            (
                Policy {
                    max_unavailable: MAX_UNAVAILABLE + 1,
                    ..Policy::default()
                },
                "rollout.max_unavailable",
            ),
            (
                Policy {
                    analysis: Analysis {
                        slow_percent: 101,
                        ..Analysis::default()
                    },
                    ..Policy::default()
                },
                "rollout.analysis.slow_percent",
            ),
        ];
        for (policy, field) in table {
            let problem = policy.check().expect_err(field);
            assert_eq!(problem.field.as_deref(), Some(field));
        }
    }

    #[test]
    fn phases_follow_each_other_to_the_end() {
        let two = canary(&[(10, None), (50, None)]);
        let blue_green = Policy {
            strategy: Strategy::BlueGreen,
            keep_ms: 5,
            ..Policy::default()
        };
        let all = |policy: &Policy| {
            let first = policy.first_phase(true);
            std::iter::successors(Some(first), |phase| policy.next_phase(*phase, (true, 100)))
                .collect::<Vec<_>>()
        };
        let canary = |step| Phase::Canary { step };
        assert_eq!(all(&two), [canary(0), canary(1), Phase::Rolling]);
        assert_eq!(
            all(&blue_green),
            [Phase::Trial, Phase::Kept { until_ms: 105 }]
        );
        assert_eq!(all(&Policy::default()), [Phase::Rolling]);
        let after = |has_live| two.next_phase(Phase::Before, (has_live, 100));
        assert_eq!(
            (after(true), after(false)),
            (Some(canary(0)), Some(Phase::Rolling))
        );
        assert_eq!(two.first_phase(false), Phase::Rolling);
        assert_eq!(blue_green.first_phase(false), Phase::Rolling);
    }

    #[test]
    fn a_share_is_rounded_up_and_never_more_than_all() {
        let policy = canary(&[(10, None), (34, None), (100, None)]);
        let shares = |wanted| [0, 1, 2, 9].map(|step| policy.share(Phase::Canary { step }, wanted));
        assert_eq!(shares(3), [1, 2, 3, 3]);
        assert_eq!(shares(100), [10, 34, 100, 100]);
        assert_eq!(shares(0), [0, 0, 0, 0]);
        assert_eq!(policy.share(Phase::Trial, 7), 7);
        assert_eq!(policy.share(Phase::Before, 7), 0);
    }
}
