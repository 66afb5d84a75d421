//! One allocation: plan it, begin what was planned, say how it is.

use std::time::Duration;

use skep_model::allocation::{Desired, Observed, State};
use skep_model::id::AllocationId;
use skep_model::problem::Problem;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Keeper;
use super::entry::{Entry, Probe};
use super::quarantine::kept_by;
use super::volumes;
use crate::clock;
use crate::executor::{Done, Op, Outcome};
use crate::health::{self, Report, Verdict};
use crate::ledger::Change;
use crate::plan::{self, Failure, Fitness, Grant, Phase, RETRY_MS, Step, View, Work};
use crate::routes::Spot;

/// Steps of one allocation without an event between them: a plan that never rests is a fault, and
/// must not keep the others waiting.
const STEPS_MAX: usize = 8;

impl Keeper {
    /// Plans an allocation after something of it changed, until work is under way or it rests.
    pub(super) async fn touch(&mut self, id: AllocationId) {
        for _ in 0..STEPS_MAX {
            let step = self.next_step(id);
            match step {
                Step::Rest => {
                    self.wake_before(id, None);
                    break;
                }
                Step::Wait(until_ms) => {
                    let left = Duration::from_millis(until_ms.saturating_sub(clock::now_ms()));
                    self.wake_before(id, Some(Instant::now() + left));
                    break;
                }
                Step::Conclude(verdict) => self.conclude(id, verdict).await,
                Step::Forget => return self.forget(id).await,
                step => {
                    if self.begin(id, step) {
                        break;
                    }
                }
            }
        }
        if self.leave_quarantine(id).await {
            return;
        }
        self.sync_probe(id);
        self.say(id);
    }

    fn next_step(&mut self, id: AllocationId) -> Step {
        let assignment = kept_by(&self.assignments, &self.quarantine, id);
        let contact = self.contact;
        // What is in quarantine is said by nobody who is there.
        let is_said = contact.is_there() && self.assignments.contains_key(&id);
        let is_unconfirmed = !is_said && assignment.is_some_and(|it| it.storage.is_shared());
        let is_dropping = self.dropping.is_some();
        let is_left = assignment.is_some_and(|wanted| self.is_left_by_others(id, wanted));
        let Some(entry) = self.entries.get_mut(&id) else {
            return Step::Rest;
        };
        if let Some((_, cancel)) = &entry.work {
            let wanted = assignment.is_some_and(|wanted| wanted.desired != Desired::Stop);
            if !wanted || is_unconfirmed {
                cancel.cancel();
            }
            return Step::Rest;
        }
        if !self.runtime_ok {
            return Step::Rest;
        }
        if let Some(until) = entry.hold_until {
            if Instant::now() < until {
                self.wake_at(id, until);
                return Step::Rest;
            }
            entry.hold_until = None;
        }
        if entry.unknown {
            return Step::List;
        }
        // Jobs alone have a time to be over.
        let timed = assignment.filter(|wanted| wanted.job.is_some());
        let ran = timed.and_then(|_| entry.ran());
        plan::plan(&View {
            assignment,
            authoritative: self.generation.is_some() || is_dropping,
            local: &entry.local,
            containers: &entry.containers,
            failure: entry.failure.as_ref(),
            is_dead: matches!(entry.fitness, Fitness::Dead(_)),
            is_cut_off: assignment.is_some_and(|wanted| contact.is_cut_off(wanted, Instant::now())),
            is_unconfirmed,
            is_left,
            ran_ms: ran.map(|ran| u64::try_from(ran.as_millis()).unwrap_or(u64::MAX)),
            now_ms: clock::now_ms(),
        })
    }

    /// Hands work out; false: it could not be, for a reason that the next plan has to look at.
    fn begin(&mut self, id: AllocationId, step: Step) -> bool {
        let granted = match step {
            Step::Start { attempt, .. } => self.grant(id, attempt),
            _ => Ok(Grant::default()),
        };
        let Some(entry) = self.entries.get_mut(&id) else {
            return true;
        };
        let grant = match granted {
            Ok(grant) => grant,
            Err(problem) => {
                entry.failure = Some(Failure {
                    problem,
                    at_ms: clock::now_ms(),
                    counted: false,
                });
                return false;
            }
        };
        let (work, op) = match step {
            Step::List => (Work::Examining, Op::List),
            Step::Examine(container) => (Work::Examining, Op::Examine(container)),
            Step::Remove(containers) => (Work::Starting, Op::Remove(containers)),
            Step::Stop {
                containers,
                grace_ms,
            } => {
                let wanted = kept_by(&self.assignments, &self.quarantine, id);
                let farewell = wanted.and_then(|wanted| entry.farewell(wanted, &containers));
                let op = Op::Stop {
                    containers,
                    grace: Duration::from_millis(grace_ms),
                    farewell,
                };
                (Work::Stopping, op)
            }
            Step::Start { attempt, counted } => {
                let Some(assignment) = kept_by(&self.assignments, &self.quarantine, id) else {
                    return true;
                };
                let view = (&assignment.restart, clock::now_ms());
                let local = plan::apply_start(&entry.local, attempt, counted, view);
                if local.restarts > entry.local.restarts {
                    self.parts.metrics.restart();
                }
                entry.local = local.clone();
                entry.fitness = Fitness::Unknown;
                let assignment = Box::new(assignment.clone());
                entry.granted = Some(grant.clone());
                let op = Op::Start {
                    assignment,
                    local,
                    grant: Box::new(grant),
                };
                (Work::Starting, op)
            }
            Step::Rest | Step::Wait(_) | Step::Conclude(_) | Step::Forget => return true,
        };
        let cancel = CancellationToken::new();
        entry.work = Some((work, cancel.clone()));
        self.parts.executor.spawn(id, op, cancel);
        true
    }

    /// What of the node the next container of an allocation gets.
    fn grant(&self, id: AllocationId, attempt: u32) -> Result<Grant, Problem> {
        let assignment = kept_by(&self.assignments, &self.quarantine, id);
        if let Some(kept) = assignment.and_then(|wanted| self.keeps_volumes_of(wanted)) {
            return Err(volumes::kept(kept));
        }
        let Some(assignment) = assignment.filter(|wanted| plan::asks(wanted)) else {
            return Ok(Grant::default());
        };
        let taken = self.entries.values().flat_map(Entry::grants);
        plan::grant(assignment, attempt, &self.parts.devices, taken)
    }

    pub(super) async fn take_done(&mut self, done: Done) {
        let Done {
            allocation: id,
            outcome,
        } = done;
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        match outcome {
            Outcome::Pulling | Outcome::Pulled => {
                let pulling = matches!(outcome, Outcome::Pulling);
                if let Some((work, _)) = &mut entry.work {
                    *work = if pulling {
                        Work::Pulling
                    } else {
                        Work::Starting
                    };
                }
                return self.say(id);
            }
            Outcome::Started(seen) => {
                entry.failure = None;
                entry.put(seen);
            }
            Outcome::Gone(containers) => {
                entry
                    .containers
                    .retain(|seen| !containers.contains(&seen.id));
            }
            Outcome::Examined(container, None) => {
                entry.containers.retain(|seen| seen.id != container);
            }
            Outcome::Examined(container, Some(mut seen)) => {
                if let Phase::Exited(exit) = &mut seen.phase {
                    exit.oom |= entry.out_of_memory.contains(&container);
                }
                entry.out_of_memory.clear();
                entry.put(seen);
            }
            Outcome::Listed(listed) => entry.replace(listed),
            Outcome::Failed(failure, listed) => {
                let why = &failure.problem;
                tracing::warn!(allocation = %id, %why, "a container could not be started");
                entry.failure = Some(failure);
                return self.after_fault(id, listed).await;
            }
            Outcome::Unclear(why, listed) => {
                tracing::warn!(allocation = %id, %why, "docker did not do what it was asked");
                let hold = Instant::now() + Duration::from_millis(RETRY_MS);
                entry.hold_until = Some(hold);
                return self.after_fault(id, listed).await;
            }
        }
        entry.work = None;
        entry.granted = None;
        for container in std::mem::take(&mut entry.ended_early) {
            entry.end(container);
        }
        self.publish_places(id);
        self.touch(id).await;
    }

    /// What is there after work failed is what Docker lists; where that fails too, it is listed
    /// again as soon as may be.
    async fn after_fault(&mut self, id: AllocationId, listed: Option<Vec<plan::Seen>>) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.work = None;
        entry.granted = None;
        entry.ended_early.clear();
        match listed {
            Some(listed) => entry.replace(listed),
            None => {
                entry.unknown = true;
                entry.hold_until = Some(Instant::now() + Duration::from_millis(RETRY_MS));
            }
        }
        self.publish_places(id);
        self.touch(id).await;
    }

    pub(super) async fn take_report(&mut self, report: Report) {
        let Report {
            allocation: id,
            container,
            verdict,
        } = report;
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry
            .running()
            .is_none_or(|(seen, ..)| seen.id != container)
        {
            return;
        }
        match verdict {
            Verdict::Healthy => {
                entry.fitness = Fitness::Healthy;
                if !entry.local.healthy {
                    entry.local.healthy = true;
                    let change = Change::Local(id, entry.local.clone());
                    // Out into the routes first: losing this costs one probe after a crash.
                    self.say(id);
                    self.publish_traffic();
                    self.parts.writer.write_soon(vec![change]).await;
                }
            }
            Verdict::Unhealthy(problem) => entry.fitness = Fitness::Unhealthy(problem),
            Verdict::Dead(problem) => {
                tracing::warn!(allocation = %id, %problem, "begins anew");
                // Like a crash, it counts against the limit of restarts.
                entry.failure = Some(Failure {
                    problem: problem.clone(),
                    at_ms: clock::now_ms(),
                    counted: true,
                });
                entry.fitness = Fitness::Dead(problem);
            }
            Verdict::Never(problem, tail) => {
                let failed = plan::ended(&entry.local, State::Failed, Some(problem), tail);
                self.conclude(id, failed).await;
            }
        }
        self.touch(id).await;
    }

    async fn conclude(&mut self, id: AllocationId, verdict: Observed) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let Some(problem) = &verdict.problem {
            tracing::warn!(allocation = %id, %problem, "failed");
        }
        entry.local.verdict.get_or_insert(verdict);
        let change = Change::Local(id, entry.local.clone());
        self.parts.writer.write_soon(vec![change]).await;
    }

    pub(super) async fn forget(&mut self, id: AllocationId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.clear_wake(id, entry.wake);
            let said = entry.said.as_ref().map(|said| said.state);
            self.parts.metrics.state(said, None);
            self.traffic_changed |= entry.spot.is_some();
            self.wake_who_waits(entry.leaves);
        }
        self.parts.outbox.forget(id);
        self.parts.running.set(id, None);
        self.publish_places(id);
        self.parts.writer.write_soon(vec![Change::Forget(id)]).await;
    }

    /// The health check that should run, runs.
    fn sync_probe(&mut self, id: AllocationId) {
        let assignment = kept_by(&self.assignments, &self.quarantine, id);
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let over = entry.local.verdict.is_some();
        let wanted = assignment.filter(|wanted| wanted.desired != Desired::Stop && !over);
        let running = entry
            .running()
            .map(|(seen, spot, since)| (seen.clone(), spot.and_then(Spot::ip), since));
        let (Some(assignment), Some((seen, address, started_ms))) = (wanted, running) else {
            entry.probe = None;
            return;
        };
        // Nobody asks an attempt of a job whether it is well, nor files.
        let checks = match &assignment.job {
            None if !assignment.image.bundle => {
                health::Checks::of(&assignment.health, assignment.port)
            }
            _ => health::Checks::default(),
        };
        if checks.is_empty() {
            entry.fitness = Fitness::Healthy;
            return;
        }
        if let (Some(port), None) = (checks.port(), address) {
            entry.fitness = Fitness::Unhealthy(health::no_address(port));
            return;
        }
        let same = |probe: &Probe| probe.container == seen.id && probe.started_ms == started_ms;
        if entry.probe.as_ref().is_some_and(same) {
            return;
        }
        let was_healthy = entry.local.healthy && entry.local.attempt == seen.attempt;
        entry.fitness = match was_healthy {
            true => Fitness::Healthy,
            false => Fitness::Unknown,
        };
        let cancel = self.shutdown.child_token();
        let target = health::Target {
            allocation: id,
            container: seen.id.clone(),
            address,
            checks,
            pid: match seen.phase {
                Phase::Running { pid, .. } => pid,
                _ => 0,
            },
            started_ms,
            was_healthy,
            deadline: Duration::from_millis(assignment.health.deadline_ms),
        };
        entry.probe = Some(Probe {
            container: seen.id,
            started_ms,
            cancel: cancel.clone(),
        });
        let (runtime, reports) = (self.parts.runtime.clone(), self.parts.reports.clone());
        tokio::spawn(health::watch(target, runtime, reports, cancel));
    }

    /// Says how an allocation is, where that changed.
    pub(super) fn say(&mut self, id: AllocationId) {
        self.publish_places(id);
        let assignment = self.assignments.get(&id);
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let running = entry.running().and_then(|(_, spot, _)| spot.cloned());
        let fit = entry.fitness == Fitness::Healthy && entry.local.verdict.is_none();
        let taken = assignment.is_some_and(|wanted| wanted.desired != Desired::Stop);
        let spot = running.filter(|_| fit && taken);
        self.traffic_changed |= spot != entry.spot;
        entry.spot = spot;
        let container = entry.running().filter(|_| assignment.is_some());
        let container = container.and_then(|(seen, ..)| match seen.phase {
            Phase::Running { pid, .. } if pid != 0 => Some((seen.id.as_str(), pid)),
            _ => None,
        });
        self.parts.running.set(id, container);
        // Before all containers are known nothing true can be said of one that seems absent.
        let Some(assignment) = assignment.filter(|_| self.listed) else {
            return;
        };
        let failure: Option<&Failure> = entry.failure.as_ref();
        let work = entry.work.as_ref().map(|(work, _)| *work);
        let how = (failure, &entry.fitness, work);
        let observed = plan::observe(assignment, &entry.local, &entry.containers, how);
        if entry.said.as_ref() != Some(&observed) {
            let was = entry.said.as_ref().map(|said| said.state);
            self.parts.metrics.state(was, Some(observed.state));
            tracing::info!(allocation = %id, state = observed.state.as_str(), "observed");
            self.parts.outbox.observe(id, observed.clone());
            entry.said = Some(observed);
        }
    }

    /// Looks again when something is due, or when it would have to stop for want of a server.
    fn wake_before(&mut self, id: AllocationId, due: Option<Instant>) {
        let assignment = kept_by(&self.assignments, &self.quarantine, id);
        let stop = assignment.and_then(|wanted| self.contact.stops_at(wanted));
        let stop = stop.filter(|at| *at > Instant::now());
        if let Some(at) = due.into_iter().chain(stop).min() {
            self.wake_at(id, at);
        }
    }

    pub(super) fn wake_at(&mut self, id: AllocationId, at: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let before = entry.wake.replace(at);
        self.clear_wake(id, before);
        self.timers.insert((at, id));
    }

    fn clear_wake(&mut self, id: AllocationId, wake: Option<Instant>) {
        if let Some(wake) = wake {
            self.timers.remove(&(wake, id));
        }
    }
}
