//! Pools of guests that are made and removed together: what each is made of, and how far each has come. A guest's record is
//! written before the step that it allows is taken, so that whoever goes on after a crash knows what may have been done.

mod addresses;
pub mod backups;
mod departed;
mod guest;
mod machines;
mod resizing;

pub use addresses::Addresses;
pub use backups::{Backups, Restoring};
pub use departed::{Departed, MAX_DEPARTED};
pub use guest::{Guest, Identity, Note, Phase, name_of};
pub use machines::{MAX_MACHINES, Machine, Program};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = GuestKind))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A virtual machine.
    #[default]
    Vm,
    /// A container.
    Lxc,
}

impl Kind {
    /// Every kind, in the order of the stored format: append only.
    pub const ALL: [Self; 2] = [Self::Vm, Self::Lxc];
}

/// Numbers of guests that are a pool's own, both ends among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmidRange {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

/// What each guest of a pool is made of. A program is told its processors, memory and disk, and the rest means something to a
/// Proxmox cluster alone; machines that exist are as they are, and nothing is said of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = GuestRecipe))]
#[serde(default)]
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
        for (field, name) in [("disk", &self.disk), ("bridge", &self.bridge)] {
            if name.is_empty() {
                return Err(Problem::invalid(field, "it is not named")
                    .hint("`scsi0` of a VM, `rootfs` of a container; `vmbr0`"));
            }
        }
        self.check_size()?;
        self.addresses.as_ref().map_or(Ok(()), Addresses::check)
    }

    fn check_size(&self) -> Result<(), Problem> {
        let none = self.amounts().into_iter().find(|(_, amount)| *amount == 0);
        match none {
            Some((field, _)) => Err(Problem::invalid(field, "more than nothing is needed")),
            None => Ok(()),
        }
    }

    const fn amounts(&self) -> [(&'static str, u32); 3] {
        [
            ("cores", self.cores),
            ("memory_mib", self.memory_mib),
            ("disk_gib", self.disk_gib),
        ]
    }

    /// One that says how large a machine is to be, and nothing else.
    pub fn sized(cores: u32, memory_mib: u32, disk_gib: u32) -> Self {
        Self {
            cores,
            memory_mib,
            disk_gib,
            ..Self::default()
        }
    }

    /// Refuses what a program is not told: nobody would follow it.
    ///
    /// # Errors
    /// Names the field, and says what is accepted.
    pub fn check_for_program(&self) -> Result<(), Problem> {
        if let Some(field) = self.said_for_proxmox() {
            let text = format!("`{field}` means nothing to a provider that is a program");
            return Err(Problem::invalid(field, text).hint(
                "cores, memory and disk are all that it is told; what else it needs are parameters of the provider: \
                 `skep provider set --parameter KEY=VALUE`",
            ));
        }
        self.check_size()
    }

    /// Refuses anything: machines that exist are not made.
    ///
    /// # Errors
    /// Names the field, and says what is accepted.
    pub fn check_for_machines(&self) -> Result<(), Problem> {
        let sizes = self.amounts().into_iter();
        let mut sizes = sizes.filter(|(_, amount)| *amount > 0);
        let said = self.said_for_proxmox();
        let Some(field) = said.or_else(|| sizes.next().map(|(field, _)| field)) else {
            return Ok(());
        };
        let text = format!("`{field}` means nothing to a provider that is a list of machines");
        Err(Problem::invalid(field, text).hint("leave it out: machines that exist are as they are"))
    }

    /// The first field that is said and means something to a Proxmox cluster alone.
    fn said_for_proxmox(&self) -> Option<&'static str> {
        let none = Self::default();
        let all = [
            ("kind", self.kind == none.kind),
            ("templates", self.templates.is_empty()),
            ("full_clone", !self.full_clone),
            ("storage", self.storage.is_none()),
            ("disk", self.disk.is_empty()),
            ("bridge", self.bridge.is_empty()),
            ("vlan", self.vlan.is_none()),
            ("user", self.user.is_none()),
            ("ssh_keys", self.ssh_keys.is_empty()),
            ("vmids", self.vmids == none.vmids),
            ("resource_pool", self.resource_pool.is_empty()),
            ("max_per_host", self.max_per_host.is_none()),
            ("addresses", self.addresses.is_none()),
        ];
        let said = all.into_iter().find(|(_, is_unsaid)| !is_unsaid);
        said.map(|(field, _)| field)
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
        let cases: [(&str, Change); 8] = [
            ("disk", |it| it.disk.clear()),
            ("bridge", |it| it.bridge.clear()),
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

    #[test]
    fn what_a_provider_would_not_follow_is_refused() {
        let sized = Recipe::sized(2, 4_096, 32);
        sized.check_for_program().expect("fine");
        Recipe::default().check_for_machines().expect("fine");
        let field = |result: Result<(), Problem>| result.err().and_then(|it| it.field);
        assert_eq!(field(sized.check_for_machines()).as_deref(), Some("cores"));
        assert_eq!(field(sized.check()).as_deref(), Some("vmids"));
        let none = Recipe::sized(2, 0, 32);
        assert_eq!(
            field(none.check_for_program()).as_deref(),
            Some("memory_mib")
        );
        // Each field of a recipe of Proxmox is one of them.
        type Change = fn(&mut Recipe);
        let cases: [(&str, Change); 13] = [
            ("kind", |it| it.kind = Kind::Lxc),
            ("templates", |it| it.templates = recipe().templates),
            ("full_clone", |it| it.full_clone = true),
            ("storage", |it| it.storage = Some("nas".into())),
            ("disk", |it| it.disk = "scsi0".into()),
            ("bridge", |it| it.bridge = "vmbr0".into()),
            ("vlan", |it| it.vlan = Some(7)),
            ("user", |it| it.user = Some("admin".into())),
            ("ssh_keys", |it| it.ssh_keys = vec!["ssh-ed25519".into()]),
            ("vmids", |it| it.vmids = recipe().vmids),
            ("resource_pool", |it| it.resource_pool = "skep".into()),
            ("max_per_host", |it| it.max_per_host = Some(1)),
            ("addresses", |it| {
                it.addresses = Some(Addresses {
                    first: [10, 0, 0, 1].into(),
                    last: [10, 0, 0, 9].into(),
                    prefix: 24,
                    gateway: [10, 0, 0, 254].into(),
                    dns: Vec::new(),
                });
            }),
        ];
        for (name, change) in cases {
            let mut odd = sized.clone();
            change(&mut odd);
            assert_eq!(field(odd.check_for_program()).as_deref(), Some(name));
            let mut odd = Recipe::default();
            change(&mut odd);
            assert_eq!(field(odd.check_for_machines()).as_deref(), Some(name));
        }
    }
}
