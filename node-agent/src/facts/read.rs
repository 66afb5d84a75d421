//! Reads what the kernel shows of the machine. Interprets as little as it can.

use std::fs;
use std::path::Path;

use super::machine::Read;

/// A text of the kernel is short; what is longer is none of those read here.
const TEXT_MAX: usize = 1 << 20;

/// Reads everything; what is missing stays out.
pub(crate) fn read() -> Read {
    let dmi = |name: &str| text(&format!("/sys/class/dmi/id/{name}")).unwrap_or_default();
    let uuid = dmi("product_uuid").to_lowercase();
    Read {
        container: container(),
        vendor: dmi("sys_vendor"),
        product: dmi("product_name"),
        uuid: Some(uuid).filter(|uuid| !uuid.is_empty()),
        is_virtual_cpu: text("/proc/cpuinfo").is_some_and(|text| has_flag(&text, "hypervisor")),
        meminfo: text("/proc/meminfo").and_then(|text| meminfo_total(&text)),
        is_lxcfs: text("/proc/self/mountinfo").is_some_and(|text| has_lxcfs(&text)),
        memory_max: text("/sys/fs/cgroup/memory.max")
            .or_else(|| text("/sys/fs/cgroup/memory/memory.limit_in_bytes")),
        cards: cards(Path::new("/sys/class/net")),
    }
}

fn text(path: &str) -> Option<String> {
    let bytes = fs::read(path)
        .ok()
        .filter(|bytes| bytes.len() <= TEXT_MAX)?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// As systemd says, else as process 1 was told.
fn container() -> Option<String> {
    if let Some(said) = text("/run/systemd/container") {
        return Some(said);
    }
    let environment = fs::read("/proc/1/environ").ok()?;
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(b"container="))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

fn has_flag(cpuinfo: &str, flag: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| line.split_whitespace().any(|word| word == flag))
}

fn meminfo_total(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// Whether `/proc/meminfo` is a file of lxcfs (proc_pid_mountinfo(5): the fifth field is the place, the
/// type follows the lone dash).
fn has_lxcfs(mountinfo: &str) -> bool {
    mountinfo.lines().any(|line| {
        let is_there = line.split(' ').nth(4) == Some("/proc/meminfo");
        let kind = line.split_once(" - ").map(|(_, rest)| rest);
        is_there && kind.is_some_and(|rest| rest.starts_with("fuse.lxcfs "))
    })
}

/// Interfaces that are neither made by software on this machine nor loopback. The one of a container
/// has no device behind it: it goes by its name.
fn cards(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_card = entry.path().join("device").exists() || name.starts_with("eth");
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        let address = address.trim();
        if is_card && !address.is_empty() && address != "00:00:00:00:00:00" {
            found.push((name, address.to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lxcfs_is_seen_where_it_is_mounted_and_nowhere_else() {
        let inside = "\
1540 1539 0:57 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1541 1540 0:52 /proc/meminfo /proc/meminfo rw,nosuid,nodev,relatime - fuse.lxcfs lxcfs rw,user_id=0";
        assert!(has_lxcfs(inside));
        let elsewhere = "1 0 0:52 / /var/lib/lxcfs rw shared:9 - fuse.lxcfs lxcfs rw";
        assert!(!has_lxcfs(elsewhere));
        let bound = "1 0 8:1 /proc/meminfo /proc/meminfo rw - ext4 /dev/sda1 rw";
        assert!(!has_lxcfs(bound));
    }

    #[test]
    fn the_kernels_text() {
        assert_eq!(
            meminfo_total("MemTotal:  100 kB\nMemFree: 1 kB"),
            Some(100 << 10)
        );
        assert_eq!(meminfo_total("MemFree: 1 kB"), None);
        assert!(has_flag(
            "processor: 0\nflags\t\t: fpu hypervisor lahf_lm\n",
            "hypervisor"
        ));
        assert!(!has_flag("flags : fpu nohypervisor\n", "hypervisor"));
    }

    #[test]
    fn this_machine_can_be_read() {
        let read = read();
        assert!(read.meminfo.is_some_and(|bytes| bytes > 16 << 20));
    }
}
