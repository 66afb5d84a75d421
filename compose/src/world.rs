//! What a service's keys refer to: files beside, variables of the shell, and what the file declares for all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::Reader;
use crate::service::Material;

/// What is known beside a service itself.
pub(crate) struct World<'a> {
    /// The shell's variables, then those of `.env`.
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
    /// What is beside the file.
    pub(crate) read: &'a Reader<'a>,
    /// `secrets` of the file.
    pub(crate) secrets: BTreeMap<String, Material>,
    /// `configs` of the file.
    pub(crate) configs: BTreeMap<String, Material>,
    /// Names of `volumes` of the file.
    pub(crate) volumes: BTreeSet<String>,
    /// Which service has a named volume: a volume belongs to one.
    pub(crate) owners: RefCell<BTreeMap<String, String>>,
}
