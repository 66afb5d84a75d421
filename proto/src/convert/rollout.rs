//! How a release takes over, and how far that is. The default of either is no message: what was stored
//! before there were phases has the same bytes as a plain rolling update.

use skep_model::rollout::{Analysis, CanaryStep, Phase, Policy, Progress, Promote, Strategy};

use super::{Error, enum_number, enum_value, error};
use crate::v1;
use crate::v1::rollout_progress::Phase as Message;

pub(crate) fn policy_out(policy: &Policy) -> Option<v1::RolloutPolicy> {
    if *policy == Policy::default() {
        return None;
    }
    let steps = policy.steps.iter().map(|step| v1::CanaryStep {
        percent: step.percent,
        pause_ms: step.pause_ms,
    });
    Some(v1::RolloutPolicy {
        strategy: enum_number(&Strategy::ALL, &policy.strategy),
        max_unavailable: policy.max_unavailable,
        promote: enum_number(&Promote::ALL, &policy.promote),
        keep_ms: policy.keep_ms,
        steps: steps.collect(),
        analysis: analysis_out(policy.analysis),
    })
}

fn analysis_out(analysis: Analysis) -> Option<v1::RolloutAnalysis> {
    let Analysis {
        off,
        errors_percent,
        slow_percent,
    } = analysis;
    (analysis != Analysis::default()).then_some(v1::RolloutAnalysis {
        off,
        errors_percent,
        slow_percent,
    })
}

fn analysis_in(message: Option<v1::RolloutAnalysis>) -> Analysis {
    message.map_or_else(Analysis::default, |message| Analysis {
        off: message.off,
        errors_percent: message.errors_percent,
        slow_percent: message.slow_percent,
    })
}

pub(crate) fn policy_in(message: Option<v1::RolloutPolicy>) -> Result<Policy, Error> {
    let Some(message) = message else {
        return Ok(Policy::default());
    };
    let steps = message.steps.into_iter().map(|step| CanaryStep {
        percent: step.percent,
        pause_ms: step.pause_ms,
    });
    Ok(Policy {
        strategy: enum_value("strategy", &Strategy::ALL, message.strategy)?,
        max_unavailable: message.max_unavailable,
        promote: enum_value("promote", &Promote::ALL, message.promote)?,
        keep_ms: message.keep_ms,
        steps: steps.collect(),
        analysis: analysis_in(message.analysis),
    })
}

pub(crate) fn progress_out(progress: &Progress) -> Option<v1::RolloutProgress> {
    (*progress != Progress::default()).then(|| progress.into())
}

pub(crate) fn progress_in(message: Option<v1::RolloutProgress>) -> Result<Progress, Error> {
    let read = message.map(Progress::try_from).transpose()?;
    Ok(read.unwrap_or_default())
}

impl From<&Progress> for v1::RolloutProgress {
    fn from(progress: &Progress) -> Self {
        let phase = match progress.phase {
            Phase::Rolling => Message::Rolling(true),
            Phase::Canary { step } => Message::CanaryStep(step),
            Phase::Trial => Message::Trial(true),
            Phase::Kept { until_ms } => Message::KeptUntilMs(until_ms),
            Phase::Before => Message::Before(true),
        };
        Self {
            phase: Some(phase),
            since_ms: progress.since_ms,
            paused: progress.paused,
        }
    }
}

impl TryFrom<v1::RolloutProgress> for Progress {
    type Error = Error;

    fn try_from(message: v1::RolloutProgress) -> Result<Self, Error> {
        Ok(Self {
            phase: match message.phase.ok_or(error("phase"))? {
                Message::Rolling(_) => Phase::Rolling,
                Message::CanaryStep(step) => Phase::Canary { step },
                Message::Trial(_) => Phase::Trial,
                Message::KeptUntilMs(until_ms) => Phase::Kept { until_ms },
                Message::Before(_) => Phase::Before,
            },
            since_ms: message.since_ms,
            paused: message.paused,
        })
    }
}
