//! What is known of one allocation while the agent runs.

use std::net::SocketAddr;
use std::time::Duration;

use skep_model::allocation::Observed;
use skep_model::assignment::Assignment;
use skep_model::id::ServiceId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::age;
use crate::executor::Farewell;
use crate::plan::{Failure, Fitness, Grant, Local, Phase, Seen, Work};
use crate::routes::Spot;

/// One allocation.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// What survives the agent.
    pub(super) local: Local,
    /// Its containers, by attempt.
    pub(super) containers: Vec<Seen>,
    /// The last start, if it failed.
    pub(super) failure: Option<Failure>,
    /// Of the container that runs.
    pub(super) fitness: Fitness,
    /// What is under way; the token ends a start that waits for its image.
    pub(super) work: Option<(Work, CancellationToken)>,
    /// Containers that Docker said ended, while they were not known yet.
    pub(super) ended_early: Vec<String>,
    /// Containers in which the kernel killed something for want of memory.
    pub(super) out_of_memory: Vec<String>,
    /// The health check that runs.
    pub(super) probe: Option<Probe>,
    /// When to look again.
    pub(super) wake: Option<Instant>,
    /// Nothing is begun before: the last work failed.
    pub(super) hold_until: Option<Instant>,
    /// Work failed and Docker did not even tell what it left: to be listed first.
    pub(super) unknown: bool,
    /// What the container that is being started gets.
    pub(super) granted: Option<Grant>,
    /// What was said last.
    pub(super) said: Option<Observed>,
    /// Where traffic may go, as last counted.
    pub(super) spot: Option<Spot>,
    /// It is assigned no more, and has the volumes of this service until its containers are gone.
    pub(super) leaves: Option<ServiceId>,
}

/// A health check: of which container, since when it ran.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) container: String,
    pub(super) started_ms: u64,
    pub(super) cancel: CancellationToken,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Entry {
    /// The newest container, if it runs.
    pub(super) fn running(&self) -> Option<(&Seen, Option<&Spot>, u64)> {
        let seen = self.containers.last()?;
        match &seen.phase {
            Phase::Running {
                spot, started_ms, ..
            } => Some((seen, spot.as_ref(), *started_ms)),
            _ => None,
        }
    }

    /// How long its running container has run; none: not known.
    pub(super) fn ran(&self) -> Option<Duration> {
        let seen = self.containers.last()?;
        match seen.phase {
            Phase::Running { pid, .. } => age::of_container(&seen.id, pid),
            _ => None,
        }
    }

    /// What its running container is asked before it is stopped as one of `stopping`.
    pub(super) fn farewell(&self, wanted: &Assignment, stopping: &[String]) -> Option<Farewell> {
        // Nobody is asked where no container is.
        let is_container = !wanted.image.bundle;
        let hook = wanted.hooks.pre_stop.clone().filter(|_| is_container)?;
        let (seen, spot, _) = self.running()?;
        let address = spot.and_then(Spot::ip);
        let at = address.zip(wanted.port).map(SocketAddr::from);
        stopping.contains(&seen.id).then(|| Farewell {
            container: seen.id.clone(),
            hook,
            at,
        })
    }

    /// What of the node it has for itself, or is about to.
    pub(super) fn grants(&self) -> impl Iterator<Item = &Grant> {
        let has_it = |seen: &&Seen| !matches!(seen.phase, Phase::Exited(_) | Phase::Ended);
        let containers = self.containers.iter().filter(has_it);
        containers.map(|seen| &seen.grant).chain(&self.granted)
    }

    /// Replaces what is known of one container, or adds it.
    pub(super) fn put(&mut self, seen: Seen) {
        self.containers.retain(|known| known.id != seen.id);
        self.containers.push(seen);
        self.containers.sort_by_key(|seen| seen.attempt);
    }

    /// A container ended by itself, or was removed by somebody.
    pub(super) fn end(&mut self, container: String) {
        match self.containers.iter_mut().find(|seen| seen.id == container) {
            Some(seen) if seen.is_running() => seen.phase = Phase::Ended,
            Some(_) => {}
            None if self.work.is_some() => self.ended_early.push(container),
            None => {}
        }
    }

    /// Replaces everything by what Docker listed, keeping what is known of how containers ended.
    pub(super) fn replace(&mut self, listed: Vec<Seen>) {
        self.unknown = false;
        let known = std::mem::replace(&mut self.containers, listed);
        for seen in &mut self.containers {
            let told = known.iter().find(|known| known.id == seen.id);
            if let (Phase::Exited(now), Some(Phase::Exited(then))) =
                (&mut seen.phase, told.map(|told| &told.phase))
            {
                now.clone_from(then);
            }
        }
    }
}
