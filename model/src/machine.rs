//! What a node's machine is, as far as its agent can find out: guest or bare metal, who can recognise
//! it from outside, and what is wrong with it.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Most MAC addresses that a node tells.
pub const MAX_MACS: usize = 16;
/// Most warnings that a node tells.
pub const MAX_WARNINGS: usize = 16;
/// Longest text among these facts, in bytes.
pub const MAX_TEXT: usize = 512;

/// What the agent runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Guest {
    /// No guest: the machine itself.
    Bare,
    /// A virtual machine.
    Vm,
    /// A system container, as Proxmox makes them.
    Lxc,
    /// Another kind of container.
    Container,
}

impl Guest {
    /// Every kind, in the order of the stored format: append only.
    pub const ALL: [Self; 4] = [Self::Bare, Self::Vm, Self::Lxc, Self::Container];

    /// As people read it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bare => "bare metal",
            Self::Vm => "VM",
            Self::Lxc => "LXC",
            Self::Container => "container",
        }
    }
}

/// Something about a node that works, and will hurt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub fix: String,
}

/// The machine under a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Machine {
    /// What the agent runs in; none: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// Who made the machine, by its SMBIOS: `QEMU`; empty: not known, or a container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor: String,
    /// SMBIOS uuid in lower case, by which a hypervisor knows the guest; none in a container, which
    /// would see its host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// MAC addresses of its own network cards, in lower case and order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<String>,
    /// How Docker stores images and containers: `overlay2`; empty: not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub storage_driver: String,
    /// Version of the control groups; 0: not known.
    pub cgroup_version: u32,
    /// Its memory cannot be found out, and nobody has said it: nothing is placed there.
    pub memory_unknown: bool,
    /// What works and will hurt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

impl Machine {
    /// Whether nothing is known of it: an older agent does not say.
    pub fn is_silent(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what an agent says of its machine.
    ///
    /// # Errors
    /// It says too much.
    pub fn check(&self) -> Result<(), Problem> {
        let texts = [&self.vendor, &self.storage_driver].into_iter();
        let texts = texts.chain(&self.uuid).chain(&self.macs);
        let warned = self.warnings.iter().flat_map(|w| [&w.text, &w.fix]);
        let is_short = texts.chain(warned).all(|text| text.len() <= MAX_TEXT);
        if is_short && self.macs.len() <= MAX_MACS && self.warnings.len() <= MAX_WARNINGS {
            return Ok(());
        }
        let text = "the agent says too much of its machine";
        Err(Problem::invalid("machine", text).hint(format!(
            "at most {MAX_MACS} MAC addresses, {MAX_WARNINGS} warnings, {MAX_TEXT} bytes in each text"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_says_is_bounded() {
        let mut machine = Machine {
            macs: vec!["bc:24:11:00:00:01".into(); MAX_MACS],
            ..Machine::default()
        };
        assert!(machine.check().is_ok() && !machine.is_silent());
        machine.macs.push(String::new());
        assert!(machine.check().is_err());
        let long = Machine {
            vendor: "v".repeat(MAX_TEXT + 1),
            ..Machine::default()
        };
        assert!(long.check().is_err());
        assert!(Machine::default().is_silent());
    }
}
