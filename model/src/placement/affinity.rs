//! Preferences with a weight: for nodes with an attribute, or near another service. Owns the text
//! form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Constraint, as_text, check_key};
use crate::name;
use crate::problem::Problem;

/// Largest weight either way. Weights of one service are added up, never averaged: another
/// preference does not weaken those that are there.
pub const MAX_WEIGHT: i32 = 1_000;

/// What an affinity is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toward {
    /// Nodes that fulfil this.
    Nodes(Constraint),
    /// Nodes where an allocation of this service of the same environment is.
    Service {
        /// Its name.
        service: String,
        /// Near means: the same value of this attribute (`node.name`: the same node).
        on: String,
    },
}

/// A preference: `ssd = true weight 50`, `with cache weight 20`, `with db on host weight -50`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Affinity {
    /// For what.
    pub toward: Toward,
    /// How strong; below 0: rather not there.
    pub weight: i32,
}

as_text!(Affinity);

impl Affinity {
    /// Checks every part.
    ///
    /// # Errors
    /// Says what is accepted.
    pub fn check(&self) -> Result<(), Problem> {
        if self.weight == 0 || self.weight.abs() > MAX_WEIGHT {
            let text = format!("{} is not a weight", self.weight);
            let hint = format!("-{MAX_WEIGHT} to {MAX_WEIGHT}, not 0");
            return Err(Problem::invalid("weight", text).hint(hint));
        }
        match &self.toward {
            Toward::Nodes(constraint) => constraint.check(),
            Toward::Service { service, on } => {
                name::check("service", service)?;
                check_key(on)
            }
        }
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.toward {
            Toward::Nodes(constraint) => write!(f, "{constraint}")?,
            Toward::Service { service, on } if on == "node.name" => write!(f, "with {service}")?,
            Toward::Service { service, on } => write!(f, "with {service} on {on}")?,
        }
        write!(f, " weight {}", self.weight)
    }
}

impl FromStr for Affinity {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let bad = || {
            let text = format!("`{}` is not an affinity", text.escape_debug());
            Problem::invalid("affinity", text).hint(
                "a constraint or `with SERVICE [on ATTRIBUTE]`, then `weight N`: `ssd = true weight 50`",
            )
        };
        let (what, weight) = text.trim().rsplit_once(" weight ").ok_or_else(bad)?;
        let weight = weight.trim().parse().map_err(|_| bad())?;
        let words: Vec<&str> = what.split_whitespace().collect();
        let toward = match words[..] {
            ["with", service] => Toward::Service {
                service: service.to_owned(),
                on: "node.name".to_owned(),
            },
            ["with", service, "on", key] => Toward::Service {
                service: service.to_owned(),
                on: if key == "node" { "node.name" } else { key }.to_owned(),
            },
            _ => Toward::Nodes(what.parse()?),
        };
        let affinity = Self { toward, weight };
        affinity.check()?;
        Ok(affinity)
    }
}
