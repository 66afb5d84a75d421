//! Jobs: what the leader decides of them, by compare-and-set on the service's book, and what people
//! ask for. Keeps them bounded; never decides when one is due.

use skep_model::id::{DeploymentId, JobId, ServiceId};
use skep_model::job::{
    Cause, Job, JobBook, KEEP_ENDED, MAX_ACTIVE, MAX_COMMAND_WORDS, MAX_OWN_BYTES, Status,
};
use skep_model::problem::{Code, Problem};
use skep_proto::v1;
use std::sync::Arc;

use super::{Context, Outcome, Reply, bits, changed_meanwhile, missing, not_found, understood};
use crate::change::Change;

impl Context<'_> {
    pub(super) fn plan_jobs(&mut self, message: v1::PlanJobs) -> Outcome {
        let service = ServiceId::from_u128(bits("service", &message.service)?);
        if self.state.service(service).is_none() {
            return Err(not_found("service", service));
        }
        let mut book = self.state.job_book(service);
        if book.generation != message.expected_generation {
            return Err(changed_meanwhile("service's jobs"));
        }
        for job in message.jobs {
            self.change_job(service, understood(job)?)?;
        }
        if !message.deployment.is_empty() {
            book.deployment = Some(DeploymentId::from_u128(bits(
                "deployment",
                &message.deployment,
            )?));
        }
        if let Some(following) = message.following {
            book.following = following.schedule;
            book.until_ms = following.until_ms;
        }
        self.turn_page(service, book);
        // After the jobs: an attempt belongs to one that exists and runs.
        let plan = message.plan.unwrap_or_default();
        for start in &plan.starts {
            let job = JobId::from_u128(bits("job", &start.job)?);
            let is_its = |job: &Arc<Job>| {
                job.service == service
                    && job.status == Status::Running
                    && job
                        .allocation
                        .is_some_and(|id| id.as_u128().to_be_bytes()[..] == start.id[..])
            };
            if !self.state.job(job).is_some_and(is_its) {
                return Err(not_found("running job", job));
            }
        }
        self.apply_plan(plan)?;
        self.prune_jobs(service);
        Ok(Reply::Done)
    }

    /// A new job, or one as it is from now on. What has ended stays as it is.
    fn change_job(&mut self, service: ServiceId, job: Job) -> Result<(), Problem> {
        if job.service != service {
            return Err(missing("service"));
        }
        let now = self.state.time_ms;
        let old = self.state.job(job.id).cloned();
        if old
            .as_ref()
            .is_some_and(|old| !old.status.is_active() || old.service != service)
        {
            return Err(changed_meanwhile("job"));
        }
        let begins = job.allocation.is_some();
        let ended_ms = if job.status.is_active() { 0 } else { now };
        let (created_ms, started_ms) = match &old {
            Some(old) if old.started_ms > 0 => (old.created_ms, old.started_ms),
            Some(old) => (old.created_ms, if begins { now } else { 0 }),
            None => (now, if begins { now } else { 0 }),
        };
        self.put_job(Job {
            created_ms,
            started_ms,
            ended_ms,
            ..job
        });
        Ok(())
    }

    pub(super) fn create_job(&mut self, message: v1::CreateJob) -> Outcome {
        let wanted: Job = understood(message.job.ok_or_else(|| missing("job"))?)?;
        let (id, service_id) = (wanted.id, wanted.service);
        let service = self
            .state
            .service(service_id)
            .ok_or_else(|| not_found("service", service_id))?;
        if service.removing {
            return Err(Problem::new(Code::Conflict, "the service is being removed"));
        }
        let Cause::Request {
            command, variables, ..
        } = &wanted.cause
        else {
            return Err(missing("cause"));
        };
        let own = command.iter().map(String::len).sum::<usize>()
            + variables
                .iter()
                .map(|(name, variable)| name.len() + variable.value.0.len())
                .sum::<usize>();
        if command.len() > MAX_COMMAND_WORDS || own > MAX_OWN_BYTES {
            return Err(Problem::invalid("command", "too large, with its variables").hint(format!(
                "at most {MAX_COMMAND_WORDS} words and {MAX_OWN_BYTES} bytes; a script can be part of the image"
            )));
        }
        if self.state.job(id).is_some() {
            return Err(Problem::new(
                Code::Conflict,
                "there is a job with this id already",
            ));
        }
        if self
            .state
            .release(service_id, wanted.target.release)
            .is_none()
        {
            return Err(not_found("release", wanted.target.release));
        }
        let active = self
            .state
            .jobs_of(service_id)
            .filter(|job| job.status.is_active());
        if active.count() >= MAX_ACTIVE {
            let text = format!("{MAX_ACTIVE} jobs of the service have not ended");
            return Err(Problem::new(Code::Busy, text).hint("wait, or `skep jobs cancel`"));
        }
        self.put_job(Job {
            limits: wanted.limits,
            created_ms: self.state.time_ms,
            ..Job::new(id, service_id, wanted.target, wanted.cause)
        });
        let book = self.state.job_book(service_id);
        self.turn_page(service_id, book);
        Ok(Reply::Job(id))
    }

    pub(super) fn cancel_job(&mut self, message: &v1::CancelJob) -> Outcome {
        let id = JobId::from_u128(bits("job", &message.job)?);
        let job = self
            .state
            .job(id)
            .cloned()
            .ok_or_else(|| not_found("job", id))?;
        if !job.status.is_active() {
            let text = format!("the job is {} already", job.status.as_str());
            return Err(Problem::new(Code::Conflict, text));
        }
        self.put_job(Job {
            cancel: true,
            ..(*job).clone()
        });
        let book = self.state.job_book(job.service);
        self.turn_page(job.service, book);
        Ok(Reply::Done)
    }

    /// Whatever was planned on the book as it was is refused from now on.
    fn turn_page(&mut self, service: ServiceId, book: JobBook) {
        let generation = book.generation + 1;
        let book = JobBook { generation, ..book };
        self.state.job_books.insert(service, Arc::new(book));
    }

    fn put_job(&mut self, job: Job) {
        self.changes.push(Change::Job {
            job: job.id,
            service: job.service,
        });
        self.state.put_job(job);
    }

    fn prune_jobs(&mut self, service: ServiceId) {
        let ended: Vec<JobId> = self
            .state
            .jobs_of(service)
            .filter(|job| !job.status.is_active())
            .map(|job| job.id)
            .collect();
        let surplus = ended.len().saturating_sub(KEEP_ENDED);
        for job in ended.into_iter().take(surplus) {
            self.state.remove_job(job);
            self.changes.push(Change::Job { job, service });
        }
    }

    /// Of a service that is forgotten.
    pub(super) fn drop_jobs(&mut self, service: ServiceId) {
        let all: Vec<JobId> = self.state.jobs_of(service).map(|job| job.id).collect();
        for job in all {
            self.state.remove_job(job);
            self.changes.push(Change::Job { job, service });
        }
        self.state.job_books.remove(&service);
    }
}
