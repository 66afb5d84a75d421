//! The agent in a VM (qemu-guest-agent): the only one who knows its addresses, and a way in without a network.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::ids::{At, GuestKind, Vmid};
use crate::lenient;
use crate::request::{Call, Method, Request};
use crate::rows::Rows;

/// A network interface as the guest sees it: Docker's own are among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its address, in capitals; tunnels have none.
    pub mac: Option<String>,
    /// Its IP addresses, link-local ones among them.
    pub addresses: Vec<IpAddr>,
}

/// The first address by which others reach an interface, of the one with this MAC: never "the first there is", which may
/// be a bridge of Docker's.
pub fn address_by_mac(interfaces: &[Interface], mac: &str) -> Option<IpAddr> {
    let its = interfaces.iter().filter(|interface| {
        let its = interface.mac.as_deref().unwrap_or_default();
        its.eq_ignore_ascii_case(mac)
    });
    let is_usable = |address: &&IpAddr| match address {
        IpAddr::V4(it) => !it.is_link_local() && !it.is_unspecified(),
        IpAddr::V6(it) => !it.is_unicast_link_local() && !it.is_unspecified(),
    };
    let all: Vec<&IpAddr> = its.flat_map(|it| &it.addresses).filter(is_usable).collect();
    let v4 = all.iter().find(|address| address.is_ipv4());
    v4.or(all.first()).map(|address| **address)
}

/// A command that was started in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Started {
    /// Its number there.
    #[serde(deserialize_with = "needed")]
    pub pid: u64,
}

/// How a command in a guest stands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Ended {
    /// Whether it has ended.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub exited: Option<bool>,
    /// Its exit code.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub exitcode: Option<u64>,
    /// What it has printed.
    #[serde(default, rename = "out-data")]
    pub stdout: String,
    /// What it has printed of errors.
    #[serde(default, rename = "err-data")]
    pub stderr: String,
}

/// `POST .../agent/ping`: whether it answers. `VM.GuestAgent.Audit`; before 9 `VM.Monitor`.
pub fn ping(host: &str, vmid: Vmid) -> Call<()> {
    Call::reading(of(Method::Post, (host, vmid), &["ping"]), |_| Ok(()))
}

/// `GET .../agent/network-get-interfaces`. `VM.GuestAgent.Audit`; before 9 `VM.Monitor`.
pub fn interfaces(host: &str, vmid: Vmid) -> Call<Vec<Interface>> {
    let request = of(Method::Get, (host, vmid), &["network-get-interfaces"]);
    Call::reading(request, read_interfaces)
}

/// `POST .../agent/exec`: starts a command in the guest. `VM.GuestAgent.Unrestricted`; before 9 `VM.Monitor`.
pub fn exec(host: &str, vmid: Vmid, command: &[&str]) -> Call<Started> {
    let mut request = of(Method::Post, (host, vmid), &["exec"]);
    for word in command {
        request = request.with("command", word);
    }
    Call::new(request)
}

/// `GET .../agent/exec-status`: how a command stands. As [`exec`].
pub fn exec_status(host: &str, vmid: Vmid, pid: u64) -> Call<Ended> {
    Call::new(of(Method::Get, (host, vmid), &["exec-status"]).with("pid", pid))
}

/// `POST .../agent/file-write`: writes a file of up to 60 KiB in the guest, over one that is there. It is plain ASCII:
/// Proxmox encodes it for the guest's agent, and fails at anything else. A new file can be read by everybody whom its folder
/// lets in. `VM.GuestAgent.FileWrite`; before 9 `VM.Monitor`.
pub fn write_file(host: &str, vmid: Vmid, path: &str, content: &str) -> Call<()> {
    let request = of(Method::Post, (host, vmid), &["file-write"])
        .with("file", path)
        .with("content", content);
    Call::reading(request, |_| Ok(()))
}

fn of(method: Method, (host, vmid): (&str, Vmid), parts: &[&str]) -> Request {
    let at = At {
        host,
        kind: GuestKind::Qemu,
        vmid,
    };
    Request::of_guest(method, at, &[&["agent"], parts].concat())
}

/// An address in a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Found {
    #[serde(default, rename = "ip-address")]
    text: String,
}

impl Found {
    /// Without the interface that Windows writes behind a link-local one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.text.split('%').next()?.parse().ok()
    }
}

fn read_interfaces(mut value: Value) -> Result<Vec<Interface>, String> {
    #[derive(Deserialize)]
    struct Row {
        name: String,
        #[serde(default, rename = "hardware-address")]
        mac: Option<String>,
        #[serde(default, rename = "ip-addresses")]
        addresses: Vec<Found>,
    }
    let result = value.get_mut("result").map(Value::take).unwrap_or_default();
    // An old agent refuses with a success.
    if let Some(error) = result.get("error") {
        let text = error.get("desc").and_then(Value::as_str);
        return Err(format!("the agent says {}", text.unwrap_or("no")));
    }
    let rows: Rows<Row> = Rows::read(result)?;
    let interface = |row: Row| Interface {
        name: row.name,
        mac: row.mac.map(|mac| mac.to_ascii_uppercase()),
        addresses: row.addresses.iter().filter_map(Found::address).collect(),
    };
    Ok(rows.rows.into_iter().map(interface).collect())
}

fn needed<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = lenient::integer(from)?;
    number.ok_or_else(|| serde::de::Error::custom("a number is expected"))
}
