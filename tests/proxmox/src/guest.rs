//! A guest of the world.

use std::collections::BTreeMap;

use skep_proxmox::Nic;

use crate::available::Power;

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
    /// What is written down about it, and in effect.
    pub config: BTreeMap<String, String>,
    /// What is written down, and in effect with its next start.
    pub pending: BTreeMap<String, String>,
    /// The pool that it is in.
    pub pool: Option<String>,
    /// Whether it runs.
    pub is_running: bool,
    /// It has ended by itself, and nobody has started it since.
    pub has_ended: bool,
    /// How often it was started.
    pub boots: u32,
    /// Whether high availability has it.
    pub is_ha: bool,
    /// A rule of high availability keeps it on its host: it is recovered nowhere else.
    pub is_bound: bool,
    /// High availability was told to stop it, and so starts it nowhere.
    pub is_unwanted: bool,
    /// What high availability was told to do with it, and when it does so, ms.
    pub(crate) order: Option<(Power, u64)>,
    /// What it was told of how to join: a VM has it as a file, a container since it was started with it.
    pub told: Option<String>,
    /// The copy that its disks are.
    pub restored_from: Option<String>,
    /// A restore of it has failed half-way: its disks are nobody's.
    pub is_half: bool,
    /// When it was made, ms: lists show little of what is new.
    pub made_ms: u64,
}

impl Guest {
    /// Its name, once it has one.
    pub fn name(&self) -> Option<&str> {
        let name = self.config.get("name").or(self.config.get("hostname"));
        name.map(String::as_str)
    }

    /// The address of its first interface, as its configuration has it.
    pub fn mac(&self) -> Option<String> {
        Nic::parse(self.config.get("net0")?).mac
    }

    /// The id in its SMBIOS; a container has none.
    pub fn smbios(&self) -> Option<&str> {
        self.config.get("smbios1")?.strip_prefix("uuid=")
    }

    /// It starts, with what its configuration says by now.
    pub(crate) fn start(&mut self) {
        (self.is_running, self.has_ended) = (true, false);
        self.boots += 1;
        self.settle_pending();
        if let Some(env) = self.config.get("env") {
            self.told = Some(env.replace('\0', "\n"));
        }
    }

    pub(crate) fn lock(&self) -> Option<&str> {
        self.config.get("lock").map(String::as_str)
    }

    pub(crate) fn is_template(&self) -> bool {
        self.config.contains_key("template")
    }
}
