//! Whether containers are well: one task for each that is asked anything. Tells changes of mind, never
//! acts on them.

mod checks;
mod explain;
mod ports;
mod probe;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use skep_model::health::Check;
use skep_model::id::AllocationId;
use skep_model::problem::{Code, Problem};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::runtime::Runtime;
use checks::Asked;
use explain::{never_healthy, unhealthy};
use probe::Fault;

pub(crate) use checks::Checks;
pub(crate) use probe::Question;

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
    pub(crate) address: Option<IpAddr>,
    /// Its first process on this host.
    pub(crate) pid: u32,
    /// Since when it runs, ms since the epoch.
    pub(crate) started_ms: u64,
    /// It has been healthy already (before the agent's own restart).
    pub(crate) was_healthy: bool,
    /// What it is asked.
    pub(crate) checks: Checks,
    /// How long after its start it may become healthy.
    pub(crate) deadline: Duration,
}

impl Target {
    fn question<'a>(&self, asked: &'a Asked) -> Question<'a> {
        Question {
            check: &asked.check,
            at: self.address.zip(asked.port).map(SocketAddr::from),
            limit: asked.limit,
        }
    }
}

/// A change of mind.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Fit for traffic.
    Healthy,
    /// It was fit and is not now.
    Unhealthy(Problem),
    /// It has to begin anew. The last verdict.
    Dead(Problem),
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
    let watch = Watch {
        target,
        runtime,
        reports,
        started: CancellationToken::new(),
    };
    cancel.run_until_cancelled(watch.run()).await;
}

/// Nobody listens any more, or the last word was said.
struct Over;

struct Watch {
    target: Target,
    runtime: Runtime,
    reports: mpsc::Sender<Report>,
    /// It has started up: from now on its liveness counts.
    started: CancellationToken,
}

impl Watch {
    async fn run(&self) {
        let checks = &self.target.checks;
        if self.target.was_healthy {
            self.started.cancel();
        } else if let Some(startup) = &checks.startup {
            if self.first_success(startup).await.is_err() {
                return;
            }
            self.started.cancel();
        }
        // Whichever has said its last word ends both.
        tokio::select! {
            _ = self.keep_ready() => {}
            _ = self.keep_alive() => {}
        }
    }

    async fn tell(&self, verdict: Verdict) -> Result<(), Over> {
        let report = Report {
            allocation: self.target.allocation,
            container: self.target.container.clone(),
            verdict,
        };
        self.reports.send(report).await.map_err(|_| Over)
    }

    async fn ask(&self, asked: &Asked, dial: Duration) -> Result<(), Fault> {
        let question = self.target.question(asked);
        question
            .ask_dialing(&self.runtime, &self.target.container, dial)
            .await
    }

    /// Fitness for traffic, from the first success on.
    async fn keep_ready(&self) -> Result<(), Over> {
        let Some(asked) = &self.target.checks.readiness else {
            if !self.target.was_healthy {
                self.tell(Verdict::Healthy).await?;
            }
            self.started.cancel();
            return std::future::pending().await;
        };
        if !self.target.was_healthy {
            self.first_success(asked).await?;
            self.started.cancel();
            self.tell(Verdict::Healthy).await?;
            sleep(asked.interval).await;
        }
        if matches!(asked.check, Check::Log(_)) {
            // What was written stays written.
            return std::future::pending().await;
        }
        let mut failures = 0_u32;
        loop {
            match self.ask(asked, Duration::MAX).await {
                Ok(()) => {
                    let was_unhealthy = failures >= asked.failures;
                    failures = 0;
                    if was_unhealthy {
                        self.tell(Verdict::Healthy).await?;
                    }
                }
                Err(fault) => {
                    failures = failures.saturating_add(1);
                    if failures == asked.failures {
                        let why = self.target.question(asked).explain(&fault);
                        let problem = unhealthy("checks", asked, &why);
                        self.tell(Verdict::Unhealthy(problem)).await?;
                    }
                }
            }
            sleep(asked.interval).await;
        }
    }

    /// Until it is not alive any more.
    async fn keep_alive(&self) -> Result<(), Over> {
        let Some(asked) = &self.target.checks.liveness else {
            return std::future::pending().await;
        };
        self.started.cancelled().await;
        let mut failures = 0;
        loop {
            sleep(asked.interval).await;
            let Err(fault) = self.ask(asked, Duration::MAX).await else {
                failures = 0;
                continue;
            };
            failures += 1;
            if failures >= asked.failures {
                let why = self.target.question(asked).explain(&fault);
                let problem = unhealthy("liveness checks", asked, &why);
                self.tell(Verdict::Dead(problem)).await?;
                return Err(Over);
            }
        }
    }

    /// Until it is well, or its deadline has passed: then that is said.
    async fn first_success(&self, asked: &Asked) -> Result<(), Over> {
        let Err(last) = self.until_deadline(asked).await else {
            return Ok(());
        };
        let heard = ports::listening(self.target.pid);
        let question = self.target.question(asked);
        let problem = never_healthy(&question, self.target.deadline, (&last, heard.as_deref()));
        let tail = self.runtime.tail(&self.target.container).await;
        self.tell(Verdict::Never(problem, tail)).await?;
        Err(Over)
    }

    async fn until_deadline(&self, asked: &Asked) -> Result<(), Fault> {
        // By the container's own start, so that a restart of the agent gives it no more time.
        let age = Duration::from_millis(clock::now_ms().saturating_sub(self.target.started_ms));
        let deadline = sleep(self.target.deadline.saturating_sub(age));
        let mut deadline = std::pin::pin!(deadline);
        let mut pause = QUICK.0;
        let mut last = Fault::Unprobed;
        let is_line = matches!(asked.check, Check::Log(_));
        loop {
            let asking = async {
                match is_line {
                    // One reading goes on for as long as there is time.
                    true => {
                        let question = Question {
                            limit: self.target.deadline,
                            ..self.target.question(asked)
                        };
                        question.ask(&self.runtime, &self.target.container).await
                    }
                    false => self.ask(asked, DIAL).await,
                }
            };
            tokio::select! {
                // One probe is always finished, however late it is.
                biased;
                probed = asking => match probed {
                    Ok(()) => return Ok(()),
                    Err(fault) => last = fault,
                },
                () = &mut deadline, if last != Fault::Unprobed || is_line => return Err(last),
            }
            tokio::select! {
                () = &mut deadline => return Err(last),
                () = sleep(pause) => pause = (pause * 2).min(QUICK.1),
            }
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
