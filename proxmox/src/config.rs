//! A guest's configuration, VM or container: names and texts, and what is asked of it most.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::nic::Nic;

/// What Proxmox has written down about a guest.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// All of it; numbers as text, as they come as either.
    pub entries: BTreeMap<String, String>,
}

/// Entries whose values nobody prints.
const HIDDEN: [&str; 2] = ["env", "cipassword"];

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.entries.iter().map(|(name, value)| {
            let is_hidden = HIDDEN.contains(&name.as_str());
            (name, if is_hidden { "..." } else { value })
        });
        f.debug_map().entries(shown).finish()
    }
}

impl Config {
    pub(crate) fn read(value: Value) -> Result<Self, String> {
        let Value::Object(all) = value else {
            return Err("a configuration is an object".to_owned());
        };
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            Value::Null => None,
            other => Some(other.to_string()),
        };
        let entries = all.into_iter();
        Ok(Self {
            entries: entries
                .filter_map(|(name, value)| Some((name, text(value)?)))
                .collect(),
        })
    }

    /// One entry.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.get(name).map(String::as_str)
    }

    /// The hash of the configuration: a change that brings it is refused where somebody else was first.
    pub fn digest(&self) -> Option<&str> {
        self.get("digest")
    }

    /// The name of a VM or the host name of a container.
    pub fn name(&self) -> Option<&str> {
        self.get("name").or_else(|| self.get("hostname"))
    }

    /// Its tags: Proxmox writes `;` between them and takes `,` and spaces, too.
    pub fn tags(&self) -> Vec<&str> {
        tags(self.get("tags").unwrap_or_default())
    }

    /// The id in a VM's SMBIOS, in small letters: what its own system shows as `product_uuid`.
    pub fn smbios_uuid(&self) -> Option<String> {
        let parts = self.get("smbios1")?.split(',');
        let uuid = parts.filter_map(|part| part.strip_prefix("uuid=")).next()?;
        Some(uuid.to_ascii_lowercase())
    }

    /// An interface by its number.
    pub fn nic(&self, number: u8) -> Option<Nic> {
        Some(Nic::parse(self.get(&format!("net{number}"))?))
    }

    /// Whether nobody may remove it or its disks.
    pub fn is_protected(&self) -> bool {
        self.get("protection").is_some_and(is_set)
    }

    /// Whether a part of a VM can be changed while it runs: `cpu`, `memory`. Memory needs NUMA as well.
    pub fn is_hot(&self, part: &str) -> bool {
        // What is left out, or 1, is this; 0 is nothing.
        let listed = match self.get("hotplug") {
            None | Some("1") => "network,disk,usb",
            Some(listed) => listed,
        };
        let has_numa = self.get("numa").is_some_and(is_set);
        listed.split([',', ';', ' ']).any(|it| it == part) && (part != "memory" || has_numa)
    }

    /// Whether it is one to be cloned.
    pub fn is_template(&self) -> bool {
        self.get("template").is_some_and(is_set)
    }
}

fn is_set(text: &str) -> bool {
    matches!(text, "1" | "true")
}

/// The tags in a text.
pub(crate) fn tags(text: &str) -> Vec<&str> {
    let parts = text.split([';', ',', ' ']);
    parts.filter(|tag| !tag.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_identifies_a_guest_is_read_from_whatever_form() {
        let config = Config::read(json!({
            "name": "skep-a", "memory": 2048, "cores": "2", "digest": "ab", "tags": "skep;pool-a,x",
            "smbios1": "uuid=0F1E2D3C-0000-4000-8000-000000000001,base64=1", "protection": 1,
            "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0", "template": "", "lock": null,
        }))
        .expect("one");
        assert_eq!(
            (config.name(), config.digest()),
            (Some("skep-a"), Some("ab"))
        );
        assert_eq!(config.tags(), ["skep", "pool-a", "x"]);
        assert_eq!(
            config.smbios_uuid().as_deref(),
            Some("0f1e2d3c-0000-4000-8000-000000000001")
        );
        assert_eq!(config.get("memory"), Some("2048"));
        assert_eq!(config.nic(0).expect("one").bridge(), Some("vmbr0"));
        assert!(config.is_protected() && !config.is_template());
        assert_eq!(config.get("lock"), None);
        let told = Config::read(json!({"env": "A=hush", "name": "a"})).expect("one");
        let printed = format!("{told:?}");
        assert!(
            printed.contains("name") && !printed.contains("hush"),
            "{printed}"
        );
        Config::read(json!([])).expect_err("none");
    }

    #[test]
    fn what_is_hot_is_listed_and_memory_needs_numa() {
        for (hotplug, numa, cpu, memory) in [
            (json!(null), json!(1), false, false),
            (json!(1), json!(1), false, false),
            (json!("0"), json!(1), false, false),
            (json!("cpu"), json!(1), true, false),
            (json!("network,disk,cpu,memory"), json!(null), true, false),
            (json!("network,disk,cpu,memory"), json!("1"), true, true),
        ] {
            let config = Config::read(json!({"hotplug": hotplug, "numa": numa})).expect("one");
            let found = (config.is_hot("cpu"), config.is_hot("memory"));
            assert_eq!(found, (cpu, memory), "{hotplug} {numa}");
        }
    }
}
