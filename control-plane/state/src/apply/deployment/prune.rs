//! What is kept of releases and deployments, per service.

use skep_model::deployment::{Origin, Status};
use skep_model::id::{DeploymentId, ServiceId};

use super::Context;

/// Releases kept for rollback, per service.
const KEEP_RELEASES: usize = 20;
/// Ended deployments kept per service; older ones are in the history only.
const KEEP_DEPLOYMENTS: usize = 30;

impl Context<'_> {
    pub(super) fn prune_releases(&mut self, service: ServiceId) {
        let Some(owner) = self.state.service(service).cloned() else {
            return;
        };
        let mut used: Vec<u64> = self
            .state
            .allocations_of(service)
            .map(|a| a.target.release)
            .collect();
        let jobs = self.state.jobs_of(service);
        used.extend(
            jobs.filter(|job| job.status.is_active())
                .map(|job| job.target.release),
        );
        used.extend(owner.live.map(|target| target.release));
        used.extend(owner.rollout.map(|target| target.release));
        used.extend(
            self.state
                .deployments_of(service)
                .filter(|d| d.status.is_active())
                .filter_map(|d| match d.origin {
                    Origin::Release { number } => Some(number),
                    _ => None,
                }),
        );
        let numbers: Vec<u64> = self
            .state
            .releases_of(service)
            .map(|release| release.number)
            .collect();
        let surplus = numbers.len().saturating_sub(KEEP_RELEASES);
        for number in numbers
            .into_iter()
            .take(surplus)
            .filter(|number| !used.contains(number))
        {
            self.state.releases.remove(&(service, number));
        }
    }

    pub(super) fn prune_deployments(&mut self, service: ServiceId) {
        let ended: Vec<DeploymentId> = self
            .state
            .deployments_of(service)
            .filter(|deployment| {
                !deployment.status.is_active() && deployment.status != Status::Live
            })
            .map(|deployment| deployment.id)
            .collect();
        let surplus = ended.len().saturating_sub(KEEP_DEPLOYMENTS);
        ended
            .into_iter()
            .take(surplus)
            .for_each(|id| self.state.remove_deployment(id));
    }
}
