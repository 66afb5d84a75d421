//! Requests from observed usage: what a user wants done with them.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::spec::MIN_MEMORY_BYTES;

/// What happens with a recommendation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = SizingMode))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It is shown.
    #[default]
    Advise,
    /// It becomes the request of the next allocations.
    Apply,
}

/// Recommended requests: bounds and what becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Sizing {
    /// Shown or applied.
    pub mode: Mode,
    /// Never below, in thousandths of a core.
    pub min_cpu_millis: u32,
    /// Never above, in thousandths of a core.
    pub max_cpu_millis: u32,
    /// Never below, in bytes.
    pub min_memory_bytes: u64,
    /// Never above, in bytes.
    pub max_memory_bytes: u64,
}

impl Default for Sizing {
    fn default() -> Self {
        Self {
            mode: Mode::Advise,
            min_cpu_millis: 25,
            max_cpu_millis: 64_000,
            // Less is seldom the truth: the page cache of a small program alone is more.
            min_memory_bytes: 32 << 20,
            max_memory_bytes: 256 << 30,
        }
    }
}

impl Sizing {
    /// Checks the bounds.
    ///
    /// # Errors
    /// The field at fault, and what is accepted.
    pub fn check(&self) -> Result<(), Problem> {
        let refused = |field: &str, hint: String| {
            Err(Problem::invalid(format!("autoscale.sizing.{field}"), "out of range").hint(hint))
        };
        if self.min_cpu_millis == 0 {
            return refused("min_cpu_millis", "at least 1".into());
        }
        if self.max_cpu_millis < self.min_cpu_millis || self.max_cpu_millis > 1_000_000 {
            let hint = format!("{} (min_cpu_millis) to 1000000", self.min_cpu_millis);
            return refused("max_cpu_millis", hint);
        }
        if self.min_memory_bytes < MIN_MEMORY_BYTES {
            return refused("min_memory_bytes", format!("at least {MIN_MEMORY_BYTES}"));
        }
        if self.max_memory_bytes < self.min_memory_bytes || self.max_memory_bytes > 1 << 50 {
            let hint = format!("{} (min_memory_bytes) to 1 PiB", self.min_memory_bytes);
            return refused("max_memory_bytes", hint);
        }
        Ok(())
    }
}
