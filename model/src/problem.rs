//! What went wrong, in the one shape that people and programs get everywhere: API answers,
//! deployment reasons, command-line errors.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A stable, machine-readable class of problem. Clients may match on it; never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A field has a value that is not accepted.
    Invalid,
    /// No credentials, or credentials that are not known.
    Unauthenticated,
    /// Known, but not allowed to do this.
    Forbidden,
    /// The thing named does not exist.
    NotFound,
    /// Something with that name exists, or the thing changed since it was read.
    Conflict,
    /// Larger than the limit.
    TooLarge,
    /// A queue or a limit is full: try again later.
    Busy,
    /// No server can answer just now (no leader, shutting down): try again.
    Unavailable,
    /// Not finished within its deadline.
    Timeout,
    /// The source could not be fetched.
    SourceFailed,
    /// The build failed.
    BuildFailed,
    /// The image does not exist or could not be pulled.
    ImageFailed,
    /// No node can take the allocation.
    Unplaceable,
    /// The container exited or could not be started.
    Crashed,
    /// The container runs but never became healthy.
    NeverHealthy,
    /// The runtime (Docker) did not do what it was asked.
    Runtime,
    /// A newer deployment took over, or somebody canceled.
    Canceled,
    /// A fault of Skep itself.
    Internal,
    /// A new release serves worse than the one that it was tried beside.
    Regressed,
}

impl Code {
    /// Every code, in the order of the stored format: append only.
    pub const ALL: [Self; 19] = [
        Self::Invalid,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::TooLarge,
        Self::Busy,
        Self::Unavailable,
        Self::Timeout,
        Self::SourceFailed,
        Self::BuildFailed,
        Self::ImageFailed,
        Self::Unplaceable,
        Self::Crashed,
        Self::NeverHealthy,
        Self::Runtime,
        Self::Canceled,
        Self::Internal,
        Self::Regressed,
    ];

    /// Whether the same request may succeed later without a change.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable | Self::Timeout)
    }
}

/// One problem: what, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The class.
    pub code: Code,
    /// One sentence for a person.
    pub message: String,
    /// The field at fault, as a path (`resources.memory_bytes`), where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What to do, or what is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// A problem with neither field nor hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            hint: None,
        }
    }

    /// A refused field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message).at(field)
    }

    /// The same, naming the field at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The same, with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
