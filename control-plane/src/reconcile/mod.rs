//! The leader's duties: one value, created when this server leads and dropped at once when it does
//! not. Level-triggered: it compares what is wanted with what is seen, from one view, and proposes
//! the difference; the feed only wakes it.

mod analysis;
mod autoscaling;
mod backups;
mod certificates;
mod checks;
mod claims;
mod deployments;
mod fencing;
mod forges;
mod guests;
mod hosts;
mod image_push;
mod jobs;
mod liveness;
mod maintenance;
mod members;
mod notify;
mod polling;
mod previews;
mod rebalancing;
mod records;
mod scheduling;
mod sizing;
mod stacks;
mod witnessing;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, select_all};
use skep_model::id::{DeploymentId, ServiceId};
use skep_model::problem::{Code, Problem};
use skep_model::routing::Cidr;
use skep_proto::v1::command::Kind;
use skep_state::{Change, Reply};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::acme::{Means, Tally};
use crate::agents::fleet::Fleet;
use crate::agents::relay::Relay;
use crate::checks::Board;
use crate::deploy::queue;
use crate::forges::Tokens;
use crate::history::History;
use crate::hosts::Promises;
use crate::polling::Asked;
use crate::samples::Samples;
use crate::scaling::Scaling;
use crate::secrets::Secrets;
use crate::store::{Store, now_ms};
use crate::witness::Witnesses;
use jobs::Jobs;
use scheduling::Scheduling;

/// Longest sleep: every loop looks at everything it has marked again at least so often.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// Pause after a proposal that the cluster could not take, before the next try.
const RETRY: Duration = Duration::from_millis(200);

/// What the duties need. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The replicated state.
    pub store: Store,
    /// Who is connected, and what the ingresses serve.
    pub fleet: Fleet,
    /// Timelines.
    pub history: History,
    /// Seals variables of an app's own file.
    pub secrets: Secrets,
    /// As whom forges are asked.
    pub tokens: Tokens,
    /// What nodes measure.
    pub samples: Samples,
    /// What autoscaling thinks.
    pub scaling: Scaling,
    /// Asks nodes to knock at others.
    pub relay: Relay,
    /// Which of them can testify for whom.
    pub witnesses: Witnesses,
    /// What this server has for proofs in DNS.
    pub means: Means,
    /// Counts orders of certificates.
    pub tally: Tally,
    /// Which hosts have promised more memory than they have.
    pub promises: Promises,
    /// The folder of this server with programs that may make machines; none: it runs none.
    pub programs: Option<Arc<Path>>,
    /// When repositories and registries were asked last.
    pub asked: Asked,
    /// Networks that notifications may go to though they are off limits.
    pub notify_allow: Vec<Cidr>,
}

/// Runs the duties whenever this server leads, until `shutdown`.
pub async fn run(parts: Parts, shutdown: CancellationToken) {
    let mut leadership = parts.store.consensus().leadership();
    while !shutdown.is_cancelled() {
        let is_leader = leadership.borrow_and_update().is_leader;
        if is_leader {
            // Heard of by others so far: silence counts from now.
            parts.fleet.begin_judging();
            let term = shutdown.child_token();
            let board = Board::default();
            let mut duties = Duties::new(parts.clone(), board.clone());
            // Each on the heap: together they would be more than a thread's stack holds.
            let all: Vec<BoxFuture<'_, ()>> = vec![
                Box::pin(duties.run(&term)),
                Box::pin(members::run(&parts.store, &term)),
                Box::pin(autoscaling::run(&parts, &term)),
                Box::pin(analysis::run(&parts, &term)),
                Box::pin(rebalancing::run(&parts, &term)),
                Box::pin(witnessing::run(&parts)),
                Box::pin(claims::run(&parts.store, &term)),
                Box::pin(certificates::run(&parts, &term)),
                Box::pin(polling::run(&parts, &term)),
                Box::pin(notify::run(&parts, &term)),
                Box::pin(previews::run(&parts.store, &term)),
                Box::pin(stacks::run(&parts, &term)),
                Box::pin(forges::run(&parts, &term)),
                Box::pin(checks::run(&parts, &board, &term)),
                Box::pin(image_push::run(&parts, &term)),
                Box::pin(guests::run(&parts, &term)),
                Box::pin(hosts::run(&parts, &term)),
                Box::pin(backups::run(&parts, &term)),
                Box::pin(maintenance::run(&parts.store, &term)),
                Box::pin(fencing::run(&parts, &term)),
                Box::pin(sizing::run(&parts, &term)),
            ];
            tokio::select! {
                _ = select_all(all) => {}
                _ = leadership.wait_for(|now| !now.is_leader) => tracing::info!("leadership lost: duties dropped"),
            }
            parts.witnesses.begin();
            parts.promises.forget();
            continue;
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

/// What may need work.
#[derive(Debug, Default)]
struct Dirty {
    services: BTreeSet<ServiceId>,
    /// Services whose jobs may need work.
    jobs: BTreeSet<ServiceId>,
    deployments: BTreeSet<DeploymentId>,
    nodes: bool,
}

struct Duties {
    parts: Parts,
    scheduling: Scheduling,
    jobs: Jobs,
    /// What forges say of commits that are waited for.
    checks: Board,
    dirty: Dirty,
    /// The earliest time that anybody waits for.
    wake_at: Option<Instant>,
}

impl Duties {
    fn new(parts: Parts, checks: Board) -> Self {
        Self {
            parts,
            scheduling: Scheduling::default(),
            jobs: Jobs::default(),
            checks,
            dirty: Dirty::default(),
            wake_at: None,
        }
    }

    async fn run(&mut self, token: &CancellationToken) {
        let mut changes = self.parts.store.consensus().changes();
        let mut fleet = self.parts.fleet.changed();
        let mut checks = self.checks.changed();
        self.mark_all();
        loop {
            self.work().await;
            let sleep = self.wake_at.map_or(MAX_SLEEP, |at| {
                at.saturating_duration_since(Instant::now()).min(MAX_SLEEP)
            });
            tokio::select! {
                batch = changes.recv() => match batch {
                    Ok(batch) => {
                        self.mark(&batch.changes);
                        while let Ok(more) = changes.try_recv() {
                            self.mark(&more.changes);
                        }
                    }
                    Err(RecvError::Lagged(_)) => self.mark_all(),
                    Err(RecvError::Closed) => return,
                },
                changed = fleet.changed() => {
                    if changed.is_err() { return }
                    self.wake();
                }
                Ok(()) = checks.changed() => {
                    let seen = checks.borrow_and_update();
                    self.dirty.deployments.extend(seen.keys());
                }
                () = tokio::time::sleep(sleep) => self.wake(),
                () = token.cancelled() => return,
            }
        }
    }

    /// Everything: after election, and when the feed could not be followed.
    fn mark_all(&mut self) {
        let view = self.parts.store.view();
        self.scheduling.resync(&view);
        self.dirty.services = view.services().map(|service| service.id).collect();
        self.dirty.jobs = self.dirty.services.clone();
        self.dirty.deployments = view.deployments().map(|deployment| deployment.id).collect();
        self.dirty.nodes = true;
    }

    /// Looks at all that waits: each says anew when it wants to be looked at. Nothing else forgets a time that
    /// somebody waits for: a change concerns some of them, and comes at any moment.
    fn wake(&mut self) {
        self.wake_at = None;
        self.mark_waiting();
    }

    /// What may have become possible by time or by an ingress' word alone.
    fn mark_waiting(&mut self) {
        let view = self.parts.store.view();
        self.dirty.nodes = true;
        self.dirty
            .deployments
            .extend(view.active_deployments().map(|deployment| deployment.id));
        self.dirty.services.extend(self.scheduling.waiting());
        self.dirty.jobs.extend(self.jobs.waiting());
    }

    fn mark(&mut self, changes: &[Change]) {
        let view = self.parts.store.view();
        let mut touched = BTreeSet::new();
        let (mut has_nodes, mut has_builds) = (false, false);
        let moved = self.scheduling.follow(&view, changes);
        if changes.contains(&Change::Settings) {
            // Rare, and they may concern every node and every service.
            return self.mark_all();
        }
        for change in changes {
            match change {
                Change::Service(service)
                | Change::Allocation { service, .. }
                | Change::Job { service, .. } => {
                    touched.insert(*service);
                }
                Change::Deployment(deployment) => {
                    self.dirty.deployments.insert(*deployment);
                }
                Change::Node(node) => {
                    has_nodes = true;
                    if moved.contains(node) {
                        // It may be drained now, or silent, or back.
                        let there = view.allocations_on(*node).filter(|a| a.is_live());
                        self.dirty.services.extend(there.map(|a| a.service));
                    }
                }
                Change::ServiceDropped(service) => {
                    self.scheduling.forget(*service);
                    self.jobs.forget(*service);
                }
                // A level that was reached may be what jobs have waited for.
                Change::Cluster => self
                    .dirty
                    .jobs
                    .extend(view.services().map(|service| service.id)),
                Change::Build(_) => has_builds = true,
                // Who waits for one may go on without.
                Change::PushRegistries => self.dirty.deployments.extend(image_push::waiting(&view)),
                Change::Server(_)
                | Change::Quarantine(_)
                | Change::Settings
                | Change::Registries
                | Change::Certificates
                | Change::Challenges
                | Change::Routes
                | Change::Notifications
                | Change::Forges
                | Change::Preview(_)
                | Change::Stack(_)
                | Change::Guests
                | Change::Names(_) => {}
            }
        }
        if has_builds {
            // A build has ended: who waited for that.
            let due = queue::due(&view).into_iter().map(|(id, _)| id);
            self.dirty.deployments.extend(due);
        }
        if has_nodes {
            self.mark_waiting();
            // One more node is one more allocation of each of these.
            let system = view.services().filter(|service| service.spec.is_system());
            self.dirty.services.extend(system.map(|service| service.id));
        }
        // Once for all of them: each batch costs what changed and what is on its way, not their product.
        let active = view.active_deployments();
        let concerned = active.filter(|deployment| touched.contains(&deployment.service));
        self.dirty.deployments.extend(concerned.map(|d| d.id));
        self.dirty.services.extend(&touched);
        self.dirty.jobs.extend(&touched);
    }

    async fn work(&mut self) {
        if std::mem::take(&mut self.dirty.nodes) {
            self.judge_nodes().await;
        }
        for service in std::mem::take(&mut self.dirty.services) {
            self.schedule(service).await;
        }
        self.dirty.jobs.extend(self.jobs.due(now_ms()));
        for service in std::mem::take(&mut self.dirty.jobs) {
            self.run_jobs(service).await;
        }
        if let Some(at_ms) = self.jobs.next_ms() {
            self.wake_at_ms(at_ms);
        }
        for deployment in std::mem::take(&mut self.dirty.deployments) {
            self.advance(deployment).await;
        }
    }

    /// Proposes; false: not accepted. A conflict means that the state moved on: its change has
    /// woken us already. Anything else is tried again in a moment.
    async fn propose(&mut self, kind: Kind) -> bool {
        let outcome = self.parts.store.propose(kind).await;
        self.is_accepted(outcome)
    }

    fn is_accepted(&mut self, outcome: Result<Reply, Problem>) -> bool {
        match outcome {
            Ok(_) => true,
            Err(problem) => {
                if !matches!(problem.code, Code::Conflict | Code::NotFound) {
                    self.complain(&problem);
                }
                self.wake_in(RETRY);
                false
            }
        }
    }

    fn complain(&self, problem: &Problem) {
        tracing::warn!(%problem, "a proposal of the leader was not accepted");
    }

    fn wake_in(&mut self, pause: Duration) {
        self.wake_at_instant(Instant::now() + pause);
    }

    fn wake_at_instant(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |old| old.min(at)));
    }

    /// Wakes at a time of the cluster's clock.
    fn wake_at_ms(&mut self, at_ms: u64) {
        self.wake_in(Duration::from_millis(at_ms.saturating_sub(now_ms()).max(1)));
    }
}
