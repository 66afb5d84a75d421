//! What goes up, whether or not a server listens: written from anywhere, emptied by the session.
//! Bounded by what there is to observe; waits for nobody.

use parking_lot::Mutex;
use skep_model::allocation::Observed;
use skep_model::deployment::BuildOutcome;
use skep_model::id::{AllocationId, DeploymentId};
use skep_model::node::Facts;
use skep_model::sample::{AllocationReading, NodeReading};
use skep_proto::v1;
use tokio::sync::Notify;

use super::build_log::BuildLogs;
use super::observations::{Condition, Observations};
use super::samples::Samples;
use crate::routes::Version;

#[derive(Debug, Default)]
struct State {
    observations: Observations,
    logs: BuildLogs,
    routes: v1::RouteStatus,
    routes_unsent: bool,
    challenges: v1::ChallengeStatus,
    challenges_unsent: bool,
    facts: Option<Facts>,
    facts_changed: bool,
    samples: Samples,
    /// Somebody waits for these.
    probed: Vec<v1::Probed>,
    /// For these, too.
    checked: Vec<v1::NetworkFound>,
    /// And for these.
    sources: Vec<v1::SourceFound>,
    /// And for these.
    registries: Vec<v1::RegistryFound>,
}

/// The way up.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Notify,
}

impl Outbox {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.notify_one();
    }

    /// The newest word on an allocation.
    pub(crate) fn observe(&self, id: AllocationId, observed: Observed) {
        self.change(|state| state.observations.observe(id, observed));
    }

    /// Nothing more is said of an allocation.
    pub(crate) fn forget(&self, id: AllocationId) {
        self.change(|state| state.observations.forget(id));
    }

    /// All that is in quarantine.
    pub(crate) fn set_quarantine(&self, all: Vec<v1::Quarantined>) {
        self.change(|state| state.observations.set_quarantine(all));
    }

    /// Every container has been looked at.
    pub(crate) fn set_ready(&self) {
        self.change(|state| state.observations.set_ready());
    }

    /// How Docker is.
    pub(crate) fn set_runtime(&self, condition: Condition) {
        self.change(|state| state.observations.set_runtime(condition));
    }

    /// How a build ended.
    pub(crate) fn finish_build(&self, id: DeploymentId, outcome: BuildOutcome) {
        self.change(|state| state.observations.finish_build(id, outcome));
    }

    /// A build is not ordered any more.
    pub(crate) fn forget_build(&self, id: DeploymentId) {
        self.change(|state| {
            state.observations.forget_build(id);
            state.logs.close(id);
        });
    }

    /// A build begins, for the first time or anew; `run` names this run of it alone.
    pub(crate) fn begin_build(&self, id: DeploymentId, run: u128) {
        self.change(|state| state.logs.begin(id, run));
    }

    /// A line of a build.
    pub(crate) fn build_line(&self, id: DeploymentId, line: String) {
        self.change(|state| state.logs.push(id, line));
    }

    /// Which tables the ingress has.
    pub(crate) fn set_routes(&self, applied: Version, drained: Version) {
        // What an older incarnation's tables removed says nothing about this one's.
        let is_same = applied.incarnation == drained.incarnation;
        let status = v1::RouteStatus {
            applied_revision: applied.revision,
            drained_revision: if is_same { drained.revision } else { 0 },
            incarnation: applied.incarnation,
        };
        self.change(|state| {
            state.routes_unsent |= state.routes != status;
            state.routes = status;
        });
    }

    /// Which challenges the ingress answers.
    pub(crate) fn set_challenges(&self, status: v1::ChallengeStatus) {
        self.change(|state| {
            state.challenges_unsent |= state.challenges != status;
            state.challenges = status;
        });
    }

    /// What the machine is. The session begins once they are known, and anew when they change.
    pub(crate) fn set_facts(&self, facts: Facts) {
        self.change(|state| {
            state.facts_changed |= state.facts.as_ref().is_some_and(|known| *known != facts);
            state.facts = Some(facts);
        });
    }

    /// Whether there is anybody to take samples.
    pub(crate) fn wants_samples(&self) -> bool {
        self.state.lock().samples.has_session()
    }

    /// The node and its containers, as read at a time of a life of this agent.
    pub(crate) fn sample(
        &self,
        at: (u64, u64),
        node: NodeReading,
        allocations: Vec<AllocationReading>,
    ) {
        self.change(|state| state.samples.read(at, node, allocations));
    }

    /// What the ingress has counted; `is_first`: all of it. Goes up with the next sample, or at once where
    /// somebody waits for a service that sleeps.
    pub(crate) fn count(&self, reading: v1::IngressReading, is_first: bool) {
        if reading.waits {
            self.change(|state| state.samples.count(reading, is_first));
        } else {
            self.state.lock().samples.count(reading, is_first);
        }
    }

    /// The data plane is away.
    pub(crate) fn ingress_away(&self) {
        self.state.lock().samples.ingress_away();
    }

    /// What was found where a server asked to knock; no more than requests that may be under way.
    pub(crate) fn probed(&self, found: v1::Probed) {
        self.change(|state| state.probed.push(found));
    }

    /// What was found where a server asked to dial; as few at a time.
    pub(crate) fn checked(&self, found: v1::NetworkFound) {
        self.change(|state| state.checked.push(found));
    }

    /// What was found in a repository; as few at a time.
    pub(crate) fn source_found(&self, found: v1::SourceFound) {
        self.change(|state| state.sources.push(found));
    }

    /// What was done or found at a registry; as few at a time.
    pub(crate) fn registry_found(&self, found: v1::RegistryFound) {
        self.change(|state| state.registries.push(found));
    }

    /// The session is over.
    pub(super) fn end(&self) {
        let state = &mut *self.state.lock();
        state.samples.end();
        state.probed.clear();
        state.checked.clear();
        state.sources.clear();
        state.registries.clear();
    }

    /// A new session: the facts to greet with, and everything is due. None: not known yet.
    pub(super) fn begin(&self) -> Option<Facts> {
        let state = &mut *self.state.lock();
        state.observations.begin();
        state.logs.resend();
        state.routes_unsent = state.routes != v1::RouteStatus::default();
        state.challenges_unsent = state.challenges != v1::ChallengeStatus::default();
        state.facts_changed = false;
        state.samples.begin();
        state.facts.clone()
    }

    /// Whether what was greeted with is not true any more.
    pub(super) fn facts_changed(&self) -> bool {
        self.state.lock().facts_changed
    }

    /// Waits for a change.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The next message to send.
    pub(super) fn next(&self) -> Option<v1::from_agent::Kind> {
        use v1::from_agent::Kind;
        let state = &mut *self.state.lock();
        if let Some(found) = state.probed.pop() {
            return Some(Kind::Probed(found));
        }
        if let Some(found) = state.checked.pop() {
            return Some(Kind::NetworkFound(found));
        }
        if let Some(found) = state.sources.pop() {
            return Some(Kind::SourceFound(found));
        }
        if let Some(found) = state.registries.pop() {
            return Some(Kind::RegistryFound(found));
        }
        if std::mem::take(&mut state.routes_unsent) {
            return Some(Kind::Routes(state.routes));
        }
        if std::mem::take(&mut state.challenges_unsent) {
            return Some(Kind::Challenges(state.challenges));
        }
        // Lines before the outcome that they explain.
        if let Some(lines) = state.logs.next() {
            return Some(Kind::BuildLog(lines));
        }
        let observed = state.observations.next().map(Kind::Observed);
        observed.or_else(|| state.samples.next().map(Kind::Samples))
    }

    /// What was sent and not acknowledged is due again.
    pub(super) fn resend(&self) {
        self.change(|state| {
            state.observations.resend();
            state.logs.resend();
        });
    }

    /// The server has the observations up to `sequence`.
    pub(super) fn acknowledge(&self, sequence: u64) {
        self.change(|state| state.observations.acknowledge(sequence));
    }

    /// The server has the lines of a run before `next`.
    pub(super) fn acknowledge_lines(&self, id: DeploymentId, run: &[u8], next: u64) {
        self.change(|state| state.logs.acknowledge(id, run, next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_challenges_are_answered_is_said_once_again_to_a_new_session_and_taken_back() {
        let outbox = Outbox::default();
        let said = || match outbox.next() {
            Some(v1::from_agent::Kind::Challenges(status)) => Some(status.revision),
            _ => None,
        };
        let answers = |revision| {
            outbox.set_challenges(v1::ChallengeStatus {
                revision,
                incarnation: 1,
            });
        };
        assert_eq!(said(), None);
        answers(7);
        answers(7);
        assert_eq!((said(), said()), (Some(7), None));
        outbox.begin();
        assert_eq!(said(), Some(7));
        outbox.set_challenges(v1::ChallengeStatus::default());
        assert_eq!(said(), Some(0), "its data plane is gone");
        outbox.begin();
        assert_eq!(said(), None, "a session begins with that");
    }
}
