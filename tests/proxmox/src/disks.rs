//! What is on the disks of guests, where a program runs in each: a folder of the guest's own, which is copied and put back with
//! it. A copy is of one moment: what runs in the guest stands still meanwhile, as under a snapshot. Interprets nothing of what is
//! there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::world::World;

/// In a guest's folder: what stays when it is off, and is copied. All else there is its memory.
const DISK: &str = "disk";
/// In a guest's folder: the process that is the guest.
pub(crate) const PID: &str = "pid";
/// For what runs in a guest to end, once it is cut off.
const OFF: Duration = Duration::from_secs(20);

/// The disks of all guests of a world.
#[derive(Debug, Clone)]
pub struct Disks {
    guests: PathBuf,
    copies: PathBuf,
}

impl Disks {
    /// `guests`: the folder of the program that is started in them. `copies`: where copies go.
    pub fn new(guests: PathBuf, copies: PathBuf) -> Self {
        Self { guests, copies }
    }

    /// Copies a disk as it is at this moment.
    fn copy(&self, mac: &str, volid: &str) -> bool {
        let folder = folder_of(&self.guests, mac);
        let disk = folder.join(DISK);
        let frozen = tree(&folder).map(freeze).unwrap_or_default();
        let is_copied = !disk.exists() || copied(&disk, &self.copy_of(volid));
        send("CONT", &frozen);
        is_copied
    }

    /// A guest is off, and has the disk that was copied from now on.
    fn put_back(&self, mac: &str, volid: &str) -> bool {
        let folder = folder_of(&self.guests, mac);
        let copy = self.copy_of(volid);
        if !is_off(&folder) {
            return false;
        }
        let disk = folder.join(DISK);
        let is_gone = !disk.exists() || std::fs::remove_dir_all(&disk).is_ok();
        is_gone && (!copy.exists() || copied(&copy, &disk))
    }

    fn copy_of(&self, volid: &str) -> PathBuf {
        self.copies.join(volid.replace(['/', ':'], "-"))
    }
}

impl World {
    /// Copies a guest's disk; false: it cannot be copied.
    pub(crate) fn copy_disk(&self, vmid: u32, volid: &str) -> bool {
        let mac = self.guests.get(&vmid).and_then(|guest| guest.mac());
        let (Some(disks), Some(mac)) = (&self.disks, mac) else {
            return true;
        };
        disks.copy(&mac, volid)
    }

    /// Gives a guest that has become a copy the disk of that copy; false: it has none.
    pub(crate) fn put_disk_back(&self, vmid: u32, volid: &str) -> bool {
        let mac = self.guests.get(&vmid).and_then(|guest| guest.mac());
        let (Some(disks), Some(mac)) = (&self.disks, mac) else {
            return true;
        };
        disks.put_back(&mac, volid)
    }

    /// A copy is no more.
    pub(crate) fn remove_copy_of_disk(&self, volid: &str) {
        if let Some(disks) = &self.disks {
            // Of a guest that nothing ran in there is none.
            let _ = std::fs::remove_dir_all(disks.copy_of(volid));
        }
    }
}

/// The folder of a guest among those of all.
pub(crate) fn folder_of(all: &Path, mac: &str) -> PathBuf {
    all.join(mac.replace(':', "-"))
}

fn copied(from: &Path, to: &Path) -> bool {
    let made = to
        .parent()
        .is_none_or(|it| std::fs::create_dir_all(it).is_ok());
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    made && copied.is_ok_and(|status| status.success())
}

/// The process that is the guest, while it runs.
fn tree(folder: &Path) -> Option<u32> {
    let pid = std::fs::read_to_string(folder.join(PID)).ok()?;
    let pid = pid.trim().parse().ok()?;
    // Numbers are used again: what we have not started is no guest.
    let (_, parent) = stat(pid)?;
    (parent == std::process::id() && runs(pid)).then_some(pid)
}

/// Stops a process and all that it has started, until nothing of it is left that could start more.
fn freeze(pid: u32) -> BTreeSet<u32> {
    let mut frozen = BTreeSet::new();
    loop {
        let all = with_children(pid);
        if all.is_subset(&frozen) {
            return frozen;
        }
        send("STOP", &all);
        frozen.extend(all);
    }
}

/// Ends what runs in a guest, and waits for that: what is off writes no more.
fn is_off(folder: &Path) -> bool {
    let Some(pid) = tree(folder) else {
        return true;
    };
    let all = with_children(pid);
    send("KILL", &BTreeSet::from([pid]));
    let began = Instant::now();
    while all.iter().any(|pid| runs(*pid)) {
        if began.elapsed() > OFF {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

fn send(signal: &str, pids: &BTreeSet<u32>) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    if pids.is_empty() {
        return;
    }
    // The shell's own: there everywhere, while the program is not. Some may have ended meanwhile.
    let script = format!("kill -{signal} {} 2>/dev/null", pids.join(" "));
    let _ = Command::new("sh").args(["-c", &script]).status();
}

/// Whether it is there, and not only yet to be buried.
fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// State and parent of a process: proc_pid_stat(5). Its name, in parentheses, may hold anything.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    let state = words.next()?.chars().next()?;
    Some((state, words.next()?.parse().ok()?))
}

/// A process, and whatever goes back to it. In a namespace of its own no orphan leaves that.
fn with_children(pid: u32) -> BTreeSet<u32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for one in all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some((_, parent)) = stat(one) {
            children.entry(parent).or_default().push(one);
        }
    }
    let (mut found, mut left) = (BTreeSet::from([pid]), vec![pid]);
    while let Some(one) = left.pop() {
        for child in children.get(&one).into_iter().flatten() {
            if found.insert(*child) {
                left.push(*child);
            }
        }
    }
    found
}
