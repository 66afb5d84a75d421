//! Virtual machines.

use crate::calls::guests::tags_and_deleted;
use crate::cloud_init::{Address, ssh_keys};
use crate::error::Error;
use crate::ids::{At, GuestKind, Vmid};
use crate::request::{Call, Method, Request};
use crate::upid::Upid;

/// How a template becomes a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clone<'a> {
    /// The number of the new one.
    pub vmid: Vmid,
    /// Its name: letters, digits, dashes and dots.
    pub name: &'a str,
    /// The pool that it goes into: `VM.Allocate` there is enough.
    pub pool: Option<&'a str>,
    /// A copy of its own; else it shares the template's disks, which takes a second and needs the same storage.
    pub full: bool,
    /// Another host, which needs storage that both have.
    pub target: Option<&'a str>,
    /// Where disks of a full clone go.
    pub storage: Option<&'a str>,
    /// Text for people.
    pub description: Option<&'a str>,
}

/// What is changed of a VM; none: it stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change<'a> {
    /// Processors. `VM.Config.CPU`.
    pub cores: Option<u32>,
    /// Processors that are plugged in, of those that it has: what can be changed while it runs. `VM.Config.CPU`.
    pub vcpus: Option<u32>,
    /// Memory, MiB. `VM.Config.Memory`.
    pub memory_mib: Option<u32>,
    /// Least memory that it may be pressed to, MiB; 0: all of it is its own. `VM.Config.Memory`.
    pub balloon_mib: Option<u32>,
    /// The first interface: `virtio,bridge=vmbr0,tag=10`. `VM.Config.Network`, and `SDN.Use` of the bridge.
    pub net0: Option<&'a str>,
    /// Tags in place of those that it has. `VM.Config.Options`.
    pub tags: Option<&'a [&'a str]>,
    /// Text for people. `VM.Config.Options`.
    pub description: Option<&'a str>,
    /// Whether the guest's agent is asked. `VM.Config.Options`.
    pub agent: Option<bool>,
    /// Whether it starts with its host. `VM.Config.Options`.
    pub start_with_host: Option<bool>,
    /// Whether nobody may remove it. `VM.Config.Options`.
    pub protection: Option<bool>,
    /// What its SMBIOS says: `uuid=...`. `VM.Config.HWType`.
    pub smbios1: Option<&'a str>,
    /// Who logs in. `VM.Config.Cloudinit`.
    pub user: Option<&'a str>,
    /// With which SSH keys. `VM.Config.Cloudinit`.
    pub ssh_keys: &'a [&'a str],
    /// Its first address. `VM.Config.Cloudinit`.
    pub address: Option<&'a Address>,
    /// Servers for names. `VM.Config.Cloudinit`.
    pub nameservers: &'a [&'a str],
    /// A volume as its second CD: `local:iso/seed.iso,media=cdrom`. `VM.Config.CDROM`.
    pub ide3: Option<&'a str>,
    /// Entries that go: `ide3`.
    pub delete: &'a [&'a str],
    /// Refuses where the configuration is another one by now ([`crate::Config::digest`]).
    pub digest: Option<&'a str>,
}

/// `POST /nodes/{node}/qemu/{vmid}/clone`. `VM.Clone` of the template; `VM.Allocate` of the new number or the pool;
/// `Datastore.AllocateSpace` of the storage; `SDN.Use` of its bridges. Addresses and the SMBIOS id are new. A number that is
/// taken is refused at once or by the task.
pub fn clone(template: At<'_>, how: &Clone<'_>) -> Call<Upid> {
    let request = Request::of_guest(Method::Post, template, &["clone"])
        .with("newid", how.vmid)
        .with("name", how.name)
        .with_some("pool", how.pool)
        .with("full", u8::from(how.full))
        .with_some("target", how.target)
        // Proxmox refuses it for one that shares disks.
        .with_some("storage", how.storage.filter(|_| how.full))
        .with_some("description", how.description);
    Call::new(request)
}

/// `POST /nodes/{node}/qemu/{vmid}/config`: changes it in a task. The same with PUT answers only when it is done, which can
/// be too late for their own limit. Privileges stand at each part.
///
/// # Errors
/// An SSH key is none.
pub fn change(host: &str, vmid: Vmid, what: &Change<'_>) -> Result<Call<Option<Upid>>, Error> {
    let at = At {
        host,
        kind: GuestKind::Qemu,
        vmid,
    };
    let flag = |is: Option<bool>| is.map(u8::from);
    let joined = |all: &[&str], between: &str| (!all.is_empty()).then(|| all.join(between));
    let (tags, delete) = tags_and_deleted(what.tags, what.delete);
    let keys = match what.ssh_keys.is_empty() {
        true => None,
        false => Some(ssh_keys(what.ssh_keys.iter().copied())?),
    };
    // Without it each boot begins with an upgrade of all packages.
    let is_first = what.user.is_some() || keys.is_some();
    let request = Request::of_guest(Method::Post, at, &["config"])
        .with_some("cores", what.cores)
        .with_some("vcpus", what.vcpus)
        .with_some("memory", what.memory_mib)
        .with_some("balloon", what.balloon_mib)
        .with_some("net0", what.net0)
        .with_some("tags", tags)
        .with_some("description", what.description)
        .with_some("agent", flag(what.agent))
        .with_some("onboot", flag(what.start_with_host))
        .with_some("protection", flag(what.protection))
        .with_some("smbios1", what.smbios1)
        .with_some("ciuser", what.user)
        .with_some("sshkeys", keys)
        .with_some("ciupgrade", is_first.then_some(0))
        .with_some("ipconfig0", what.address.map(Address::to_value))
        .with_some("nameserver", joined(what.nameservers, " "))
        .with_some("ide3", what.ide3)
        .with_some("delete", delete)
        .with_some("digest", what.digest);
    Ok(Call::new(request))
}
