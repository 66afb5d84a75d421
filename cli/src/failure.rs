//! How a command ends when it does not end well: the exit code and the problem to print. The one
//! place where errors of the parts become one; prints nothing itself.

use std::process::ExitCode;

use skep_model::problem::{Code, Problem};

/// What the process says to whoever started it. Documented in `skep --help`: never renumbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The operation failed or was refused.
    Failed = 1,
    /// Wrong usage, or an input that is not accepted.
    Usage = 2,
    /// No server that can answer, or it does not know us.
    Unreachable = 3,
    /// Ctrl-C while following something that goes on without us.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The exit code of an answer of this class.
pub(crate) fn exit_of(code: Code) -> Exit {
    match code {
        Code::Invalid | Code::TooLarge => Exit::Usage,
        Code::Unauthenticated | Code::Unavailable => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

/// A command that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct Failure {
    /// What the process exits with, unless `own` says something else.
    pub(crate) exit: Exit,
    /// What a command that was run for the user exited with: ours, too.
    pub(crate) own: Option<u8>,
    /// The command that was run has said itself what is to be said: nothing more is printed.
    pub(crate) is_told: bool,
    /// What to print.
    pub(crate) problem: Problem,
    /// Lines that help to understand it (the end of a log), printed before the problem.
    pub(crate) context: Vec<String>,
}

impl Failure {
    /// A failure with the exit code that the problem's class stands for.
    pub(crate) fn of(problem: Problem) -> Self {
        Self::with(exit_of(problem.code), problem)
    }

    /// A failure with this exit code.
    pub(crate) fn with(exit: Exit, problem: Problem) -> Self {
        Self {
            exit,
            own: None,
            is_told: false,
            problem,
            context: Vec::new(),
        }
    }

    /// Something that was typed is not accepted.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::of(Problem::new(Code::Invalid, message))
    }

    /// Something that was asked for did not happen.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::with(Exit::Failed, Problem::new(Code::Internal, message))
    }

    /// The same, with the exit code of a command that was run for the user.
    #[must_use]
    pub(crate) fn exiting(mut self, code: u8) -> Self {
        self.own = Some(code);
        self
    }

    /// A command that was run for the user ended with this code, and has said why.
    pub(crate) fn exited(code: u8) -> Self {
        let mut failure = Self::failed(format!("exit code {code}")).exiting(code);
        failure.is_told = true;
        failure
    }

    /// The same, with advice.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem = self.problem.hint(hint);
        self
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::of(problem)
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // Wrappers that repeat their source's text would say everything twice.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let cases = [
            (Code::Invalid, 2),
            (Code::TooLarge, 2),
            (Code::Unauthenticated, 3),
            (Code::Unavailable, 3),
            (Code::Forbidden, 1),
            (Code::NotFound, 1),
            (Code::Conflict, 1),
            (Code::BuildFailed, 1),
            (Code::NeverHealthy, 1),
            (Code::Internal, 1),
        ];
        for (code, exit) in cases {
            assert_eq!(exit_of(code) as u8, exit, "{code:?}");
        }
    }

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("disk full");
        let failure = std::io::Error::other(inner);
        assert_eq!(chain(&failure), "disk full");
    }
}
