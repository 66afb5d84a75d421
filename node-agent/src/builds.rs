//! Builds under way: at most two at a time, ended when their order is gone. What a build does is
//! not its business.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use skep_identity::random;
use skep_model::assignment::BuildOrder;
use skep_model::build::PER_NODE;
use skep_model::deployment::{BuildOutcome, Origin};
use skep_model::id::DeploymentId;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::build::{self, Env};
use crate::metrics::Metrics;
use crate::session::Outbox;

/// Lines between a build and the way up.
const LINES_MAX: usize = 64;

/// The first line of a build that an agent before this one began.
const ANEW: &str = "the agent was restarted: the build begins anew";

/// A build ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Which.
    pub(crate) deployment: DeploymentId,
    /// How.
    pub(crate) outcome: BuildOutcome,
}

/// Runs builds.
pub(crate) struct Builds {
    env: Env,
    outbox: Arc<Outbox>,
    metrics: Metrics,
    finished: mpsc::Sender<Finished>,
    slots: Arc<Semaphore>,
    running: HashMap<DeploymentId, CancellationToken>,
    /// Ordered before this agent was started.
    earlier: BTreeSet<DeploymentId>,
}

impl Builds {
    /// None is under way yet; each end is told to `finished`.
    pub(crate) fn new(
        env: Env,
        outbox: Arc<Outbox>,
        metrics: Metrics,
        finished: mpsc::Sender<Finished>,
    ) -> Self {
        Self {
            env,
            outbox,
            metrics,
            finished,
            slots: Arc::new(Semaphore::new(PER_NODE)),
            running: HashMap::new(),
            earlier: BTreeSet::new(),
        }
    }

    /// Builds that an agent before this one may have begun: they say so when they begin here.
    pub(crate) fn remember(&mut self, earlier: impl IntoIterator<Item = DeploymentId>) {
        self.earlier.extend(earlier);
    }

    /// Begins, or queues, a build; nothing when it is under way.
    pub(crate) fn start(&mut self, order: BuildOrder, shutdown: &CancellationToken) {
        let deployment = order.deployment;
        if self.running.contains_key(&deployment) {
            return;
        }
        let is_again = self.earlier.remove(&deployment);
        let cancel = shutdown.child_token();
        self.running.insert(deployment, cancel.clone());
        let (env, outbox, metrics) = (self.env.clone(), self.outbox.clone(), self.metrics.clone());
        let (slots, finished) = (self.slots.clone(), self.finished.clone());
        tokio::spawn(async move {
            // Looking up a ready image takes no core.
            let slot = match order.origin {
                Origin::Image { .. } => None,
                _ => match cancel.run_until_cancelled(slots.acquire()).await {
                    Some(slot) => Some(slot),
                    None => return,
                },
            };
            metrics.build();
            outbox.begin_build(deployment, random::new_id());
            if is_again {
                outbox.build_line(deployment, ANEW.to_owned());
            }
            let (lines, mut told) = mpsc::channel(LINES_MAX);
            let relay = async {
                while let Some(line) = told.recv().await {
                    outbox.build_line(deployment, line);
                }
            };
            let built = build::run(order, env, lines, cancel.clone());
            let (outcome, ()) = tokio::join!(built, relay);
            drop(slot);
            if !cancel.is_cancelled() {
                // Fails only when the agent ends: then the order is built again.
                let _ = finished
                    .send(Finished {
                        deployment,
                        outcome,
                    })
                    .await;
            }
        });
    }

    /// Ends a build whose order is gone, or that has ended.
    pub(crate) fn end(&mut self, deployment: DeploymentId) {
        self.earlier.remove(&deployment);
        if let Some(cancel) = self.running.remove(&deployment) {
            cancel.cancel();
        }
    }
}
