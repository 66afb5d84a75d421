//! What the machine as a whole uses, out of the kernel's text. Pure.

/// CPU time so far in microseconds, all cores together, out of `/proc/stat` (proc_stat(5)): everything
/// but idling, waiting for disks, and what other guests of the host took.
pub(super) fn cpu_us(text: &str, ticks_per_second: u64) -> Option<u64> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let mut ticks = [0_u64; 7];
    let mut fields = line.split_whitespace();
    for tick in &mut ticks {
        *tick = fields.next()?.parse().ok()?;
    }
    let [user, nice, system, _idle, _iowait, irq, softirq] = ticks;
    let busy = user + nice + system + irq + softirq;
    busy.checked_mul(1_000_000)?.checked_div(ticks_per_second)
}

/// Memory that is not available any more, in bytes, out of `/proc/meminfo`.
pub(super) fn memory_bytes(text: &str) -> Option<u64> {
    let kib = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let used = kib("MemTotal:")?.checked_sub(kib("MemAvailable:")?)?;
    used.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text() {
        let stat = "cpu  10 20 30 999 888 4 6 777 0 0\ncpu0 1 2 3\n";
        assert_eq!(cpu_us(stat, 100), Some(700_000));
        assert_eq!(cpu_us("cpu  10 20\n", 100), None);
        assert_eq!(cpu_us("intr 1\n", 100), None);
        let memory = "MemTotal:  100 kB\nMemFree:  1 kB\nMemAvailable:  60 kB\n";
        assert_eq!(memory_bytes(memory), Some(40 << 10));
        assert_eq!(memory_bytes("MemTotal:  100 kB\n"), None);
    }
}
