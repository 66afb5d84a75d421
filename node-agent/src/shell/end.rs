//! The end of a command whose asker has gone. Docker can start a command in a container but not stop
//! one: closing its streams leaves it running. It has a session of its own (runc sees to that), so
//! the agent signals that session's processes: SIGHUP, as a terminal that is closed, then SIGKILL.
//!
//! What has made itself a session of its own is left alone, as it would be by a closed terminal; and
//! so is everything where the daemon's processes cannot be told for certain from here.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::Timespec;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::runtime::Runtime;

/// Between the two signals: to write down what is unwritten.
const GRACE: Duration = Duration::from_secs(5);
/// A command may be dropped in the middle of its start, and Docker tells nobody when it has begun.
const START_TRIES: u32 = 50;
const START_PAUSE: Duration = Duration::from_millis(100);
/// One look at Docker.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends a command when dropped, once it is told which and until it is told that there is no need.
pub(super) struct Ender {
    runtime: Runtime,
    tasks: TaskTracker,
    /// First process of the container.
    init: u32,
    exec: Option<String>,
}

impl Ender {
    /// Knows of no command yet. Works in a task of `tasks`, so that a stopping agent waits for it.
    pub(super) fn new(runtime: &Runtime, tasks: &TaskTracker, init: u32) -> Self {
        Self {
            runtime: runtime.clone(),
            tasks: tasks.clone(),
            init,
            exec: None,
        }
    }

    /// This command is to be ended, by Docker's id.
    pub(super) fn arm(&mut self, exec: String) {
        self.exec = Some(exec);
    }

    /// It has ended by itself.
    pub(super) fn disarm(&mut self) {
        self.exec = None;
    }
}

impl Drop for Ender {
    fn drop(&mut self) {
        let Some(exec) = self.exec.take() else { return };
        let (runtime, init) = (self.runtime.clone(), self.init);
        self.tasks.spawn(async move {
            let Some(leader) = leader(&runtime, &exec).await else {
                return;
            };
            match end(leader, init).await {
                Ok(count) => tracing::info!(count, "a command was ended: nobody waits for it"),
                Err(why) => tracing::warn!(
                    why,
                    "a command goes on in its container although nobody waits for it"
                ),
            }
        });
    }
}

/// The command's first process, as the daemon numbers it; none: it has ended, or never began.
async fn leader(runtime: &Runtime, exec: &str) -> Option<u32> {
    for _ in 0..START_TRIES {
        let asked = timeout(LOOK_TIMEOUT, runtime.docker().inspect_exec(exec));
        let Ok(Ok(seen)) = asked.await else {
            return None;
        };
        let pid = seen.pid.and_then(|pid| u32::try_from(pid).ok());
        match (seen.running, pid.filter(|pid| *pid > 1)) {
            (Some(true), Some(pid)) => return Some(pid),
            (_, None) if seen.exit_code.is_none() => sleep(START_PAUSE).await,
            _ => return None,
        }
    }
    None
}

/// Signals the session of `leader`; how many processes it had.
async fn end(leader: u32, init: u32) -> Result<usize, &'static str> {
    let first = look(leader, init).await?;
    let count = first.len();
    signal(&first, Signal::HUP);
    // Those that took no notice, and those that were started meanwhile.
    let rest = spawn_blocking(move || {
        wait(first, GRACE);
        members(leader)
    });
    signal(&rest.await.unwrap_or_default(), Signal::KILL);
    Ok(count)
}

async fn look(leader: u32, init: u32) -> Result<Vec<OwnedFd>, &'static str> {
    let looked = spawn_blocking(move || {
        let space = |pid: &str| std::fs::read_link(PathBuf::from(format!("/proc/{pid}/ns/pid")));
        let (of_init, of_leader) = (space(&init.to_string()), space(&leader.to_string()));
        match (of_init, of_leader, space("self")) {
            (Ok(init), Ok(leader), Ok(own)) if init == leader && leader != own => {}
            (Err(_), ..) => return Err("the daemon's processes cannot be seen from here"),
            // Gone meanwhile, and the number may be somebody else's by now.
            _ => return Ok(Vec::new()),
        }
        Ok(members(leader))
    });
    looked
        .await
        .unwrap_or(Err("the look for its processes failed"))
}

/// The processes of a session, held so that their numbers cannot become other processes'.
fn members(leader: u32) -> Vec<OwnedFd> {
    let Ok(all) = procfs::process::all_processes() else {
        return Vec::new();
    };
    let of_session = |pid: i32| {
        let process = procfs::process::Process::new(pid).ok()?;
        let stat = process.stat().ok()?;
        // One that has ended and is still to be collected needs no signal.
        let is_alive = !matches!(stat.state, 'Z' | 'X');
        (is_alive && u32::try_from(stat.session) == Ok(leader)).then_some(())
    };
    all.flatten()
        .filter_map(|process| {
            let pid = process.pid;
            of_session(pid)?;
            let held = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?;
            // Looked at again once it is held.
            of_session(pid).map(|()| held)
        })
        .collect()
}

fn signal(processes: &[OwnedFd], signal: Signal) {
    for process in processes {
        // One that is gone needs none.
        let _ = pidfd_send_signal(process, signal);
    }
}

/// Until all have ended, or the time is over. Blocks.
fn wait(mut processes: Vec<OwnedFd>, within: Duration) {
    let deadline = Instant::now() + within;
    while !processes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut looked: Vec<_> = processes
            .iter()
            .map(|process| PollFd::new(process, PollFlags::IN))
            .collect();
        // A process' descriptor is readable once it has ended.
        let found = poll(&mut looked, Timespec::try_from(left).ok().as_ref());
        if !matches!(found, Ok(1..)) {
            return;
        }
        let mut ended: Vec<bool> = looked.iter().map(|one| !one.revents().is_empty()).collect();
        processes.retain(|_| !ended.remove(0));
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn a_session_is_signalled_whole_and_no_other() {
        // `setsid` makes the shell a leader; the sleeps are of its session, though one ignores SIGHUP.
        let mut shell = Command::new("setsid")
            .args([
                "sh",
                "-c",
                "trap '' HUP; sleep 987 & sleep 986 & echo on; wait",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("setsid");
        let mut line = String::new();
        let mut out = std::io::BufReader::new(shell.stdout.take().expect("a pipe"));
        std::io::BufRead::read_line(&mut out, &mut line).expect("on");
        let leader = shell.id();
        assert_eq!(members(leader).len(), 3);
        // In this process' own namespace: it could be anybody.
        assert_eq!(
            look(leader, std::process::id()).await.expect("seen").len(),
            0
        );
        signal(&members(leader), Signal::KILL);
        shell.wait().expect("ended");
        wait(members(leader), GRACE);
        assert!(members(leader).is_empty());
    }
}
