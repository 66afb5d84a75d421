//! When a service that fails is left alone for a while.

use serde::{Deserialize, Serialize};

use super::check::within;
use crate::problem::Problem;

/// Long enough for most restarts, short enough for the people who wait.
const DEFAULT_OPEN_MS: u32 = 10_000;

/// The share of requests that fail, in the last ten seconds, above which no more are sent for a time. Then
/// ever more are again, for as long; and where the share is still above it, none once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreaker {
    /// Requests without an answer of the service, in percent: 502 and 504.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_error_percent: Option<u32>,
    /// Answers of 500 and above, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_5xx_percent: Option<u32>,
    /// How long nothing is sent, in milliseconds.
    pub open_ms: u32,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            network_error_percent: None,
            response_5xx_percent: None,
            open_ms: DEFAULT_OPEN_MS,
        }
    }
}

impl CircuitBreaker {
    pub(super) fn check(&self) -> Result<(), Problem> {
        let shares = [
            ("network_error_percent", self.network_error_percent),
            ("response_5xx_percent", self.response_5xx_percent),
        ];
        if shares.iter().all(|(_, share)| share.is_none()) {
            return Err(
                Problem::invalid("circuit_breaker", "nothing would ever open it")
                    .hint("say `network_error_percent`, `response_5xx_percent` or both"),
            );
        }
        for (name, share) in shares {
            let share = share.map_or(1, u64::from);
            within(&format!("circuit_breaker.{name}"), share, 1, 99)?;
        }
        let open_ms = u64::from(self.open_ms);
        within("circuit_breaker.open_ms", open_ms, 100, 600_000)
    }
}
