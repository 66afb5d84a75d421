//! Variables of services and environments: names, and values that are sealed before they go anywhere.

pub mod reference;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::EnvironmentId;
use crate::problem::Problem;

/// Longest name.
pub const MAX_NAME: usize = 255;
/// Longest value in bytes: Linux refuses an environment string beyond 128 KiB.
pub const MAX_VALUE: usize = 64 << 10;
/// All values of a service together, so that a release fits one command (256 KiB).
pub const MAX_TOTAL: usize = 160 << 10;
/// Variables that Skep itself sets.
pub const RESERVED_PREFIX: &str = "SKEP_";

/// Bytes that only the holder of the cluster's data key can read.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Sealed(pub Vec<u8>);

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// One variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The value.
    pub value: Sealed,
    /// Never shown again by the API.
    pub secret: bool,
}

/// The variables of an environment, to which its services may refer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedVariables {
    /// Whose.
    pub environment: EnvironmentId,
    /// By name.
    pub variables: BTreeMap<String, Variable>,
    /// Raised by every change: the base of compare-and-set.
    pub generation: u64,
}

/// A change to the variables of a service as a user sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VariableInput {
    /// The name: letters, digits and `_`, not beginning with a digit.
    pub name: String,
    /// The value.
    pub value: String,
    /// Never show it again.
    #[serde(default)]
    pub secret: bool,
}

/// Checks the name of a variable.
///
/// # Errors
/// Says what is accepted.
pub fn check_name(name: &str) -> Result<(), Problem> {
    let shown: String = name.chars().take(60).collect();
    let starts_ok = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let chars_ok = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !starts_ok || !chars_ok || name.len() > MAX_NAME {
        return Err(Problem::invalid(
            "name",
            format!("`{}` cannot name a variable", shown.escape_debug()),
        )
        .hint("letters, digits and _, not beginning with a digit"));
    }
    if name.starts_with(RESERVED_PREFIX) || name == "PORT" {
        return Err(
            Problem::invalid("name", format!("`{shown}` is set by Skep itself"))
                .hint("the port is the service's `port`; names beginning with SKEP_ are reserved"),
        );
    }
    Ok(())
}

/// Checks a whole variable.
///
/// # Errors
/// Says which part is not accepted and why.
pub fn check(input: &VariableInput) -> Result<(), Problem> {
    check_name(&input.name)?;
    if input.value.len() > MAX_VALUE {
        return Err(Problem::invalid(
            "value",
            format!(
                "the value of {} has {} bytes",
                input.name,
                input.value.len()
            ),
        )
        .hint(format!(
            "at most {MAX_VALUE}; put larger things into a file of the image"
        )));
    }
    if input.value.contains('\0') {
        return Err(Problem::invalid(
            "value",
            format!("the value of {} contains a NUL byte", input.name),
        ));
    }
    // Whose it is does not matter to how references are written.
    reference::read(&reference::Owner::Shared, &input.value).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for bad in ["", "A=B", "1A", "A B", "PORT", "SKEP_X", "ä"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name("DATABASE_URL").is_ok());
    }
}
