//! What is read of a container more rarely than CPU and memory, and of the machine where somebody scrapes it:
//! throttling, pressure, disk and network. Pure: the kernel's text in, numbers out. What the kernel does not count is missing,
//! never zero.

use std::path::PathBuf;

use skep_model::sample::{Counter, Extras};

use super::cgroup::{Files, value};
use super::reader::read;

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

/// Everything of one container whose main process is `pid`. Blocks on the kernel.
pub(super) fn read_all(files: &ExtraFiles, pid: u32, buffer: &mut String) -> Extras {
    let mut extras = Extras::default();
    let stat = files.cpu_stat.as_ref().and_then(|path| read(path, buffer));
    if let Some(found) = stat.and_then(|text| throttled(text, files.is_v1)) {
        extras.set(Counter::Periods, Some(found.periods));
        extras.set(Counter::ThrottledPeriods, Some(found.times));
        extras.set(Counter::ThrottledUs, Some(found.us));
    }
    let waits = [Counter::CpuWaitUs, Counter::MemoryWaitUs, Counter::IoWaitUs];
    for (counter, path) in waits.into_iter().zip(&files.pressure) {
        let text = path.as_ref().and_then(|path| read(path, buffer));
        extras.set(counter, text.and_then(pressure_us));
    }
    if let Some(text) = files.io.as_ref().and_then(|path| read(path, buffer)) {
        let (read, written) = disk_bytes(text, files.is_v1);
        extras.set(Counter::DiskRead, Some(read));
        extras.set(Counter::DiskWritten, Some(written));
    }
    let path = PathBuf::from(format!("/proc/{pid}/net/dev"));
    if let Some((received, sent)) = read(&path, buffer).and_then(network_bytes) {
        extras.set(Counter::NetworkReceived, Some(received));
        extras.set(Counter::NetworkSent, Some(sent));
    }
    extras
}

/// In how many periods of its CPU limit a container was held back, of how many, and for how long in microseconds.
pub(super) struct Throttled {
    pub(super) periods: u64,
    pub(super) times: u64,
    pub(super) us: u64,
}

/// Out of `cpu.stat`.
pub(super) fn throttled(text: &str, is_v1: bool) -> Option<Throttled> {
    let (periods, times) = (value(text, "nr_periods ")?, value(text, "nr_throttled ")?);
    let us = match is_v1 {
        true => value(text, "throttled_time ")? / NS_PER_US,
        false => value(text, "throttled_usec ")?,
    };
    Some(Throttled { periods, times, us })
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
        let counted = |text, is_v1| {
            let found = throttled(text, is_v1)?;
            Some((found.periods, found.times, found.us))
        };
        assert_eq!(counted(v2, false), Some((4, 3, 1_500)));
        let v1 = "nr_periods 4\nnr_throttled 3\nthrottled_time 1500000\n";
        assert_eq!(counted(v1, true), Some((4, 3, 1_500)));
        assert_eq!(counted("usage_usec 9\n", false), None, "no limit was set");
        let v2 = "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n";
        assert_eq!(disk_bytes(v2, false), (11, 22));
        let v1 = "8:0 Read 10\n8:0 Write 20\n8:0 Sync 5\n8:16 Read 1\nTotal 36\n";
        assert_eq!(disk_bytes(v1, true), (11, 20));
    }

    /// Recorded of a container with a CPU limit on a machine with control groups of version 2.
    #[test]
    fn all_of_a_version_2_folder_is_read() {
        let folder = tempfile::tempdir().expect("folder");
        let pressure = |total| {
            format!(
                "some avg10=1.20 avg60=0.90 avg300=0.31 total={total}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n"
            )
        };
        for (name, text) in [
            ("cpu.stat", "usage_usec 5120934\nuser_usec 4011220\nsystem_usec 1109714\nnr_periods 812\nnr_throttled 340\nthrottled_usec 17203311\nnr_bursts 0\nburst_usec 0\n".to_owned()),
            ("cpu.pressure", pressure(17_310_422)),
            ("memory.pressure", pressure(0)),
            ("io.pressure", pressure(90_114)),
            ("io.stat", "253:0 rbytes=4096 wbytes=1048576 rios=1 wios=16 dbytes=0 dios=0\n".to_owned()),
        ] {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let files = Files {
            cpu: None,
            memory: None,
            v1_cpu_folder: None,
            v1_blkio_folder: None,
            v2_folder: Some(folder.path().to_owned()),
        };
        let read = |pid| read_all(&ExtraFiles::beside(&files), pid, &mut String::new());
        let extras = read(u32::MAX);
        let known: Vec<u64> = extras.known().map(|(_, value)| value).collect();
        assert_eq!(
            known,
            [
                812, 340, 17_203_311, 17_310_422, 0, 90_114, 4_096, 1_048_576
            ]
        );
        let own = read(std::process::id());
        assert!(
            own.get(Counter::NetworkReceived).is_some(),
            "of a process that runs"
        );
        std::fs::remove_file(folder.path().join("memory.pressure")).expect("there");
        assert_eq!(
            read(u32::MAX).get(Counter::MemoryWaitUs),
            None,
            "missing, not 0"
        );
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
