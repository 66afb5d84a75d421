//! Fitness for traffic: one task for each running container that has a port. Tells changes of
//! mind, never acts on them.

mod explain;
mod ports;
mod probe;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use skep_model::health::Health;
use skep_model::id::AllocationId;
use skep_model::problem::{Code, Problem};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::runtime::Runtime;
use explain::{never_healthy, unhealthy};

/// First and longest pause between probes until the first success.
const QUICK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// Longest wait for a connection until the first success. The container is on this node: its first
/// packet is answered at once, or was lost while its network came up, and is sent again only after
/// a second.
const DIAL: Duration = Duration::from_millis(250);

/// What is probed.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Whose container.
    pub(crate) allocation: AllocationId,
    /// Which.
    pub(crate) container: String,
    /// Where it should answer.
    pub(crate) address: IpAddr,
    /// On which port.
    pub(crate) port: u16,
    /// Its first process on this host.
    pub(crate) pid: u32,
    /// Since when it runs, ms since the epoch.
    pub(crate) started_ms: u64,
    /// It has been healthy already (before the agent's own restart).
    pub(crate) was_healthy: bool,
    /// How.
    pub(crate) health: Health,
}

/// A change of mind.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Fit for traffic.
    Healthy,
    /// It was fit and is not now.
    Unhealthy(Problem),
    /// It never was within its deadline; with its last log lines. The last verdict.
    Never(Problem, String),
}

/// What is told, and of which container.
#[derive(Debug)]
pub(crate) struct Report {
    /// Whose container.
    pub(crate) allocation: AllocationId,
    /// Which.
    pub(crate) container: String,
    /// What.
    pub(crate) verdict: Verdict,
}

/// Probes `target` until `cancel`.
pub(crate) async fn watch(
    target: Target,
    runtime: Runtime,
    reports: mpsc::Sender<Report>,
    cancel: CancellationToken,
) {
    let watched = async {
        let tell = |verdict| {
            reports.send(Report {
                allocation: target.allocation,
                container: target.container.clone(),
                verdict,
            })
        };
        if !target.was_healthy {
            if let Err(last) = first_success(&target).await {
                let heard = ports::listening(target.pid);
                let problem = never_healthy(&target, &last, heard.as_deref());
                let tail = runtime.tail(&target.container).await;
                return tell(Verdict::Never(problem, tail)).await.unwrap_or(());
            }
            if tell(Verdict::Healthy).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(target.health.interval_ms)).await;
        }
        let mut failures = 0_u32;
        loop {
            match probe_once(&target, Duration::MAX).await {
                Ok(()) if failures >= target.health.failures => {
                    failures = 0;
                    if tell(Verdict::Healthy).await.is_err() {
                        return;
                    }
                }
                Ok(()) => failures = 0,
                Err(fault) => {
                    failures = failures.saturating_add(1);
                    if failures == target.health.failures
                        && tell(Verdict::Unhealthy(unhealthy(&target, &fault)))
                            .await
                            .is_err()
                    {
                        return;
                    }
                }
            }
            sleep(Duration::from_millis(target.health.interval_ms)).await;
        }
    };
    cancel.run_until_cancelled(watched).await;
}

async fn probe_once(target: &Target, dial: Duration) -> Result<(), probe::Fault> {
    let at = SocketAddr::new(target.address, target.port);
    let limit = Duration::from_millis(target.health.timeout_ms);
    probe::probe(at, target.health.path.as_deref(), (limit, dial.min(limit))).await
}

/// Until it is healthy, or its deadline has passed: then the last fault.
async fn first_success(target: &Target) -> Result<(), probe::Fault> {
    // By the container's own start, so that a restart of the agent gives it no more time.
    let age = Duration::from_millis(clock::now_ms().saturating_sub(target.started_ms));
    let left = Duration::from_millis(target.health.deadline_ms).saturating_sub(age);
    let deadline = sleep(left);
    let mut deadline = std::pin::pin!(deadline);
    let mut pause = QUICK.0;
    let mut last = probe::Fault::Unprobed;
    loop {
        tokio::select! {
            // One probe is always finished, however late it is.
            biased;
            probed = probe_once(target, DIAL) => match probed {
                Ok(()) => return Ok(()),
                Err(fault) => last = fault,
            },
            () = &mut deadline, if last != probe::Fault::Unprobed => return Err(last),
        }
        tokio::select! {
            () = &mut deadline => return Err(last),
            () = sleep(pause) => pause = (pause * 2).min(QUICK.1),
        }
    }
}

/// A container without an address cannot be probed.
pub(crate) fn no_address(port: u16) -> Problem {
    Problem::new(
        Code::Runtime,
        format!("docker gave the container no address: port {port} cannot be reached"),
    )
    .hint("check that Docker's default bridge network exists (docker network inspect bridge)")
}

#[cfg(test)]
mod tests;
