//! The one task that owns what is known of every allocation of this node. Takes events, plans the
//! allocation that each concerns, and hands the work out; costs O(changes).

mod allocation;
#[cfg(test)]
mod alone;
mod contact;
mod desired;
mod diff;
mod docker;
mod dropping;
mod entry;
mod quarantine;
mod shutdown;
mod traffic;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_model::assignment::{Assignment, BuildOrder, Generation};
use skep_model::deployment::BuildOutcome;
use skep_model::id::{AllocationId, DeploymentId, NodeId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::builds::{Builds, Finished};
use crate::executor::{Done, Executor};
use crate::health::Report;
use crate::images::Images;
use crate::ledger::{Change, Contents, Routes, Writer};
use crate::logs::Places;
use crate::metrics::Metrics;
use crate::network::Bridges;
use crate::plan::Devices;
use crate::routes::Content;
use crate::runtime::Runtime;
use crate::runtime::events::Told;
use crate::samples;
use crate::seat::Seat;
use crate::session::{Down, Outbox};

use contact::Contact;
use entry::Entry;

/// What the keeper works with.
pub(crate) struct Parts {
    /// This node.
    pub(crate) node: NodeId,
    /// Docker.
    pub(crate) runtime: Runtime,
    /// Images, which must know what is used.
    pub(crate) images: Images,
    /// The ledger.
    pub(crate) writer: Writer,
    /// The way up.
    pub(crate) outbox: Arc<Outbox>,
    /// Does what is planned.
    pub(crate) executor: Executor,
    /// Does builds.
    pub(crate) builds: Builds,
    /// Counters.
    pub(crate) metrics: Metrics,
    /// Where the routes go.
    pub(crate) wanted: watch::Sender<Option<Arc<Content>>>,
    /// Where the logs are.
    pub(crate) places: watch::Sender<Places>,
    /// Which containers run, for whoever measures them.
    pub(crate) running: samples::Board,
    /// Where health checks report to.
    pub(crate) reports: mpsc::Sender<Report>,
    /// Stop the containers at the end.
    pub(crate) stop_on_exit: bool,
    /// What containers may be given.
    pub(crate) devices: Devices,
    /// Whether this agent may speak for the node.
    pub(crate) seat: Arc<Seat>,
}

/// What happens around it.
pub(crate) struct Events {
    /// From the server.
    pub(crate) down: mpsc::Receiver<Down>,
    /// From Docker.
    pub(crate) told: mpsc::Receiver<Told>,
    /// From the work handed out.
    pub(crate) done: mpsc::Receiver<Done>,
    /// From health checks.
    pub(crate) reports: mpsc::Receiver<Report>,
    /// From builds.
    pub(crate) finished: mpsc::Receiver<Finished>,
    /// From whoever makes bridges.
    pub(crate) bridges: watch::Receiver<Bridges>,
}

/// Everything that is known.
pub(crate) struct Keeper {
    parts: Parts,
    generation: Option<Generation>,
    assignments: BTreeMap<AllocationId, Assignment>,
    quarantine: BTreeMap<AllocationId, Assignment>,
    orders: BTreeMap<DeploymentId, BuildOrder>,
    outcomes: BTreeMap<DeploymentId, BuildOutcome>,
    routes: Option<Routes>,
    entries: BTreeMap<AllocationId, Entry>,
    timers: BTreeSet<(Instant, AllocationId)>,
    /// Docker answers, and what it has is known.
    runtime_ok: bool,
    /// What Docker has has been known at least once.
    listed: bool,
    /// Some allocation's fitness or address changed.
    traffic_changed: bool,
    contact: Contact,
    /// The node was fenced: all that it has goes. Answered when nothing is left.
    dropping: Option<oneshot::Sender<()>>,
    shutdown: CancellationToken,
}

impl Keeper {
    /// Begins with what the ledger remembers.
    pub(crate) fn new(mut parts: Parts, contents: Contents, shutdown: CancellationToken) -> Self {
        let mut entries: BTreeMap<AllocationId, Entry> = BTreeMap::new();
        for (id, local) in contents.locals {
            entries.entry(id).or_default().local = local;
        }
        for id in contents
            .assignments
            .keys()
            .chain(contents.quarantine.keys())
        {
            entries.entry(*id).or_default();
        }
        for (id, outcome) in &contents.outcomes {
            parts.outbox.finish_build(*id, outcome.clone());
        }
        parts.builds.remember(contents.builds.keys().copied());
        let keeper = Self {
            parts,
            generation: contents.generation,
            assignments: contents.assignments,
            quarantine: contents.quarantine,
            orders: contents.builds,
            outcomes: contents.outcomes,
            routes: contents.routes,
            entries,
            timers: BTreeSet::new(),
            runtime_ok: false,
            listed: false,
            traffic_changed: false,
            contact: Contact::none_yet(Instant::now()),
            dropping: None,
            shutdown,
        };
        keeper.tell_quarantine();
        keeper.tell_images();
        keeper
    }

    /// Keeps the node as it should be, until the shutdown.
    pub(crate) async fn run(mut self, mut events: Events) {
        let shutdown = self.shutdown.clone();
        loop {
            let timer = self.timers.first().map(|(at, _)| *at);
            tokio::select! {
                // What ended goes out of the routes before anything else is looked at.
                biased;
                () = shutdown.cancelled() => break,
                Some(told) = events.told.recv() => self.take_told(told).await,
                Some(report) = events.reports.recv() => self.take_report(report).await,
                Some(done) = events.done.recv() => self.take_done(done).await,
                () = wait_for(timer) => self.take_timers().await,
                Ok(()) = events.bridges.changed() => self.traffic_changed = true,
                Some(down) = events.down.recv() => self.take_down(down).await,
                Some(finished) = events.finished.recv() => self.take_finished(finished).await,
            }
            self.publish_traffic();
            self.tell_dropped();
        }
        self.shut_down(events).await;
    }

    async fn take_timers(&mut self) {
        let now = Instant::now();
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.remove(&(at, id));
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.wake = None;
            }
            self.touch(id).await;
        }
    }

    async fn take_finished(&mut self, finished: Finished) {
        let Finished {
            deployment,
            outcome,
        } = finished;
        self.parts.builds.end(deployment);
        if !self.orders.contains_key(&deployment) {
            return;
        }
        let change = Change::Outcome(deployment, Box::new(outcome.clone()));
        // A build that is not remembered is built again after a crash: it may still be told.
        self.parts.writer.write_soon(vec![change]).await;
        self.outcomes.insert(deployment, outcome.clone());
        self.parts.outbox.finish_build(deployment, outcome);
    }
}

async fn wait_for(timer: Option<Instant>) {
    match timer {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
