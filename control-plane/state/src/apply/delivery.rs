//! Deliveries of webhooks: all that one asks for in one command, and each of it once.

use std::sync::Arc;

use skep_model::deployment::{Deployment, Origin, Status};
use skep_model::id::DeploymentId;
use skep_model::polling::Polled;
use skep_model::problem::Problem;
use skep_proto::v1;

use super::{Context, Outcome, Reply, missing, not_found, understood};
use crate::answer::Taken;
use crate::change::Change;
use crate::state::{Delivery, State};

/// How long a delivery's key is remembered: forges offer redelivery for less.
const DELIVERY_TTL_MS: u64 = 30 * 24 * 3_600_000;
/// Most keys remembered.
const MAX_DELIVERIES: usize = 100_000;
/// Longest key.
const MAX_DELIVERY_KEY: usize = 300;

impl Context<'_> {
    pub(super) fn take_delivery(&mut self, message: v1::TakeDelivery) -> Outcome {
        let wanted: Result<Vec<_>, Problem> = message.wanted.into_iter().map(read).collect();
        let taken: Result<_, _> = wanted?.into_iter().map(|wish| self.take(wish)).collect();
        Ok(Reply::Taken(taken?))
    }

    /// What is remembered and what is deployed for it are one step: neither is there without the other.
    pub(super) fn take_polled(&mut self, message: v1::TakePolled) -> Outcome {
        let polled: Polled = understood(message.polled.ok_or_else(|| missing("polled"))?)?;
        let id = polled.service;
        let service = self.state.service(id);
        if service.is_none_or(|service| service.removing) {
            return Err(not_found("service", id));
        }
        let wish = message.wanted.map(read).transpose()?;
        let taken = wish.map(|wish| self.take(wish)).transpose()?;
        let polled = Polled {
            since_ms: self.state.time_ms,
            ..polled
        };
        self.state.polled.insert(id, Arc::new(polled));
        self.changes.push(Change::Service(id));
        Ok(Reply::Taken(taken.into_iter().collect()))
    }

    fn take(&mut self, wish: Wish) -> Result<Taken, Problem> {
        let Wish {
            deployment,
            key,
            once_per_commit,
        } = wish;
        let known = key.as_deref().and_then(|key| self.state.delivery(key));
        if let Some(known) = known {
            return Ok(Taken::Replayed(known.deployment));
        }
        // What others of the delivery want is done still.
        let service = self.state.service(deployment.service);
        if service.is_none_or(|service| service.removing) {
            let problem = not_found("service", deployment.service);
            return Ok(Taken::Refused(problem));
        }
        if once_per_commit && let Some(same) = self.state.same_commit(&deployment) {
            self.remember_delivery(key, same)?;
            return Ok(Taken::SameCommit(same));
        }
        self.make_deployment(deployment, key).map(Taken::Made)
    }

    pub(super) fn remember_delivery(
        &mut self,
        key: Option<String>,
        deployment: DeploymentId,
    ) -> Result<(), Problem> {
        let Some(key) = key else { return Ok(()) };
        if key.is_empty() || key.len() > MAX_DELIVERY_KEY {
            return Err(Problem::invalid(
                "delivery",
                format!("1 to {MAX_DELIVERY_KEY} bytes are accepted"),
            ));
        }
        let now = self.state.time_ms;
        self.state.put_delivery(
            key,
            Delivery {
                deployment,
                at_ms: now,
            },
        );
        while let Some((at_ms, key)) = self.state.delivery_order.get_min().cloned() {
            let is_old = at_ms.saturating_add(DELIVERY_TTL_MS) < now;
            if !is_old && self.state.deliveries.len() <= MAX_DELIVERIES {
                break;
            }
            self.state.delivery_order.remove_min();
            self.state.deliveries.remove(&key);
        }
        Ok(())
    }
}

/// One deployment that a delivery wants.
struct Wish {
    deployment: Deployment,
    key: Option<String>,
    once_per_commit: bool,
}

fn read(wanted: v1::take_delivery::Wanted) -> Result<Wish, Problem> {
    let deployment = wanted.deployment.ok_or_else(|| missing("deployment"))?;
    Ok(Wish {
        deployment: understood(deployment)?,
        key: wanted.delivery,
        once_per_commit: wanted.once_per_commit,
    })
}

impl State {
    /// The newest deployment of the same branch, where it has the same origin and did not fail. An older one is
    /// not looked for: who goes back to an older commit means it.
    pub(crate) fn same_commit(&self, wanted: &Deployment) -> Option<DeploymentId> {
        let Origin::Git {
            repository,
            branch,
            commit: Some(commit),
            directory,
        } = &wanted.origin
        else {
            return None;
        };
        let newest = self
            .deployments_of(wanted.service)
            .filter(|of| matches!(&of.origin, Origin::Git { branch: its, .. } if its == branch))
            .max_by_key(|of| (of.status.is_active(), of.created_ms, of.id))?;
        let is_same = match &newest.origin {
            Origin::Git {
                repository: its,
                directory: folder,
                ..
            } => {
                its == repository && folder == directory && newest.commit() == Some(commit.as_str())
            }
            _ => false,
        };
        (is_same && newest.status != Status::Failed).then_some(newest.id)
    }
}
