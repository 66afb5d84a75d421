//! Pools of guests that are made and removed together: what each is made of, and how far each has come. A guest's record is
//! written before the step that it allows is taken, so that whoever goes on after a crash knows what may have been done.

mod addresses;
pub mod backups;
mod guest;
mod machines;
mod resizing;

pub use addresses::Addresses;
pub use backups::{Backups, Restoring};
pub use guest::{Guest, Identity, Note, Phase, name_of};
pub use machines::{Machine, Program};
pub use resizing::{Down, GuestSize, Held, Resizing};

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// The lowest number that Proxmox gives to a guest.
pub const VMID_MIN: u32 = 100;
/// The highest.
pub const VMID_MAX: u32 = 999_999_999;
/// Most guests of a pool.
pub const MAX_GUESTS: u32 = 1_000;

/// What a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = GuestKind))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A virtual machine.
    Vm,
    /// A container.
    Lxc,
}

impl Kind {
    /// Every kind, in the order of the stored format: append only.
    pub const ALL: [Self; 2] = [Self::Vm, Self::Lxc];
}

/// Numbers of guests that are a pool's own, both ends among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmidRange {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

/// What each guest of a pool is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = GuestRecipe))]
pub struct Recipe {
    /// VM or container.
    pub kind: Kind,
    /// The number of the template on each Proxmox host that has one; the hosts are where guests may be.
    pub templates: BTreeMap<String, u32>,
    /// Whether a guest gets disks of its own; else they share the template's.
    pub full_clone: bool,
    /// Where a full clone's disks go; none: where the template's are.
    pub storage: Option<String>,
    /// Processors.
    pub cores: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// The disk of the system, GiB: the template's is made as large.
    pub disk_gib: u32,
    /// The name of that disk: `scsi0`, `rootfs`.
    pub disk: String,
    /// The bridge of its network, `vmbr0`.
    pub bridge: String,
    /// The VLAN there.
    pub vlan: Option<u16>,
    /// Who logs in, by cloud-init.
    pub user: Option<String>,
    /// With which SSH keys.
    pub ssh_keys: Vec<String>,
    /// Numbers that guests get.
    pub vmids: VmidRange,
    /// The Proxmox pool that they are in: the fence of the token.
    pub resource_pool: String,
    /// Most guests of this pool on one host.
    pub max_per_host: Option<u32>,
    /// Addresses that guests get; none: a DHCP server gives them.
    #[serde(default)]
    pub addresses: Option<Addresses>,
}

impl VmidRange {
    /// The numbers, lowest first.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        self.first..=self.last
    }

    /// Whether a number is one of them.
    pub const fn contains(self, vmid: u32) -> bool {
        self.first <= vmid && vmid <= self.last
    }
}

impl Recipe {
    /// Refuses what Proxmox would, or what could never be proven to be ours.
    ///
    /// # Errors
    /// Names the field, and says what is accepted.
    pub fn check(&self) -> Result<(), Problem> {
        let range = self.vmids;
        if range.first < VMID_MIN || range.last > VMID_MAX || range.first > range.last {
            let text = format!("{} to {} are no numbers of guests", range.first, range.last);
            return Err(Problem::invalid("vmids", text)
                .hint(format!("a range within {VMID_MIN} and {VMID_MAX}")));
        }
        if self.templates.is_empty() {
            return Err(Problem::invalid("templates", "no host has a template")
                .hint("host = number of the template there"));
        }
        let inside = self
            .templates
            .iter()
            .find(|(_, vmid)| range.contains(**vmid));
        if let Some((host, vmid)) = inside {
            let text = format!("template {vmid} of {host} is among the numbers of the guests");
            return Err(Problem::invalid("vmids", text)
                .hint("leave templates out of the range: what is in it may be removed"));
        }
        if self.resource_pool.is_empty() {
            return Err(Problem::invalid("resource_pool", "no Proxmox pool is named")
                .hint("guests are kept apart from others by a pool: `pvesh create /pools --poolid skep`"));
        }
        for (field, amount) in [
            ("cores", self.cores),
            ("memory_mib", self.memory_mib),
            ("disk_gib", self.disk_gib),
        ] {
            if amount == 0 {
                return Err(Problem::invalid(field, "more than nothing is needed"));
            }
        }
        self.addresses.as_ref().map_or(Ok(()), Addresses::check)
    }

    /// How large a guest is that nobody has given a size of its own.
    pub const fn size(&self) -> GuestSize {
        GuestSize {
            cores: self.cores,
            memory_mib: self.memory_mib,
            disk_gib: self.disk_gib,
        }
    }

    /// The hosts that guests may be on.
    pub fn hosts(&self) -> BTreeSet<&str> {
        self.templates.keys().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            kind: Kind::Vm,
            templates: [("pve1".to_owned(), 9000)].into(),
            full_clone: false,
            storage: None,
            cores: 2,
            memory_mib: 2048,
            disk_gib: 20,
            disk: "scsi0".to_owned(),
            bridge: "vmbr0".to_owned(),
            vlan: None,
            user: None,
            ssh_keys: Vec::new(),
            vmids: VmidRange {
                first: 5000,
                last: 5999,
            },
            resource_pool: "skep".to_owned(),
            max_per_host: None,
            addresses: None,
        }
    }

    #[test]
    fn a_recipe_never_covers_its_own_template() {
        recipe().check().expect("fine");
        type Change = fn(&mut Recipe);
        let cases: [(&str, Change); 6] = [
            ("vmids", |it| it.vmids.first = 99),
            ("vmids", |it| it.vmids.last = 4999),
            ("vmids", |it| it.vmids.last = 9000),
            ("templates", |it| it.templates.clear()),
            ("resource_pool", |it| it.resource_pool.clear()),
            ("cores", |it| it.cores = 0),
        ];
        for (field, change) in cases {
            let mut recipe = recipe();
            change(&mut recipe);
            let problem = recipe.check().expect_err(field);
            assert_eq!(problem.field.as_deref(), Some(field));
        }
    }
}
