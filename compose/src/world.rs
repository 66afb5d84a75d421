//! What a service's keys refer to: files beside, variables of the shell, and what the file declares for all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::service::Material;

/// What is known beside a service itself.
pub(crate) struct World<'a> {
    /// The shell's variables, then those of `.env`.
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file beside; none where there is no such file.
    pub(crate) read: &'a dyn Fn(&str) -> Result<Option<String>, String>,
    /// `secrets` of the file.
    pub(crate) secrets: BTreeMap<String, Material>,
    /// `configs` of the file.
    pub(crate) configs: BTreeMap<String, Material>,
    /// Names of `volumes` of the file.
    pub(crate) volumes: BTreeSet<String>,
    /// Which service has a named volume: a volume belongs to one.
    pub(crate) owners: RefCell<BTreeMap<String, String>>,
}
