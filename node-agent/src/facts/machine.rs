//! What the machine is, out of what was read. Pure.
//!
//! The order matters: a system container shows its host's SMBIOS, so whether this is a container is
//! asked first. Inside one of Proxmox's the limit is set on an outer control group, and
//! `memory.max` says `max`: only lxcfs tells it, by a `/proc/meminfo` of its own.

use skep_model::machine::{Guest, MAX_MACS, Machine, Warning};

/// Storage drivers that work and will hurt, with what is wrong with each.
const BAD_DRIVERS: [(&str, &str); 2] = [
    (
        "vfs",
        "copies every image whole for each container: slow, and it fills the disk",
    ),
    (
        "fuse-overlayfs",
        "runs in user space: slow, and it hangs while the guest is frozen for a backup",
    ),
];

/// What was read of the system; what could not be is none, or empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Read {
    /// `/run/systemd/container`, or `container` in the environment of process 1.
    pub(crate) container: Option<String>,
    /// SMBIOS: `sys_vendor`.
    pub(crate) vendor: String,
    /// SMBIOS: `product_name`.
    pub(crate) product: String,
    /// SMBIOS: `product_uuid`.
    pub(crate) uuid: Option<String>,
    /// The CPU says that it is not a real one.
    pub(crate) is_virtual_cpu: bool,
    /// `MemTotal` of `/proc/meminfo`, bytes.
    pub(crate) meminfo: Option<u64>,
    /// `/proc/meminfo` is a file of lxcfs.
    pub(crate) is_lxcfs: bool,
    /// The limit of the control group that is seen as the root, as written there: bytes or `max`.
    pub(crate) memory_max: Option<String>,
    /// Interfaces that have a card of their own: name and MAC address.
    pub(crate) cards: Vec<(String, String)>,
}

/// Words in an SMBIOS that only hypervisors write.
const HYPERVISORS: [&str; 9] = [
    "qemu",
    "kvm",
    "vmware",
    "virtualbox",
    "innotek",
    "xen",
    "bochs",
    "parallels",
    "virtual machine",
];

/// What the agent runs in; none: it cannot be told.
pub(crate) fn guest(read: &Read) -> Option<Guest> {
    match read.container.as_deref() {
        Some("lxc" | "lxc-libvirt") => return Some(Guest::Lxc),
        Some(other) if !other.is_empty() => return Some(Guest::Container),
        _ => {}
    }
    let text = format!("{} {}", read.vendor, read.product).to_lowercase();
    let is_vm = HYPERVISORS.iter().any(|word| text.contains(word));
    if is_vm || read.is_virtual_cpu {
        return Some(Guest::Vm);
    }
    (!read.vendor.is_empty()).then_some(Guest::Bare)
}

/// Memory of the node in bytes; none: not known, and not to be guessed.
pub(crate) fn memory(read: &Read) -> Option<u64> {
    let limit = read.memory_max.as_deref();
    let limit = limit.and_then(|text| text.trim().parse::<u64>().ok());
    let is_container = matches!(guest(read), Some(Guest::Lxc | Guest::Container));
    let told = read.meminfo.filter(|_| !is_container || read.is_lxcfs);
    match (told, limit.filter(|_| is_container)) {
        (Some(told), Some(limit)) => Some(told.min(limit)),
        (told, limit) => told.or(limit),
    }
}

/// The machine as far as the system tells, `said_bytes` being an operator's word on its memory; and
/// that memory in bytes.
pub(crate) fn machine(read: &Read, said_bytes: Option<u64>) -> (Machine, u64) {
    let guest = guest(read);
    let is_container = matches!(guest, Some(Guest::Lxc | Guest::Container));
    let memory = said_bytes.or_else(|| memory(read));
    let mut macs: Vec<String> = read
        .cards
        .iter()
        .map(|(_, mac)| mac.to_lowercase())
        .collect();
    macs.sort();
    macs.dedup();
    macs.truncate(MAX_MACS);
    let mut warnings = Vec::new();
    if memory.is_none() {
        warnings.push(Warning {
            text:
                "how much memory this container may use cannot be found out: /proc/meminfo is the \
                   host's"
                    .to_owned(),
            fix:
                "mount lxcfs in the container, or start the agent with --memory: nothing is placed \
                  here before"
                    .to_owned(),
        });
    }
    let own = |text: &str| {
        if is_container {
            String::new()
        } else {
            text.to_owned()
        }
    };
    let machine = Machine {
        guest,
        vendor: own(&read.vendor),
        // In a container it is the host's, and its neighbours' too.
        uuid: read.uuid.as_ref().filter(|_| !is_container).cloned(),
        macs,
        memory_unknown: memory.is_none(),
        warnings,
        ..Machine::default()
    };
    (machine, memory.unwrap_or(0))
}

/// Adds what Docker says of itself.
pub(crate) fn add_docker(machine: &mut Machine, driver: &str, cgroup_version: u32) {
    machine.storage_driver = driver.to_owned();
    machine.cgroup_version = cgroup_version;
    let bad = BAD_DRIVERS.iter().find(|(name, _)| *name == driver);
    if let Some((name, why)) = bad {
        machine.warnings.push(Warning {
            text: format!("Docker's storage driver is {name}, which {why}"),
            fix: match machine.guest {
                Some(Guest::Lxc) => {
                    "use overlay2: with ZFS it needs OpenZFS 2.2 on the host (Proxmox 8.1)"
                }
                _ => "use overlay2: \"storage-driver\" in /etc/docker/daemon.json",
            }
            .to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn proxmox_vm() -> Read {
        Read {
            vendor: "QEMU".into(),
            product: "Standard PC (i440FX + PIIX, 1996)".into(),
            uuid: Some("8e1b6c3a-0f3c-4a7e-9b7b-1f2e3d4c5b6a".into()),
            is_virtual_cpu: true,
            meminfo: Some(8 * GIB),
            memory_max: Some("max\n".into()),
            cards: vec![("ens18".into(), "BC:24:11:0A:0B:0C".into())],
            ..Read::default()
        }
    }

    /// A container on a Proxmox host: the host's SMBIOS, the limit on the outer control group.
    fn proxmox_lxc() -> Read {
        Read {
            container: Some("lxc".into()),
            vendor: "Supermicro".into(),
            product: "SYS-1029P".into(),
            uuid: Some("00000000-0000-0000-0000-ac1f6b000000".into()),
            meminfo: Some(2 * GIB),
            is_lxcfs: true,
            memory_max: Some("max\n".into()),
            cards: vec![("eth0".into(), "BC:24:11:01:02:03".into())],
            ..Read::default()
        }
    }

    #[test]
    fn a_vm_is_known_by_its_smbios_and_recognised_by_uuid_and_mac() {
        let (machine, memory) = machine(&proxmox_vm(), None);
        assert_eq!((machine.guest, memory), (Some(Guest::Vm), 8 * GIB));
        assert_eq!(machine.uuid, proxmox_vm().uuid);
        assert_eq!(machine.macs, ["bc:24:11:0a:0b:0c"]);
        assert!(machine.warnings.is_empty() && !machine.memory_unknown);
    }

    #[test]
    fn a_container_never_takes_its_hosts_smbios_for_its_own() {
        let (machine, memory) = machine(&proxmox_lxc(), None);
        assert_eq!((machine.guest, memory), (Some(Guest::Lxc), 2 * GIB));
        assert_eq!((machine.uuid, machine.vendor.as_str()), (None, ""));
        assert_eq!(machine.macs, ["bc:24:11:01:02:03"]);
    }

    #[test]
    fn without_lxcfs_a_container_says_unknown_unless_somebody_knows() {
        // The host's 64 GiB, and no limit in sight.
        let hidden = Read {
            meminfo: Some(64 * GIB),
            is_lxcfs: false,
            ..proxmox_lxc()
        };
        let (told, memory) = machine(&hidden, None);
        assert_eq!((told.memory_unknown, memory), (true, 0));
        assert!(told.warnings[0].fix.contains("--memory"));
        let (told, memory) = machine(&hidden, Some(4 * GIB));
        assert_eq!((told.memory_unknown, memory), (false, 4 * GIB));
        assert!(told.warnings.is_empty());
        let limited = Read {
            memory_max: Some("1073741824\n".into()),
            ..hidden
        };
        assert_eq!(super::memory(&limited), Some(GIB));
        // A limit below what lxcfs shows is the one that counts.
        let both = Read {
            memory_max: Some("1073741824".into()),
            ..proxmox_lxc()
        };
        assert_eq!(super::memory(&both), Some(GIB));
    }

    #[test]
    fn what_it_runs_in_table() {
        let with = |container: &str, vendor: &str, product: &str, cpu: bool| {
            guest(&Read {
                container: Some(container.into()),
                vendor: vendor.into(),
                product: product.into(),
                is_virtual_cpu: cpu,
                ..Read::default()
            })
        };
        assert_eq!(
            with("", "Dell Inc.", "PowerEdge R640", false),
            Some(Guest::Bare)
        );
        assert_eq!(with("", "VMware, Inc.", "VMware7,1", true), Some(Guest::Vm));
        assert_eq!(
            with("", "Microsoft Corporation", "Virtual Machine", false),
            Some(Guest::Vm)
        );
        // A microVM has no SMBIOS at all.
        assert_eq!(with("", "", "", true), Some(Guest::Vm));
        assert_eq!(with("", "", "", false), None);
        assert_eq!(with("docker", "QEMU", "", true), Some(Guest::Container));
        assert_eq!(with("lxc", "QEMU", "", true), Some(Guest::Lxc));
    }

    #[test]
    fn slow_storage_is_said() {
        let mut machine = Machine::default();
        add_docker(&mut machine, "overlay2", 2);
        assert!(machine.warnings.is_empty());
        for driver in ["vfs", "fuse-overlayfs"] {
            let mut machine = Machine::default();
            add_docker(&mut machine, driver, 2);
            assert!(machine.warnings[0].text.contains(driver));
            assert!(machine.warnings[0].fix.contains("overlay2"));
        }
    }
}
