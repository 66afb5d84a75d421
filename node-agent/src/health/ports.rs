//! Which TCP ports a container listens on, from the host's view of its network namespace.

use std::net::SocketAddr;

use procfs::net::TcpState;
use procfs::process::Process;

/// Every listening socket; none: not known (the process is gone, or lives behind another `/proc`).
pub(super) fn listening(pid: u32) -> Option<Vec<SocketAddr>> {
    let process = Process::new(i32::try_from(pid).ok().filter(|pid| *pid > 0)?).ok()?;
    let entries = process.tcp().ok()?;
    // A kernel without IPv6 has no such table.
    let entries = entries
        .into_iter()
        .chain(process.tcp6().unwrap_or_default());
    let mut found: Vec<SocketAddr> = entries
        .filter(|entry| entry.state == TcpState::Listen)
        .map(|entry| entry.local_address)
        .collect();
    found.sort_unstable();
    found.dedup();
    Some(found)
}
