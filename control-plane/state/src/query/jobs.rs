//! Reading jobs.

use std::sync::Arc;

use skep_model::id::{JobId, ServiceId};
use skep_model::job::{Job, JobBook};

use crate::state::State;

impl State {
    /// A job.
    pub fn job(&self, id: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&id)
    }

    /// All jobs that are kept, by id (oldest first).
    pub fn jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.values()
    }

    /// The jobs of a service that are kept, oldest first.
    pub fn jobs_of(&self, service: ServiceId) -> impl DoubleEndedIterator<Item = &Arc<Job>> {
        let (low, high) = (JobId::from_u128(0), JobId::from_u128(u128::MAX));
        self.service_jobs
            .range((service, low)..=(service, high))
            .filter_map(|(_, id)| self.jobs.get(id))
    }

    /// What is remembered of a service's jobs; of one that never had any: nothing.
    pub fn job_book(&self, service: ServiceId) -> JobBook {
        self.job_books
            .get(&service)
            .map_or_else(JobBook::default, |book| (**book).clone())
    }
}
