//! Whom the kernel ended for want of memory, by its own log. Docker hears of that beside the end and loses it at times: who
//! is told of a signal alone looks for a fault that is not there.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// The kernel's log, a record a read. Root's to read; in a container it is another machine's, or not there.
const LOG: &str = "/dev/kmsg";
/// Longest record that the kernel gives.
const RECORD_MAX: usize = 8_192;
/// Records that are looked at, at most: who logs faster than this is read keeps nobody waiting.
const RECORDS_MAX: usize = 100_000;

/// Whether something of a container was ended because the container had no more memory. What cannot be read says nothing.
/// Blocks for some milliseconds.
pub(super) fn was_killed(container: &str) -> bool {
    find(Path::new(LOG), |record| {
        is_of(&String::from_utf8_lossy(record), container)
    })
}

fn find(log: &Path, is_it: impl Fn(&[u8]) -> bool) -> bool {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(log);
    let Ok(mut log) = opened else {
        return false;
    };
    let mut record = [0; RECORD_MAX];
    for _ in 0..RECORDS_MAX {
        match log.read(&mut record) {
            Ok(0) => return false,
            Ok(length) if is_it(&record[..length]) => return true,
            Ok(_) => {}
            // What was to be read next was overwritten meanwhile; or a signal came.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Nothing more is in it.
            Err(_) => return false,
        }
    }
    false
}

/// A record of the kernel: `oom-kill:constraint=CONSTRAINT_MEMCG,…,oom_memcg=/docker/ID,task_memcg=/docker/ID,…`. Whose
/// memory was out is what counts: where it was the machine's, no limit of the container was reached.
fn is_of(record: &str, container: &str) -> bool {
    let told = record.split_once("oom-kill:").map(|(_, told)| told);
    let mut parts = told.into_iter().flat_map(|told| told.split(','));
    let memory = parts.find_map(|part| part.strip_prefix("oom_memcg="));
    !container.is_empty() && memory.is_some_and(|memory| memory.contains(container))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "6,1022,1154074496,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c90b40,mems_allowed=0,\
                          oom_memcg=/docker/c90b40,task_memcg=/docker/c90b40/app,task=busybox,pid=11356,uid=0\n";

    #[test]
    fn a_container_is_known_by_whose_memory_was_out() {
        assert!(is_of(RECORD, "c90b40"));
        assert!(is_of(
            &RECORD.replace(
                "oom_memcg=/docker/c90b40",
                "oom_memcg=/system.slice/docker-c90b40.scope"
            ),
            "c90b40"
        ));
        assert!(!is_of(RECORD, "aaaaaa"));
        assert!(!is_of(RECORD, ""));
        let of_the_machine = RECORD
            .replace("CONSTRAINT_MEMCG", "CONSTRAINT_NONE")
            .replace("oom_memcg=/docker/c90b40", "global_oom");
        assert!(!is_of(&of_the_machine, "c90b40"));
        let other = "6,1,1,-;oom_memcg=/docker/c90b40, said an app";
        assert!(!is_of(other, "c90b40"));
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(!find(&folder.path().join("none"), |_| true));
        let log = folder.path().join("log");
        std::fs::write(&log, "").expect("written");
        assert!(!find(&log, |_| true));
        std::fs::write(&log, RECORD).expect("written");
        assert!(find(&log, |record| record == RECORD.as_bytes()));
    }
}
