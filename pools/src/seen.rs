//! What hosts show of one guest, as far as a decision needs it.

use std::collections::BTreeMap;

use skep_model::pool::{Guest, Identity, Recipe};
use skep_proxmox::calls::cluster;
use skep_proxmox::calls::guests::Entry;
use skep_proxmox::{Config, Vmid};

/// A look at the hosts, at one guest's number.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What is there.
    pub presence: Presence,
    /// A task about it runs, or nobody can say.
    pub is_busy: bool,
}

/// What is at a guest's number.
#[derive(Debug, Clone, PartialEq)]
pub enum Presence {
    /// Nothing, on no host.
    Absent,
    /// Something that is not ours.
    Foreign,
    /// What was made: by its name and, where it is known, by what proves it.
    Ours(Facts),
    /// Nobody can say now: it moves, it is being made, its host is away. The text says which.
    Unknown(String),
}

/// What there is of our guest.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The host that it is on now.
    pub host: String,
    /// Whether it runs.
    pub is_running: bool,
    /// What has locked it.
    pub lock: Option<String>,
    /// The pool that it is in.
    pub resource_pool: Option<String>,
    /// What is written down about it: where it runs, as it is after the next start.
    pub config: Config,
    /// Entries that become this only with the next start, and what is in effect till then; looked at only while it is
    /// resized.
    pub waiting: BTreeMap<String, Option<String>>,
    /// Its disks were said to be those of the copy that it becomes, and are another one's by now, or nobody's; looked at only
    /// then.
    pub is_another: bool,
}

impl Facts {
    /// What proves that it is it.
    pub fn identity(&self) -> Option<Identity> {
        Some(Identity {
            mac: self.config.nic(0)?.mac?,
            smbios: self.config.smbios_uuid(),
        })
    }

    /// An entry of its configuration as it is in effect now.
    pub fn in_effect(&self, name: &str) -> Option<&str> {
        match self.waiting.get(name) {
            Some(now) => now.as_deref(),
            None => self.config.get(name),
        }
    }

    /// What waits for its next start.
    pub(crate) fn with_waiting(self, entries: Vec<Entry>) -> Self {
        let waiting = entries.into_iter().filter(Entry::waits);
        Self {
            waiting: waiting.map(|entry| (entry.key, entry.value)).collect(),
            ..self
        }
    }

    /// The size of a disk, GiB, as its configuration says it: `local:vm-5001-disk-0,size=20G`.
    pub fn disk_gib(&self, disk: &str) -> Option<u32> {
        let parts = self.config.get(disk)?.split(',');
        let size = parts.filter_map(|part| part.strip_prefix("size=")).next()?;
        let (number, unit) = size.split_at(size.len().checked_sub(1)?);
        let number: f64 = number.parse().ok()?;
        let gib = match unit {
            "T" => number * 1024.0,
            "G" => number,
            "M" => number / 1024.0,
            "K" => number / 1024.0 / 1024.0,
            _ => return None,
        };
        Some(gib as u32)
    }
}

/// What the answers of two calls say of a guest: the row of its number among all guests, and its configuration; `None` of the
/// latter where the host that was asked says that there is none.
pub(crate) fn presence(
    guest: &Guest,
    row: Option<&cluster::Guest>,
    config: Option<Config>,
) -> Presence {
    let (Some(config), row) = (config, row) else {
        return match row {
            None => Presence::Absent,
            // It moves just now, or is being removed: the list lags.
            Some(_) => Presence::Unknown("its host does not have it: is it moved?".to_owned()),
        };
    };
    let lock = config.get("lock").map(str::to_owned);
    let Some(name) = config.name() else {
        return match lock.as_deref() {
            // A clone has no name before it is done.
            Some("clone" | "create") => Presence::Unknown("it is being made".to_owned()),
            _ => Presence::Foreign,
        };
    };
    let host = row.and_then(|row| row.node.clone()).or(guest.host.clone());
    let Some(host) = host else {
        return Presence::Unknown("no host says that it has it".to_owned());
    };
    if name != guest.name() || config.is_template() {
        return Presence::Foreign;
    }
    let facts = Facts {
        host,
        is_running: row.and_then(|row| row.status.as_deref()) == Some("running"),
        lock,
        resource_pool: row.and_then(|row| row.pool.clone()),
        config,
        waiting: BTreeMap::new(),
        is_another: false,
    };
    match (&guest.identity, facts.identity()) {
        (Some(known), Some(found)) if *known != found => Presence::Foreign,
        (Some(_), None) => Presence::Unknown("it has lost its first interface".to_owned()),
        _ => Presence::Ours(facts),
    }
}

/// The number of a guest, as Proxmox's client wants it.
pub(crate) fn vmid(guest: &Guest) -> Option<Vmid> {
    Vmid::new(guest.vmid?).ok()
}

/// What the client calls the kind of a pool's guests.
pub(crate) fn kind(recipe: &Recipe) -> skep_proxmox::GuestKind {
    match recipe.kind {
        skep_model::pool::Kind::Vm => skep_proxmox::GuestKind::Qemu,
        skep_model::pool::Kind::Lxc => skep_proxmox::GuestKind::Lxc,
    }
}
