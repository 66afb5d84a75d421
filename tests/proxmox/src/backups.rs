//! Copies of guests, as the world keeps them: on one storage that every host sees.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use skep_proxmox::{GuestKind, Reply};

use crate::answer::data;
use crate::guest::Owner;
use crate::requests::no;
use crate::world::{Effect, World};

/// The storage that holds copies.
pub const STORAGE: &str = "nas";

/// A copy of a guest.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Its name.
    pub volid: String,
    /// Of which guest, by number.
    pub vmid: u32,
    /// When it was begun, ms since the world began by a clock outside.
    pub at_ms: u64,
    /// What people read.
    pub notes: String,
    /// Whether nobody may remove it.
    pub is_protected: bool,
    /// What is in it cannot be read.
    pub is_broken: bool,
    config: BTreeMap<String, String>,
}

/// `POST vzdump`.
pub(crate) fn create(world: &mut World, host: &str, asked: &BTreeMap<String, String>) -> Reply {
    let vmid = asked.get("vmid").and_then(|it| it.parse().ok());
    let Some(vmid) = vmid.filter(|vmid| world.guests.contains_key(vmid)) else {
        return no(world, 500, "unable to find configuration file for VM");
    };
    if asked.get("storage").map(String::as_str) != Some(STORAGE) {
        return no(world, 500, "storage does not exist");
    }
    let guest = &world.guests[&vmid];
    if guest.host != host {
        return no(world, 500, "unable to find configuration file for VM");
    }
    if let Some(lock) = guest.lock() {
        let text = format!("VM is locked ({lock})");
        return no(world, 500, &text);
    }
    *world.calls.entry("POST vzdump".to_owned()).or_insert(0) += 1;
    let at_ms = world.outside_ms();
    let archive = Archive {
        volid: format!(
            "{STORAGE}:backup/vzdump-{}-{vmid}-{at_ms}.vma.zst",
            world.kind.as_str()
        ),
        vmid,
        at_ms,
        notes: asked.get("notes-template").cloned().unwrap_or_default(),
        is_protected: false,
        is_broken: false,
        config: world.guests[&vmid].config.clone(),
    };
    // Of the moment in which it begins, however long it takes.
    if !world.copy_disk(vmid, &archive.volid) {
        return no(world, 500, "no space left on device");
    }
    if let Some(guest) = world.guests.get_mut(&vmid) {
        guest.config.insert("lock".to_owned(), "backup".to_owned());
    }
    let takes = world.random.u64(500..20_000);
    let effect = Effect::BackedUp(Box::new(archive));
    data(&json!(world.begin((host, "vzdump", vmid), effect, takes)))
}

/// `POST {qemu|lxc}` of an archive over a guest that there is.
pub(crate) fn put_back(world: &mut World, host: &str, asked: &BTreeMap<String, String>) -> Reply {
    let name = match world.kind {
        GuestKind::Qemu => asked.get("archive"),
        GuestKind::Lxc => asked.get("ostemplate"),
    };
    let name = name.cloned().unwrap_or_default();
    let archive = world.archives.iter().find(|it| it.volid == name).cloned();
    // Some kinds of storage say so at once, of others the task finds out.
    if archive.is_none() && world.random.bool() {
        return no(world, 500, "volume does not exist");
    }
    let vmid = asked.get("vmid").and_then(|it| it.parse::<u32>().ok());
    let found = vmid.and_then(|vmid| world.guests.get(&vmid).cloned());
    let (Some(vmid), Some(guest)) = (vmid, found) else {
        return no(world, 501, "only over a guest that there is");
    };
    if asked.get("force").map(String::as_str) != Some("1") {
        return no(
            world,
            500,
            &format!("unable to restore VM {vmid} - VM already exists"),
        );
    }
    if guest.owner == Owner::Foreign || archive.as_ref().is_some_and(|it| it.vmid != vmid) {
        let text = format!("{name} was put over {vmid}, {:?}", guest.owner);
        world.violations.push(text);
    }
    if guest.host != host {
        return no(world, 500, "VM exists on another node");
    }
    if guest.is_running {
        return no(
            world,
            500,
            &format!("unable to restore VM {vmid} - vm is running"),
        );
    }
    if let Some(lock) = guest.lock() {
        return no(world, 500, &format!("VM is locked ({lock})"));
    }
    *world.calls.entry("POST restore".to_owned()).or_insert(0) += 1;
    let locked = BTreeMap::from([("lock".to_owned(), "create".to_owned())]);
    if let Some(guest) = world.guests.get_mut(&vmid) {
        guest.config = locked;
    }
    let (task, log) = match world.kind {
        GuestKind::Qemu => ("qmrestore", log_of_vm(&name)),
        GuestKind::Lxc => ("vzrestore", log_of_container(&name)),
    };
    let (takes, effect) = match archive {
        Some(archive) => (
            world.random.u64(500..60_000),
            Effect::PutBack(vmid, Box::new(archive), guest.config),
        ),
        None => (
            world.random.u64(200..2_000),
            Effect::FailsBefore(vmid, guest.config),
        ),
    };
    let upid = world.begin((host, task, vmid), effect, takes);
    if let Some(task) = world.tasks.last_mut() {
        task.log = log;
    }
    data(&json!(upid))
}

/// As recorded of a real host: the copy is said as a path.
fn log_of_vm(volid: &str) -> Vec<String> {
    let file = volid.rsplit('/').next().unwrap_or_default();
    vec![
        format!(
            "restore vma archive: zstd -q -d -c /mnt/pve/{STORAGE}/dump/{file} | vma extract -v -r /var/tmp/vzdumptmp71.fifo - /var/tmp/vzdumptmp71"
        ),
        "CFG: size: 452 name: qemu-server.conf".to_owned(),
        "new volume ID is 'local:vm-disk-0'".to_owned(),
    ]
}

fn log_of_container(volid: &str) -> Vec<String> {
    vec![
        format!("recovering backed-up configuration from '{volid}'"),
        format!("restoring '{volid}' now.."),
    ]
}

/// What is on the storage.
pub(crate) fn content(world: &World) -> Reply {
    let rows = world.archives.iter().map(|it| {
        json!({"volid": it.volid, "content": "backup", "vmid": it.vmid, "size": 1_u64 << 30,
            "ctime": (world.epoch_ms + it.at_ms) / 1_000, "notes": it.notes, "format": "vma.zst",
            "protected": u8::from(it.is_protected)})
    });
    data(&Value::Array(rows.collect()))
}

/// `DELETE content`.
pub(crate) fn remove(world: &mut World, volid: &str) -> Reply {
    let found = world.archives.iter().find(|it| it.volid == volid).cloned();
    match found {
        None => no(world, 500, "volume does not exist"),
        Some(archive) if archive.is_protected => no(world, 500, "can't remove protected backup"),
        Some(archive) => {
            if !archive.notes.starts_with("skep-") {
                let text = format!("{volid} was removed, which is somebody's");
                world.violations.push(text);
            }
            world.archives.retain(|it| it.volid != volid);
            world.remove_copy_of_disk(volid);
            data(&Value::Null)
        }
    }
}

impl World {
    /// Somebody else has a copy of a guest that had this number before.
    pub fn add_copy_of_another(&mut self, vmid: u32) {
        self.add_copy(vmid, "before", "before the migration");
    }

    /// Somebody has made a copy of a guest of this number, and written something about it.
    pub fn add_copy(&mut self, vmid: u32, suffix: &str, notes: &str) {
        let archive = Archive {
            volid: format!("{STORAGE}:backup/vzdump-qemu-{vmid}-{suffix}.vma.zst"),
            vmid,
            at_ms: 0,
            notes: notes.to_owned(),
            is_protected: false,
            is_broken: false,
            config: BTreeMap::new(),
        };
        self.archives.push(archive);
    }

    /// A copy of a guest has ended.
    pub(crate) fn keep(&mut self, archive: Archive, is_failed: bool) -> bool {
        if let Some(guest) = self.guests.get_mut(&archive.vmid) {
            guest.config.remove("lock");
        }
        match is_failed {
            true => self.remove_copy_of_disk(&archive.volid),
            false => self.archives.push(archive),
        }
        !is_failed
    }

    /// A guest becomes what a copy holds, unless that is lost or broken, or something else goes wrong: then it is locked no
    /// more, has disks of nobody, and one configuration or the other.
    pub(crate) fn become_copy(
        &mut self,
        vmid: u32,
        (archive, before): (&Archive, BTreeMap<String, String>),
        is_failed: bool,
    ) -> bool {
        let there = self.archives.iter().find(|it| it.volid == archive.volid);
        let is_half = is_failed || there.is_none_or(|it| it.is_broken);
        let is_written = !is_half || self.random.bool();
        let Some(guest) = self.guests.get_mut(&vmid) else {
            return false;
        };
        guest.config = match is_written {
            true => archive.config.clone(),
            false => before,
        };
        guest.config.remove("lock");
        guest.pending.clear();
        // Its disk after its configuration, which says whose that is.
        let is_half = is_half || !self.put_disk_back(vmid, &archive.volid);
        if let Some(guest) = self.guests.get_mut(&vmid) {
            guest.is_half = is_half;
            guest.restored_from = (!is_half).then(|| archive.volid.clone());
        }
        !is_half
    }

    /// Whether what a restore was to be put over is still there.
    pub(crate) fn is_still_meant(&self, request: &http::Request<bytes::Bytes>) -> bool {
        let mut form = form_urlencoded::parse(request.body());
        let vmid = form.find(|(name, _)| name == "vmid");
        let vmid = vmid.and_then(|(_, value)| value.parse::<u32>().ok());
        let there = vmid.and_then(|vmid| self.guests.get(&vmid));
        there.is_some_and(|guest| guest.owner != Owner::Foreign)
    }

    /// A copy is lost, as whoever keeps the storage has removed it, or its disk has broken.
    pub fn lose(&mut self, volid: &str) {
        self.archives.retain(|it| it.volid != volid);
    }

    /// Somebody marks a copy as not to be removed.
    pub fn protect(&mut self, volid: &str) {
        for archive in self.archives.iter_mut().filter(|it| it.volid == volid) {
            archive.is_protected = true;
        }
    }

    /// What is in a copy cannot be read any more.
    pub fn spoil(&mut self, volid: &str) {
        for archive in self.archives.iter_mut().filter(|it| it.volid == volid) {
            archive.is_broken = true;
        }
    }
}
