//! Stacks: what a Compose file in a repository means for an environment. Pure: `understand` reads a file out of what a
//! node has seen of its commit, `turn` compares a service with it, `course` says what is next, `due` who is asked when.
//! Whoever asks and proposes is `reconcile::stacks`.

pub(crate) mod course;
pub(crate) mod due;
mod merge;
mod reading;
mod turn;
mod understand;

pub(crate) use course::{Course, course};
pub(crate) use reading::reading;
pub(crate) use turn::{Current, Deploy, Turn, origin, turn};
pub(crate) use understand::{Understood, understand};

use std::collections::{BTreeMap, BTreeSet};

use skep_compose::Report;
use skep_model::spec::ServiceSpec;
use skep_model::variable::VariableInput;

/// A file that was understood, in Skep's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// Its path in the repository.
    pub(crate) path: String,
    /// The commit that it is of.
    pub(crate) commit: String,
    /// Its services, those that others depend on first.
    pub(crate) services: Vec<Wanted>,
    /// What was left out, and what works otherwise.
    pub(crate) reports: Vec<Report>,
}

/// A service as a file wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its name.
    pub(crate) name: String,
    /// What it is, and where it comes from.
    pub(crate) spec: ServiceSpec,
    /// Its variables, by name.
    pub(crate) variables: BTreeMap<String, VariableInput>,
    /// Git's name for the content of the folder that it is built from; none: it comes from an image.
    pub(crate) tree: Option<String>,
    /// Names of those that it depends on.
    pub(crate) depends_on: BTreeSet<String>,
}

#[cfg(test)]
mod tests;
