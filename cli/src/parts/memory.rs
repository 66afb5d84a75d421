//! The resident memory of a part that has little to do: gives pages of its own code, which a start
//! or a deployment needed once, back to the page cache, and what its allocator holds and nobody uses
//! back to the kernel. Never touches a page that somebody wrote.
//! Holds the only two `unsafe` of the workspace (docs/adr/0008-idle-code.md).

use std::time::Duration;

use procfs::ProcError;
use procfs::process::{MMPermissions, MemoryMap, Process};
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Between two looks at how busy the part was.
const LOOK: Duration = Duration::from_secs(10);
/// Less processor time than this since the last look: the part is quiet. 2 % of one core.
const QUIET: Duration = Duration::from_millis(200);
/// Between two releases: one costs about a millisecond and the page faults of what is still used.
const AGAIN: Duration = Duration::from_mins(1);

#[derive(Debug, thiserror::Error)]
enum Error {
    /// There is no /proc, or the kernel was built without `CONFIG_PROC_PAGE_MONITOR`.
    #[error("the process cannot read its own memory map")]
    Map(#[source] ProcError),
    #[error("the kernel keeps a mapping's pages")]
    Advise(#[source] Errno),
}

/// What was mapped from files, read-only, before the process had a second thread: the program and
/// the libraries it was linked with. The loader never unmaps these.
pub(super) struct Code {
    mappings: Vec<MemoryMap>,
}

impl Code {
    /// To be called while the process has one thread; empty where there is no /proc.
    pub(super) fn of_this_process() -> Self {
        let maps = Process::myself().and_then(|process| process.maps());
        let maps = maps.map_or_else(|_| Vec::new(), |maps| maps.0);
        let mappings = maps.into_iter().filter(is_read_only_file).collect();
        Self { mappings }
    }

    /// Releases at each quiet look, [`AGAIN`] apart at least, until `shutdown` or a failure. A busy
    /// part is left alone: it would only have to map its code again.
    pub(super) async fn release_when_quiet(self, shutdown: CancellationToken) {
        let mut looks = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut used = processor_time();
        let mut released: Option<Instant> = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = looks.tick() => {}
            }
            let before = std::mem::replace(&mut used, processor_time());
            let age = released.map(|at| at.elapsed());
            if !is_due(used.saturating_sub(before), age) {
                continue;
            }
            released = Some(Instant::now());
            trim_heap();
            // On this thread: it reads memory, not a disk, in less than a millisecond.
            match self.release() {
                Ok(bytes) => tracing::debug!(bytes, "unused code is given back"),
                Err(error) => {
                    let error = crate::failure::chain(&error);
                    tracing::info!(%error, "unused code stays in memory");
                    return;
                }
            }
        }
    }

    /// Unmaps the pages of all that is still as it was at the start; returns how many bytes were
    /// resident. What the process goes on using, page faults bring back from the page cache.
    fn release(&self) -> Result<u64, Error> {
        let maps = Process::myself().and_then(|process| process.smaps());
        let mut bytes = 0;
        for map in maps.map_err(Error::Map)? {
            if self.mappings.iter().any(|known| is_same(known, &map)) && is_clean(&map) {
                drop_pages(&map).map_err(Error::Advise)?;
                bytes += bytes_of(&map, "Rss").unwrap_or(0);
            }
        }
        Ok(bytes)
    }
}

/// Given the processor time since the last look and the time since the last release, if any.
fn is_due(used: Duration, age: Option<Duration>) -> bool {
    used < QUIET && age.is_none_or(|age| age >= AGAIN)
}

/// Of all threads, user and system.
fn processor_time() -> Duration {
    // A clock that fails reads as quiet.
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

fn is_read_only_file(map: &MemoryMap) -> bool {
    let writable = MMPermissions::WRITE | MMPermissions::SHARED;
    map.inode != 0 && map.perms.contains(MMPermissions::PRIVATE) && !map.perms.intersects(writable)
}

fn is_same(known: &MemoryMap, now: &MemoryMap) -> bool {
    let key = |map: &MemoryMap| (map.address, map.offset, map.dev, map.inode, map.perms);
    key(known) == key(now)
}

/// No page of it differs from the file: neither relocated by the loader nor patched by a debugger.
/// What the kernel does not say counts as written.
fn is_clean(map: &MemoryMap) -> bool {
    let is_none = |key| bytes_of(map, key) == Some(0);
    is_none("Anonymous") && is_none("Private_Dirty") && is_none("Locked")
}

fn bytes_of(map: &MemoryMap, key: &str) -> Option<u64> {
    map.extension.map.get(key).copied()
}

/// A burst of containers is handled by many threads, each with an arena of its own: what they freed stays
/// with them until it is asked for.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no crate offers a safe call of it")]
fn trim_heap() {
    // SAFETY: it takes no pointer, may be called from any thread at any time, and gives back only pages
    // in which nothing is allocated (malloc_trim(3)).
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Other allocators give back by themselves.
#[cfg(not(target_env = "gnu"))]
fn trim_heap() {}

#[expect(
    unsafe_code,
    reason = "no crate offers a safe call for mappings that it did not make"
)]
fn drop_pages(map: &MemoryMap) -> Result<(), Errno> {
    let (start, end) = map.address;
    let fits = |number: u64| usize::try_from(number).map_err(|_| Errno::OVERFLOW);
    let (start, length) = (fits(start)?, fits(end - start)?);
    let start = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: `release` passes only mappings that `is_same` and `is_clean` hold for. They were made
    // by the loader before main and stay until the process ends, so the range is still theirs. They
    // are private, not writable, and no page differs from the file: dropping the pages changes no
    // byte, since the next access reads the same page of the same file. The kernel may do just that
    // at any moment when memory is short.
    unsafe { madvise(start, length, Advice::LinuxDontNeed) }
}

#[cfg(test)]
mod tests {
    use procfs::FromRead as _;
    use procfs::process::MemoryMaps;

    use super::*;

    /// One mapping as /proc/self/smaps shows it.
    fn map(line: &str, facts: &str) -> MemoryMap {
        let text = format!("{line}\n{}\n", facts.replace(", ", "\n"));
        let maps = MemoryMaps::from_read(text.as_bytes()).expect("smaps");
        maps.0.into_iter().next().expect("a mapping")
    }

    #[test]
    fn a_quiet_part_releases_at_once_and_then_each_minute() {
        let (quiet, busy) = (QUIET / 10, QUIET * 10);
        for (used, age, expected) in [
            (quiet, None, true),
            (quiet, Some(AGAIN - LOOK), false),
            (quiet, Some(AGAIN), true),
            (busy, None, false),
            (busy, Some(AGAIN), false),
        ] {
            assert_eq!(is_due(used, age), expected, "{used:?} {age:?}");
        }
    }

    #[test]
    fn only_private_read_only_files_are_code() {
        for (permissions, file, expected) in [
            ("r-xp", "00001000 08:01 42 /usr/bin/skep", true),
            ("r--p", "00000000 08:01 42 /usr/bin/skep (deleted)", true),
            ("rw-p", "00000000 08:01 42 /usr/bin/skep", false),
            ("r--s", "00000000 08:01 42 /var/lib/skep/db", false),
            ("r-xp", "00000000 00:00 0 [vdso]", false),
            ("r--p", "00000000 00:00 0 ", false),
        ] {
            let map = map(&format!("1000-2000 {permissions} {file}"), "Rss: 4 kB");
            assert_eq!(is_read_only_file(&map), expected, "{permissions} {file}");
        }
    }

    #[test]
    fn only_what_is_told_to_be_unwritten_is_clean() {
        let clean = "Rss: 8 kB, Private_Dirty: 0 kB, Anonymous: 0 kB, Locked: 0 kB";
        for (facts, expected) in [
            (clean.to_owned(), true),
            (clean.replace("Anonymous: 0", "Anonymous: 4"), false),
            (clean.replace("Dirty: 0", "Dirty: 4"), false),
            (clean.replace("Locked: 0", "Locked: 8"), false),
            (clean.replace("Anonymous: 0 kB, ", ""), false),
        ] {
            let map = map("1000-3000 r--p 00000000 08:01 42 /usr/bin/skep", &facts);
            assert_eq!(is_clean(&map), expected, "{facts}");
        }
    }

    #[test]
    fn a_mapping_that_changed_is_another() {
        let known = "1000-3000 r-xp 00000000 08:01 42 /usr/bin/skep";
        for (now, expected) in [
            (known.to_owned(), true),
            (known.replace("3000", "2000"), false),
            (known.replace(" 42 ", " 43 "), false),
            (known.replace("r-xp", "rwxp"), false),
        ] {
            let is_same = is_same(&map(known, "Rss: 0 kB"), &map(&now, "Rss: 0 kB"));
            assert_eq!(is_same, expected, "{now}");
        }
    }

    #[test]
    fn released_code_is_no_longer_resident_and_still_runs() {
        // Read at run time from the pages that are dropped.
        let text = std::hint::black_box("a constant of the program");
        let code = Code::of_this_process();
        let resident = || {
            let maps = Process::myself().and_then(|process| process.smaps());
            let maps = maps.expect("smaps").into_iter();
            let maps = maps.filter(|map| code.mappings.iter().any(|known| is_same(known, map)));
            maps.filter_map(|map| bytes_of(&map, "Rss")).sum::<u64>()
        };
        // Tests beside this one map more of it meanwhile; nothing but a release maps less.
        let is_smaller = (0..200).any(|_| {
            let before = resident();
            let released = code.release().expect("released");
            released > 0 && resident() < before
        });
        assert!(is_smaller, "{} bytes stay", resident());
        assert_eq!(text.split(' ').count(), 5);
    }
}
