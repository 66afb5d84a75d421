//! What the history holds, as the rest of the server sees it. Never touches a database.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest text of one event in bytes; longer ones are cut and say so.
pub const MAX_TEXT: usize = 16 << 10;
/// Most build lines kept of one deployment; a marker says that there were more.
pub const MAX_LINES: u64 = 100_000;

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A step of the deployment's timeline.
    Step,
    /// A line of its build's log.
    Log,
}

impl EventKind {
    /// The word, as stored and as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Log => "log",
        }
    }

    pub(super) fn from_stored(word: &str) -> Self {
        if word == Self::Step.as_str() {
            Self::Step
        } else {
            Self::Log
        }
    }
}

/// One event of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// 1, 2, 3, ... within the deployment: stable, and without a gap.
    pub seq: u64,
    /// When, ms since the epoch.
    pub at_ms: u64,
    /// Step or line.
    pub kind: EventKind,
    /// For a person. A line is as the build wrote it, with what controls a terminal.
    pub text: String,
}

/// Who did what to what, and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// When, ms since the epoch.
    pub at_ms: u64,
    /// Who.
    pub principal: String,
    /// What: `deploy_service`, ...
    pub action: String,
    /// To what: its path below `/v1/`; of a shell also the allocation, its node and the command.
    pub resource: String,
    /// The HTTP status that was answered; of a shell that ended, how.
    pub outcome: String,
}

/// The text as it is stored: bounded, and without the one character that PostgreSQL refuses.
pub(super) fn storable(text: &str) -> String {
    let mut out = text.replace('\0', "\u{fffd}");
    if out.len() > MAX_TEXT {
        const MARK: &str = " ... [cut]";
        let mut end = MAX_TEXT - MARK.len();
        while !out.is_char_boundary(end) {
            end -= 1;
        }
        out.truncate(end);
        out.push_str(MARK);
    }
    out
}
