//! Containers. A token can give one `nesting` and nothing else of what Docker wants (`keyctl` is root's): those are made by
//! cloning a template that has it.

use std::net::IpAddr;

use serde::Deserialize;

use crate::calls::agent::{Found, Interface};
use crate::calls::guests::tags_and_deleted;
use crate::ids::{At, GuestKind, Vmid};
use crate::request::{Call, Method, Request};
use crate::rows::Rows;
use crate::upid::Upid;

/// How a template becomes a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clone<'a> {
    /// The number of the new one.
    pub vmid: Vmid,
    /// Its host name.
    pub hostname: &'a str,
    /// The pool that it goes into.
    pub pool: Option<&'a str>,
    /// A copy of its own.
    pub full: bool,
    /// Another host.
    pub target: Option<&'a str>,
    /// Where a full clone goes.
    pub storage: Option<&'a str>,
    /// Text for people.
    pub description: Option<&'a str>,
}

/// A new container out of a file of a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create<'a> {
    /// Its number.
    pub vmid: Vmid,
    /// Its host name.
    pub hostname: &'a str,
    /// `local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst`.
    pub ostemplate: &'a str,
    /// `local-zfs:8`: storage and GiB.
    pub rootfs: &'a str,
    /// Processors.
    pub cores: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Swap, MiB.
    pub swap_mib: u32,
    /// `name=eth0,bridge=vmbr0,ip=dhcp`.
    pub net0: &'a str,
    /// Lines of `authorized_keys`.
    pub ssh_keys: &'a [&'a str],
    /// The pool that it goes into.
    pub pool: Option<&'a str>,
    /// Its tags.
    pub tags: &'a [&'a str],
    /// What Docker in it needs. It is made unprivileged, always.
    pub nesting: bool,
    /// Whether it starts at once.
    pub start: bool,
}

/// What is changed of a container; none: it stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change<'a> {
    /// Processors. `VM.Config.CPU`.
    pub cores: Option<u32>,
    /// Memory, MiB. `VM.Config.Memory`.
    pub memory_mib: Option<u32>,
    /// Swap, MiB. `VM.Config.Memory`.
    pub swap_mib: Option<u32>,
    /// The first interface. `VM.Config.Network`.
    pub net0: Option<&'a str>,
    /// Tags in place of those that it has. `VM.Config.Options`.
    pub tags: Option<&'a [&'a str]>,
    /// Text for people. `VM.Config.Options`.
    pub description: Option<&'a str>,
    /// Whether it starts with its host. `VM.Config.Options`.
    pub start_with_host: Option<bool>,
    /// Whether nobody may remove it. `VM.Config.Options`.
    pub protection: Option<bool>,
    /// Servers for names. `VM.Config.Network`.
    pub nameservers: &'a [&'a str],
    /// Variables that its first process is started with, `NAME=value` with NULs between them. `VM.Config.Options`. Since 9.1.
    pub env: Option<&'a str>,
    /// Entries that go: `env`.
    pub delete: &'a [&'a str],
    /// Refuses where the configuration is another one by now.
    pub digest: Option<&'a str>,
}

/// `POST /nodes/{node}/lxc/{vmid}/clone`. As of a VM. The template is locked all the time: one at a time of each
/// ([`crate::Kind::Locked`]).
pub fn clone(template: At<'_>, how: &Clone<'_>) -> Call<Upid> {
    let request = Request::of_guest(Method::Post, template, &["clone"])
        .with("newid", how.vmid)
        .with("hostname", how.hostname)
        .with_some("pool", how.pool)
        .with("full", u8::from(how.full))
        .with_some("target", how.target)
        .with_some("storage", how.storage.filter(|_| how.full))
        .with_some("description", how.description);
    Call::new(request)
}

/// `POST /nodes/{node}/lxc`: makes one. `VM.Allocate` of the number or the pool, `Datastore.AllocateSpace`, `SDN.Use`.
pub fn create(host: &str, what: &Create<'_>) -> Call<Upid> {
    let joined = |all: &[&str], between: &str| (!all.is_empty()).then(|| all.join(between));
    let request = Request::new(Method::Post, &["nodes", host, "lxc"])
        .with("vmid", what.vmid)
        .with("hostname", what.hostname)
        .with("ostemplate", what.ostemplate)
        .with("rootfs", what.rootfs)
        .with("cores", what.cores)
        .with("memory", what.memory_mib)
        .with("swap", what.swap_mib)
        .with("net0", what.net0)
        // Not encoded beforehand, as a VM's are.
        .with_some("ssh-public-keys", joined(what.ssh_keys, "\n"))
        .with_some("pool", what.pool)
        .with_some("tags", joined(what.tags, ";"))
        .with("unprivileged", 1)
        .with_some("features", what.nesting.then_some("nesting=1"))
        .with_flag("start", what.start);
    Call::new(request)
}

/// `PUT /nodes/{node}/lxc/{vmid}/config`: changes it; it is done when it is answered. Privileges stand at each part.
pub fn change(host: &str, vmid: Vmid, what: &Change<'_>) -> Call<()> {
    let at = At {
        host,
        kind: GuestKind::Lxc,
        vmid,
    };
    let flag = |is: Option<bool>| is.map(u8::from);
    let (tags, delete) = tags_and_deleted(what.tags, what.delete);
    let nameservers = (!what.nameservers.is_empty()).then(|| what.nameservers.join(" "));
    let request = Request::of_guest(Method::Put, at, &["config"])
        .with_some("cores", what.cores)
        .with_some("memory", what.memory_mib)
        .with_some("swap", what.swap_mib)
        .with_some("net0", what.net0)
        .with_some("tags", tags)
        .with_some("description", what.description)
        .with_some("onboot", flag(what.start_with_host))
        .with_some("protection", flag(what.protection))
        .with_some("nameserver", nameservers)
        .with_some("env", what.env)
        .with_some("delete", delete)
        .with_some("digest", what.digest);
    Call::reading(request, |_| Ok(()))
}

/// `GET /nodes/{node}/lxc/{vmid}/interfaces`: its interfaces with their addresses; nothing while it does not run. `VM.Audit`.
pub fn interfaces(host: &str, vmid: Vmid) -> Call<Vec<Interface>> {
    let at = At {
        host,
        kind: GuestKind::Lxc,
        vmid,
    };
    let request = Request::of_guest(Method::Get, at, &["interfaces"]);
    Call::reading(request, |value| {
        let rows: Rows<Row> = Rows::read(value)?;
        Ok(rows.rows.into_iter().map(Interface::from).collect())
    })
}

/// Addresses stand in a list since 9, and in `inet` and `inet6` before, which are to go.
#[derive(Deserialize)]
struct Row {
    name: String,
    #[serde(default, rename = "hardware-address")]
    hardware_address: Option<String>,
    #[serde(default)]
    hwaddr: Option<String>,
    #[serde(default)]
    inet: Option<String>,
    #[serde(default)]
    inet6: Option<String>,
    #[serde(default, rename = "ip-addresses")]
    addresses: Vec<Found>,
}

impl From<Row> for Interface {
    fn from(row: Row) -> Self {
        let written = [row.inet, row.inet6].into_iter().flatten();
        let written = written.filter_map(|cidr| {
            let address = cidr.split('/').next().unwrap_or_default();
            address.parse::<IpAddr>().ok()
        });
        let listed: Vec<IpAddr> = row.addresses.iter().filter_map(Found::address).collect();
        Self {
            name: row.name,
            mac: row
                .hardware_address
                .or(row.hwaddr)
                .map(|mac| mac.to_ascii_uppercase()),
            addresses: match listed.is_empty() {
                true => written.collect(),
                false => listed,
            },
        }
    }
}
