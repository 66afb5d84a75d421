//! How long a container has run, by the kernel's clock since boot. Nobody sets that one: a wall clock that is
//! set must neither end a container nor give it more time.

use std::time::Duration;

use procfs::process::Process;
use rustix::time::{ClockId, clock_gettime};

/// How long the first process of a container has run; none: it is gone, or its number is another's behind
/// this `/proc`.
pub(crate) fn of_container(container: &str, pid: u32) -> Option<Duration> {
    let process = Process::new(i32::try_from(pid).ok().filter(|pid| *pid > 0)?).ok()?;
    let groups = process.cgroups().ok()?;
    let mut paths = groups.into_iter().map(|group| group.pathname);
    if !paths.any(|path| path.contains(container)) {
        return None;
    }
    // `starttime` of proc(5), in ticks since boot, with the time in which the machine slept.
    let ticks = process.stat().ok()?.starttime;
    let began = Duration::from_millis(ticks.saturating_mul(1_000) / procfs::ticks_per_second());
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Some(Duration::new(seconds.ok()?, nanos.ok()?).saturating_sub(began))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_of_the_container_has_its_age() {
        let own = std::process::id();
        // Every group is below the root.
        let first = of_container("/", own).expect("this process runs");
        let second = of_container("/", own).expect("this process runs");
        assert!(first <= second && second < Duration::from_secs(24 * 3_600));
        assert!(of_container("/", 1).expect("the first process runs") > first);
        assert_eq!(of_container("no-such-container", own), None);
        assert_eq!(of_container("/", 0), None);
    }
}
