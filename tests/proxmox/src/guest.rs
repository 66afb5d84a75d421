//! A guest of the world.

use std::collections::BTreeMap;

/// Who made a guest: what no API says, and what is judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Whoever is tested, by this name.
    Ours(String),
    /// Somebody else.
    Foreign,
}

/// A guest.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Who made it.
    pub owner: Owner,
    /// The host that it is on.
    pub host: String,
    /// What is written down about it.
    pub config: BTreeMap<String, String>,
    /// The pool that it is in.
    pub pool: Option<String>,
    /// Whether it runs.
    pub is_running: bool,
    /// When it was made, ms: lists show little of what is new.
    pub made_ms: u64,
}

impl Guest {
    /// Its name, once it has one.
    pub fn name(&self) -> Option<&str> {
        self.config.get("name").map(String::as_str)
    }

    pub(crate) fn lock(&self) -> Option<&str> {
        self.config.get("lock").map(String::as_str)
    }

    pub(crate) fn is_template(&self) -> bool {
        self.config.contains_key("template")
    }
}
