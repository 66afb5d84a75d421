//! What is the same for VMs and containers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::calls::hosts::{Sample, Timeframe, read_samples};
use crate::config::Config;
use crate::ids::{At, GuestKind};
use crate::lenient;
use crate::request::{Call, Method, Request};
use crate::rows::Rows;
use crate::upid::Upid;

/// How a guest stands.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Status {
    /// `running` or `stopped`.
    pub status: String,
    /// Of a VM: `running`, `paused`, `prelaunch`.
    #[serde(default)]
    pub qmpstatus: Option<String>,
    /// What has locked it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub lock: Option<String>,
    /// Seconds.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub uptime: Option<u64>,
    /// What else there is.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Status {
    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.status == "running"
    }
}

/// A guest in a host's list.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Listed {
    /// Its number.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub vmid: Option<u64>,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    /// `running` or `stopped`.
    #[serde(default)]
    pub status: Option<String>,
    /// What else there is.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// An entry of a configuration, and what waits for the next start of the guest.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Entry {
    /// Its name: `memory`.
    pub key: String,
    /// What is in effect; none: nothing is.
    #[serde(default, deserialize_with = "lenient::text")]
    pub value: Option<String>,
    /// What it becomes with the next start; none: it stays, or goes.
    #[serde(default, deserialize_with = "lenient::text")]
    pub pending: Option<String>,
    /// 1: it goes with the next start; 2: it is taken away by force then.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub delete: Option<u64>,
}

impl Entry {
    /// Whether it becomes something else with the next start.
    pub fn waits(&self) -> bool {
        self.delete.is_some_and(|how| how > 0)
            || (self.pending.is_some() && self.pending != self.value)
    }
}

/// What goes with a guest that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remove {
    /// Jobs, high availability and access rules that name it.
    pub purge: bool,
    /// Disks with its number that its configuration does not name.
    pub unreferenced_disks: bool,
}

/// Tags are set by naming them, and taken away by an entry that goes: no value of theirs is empty.
pub(super) fn tags_and_deleted(
    tags: Option<&[&str]>,
    delete: &[&str],
) -> (Option<String>, Option<String>) {
    let (set, gone): (_, &[&str]) = match tags {
        Some([]) => (None, &["tags"]),
        Some(tags) => (Some(tags.join(";")), &[]),
        None => (None, &[]),
    };
    let gone = [delete, gone].concat();
    (set, (!gone.is_empty()).then(|| gone.join(",")))
}

/// `GET /nodes/{node}/{qemu|lxc}`: guests of one host. `VM.Audit` of each. Of a host that is away it fails
/// ([`crate::Kind::HostUnreachable`]): [`super::cluster::guests`] does not.
pub fn list(host: &str, kind: GuestKind) -> Call<Rows<Listed>> {
    let request = Request::new(Method::Get, &["nodes", host, kind.as_str()]);
    Call::reading(request, Rows::read)
}

/// `GET .../status/current`. `VM.Audit`.
pub fn status(at: At<'_>) -> Call<Status> {
    Call::new(Request::of_guest(Method::Get, at, &["status", "current"]))
}

/// `GET .../config`: as it is written down, with changes that wait for a restart. `VM.Audit`.
pub fn config(at: At<'_>) -> Call<Config> {
    let request = Request::of_guest(Method::Get, at, &["config"]);
    Call::reading(request, Config::read)
}

/// `GET .../pending`: its configuration, an entry a row, with what is in effect apart from what waits for a restart
/// ([`config`] says what waits). `VM.Audit`.
pub fn pending(at: At<'_>) -> Call<Rows<Entry>> {
    let request = Request::of_guest(Method::Get, at, &["pending"]);
    Call::reading(request, Rows::read)
}

/// `GET .../rrddata`: what was measured of it, oldest first. `VM.Audit`.
pub fn history(at: At<'_>, timeframe: Timeframe) -> Call<Vec<Sample>> {
    let request = Request::of_guest(Method::Get, at, &["rrddata"])
        .with("timeframe", timeframe.as_str())
        .with("cf", "AVERAGE");
    Call::reading(request, read_samples)
}

/// `PUT .../resize`: makes a disk larger, `scsi0` or `rootfs`. Disks never shrink. `VM.Config.Disk`, and
/// `Datastore.AllocateSpace` of its storage. Old hosts answer with nothing.
pub fn resize(at: At<'_>, disk: &str, gib: u32) -> Call<Option<Upid>> {
    let request = Request::of_guest(Method::Put, at, &["resize"])
        .with("disk", disk)
        .with("size", format!("{gib}G"));
    Call::new(request)
}

/// `POST .../status/start`. `VM.PowerMgmt`. One that runs is an error of the task.
pub fn start(at: At<'_>) -> Call<Upid> {
    Call::new(Request::of_guest(Method::Post, at, &["status", "start"]))
}

/// `POST .../status/shutdown`: asks its system to end, and after the time ends it, where that is wished. `VM.PowerMgmt`.
pub fn shut_down(at: At<'_>, timeout: Duration, then_stop: bool) -> Call<Upid> {
    let request = Request::of_guest(Method::Post, at, &["status", "shutdown"])
        .with("timeout", timeout.as_secs())
        .with_flag("forceStop", then_stop);
    Call::new(request)
}

/// `POST .../status/stop`: ends it at once, and a shutdown that hangs where that is `overruled`: of a guest that high
/// availability has that is refused, whose order replaces the one before. `VM.PowerMgmt`.
pub fn stop(at: At<'_>, overruled: bool) -> Call<Upid> {
    let request = Request::of_guest(Method::Post, at, &["status", "stop"]);
    Call::new(match overruled {
        true => request.with("overrule-shutdown", 1),
        false => request,
    })
}

/// `POST .../status/reboot`: ends its system, and starts it with what its configuration says by then. `VM.PowerMgmt`.
pub fn reboot(at: At<'_>, timeout: Duration) -> Call<Upid> {
    let request = Request::of_guest(Method::Post, at, &["status", "reboot"])
        .with("timeout", timeout.as_secs());
    Call::new(request)
}

/// `DELETE .../{vmid}`: removes it with its disks. It must be stopped, and the task that stopped it over. `VM.Allocate`.
pub fn remove(at: At<'_>, what: Remove) -> Call<Upid> {
    let request = Request::of_guest(Method::Delete, at, &[])
        .with_flag("purge", what.purge)
        .with_flag("destroy-unreferenced-disks", what.unreferenced_disks);
    Call::new(request)
}
