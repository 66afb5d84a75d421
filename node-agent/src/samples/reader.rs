//! Reads the kernel's files. Blocks on the kernel, never on a disk; keeps one buffer and where each
//! container is counted, so that a reading costs a few small files and no memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use skep_model::id::AllocationId;
use skep_model::sample::{AllocationReading, NodeReading};

use super::cgroup::{self, CpuFile, Files, Mounts};
use super::extra::ExtraFiles;
use super::machine;
use super::running::Running;

/// Largest file that is read: `/proc/stat` of a machine with hundreds of cores.
const FILE_MAX_BYTES: u64 = 256 << 10;
/// Containers remembered beyond those of one turn before all others are looked up anew.
const PLACES_SPARE: usize = 4_096;

#[derive(Debug)]
struct Place {
    running: Running,
    files: Files,
}

/// What reads.
#[derive(Debug, Default)]
pub(super) struct Reader {
    mounts: Option<Mounts>,
    places: BTreeMap<AllocationId, Place>,
    first: String,
    second: String,
}

impl Reader {
    /// The machine.
    pub(super) fn machine(&mut self) -> NodeReading {
        let cpu_us = read(Path::new("/proc/stat"), &mut self.first)
            .and_then(|text| machine::cpu_us(text, procfs::ticks_per_second()));
        let memory_bytes =
            read(Path::new("/proc/meminfo"), &mut self.first).and_then(machine::memory_bytes);
        NodeReading {
            cpu_us,
            memory_bytes,
        }
    }

    /// These containers; one of which nothing can be read is left out.
    pub(super) fn containers(
        &mut self,
        turn: &[(AllocationId, Running)],
    ) -> Vec<AllocationReading> {
        if self.places.len() > turn.len() + PLACES_SPARE {
            self.places.clear();
        }
        let read = turn
            .iter()
            .map(|(id, running)| self.container(*id, running));
        read.flatten().collect()
    }

    fn container(&mut self, id: AllocationId, running: &Running) -> Option<AllocationReading> {
        if self.places.get(&id).is_none_or(|it| it.running != *running) {
            let files = self.find(running)?;
            let running = running.clone();
            self.places.insert(id, Place { running, files });
        }
        let files = &self.places.get(&id)?.files;
        let cpu_us = files.cpu.as_ref().and_then(|file| {
            let (CpuFile::V1(path) | CpuFile::V2(path)) = file;
            cgroup::cpu_us(file, read(path, &mut self.first)?)
        });
        let memory_bytes = files.memory.as_ref().and_then(|files| {
            let usage = read(&files.usage, &mut self.first)?;
            let stat = read(&files.stat, &mut self.second)?;
            cgroup::working_set(files, usage, stat)
        });
        if cpu_us.is_none() && memory_bytes.is_none() {
            // It has ended, or its group was made anew.
            self.places.remove(&id);
            return None;
        }
        Some(AllocationReading {
            allocation: id,
            container: number(running),
            cpu_us,
            memory_bytes,
            age_ms: 0,
        })
    }

    /// The files of a container that are read on a scrape alone; none: it was not read before.
    pub(super) fn extra_files(&self, id: AllocationId) -> Option<ExtraFiles> {
        let place = self.places.get(&id)?;
        Some(ExtraFiles::beside(&place.files))
    }

    fn find(&mut self, running: &Running) -> Option<Files> {
        if self.mounts.is_none() {
            let text = read(Path::new("/proc/self/mountinfo"), &mut self.first)?;
            self.mounts = Some(cgroup::mounts(text));
        }
        let mounts = self.mounts.as_ref()?;
        let path = format!("/proc/{}/cgroup", running.pid);
        let text = read(Path::new(&path), &mut self.first)?;
        Some(cgroup::files(mounts, text, &running.container))
    }
}

/// Tells this run of the container from any other of the allocation.
fn number(running: &Running) -> u64 {
    let id = running.container.get(..16).unwrap_or_default();
    // Docker's ids are hexadecimal; should they ever not be, the process still tells.
    u64::from_str_radix(id, 16).unwrap_or(0) ^ u64::from(running.pid)
}

pub(super) fn read<'a>(path: &Path, buffer: &'a mut String) -> Option<&'a str> {
    buffer.clear();
    let file = File::open(path).ok()?;
    file.take(FILE_MAX_BYTES).read_to_string(buffer).ok()?;
    Some(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_processor_and_memory() {
        let reading = Reader::default().machine();
        assert!(reading.cpu_us.is_some_and(|us| us > 0), "{reading:?}");
        assert!(reading.memory_bytes.is_some_and(|b| b > 0), "{reading:?}");
    }

    #[test]
    fn a_container_that_is_gone_is_left_out() {
        let running = Running {
            container: "abc123".into(),
            pid: u32::MAX,
        };
        let turn = [(AllocationId::from_u128(1), running)];
        assert_eq!(Reader::default().containers(&turn), vec![]);
    }
}
