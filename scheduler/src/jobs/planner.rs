//! The decisions on each job of a service.

use skep_model::allocation::{Allocation, Desired, State};
use skep_model::id::{AllocationId, JobId};
use skep_model::job::{Cause, Job, Limits, MAX_ACTIVE, Status};
use skep_model::problem::{Code, Problem};
use skep_model::rollout::Phase;
use skep_model::run::{Mode, Overlap, Run};
use skep_model::service::{JOB_STOP_AFTER_MS, Target};

use super::{Following, Input, KEEP_LOGS, LOST_MARGIN_MS, MAX_CHANGED, Plan, timetable};
use crate::draft::Draft;
use crate::plan::{Desire, MAX_CHANGES};

/// A job as it is being decided on.
pub(super) struct Draw {
    /// As it is to be.
    pub(super) job: Job,
    /// Differs from the state's.
    is_changed: bool,
}

pub(super) struct Planner<'a, 'i> {
    pub(super) input: &'i Input<'a>,
    /// Oldest first.
    pub(super) jobs: Vec<Draw>,
    /// Attempts, by id.
    attempts: Vec<&'a Allocation>,
    pub(super) plan: Plan,
}

/// Why a job is to end before it has done its work.
struct Over {
    status: Status,
    problem: Problem,
}

impl<'a, 'i> Planner<'a, 'i> {
    pub(super) fn new(input: &'i Input<'a>) -> Self {
        let mut jobs: Vec<Draw> = input
            .jobs
            .iter()
            .map(|job| Draw {
                job: (*job).clone(),
                is_changed: false,
            })
            .collect();
        jobs.sort_by_key(|draw| (draw.job.created_ms, draw.job.id));
        let attempts = input.allocations.iter().copied();
        let mut attempts: Vec<_> = attempts.filter(|one| one.job.is_some()).collect();
        attempts.sort_by_key(|attempt| attempt.id);
        Self {
            input,
            jobs,
            attempts,
            plan: Plan {
                service: input.service.id,
                service_generation: input.service.generation,
                book_generation: input.book.generation,
                nodes: Default::default(),
                starts: Vec::new(),
                desires: Vec::new(),
                jobs: Vec::new(),
                deployment: None,
                following: None,
                is_partial: false,
                refusal: None,
                wake_at_ms: None,
                is_idle: false,
            },
        }
    }

    /// What became of the jobs that have not ended, and which must end.
    pub(super) fn settle(&mut self) {
        for at in 0..self.jobs.len() {
            let job = &self.jobs[at].job;
            if !job.status.is_active() {
                continue;
            }
            let over = self.over(job);
            match job.status {
                Status::Pending => {
                    if let Some(over) = over {
                        self.end(at, over.status, Some(over.problem));
                    } else if let Some(deadline) = job.deadline_at_ms() {
                        self.wake_at(deadline);
                    }
                }
                _ => self.settle_running(at, over),
            }
        }
    }

    fn settle_running(&mut self, at: usize, over: Option<Over>) {
        let job = &self.jobs[at].job;
        let Some(attempt) = job.allocation.and_then(|id| self.attempt(id)) else {
            let problem = Problem::new(Code::Internal, "its attempt is not known any more");
            return self.attempt_failed(at, over, (problem, self.input.now_ms));
        };
        let observed = &attempt.observed;
        if !attempt.is_live() {
            if observed.state == State::Stopped && observed.exit_code == Some(0) {
                self.keep_result(at, attempt);
                return self.end(at, Status::Succeeded, None);
            }
            let problem = observed.problem.clone().unwrap_or_else(|| {
                Problem::new(Code::Crashed, "its attempt ended without doing its work")
            });
            self.keep_result(at, attempt);
            if attempt.desired != Desired::Run && over.is_none() {
                return self.give_back(at, attempt.observed_ms);
            }
            return self.attempt_failed(at, over, (problem, attempt.observed_ms));
        }
        if let Some(since_ms) = (self.input.lost_ms)(attempt.node) {
            let gone_ms = since_ms.saturating_add(self.stops_within_ms(job));
            if self.input.now_ms >= gone_ms {
                let text = "its node was lost; whether it ran to its end is not known";
                self.desire_stop(attempt, "its node was lost: the job went on without it");
                let problem = Problem::new(Code::Unavailable, text);
                return self.attempt_failed(at, over, (problem, gone_ms));
            }
            self.wake_at(gone_ms);
        }
        if let Some(over) = over {
            return self.desire_stop(attempt, &over.problem.message);
        }
        let leave_by_ms = (self.input.leave_by_ms)(attempt.node);
        if attempt.desired == Desired::Drain {
            // It makes way for another, and takes no traffic that would have to end first.
            self.desire_stop(attempt, &attempt.reason);
        } else if leave_by_ms.is_some_and(|at| self.input.now_ms >= at) {
            self.desire_stop(attempt, "its node had to be empty by now");
        } else {
            leave_by_ms.into_iter().for_each(|at| self.wake_at(at));
        }
        if let Some(deadline) = self.jobs[at].job.deadline_at_ms() {
            self.wake_at(deadline);
        }
    }

    /// How long after its node was declared lost an attempt has surely been stopped by its agent.
    fn stops_within_ms(&self, job: &Job) -> u64 {
        let release = (self.input.releases)(job.target.release);
        let stop_ms = release.and_then(|release| release.stop_after_ms(true));
        let grace_ms = release.map_or(0, |release| release.stop_grace_ms);
        let stop_ms = stop_ms.unwrap_or(JOB_STOP_AFTER_MS);
        stop_ms
            .saturating_add(grace_ms)
            .saturating_add(LOST_MARGIN_MS)
    }

    /// Why a job may not go on, if it may not.
    fn over(&self, job: &Job) -> Option<Over> {
        let over = |status, code, text: &str| {
            Some(Over {
                status,
                problem: Problem::new(code, text),
            })
        };
        let service = self.input.service;
        if let Cause::Release(deployment) = job.cause
            && service
                .rollout
                .is_none_or(|target| target.deployment != deployment)
        {
            return over(
                Status::Canceled,
                Code::Canceled,
                "its deployment does not go on",
            );
        }
        if service.removing {
            return over(
                Status::Canceled,
                Code::Canceled,
                "the service is being removed",
            );
        }
        if job.cancel {
            return over(Status::Canceled, Code::Canceled, "canceled on request");
        }
        if service.stopped && !job.cause.is_aside() {
            return over(Status::Canceled, Code::Canceled, "the service was stopped");
        }
        if job
            .deadline_at_ms()
            .is_some_and(|at| self.input.now_ms >= at)
        {
            let limit = job.limits.deadline_ms;
            let text = format!(
                "not done within its deadline of {} s",
                limit.div_ceil(1_000)
            );
            return over(Status::Failed, Code::Timeout, &text);
        }
        if self.overlap() == Overlap::Replace && !job.cause.is_aside() {
            let mut newer = self.jobs.iter().filter(|other| {
                let other = &other.job;
                other.status.is_active()
                    && !other.cause.is_aside()
                    && (other.created_ms, other.id) > (job.created_ms, job.id)
            });
            if let Some(newer) = newer.next() {
                let text = format!("replaced by job {}", newer.job.id.short());
                return over(Status::Canceled, Code::Canceled, &text);
            }
        }
        None
    }

    /// An attempt was stopped for its node's sake, not the job's: another one, which the limit of
    /// attempts does not count.
    fn give_back(&mut self, at: usize, at_ms: u64) {
        self.change(at, |job| {
            job.status = Status::Pending;
            job.attempts = job.attempts.saturating_sub(1);
            job.not_before_ms = at_ms;
        });
    }

    /// An attempt ended, and did not do the job's work: another one, or the end.
    fn attempt_failed(&mut self, at: usize, over: Option<Over>, (problem, at_ms): (Problem, u64)) {
        if let Some(over) = over {
            return self.end(at, over.status, Some(over.problem));
        }
        let job = &self.jobs[at].job;
        if job.attempts > job.limits.retries {
            return self.end(at, Status::Failed, Some(problem));
        }
        let Limits {
            backoff_ms,
            max_backoff_ms,
            ..
        } = job.limits;
        let pause = Run::pause_ms(backoff_ms, max_backoff_ms, job.attempts);
        self.change(at, |job| {
            job.status = Status::Pending;
            job.failed_here += 1;
            job.not_before_ms = at_ms.saturating_add(pause);
            job.problem = Some(problem);
        });
    }

    fn keep_result(&mut self, at: usize, attempt: &Allocation) {
        self.change(at, |job| {
            job.exit_code = attempt.observed.exit_code;
            job.log_tail.clone_from(&attempt.observed.log_tail);
        });
    }

    pub(super) fn end(&mut self, at: usize, status: Status, problem: Option<Problem>) {
        self.change(at, |job| {
            job.status = status;
            job.problem = problem;
        });
    }

    /// Changes a job, unless this plan has changed enough of them.
    pub(super) fn change(&mut self, at: usize, change: impl FnOnce(&mut Job)) {
        if !self.has_room(at) {
            return;
        }
        let draw = &mut self.jobs[at];
        change(&mut draw.job);
        draw.is_changed = true;
    }

    fn has_room(&mut self, at: usize) -> bool {
        let is_counted = self.jobs.get(at).is_some_and(|draw| draw.is_changed);
        let count = self.jobs.iter().filter(|draw| draw.is_changed).count();
        let has_room = is_counted || count < MAX_CHANGED;
        self.plan.is_partial |= !has_room;
        has_room
    }

    /// Makes the jobs that are due: of a deployment, of the schedule. Whether it made any.
    pub(super) fn create(&mut self, ids: &mut dyn FnMut() -> u128) -> bool {
        let before = self.jobs.len();
        let service = self.input.service;
        let is_before = service.progress.phase == Phase::Before;
        let rollout = service.rollout.filter(|target| {
            (service.spec.run.mode == Mode::Batch || is_before)
                && !service.stopped
                && !service.removing
                && self.input.book.deployment != Some(target.deployment)
        });
        // Room for what a schedule may add: a job due and a note of those missed.
        let room = self.has_room(usize::MAX) && self.changed() + 2 <= MAX_CHANGED;
        self.plan.is_partial |= !room;
        if !room {
            return false;
        }
        if let Some(target) = rollout {
            let cause = match is_before {
                true => Cause::Release(target.deployment),
                false => Cause::Deployment(target.deployment),
            };
            self.add(ids, target, cause);
            self.plan.deployment = Some(target.deployment);
        }
        self.follow_schedule(ids);
        self.jobs.len() > before
    }

    fn follow_schedule(&mut self, ids: &mut dyn FnMut() -> u128) {
        let table = timetable::read(self.input.service, self.input.book, self.input.now_ms);
        self.plan.refusal = table.refusal;
        table.wake_at_ms.into_iter().for_each(|at| self.wake_at(at));
        self.plan.following = table.following.filter(|following| {
            let Following { schedule, until_ms } = following;
            (schedule, *until_ms) != (&self.input.book.following, self.input.book.until_ms)
        });
        let Some(target) = self.input.service.live else {
            return;
        };
        if let Some((at_ms, text)) = table.missed {
            let at = self.add(ids, target, Cause::Schedule { at_ms });
            self.end(
                at,
                Status::Missed,
                Some(Problem::new(Code::Unavailable, text)),
            );
        }
        let Some(at_ms) = table.due_ms else { return };
        let blocking = self
            .blocking(None)
            .filter(|_| self.overlap() == Overlap::Forbid);
        let active = self.jobs.iter().filter(|draw| draw.job.status.is_active());
        let problem = if let Some(other) = blocking {
            let text = format!("job {} had not ended", other.short());
            Some(Problem::new(Code::Conflict, text).hint("`run.overlap` says what happens then"))
        } else if active.count() >= MAX_ACTIVE {
            let text = format!("{MAX_ACTIVE} jobs of the service had not ended");
            Some(Problem::new(Code::Busy, text))
        } else {
            None
        };
        let at = self.add(ids, target, Cause::Schedule { at_ms });
        if let Some(problem) = problem {
            self.end(at, Status::Missed, Some(problem));
        }
    }

    fn add(&mut self, ids: &mut dyn FnMut() -> u128, target: Target, cause: Cause) -> usize {
        let spec = &self.input.service.spec;
        let (retries, deadline_ms) = match cause {
            // Whether it may run twice, nobody knows.
            Cause::Release(_) => (0, spec.hooks.release_timeout_ms),
            _ => (spec.run.retries, spec.run.deadline_ms),
        };
        let id = JobId::from_u128(ids());
        let job = Job {
            limits: Limits {
                retries,
                deadline_ms,
                backoff_ms: spec.run.backoff_ms,
                max_backoff_ms: spec.run.max_backoff_ms,
            },
            created_ms: self.input.now_ms,
            ..Job::new(id, self.input.service.id, target, cause)
        };
        self.jobs.push(Draw {
            job,
            is_changed: true,
        });
        self.jobs.len() - 1
    }

    /// A job other than `than` that none may run beside, where the policy is not to allow it.
    fn blocking(&self, than: Option<JobId>) -> Option<JobId> {
        let is_blocking = |job: &&Job| {
            let counts = match than {
                None => job.status.is_active(),
                Some(than) => job.id != than && job.status == Status::Running,
            };
            counts && !job.cause.is_aside()
        };
        let mut jobs = self.jobs.iter().map(|draw| &draw.job);
        jobs.find(is_blocking).map(|job| job.id)
    }

    /// Begins what waits and may begin, oldest first.
    pub(super) fn start(&mut self, draft: &mut Draft<'_>, ids: &mut dyn FnMut() -> u128) {
        for at in 0..self.jobs.len() {
            let job = &self.jobs[at].job;
            if job.status != Status::Pending {
                continue;
            }
            if job.not_before_ms > self.input.now_ms {
                self.wake_at(self.jobs[at].job.not_before_ms);
                continue;
            }
            let excludes = !job.cause.is_aside() && self.overlap() != Overlap::Allow;
            if excludes && self.blocking(Some(job.id)).is_some() {
                continue;
            }
            if !self.has_room(at) {
                return;
            }
            self.begin(at, draft, ids);
        }
    }

    /// Stops what runs for no job, and lets go of logs that are not kept.
    pub(super) fn put_away(&mut self) {
        let ended = self
            .jobs
            .iter()
            .rev()
            .filter(|draw| !draw.job.status.is_active() && draw.job.allocation.is_some());
        let kept = ended.take(KEEP_LOGS);
        let active = self.jobs.iter().filter(|draw| draw.job.status.is_active());
        let current: Vec<AllocationId> = kept
            .chain(active)
            .filter_map(|draw| draw.job.allocation)
            .collect();
        for attempt in self.attempts.clone() {
            let is_gone = attempt.observed.state == State::Lost;
            if is_gone || !current.contains(&attempt.id) {
                let reason = match (is_gone, attempt.is_live()) {
                    (true, _) => "its node is gone",
                    (_, true) => "its job goes on without it",
                    (_, false) => "its log is not kept any more",
                };
                self.desire_stop(attempt, reason);
            }
        }
        let over = self.plan.desires.len() > MAX_CHANGES;
        self.plan.desires.truncate(MAX_CHANGES);
        self.plan.is_partial |= over;
    }

    pub(super) fn finish(mut self) -> Plan {
        self.plan.is_idle = !self.jobs.iter().any(|draw| draw.job.status.is_active());
        let changed = self.jobs.into_iter().filter(|draw| draw.is_changed);
        self.plan.jobs = changed.map(|draw| draw.job).collect();
        self.plan
    }

    fn changed(&self) -> usize {
        self.jobs.iter().filter(|draw| draw.is_changed).count()
    }

    fn overlap(&self) -> Overlap {
        self.input.service.spec.run.overlap
    }

    fn attempt(&self, id: AllocationId) -> Option<&'a Allocation> {
        self.attempts
            .iter()
            .copied()
            .find(|attempt| attempt.id == id)
    }

    fn desire_stop(&mut self, attempt: &Allocation, reason: &str) {
        let mut desires = self.plan.desires.iter();
        let is_known = desires.any(|desire| desire.allocation == attempt.id);
        if attempt.desired != Desired::Stop && !is_known {
            self.plan.desires.push(Desire {
                allocation: attempt.id,
                desired: Desired::Stop,
                reason: reason.to_owned(),
            });
        }
    }

    fn wake_at(&mut self, at_ms: u64) {
        let old = self.plan.wake_at_ms;
        self.plan.wake_at_ms = Some(old.map_or(at_ms, |old| old.min(at_ms)));
    }
}
