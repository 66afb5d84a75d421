//! What runs around an app: before its release takes over, before each container, before one is stopped.

use serde::{Deserialize, Serialize};

use crate::health::{check_command, check_path};
use crate::problem::Problem;

/// Most commands before a container.
const MAX_INIT: usize = 8;
/// Longest time for a hook, in ms.
const MAX_TIMEOUT_MS: u64 = 86_400_000;

/// Asked of a container that is to end, before its stop signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PreStop {
    /// This command, in the container.
    Exec(Vec<String>),
    /// GET of this path on the app's port.
    Http(String),
}

/// A command that has to end well before the app's own begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// What runs, in a container of its own that is made like the app's.
    pub command: Vec<String>,
    /// When it is given up, in ms.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

const fn default_timeout_ms() -> u64 {
    Init::DEFAULT_TIMEOUT_MS
}

impl Init {
    /// When a hook is given up where nothing is said, in ms.
    pub const DEFAULT_TIMEOUT_MS: u64 = 600_000;
}

/// What runs around an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// Runs once for each new release, before any of its allocations: migrations. The deployment fails
    /// where it fails. Empty: nothing.
    pub release: Vec<String>,
    /// When the release phase is given up, in ms.
    pub release_timeout_ms: u64,
    /// Run one after the other before each container, also where it is restarted.
    pub init: Vec<Init>,
    /// Asked of each container before its stop signal; its time is part of the grace.
    pub pre_stop: Option<PreStop>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            release: Vec::new(),
            release_timeout_ms: default_timeout_ms(),
            init: Vec::new(),
            pre_stop: None,
        }
    }
}

impl Hooks {
    /// Checks every field; `has_port`: the app has a port.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check(&self, has_port: bool) -> Result<(), Problem> {
        if !self.release.is_empty() {
            check_command("hooks.release", &self.release)?;
        }
        check_timeout("hooks.release_timeout_ms", self.release_timeout_ms)?;
        if self.init.len() > MAX_INIT {
            let text = format!("{} are more than {MAX_INIT}", self.init.len());
            return Err(
                Problem::invalid("hooks.init", text).hint("one script can do several things")
            );
        }
        for (index, init) in self.init.iter().enumerate() {
            check_command(&format!("hooks.init[{index}].command"), &init.command)?;
            check_timeout(&format!("hooks.init[{index}].timeout_ms"), init.timeout_ms)?;
        }
        match &self.pre_stop {
            Some(PreStop::Exec(command)) => check_command("hooks.pre_stop", command),
            Some(PreStop::Http(_)) if !has_port => Err(Problem::invalid(
                "hooks.pre_stop",
                "a worker has no port to ask",
            )
            .hint("use `exec`")),
            Some(PreStop::Http(path)) => check_path("hooks.pre_stop", path),
            None => Ok(()),
        }
    }
}

fn check_timeout(field: &str, value: u64) -> Result<(), Problem> {
    if (1_000..=MAX_TIMEOUT_MS).contains(&value) {
        return Ok(());
    }
    Err(Problem::invalid(field, format!("{value} is out of range"))
        .hint(format!("1000 to {MAX_TIMEOUT_MS}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_named() {
        assert_eq!(Hooks::default().check(false), Ok(()));
        let command = || vec!["/app".to_owned(), "migrate".to_owned()];
        let good = Hooks {
            release: command(),
            init: vec![Init {
                command: command(),
                timeout_ms: 1_000,
            }],
            pre_stop: Some(PreStop::Http("/quit".to_owned())),
            ..Hooks::default()
        };
        assert_eq!(good.check(true), Ok(()));
        let init = |command: Vec<String>, timeout_ms| Hooks {
            init: vec![Init {
                command,
                timeout_ms,
            }],
            ..Hooks::default()
        };
        let table = [
            ("hooks.pre_stop", good.clone(), false),
            ("hooks.init[0].command", init(Vec::new(), 1_000), true),
            ("hooks.init[0].timeout_ms", init(command(), 1), true),
            (
                "hooks.release_timeout_ms",
                Hooks {
                    release_timeout_ms: 0,
                    ..Hooks::default()
                },
                true,
            ),
        ];
        for (field, hooks, has_port) in table {
            let problem = hooks.check(has_port).expect_err(field);
            assert_eq!(problem.field.as_deref(), Some(field));
        }
    }
}
