//! Which lines somebody wants: by time and by a regular expression, matched here so that little is
//! sent. Pure.

use regex::{Regex, RegexBuilder};
use skep_model::problem::{Code, Problem};
use skep_proto::v1;

use super::Request;

/// Longest expression.
const GREP_MAX: usize = 1_024;
/// What an expression may take when it is made ready, in bytes.
const PROGRAM_MAX: usize = 1 << 20;

/// What becomes of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is wanted.
    Take,
    /// It is not.
    Pass,
    /// Nor is any that comes after it.
    Over,
}

/// Judges lines.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    until_ns: u64,
    grep: Option<Regex>,
}

impl Filter {
    /// What a request asks for.
    ///
    /// # Errors
    /// Its expression is none, or too large.
    pub(super) fn new(request: &Request) -> Result<Self, Problem> {
        let wrong = |why: String| {
            Problem::new(Code::Invalid, format!("`grep` cannot be used: {why}"))
                .hint("it is a regular expression; `(?i)` before it ignores case")
        };
        if request.grep.len() > GREP_MAX {
            return Err(wrong(format!("it is longer than {GREP_MAX} bytes")));
        }
        let grep = (!request.grep.is_empty())
            .then(|| {
                let mut builder = RegexBuilder::new(&request.grep);
                builder.size_limit(PROGRAM_MAX).dfa_size_limit(PROGRAM_MAX);
                builder.build()
            })
            .transpose();
        let is_open = request.until_ns == 0;
        Ok(Self {
            until_ns: if is_open { u64::MAX } else { request.until_ns },
            grep: grep.map_err(|error| wrong(error.to_string()))?,
        })
    }

    /// What becomes of a line. What stands for missing lines is always wanted.
    pub(super) fn judge(&self, line: &v1::LogLine) -> Verdict {
        if line.at_ns >= self.until_ns {
            return Verdict::Over;
        }
        match &self.grep {
            Some(grep) if line.lost.is_none() && !grep.is_match(&line.text) => Verdict::Pass,
            _ => Verdict::Take,
        }
    }
}
