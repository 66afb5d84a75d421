//! What a configuration says, and what of that is in effect: of a VM that runs, cores and memory wait for its next start,
//! unless they can be plugged in. A container's are in effect at once.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use skep_proxmox::{GuestKind, Reply};

use crate::answer::{data, drifting};
use crate::guest::Guest;
use crate::world::World;

/// Entries of a VM that do not change while it runs, unless they are plugged in.
const COLD: [&str; 3] = ["cores", "vcpus", "memory"];
/// Memory is plugged in by modules of this size, MiB: of guests that have less than 17 GiB.
const MODULE_MIB: u64 = 512;
/// That much is always there, MiB.
const STATIC_MIB: u64 = 1_024;

/// Writes down what is asked for. False: something could not be plugged in, and waits.
pub(crate) fn configure(
    world: &mut World,
    vmid: u32,
    parameters: &BTreeMap<String, String>,
) -> bool {
    // A system that takes no module, or no processor.
    let is_taken = !world.chance(world.faults.failed_task);
    let is_vm = world.kind == GuestKind::Qemu;
    let Some(guest) = world.guests.get_mut(&vmid) else {
        return true;
    };
    let waits_for_a_start = is_vm && guest.is_running;
    if !waits_for_a_start {
        guest.settle_pending();
    }
    let mut is_done = true;
    for (name, value) in parameters {
        if name == "digest" {
            continue;
        }
        if name == "delete" {
            for entry in value.split(',') {
                guest.config.remove(entry);
            }
        } else if !waits_for_a_start || !COLD.contains(&name.as_str()) {
            guest.config.insert(name.clone(), value.clone());
        } else if guest.config.get(name) == Some(value) {
            guest.pending.remove(name);
        } else if guest.is_hot(name, value) && is_taken {
            guest.pending.remove(name);
            guest.config.insert(name.clone(), plugged(name, value));
        } else {
            is_done &= !guest.is_hot(name, value);
            guest.pending.insert(name.clone(), value.clone());
        }
    }
    is_done
}

fn plugged(name: &str, value: &str) -> String {
    match (name, value.parse::<u64>()) {
        ("memory", Ok(mib)) => {
            let modules = mib.saturating_sub(STATIC_MIB).div_ceil(MODULE_MIB);
            (STATIC_MIB + modules * MODULE_MIB).to_string()
        }
        _ => value.to_owned(),
    }
}

/// `GET pending`.
pub(crate) fn shown(world: &mut World, guest: &Guest) -> Reply {
    let as_text = world.random.bool();
    let told = |value: &String| match value.parse::<u64>() {
        Ok(number) => drifting(number, as_text),
        Err(_) => json!(value),
    };
    let mut names: Vec<&String> = guest.config.keys().chain(guest.pending.keys()).collect();
    names.sort();
    names.dedup();
    let rows = names.into_iter().map(|name| {
        let mut row = json!({ "key": name });
        if let Some(value) = guest.config.get(name) {
            row["value"] = told(value);
        }
        if let Some(value) = guest.pending.get(name) {
            row["pending"] = told(value);
        }
        row
    });
    data(&Value::Array(rows.collect()))
}

impl Guest {
    /// Its configuration as it is shown: with what waits.
    pub(crate) fn with_pending(&self) -> BTreeMap<String, String> {
        let mut all = self.config.clone();
        all.extend(self.pending.clone());
        all
    }

    /// What has waited is in effect.
    pub(crate) fn settle_pending(&mut self) {
        self.config.extend(std::mem::take(&mut self.pending));
        // Where memory is plugged in, it is so from the start.
        if self.has_hotplug("memory")
            && let Some(memory) = self.config.get_mut("memory")
        {
            *memory = plugged("memory", memory);
        }
    }

    fn has_hotplug(&self, part: &str) -> bool {
        let listed = self.config.get("hotplug");
        let is_listed = listed.is_some_and(|it| it.split(',').any(|it| it == part));
        is_listed && (part != "memory" || self.config.get("numa").is_some_and(|it| it == "1"))
    }

    /// Whether that can be plugged in.
    fn is_hot(&self, name: &str, value: &str) -> bool {
        let number = |name: &str| self.config.get(name)?.parse::<u64>().ok();
        let Ok(wanted) = value.parse::<u64>() else {
            return false;
        };
        match name {
            "vcpus" => {
                self.has_hotplug("cpu")
                    && number("vcpus").is_some_and(|now| now < wanted)
                    && number("cores").is_some_and(|slots| wanted <= slots)
            }
            "memory" => {
                self.has_hotplug("memory") && number("memory").is_some_and(|now| now < wanted)
            }
            // How many there are at most is never changed while it runs.
            _ => false,
        }
    }
}
