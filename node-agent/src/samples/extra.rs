//! What is read of a container or the machine only where somebody scrapes it: throttling, pressure, disk
//! and network. Pure: the kernel's text in, numbers out. What the kernel does not count is missing,
//! never zero.

use std::path::PathBuf;

use super::cgroup::{Files, value};

const NS_PER_US: u64 = 1_000;

/// The files behind those that are read every period.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ExtraFiles {
    pub(super) cpu_stat: Option<PathBuf>,
    /// `throttled_time` in ns (version 1), else `throttled_usec`.
    pub(super) is_v1: bool,
    /// CPU, memory, disk.
    pub(super) pressure: [Option<PathBuf>; 3],
    pub(super) io: Option<PathBuf>,
}

impl ExtraFiles {
    /// Beside the files that are known; version 2 has all in one folder.
    pub(super) fn beside(files: &Files) -> Self {
        if let Some(folder) = &files.v2_folder {
            let pressure =
                ["cpu", "memory", "io"].map(|of| Some(folder.join(format!("{of}.pressure"))));
            return Self {
                cpu_stat: Some(folder.join("cpu.stat")),
                is_v1: false,
                pressure,
                io: Some(folder.join("io.stat")),
            };
        }
        Self {
            cpu_stat: files.v1_cpu_folder.as_ref().map(|it| it.join("cpu.stat")),
            is_v1: true,
            pressure: [None, None, None],
            io: files
                .v1_blkio_folder
                .as_ref()
                .map(|it| it.join("blkio.throttle.io_service_bytes")),
        }
    }
}

/// How often, and for how long in microseconds, a container was held back for its CPU limit.
pub(super) fn throttled(text: &str, is_v1: bool) -> Option<(u64, u64)> {
    let times = value(text, "nr_throttled ")?;
    let us = match is_v1 {
        true => value(text, "throttled_time ")? / NS_PER_US,
        false => value(text, "throttled_usec ")?,
    };
    Some((times, us))
}

/// Time in microseconds in which something waited, out of the kernel's pressure files (PSI): the total
/// of `some`.
pub(super) fn pressure_us(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = line
        .split(' ')
        .find_map(|field| field.strip_prefix("total="));
    total?.parse().ok()
}

/// Bytes read and written, all devices together, out of `io.stat` (version 2) or
/// `blkio.throttle.io_service_bytes` (version 1).
pub(super) fn disk_bytes(text: &str, is_v1: bool) -> (u64, u64) {
    let (mut read, mut written) = (0, 0);
    for line in text.lines() {
        if is_v1 {
            let mut fields = line.split(' ').skip(1);
            let count =
                |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0_u64);
            match fields.next() {
                Some("Read") => read += count(fields.next()),
                Some("Write") => written += count(fields.next()),
                _ => {}
            }
            continue;
        }
        for field in line.split(' ') {
            let number = |text: &str| text.parse().unwrap_or(0_u64);
            match field.split_once('=') {
                Some(("rbytes", count)) => read += number(count),
                Some(("wbytes", count)) => written += number(count),
                _ => {}
            }
        }
    }
    (read, written)
}

/// Bytes received and sent out of `/proc/PID/net/dev`, without the loopback.
pub(super) fn network_bytes(text: &str) -> Option<(u64, u64)> {
    let (mut received, mut sent) = (0_u64, 0_u64);
    let mut is_any = false;
    for line in text.lines() {
        let Some((name, counts)) = line.split_once(':') else {
            continue;
        };
        is_any = true;
        if name.trim() == "lo" {
            continue;
        }
        let mut counts = counts.split_whitespace();
        received += counts.next()?.parse::<u64>().ok()?;
        sent += counts.nth(7)?.parse::<u64>().ok()?;
    }
    is_any.then_some((received, sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_throttling_and_disk() {
        let v2 = "usage_usec 9\nnr_periods 4\nnr_throttled 3\nthrottled_usec 1500\n";
        assert_eq!(throttled(v2, false), Some((3, 1_500)));
        let v1 = "nr_periods 4\nnr_throttled 3\nthrottled_time 1500000\n";
        assert_eq!(throttled(v1, true), Some((3, 1_500)));
        assert_eq!(throttled("usage_usec 9\n", false), None, "no limit was set");
        let v2 = "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n";
        assert_eq!(disk_bytes(v2, false), (11, 22));
        let v1 = "8:0 Read 10\n8:0 Write 20\n8:0 Sync 5\n8:16 Read 1\nTotal 36\n";
        assert_eq!(disk_bytes(v1, true), (11, 20));
    }

    #[test]
    fn pressure_and_network() {
        let text = "some avg10=0.00 avg60=0.12 avg300=0.01 total=4321\nfull avg10=0.00 total=1\n";
        assert_eq!(pressure_us(text), Some(4_321));
        assert_eq!(pressure_us(""), None);
        let text = "Inter-|   Receive        |  Transmit\n face |bytes packets\n    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n  eth0: 100 2 0 0 0 0 0 0 70 3 0 0 0 0 0 0\n";
        assert_eq!(network_bytes(text), Some((100, 70)));
        assert_eq!(network_bytes("Inter-|\n"), None);
    }
}
