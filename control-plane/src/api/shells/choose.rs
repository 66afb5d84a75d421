//! In which allocation a shell is opened. Pure.

use std::sync::Arc;

use skep_model::allocation::{Allocation, Desired, State};
use skep_model::id::AllocationId;
use skep_model::problem::{Code, Problem};
use skep_model::service::Target;

/// The one that is asked for; else the best of those that run, the oldest of equals.
///
/// # Errors
/// It is not one of the service's, or does not run; or none does.
pub(super) fn choose<'a>(
    all: impl Iterator<Item = &'a Arc<Allocation>>,
    live: Option<Target>,
    asked: Option<AllocationId>,
) -> Result<Arc<Allocation>, Problem> {
    if let Some(id) = asked {
        let mut all = all;
        let found = all.find(|one| one.id == id).ok_or_else(|| {
            Problem::new(
                Code::NotFound,
                format!("{id} is no allocation of the service"),
            )
            .at("allocation")
            .hint("`skep ps` lists them")
        })?;
        // One that is on its way may have a container already, and one on its way out still: the
        // node knows.
        if found.observed.state.is_terminal() {
            let state = found.observed.state.as_str();
            let text = format!("the allocation is {state}: nothing runs in it any more");
            return Err(Problem::new(Code::Conflict, text)
                .at("allocation")
                .hint("`skep ps` lists those that run"));
        }
        return Ok(Arc::clone(found));
    }
    let best = all
        .filter_map(|one| rank(one, live).map(|rank| (rank, one)))
        .min_by_key(|(rank, one)| (*rank, one.id));
    best.map(|(_, one)| Arc::clone(one)).ok_or_else(|| {
        Problem::new(Code::Conflict, "no allocation of the service runs just now")
            .hint("`skep ps --all` tells why; `skep scale` or `skep redeploy` starts some")
    })
}

/// Smaller is better; none: there is no container to do anything in. An attempt of a job counts only
/// where it is asked for: it may be anything.
fn rank(one: &Allocation, live: Option<Target>) -> Option<(u8, bool, bool)> {
    let health = match one.observed.state {
        State::Healthy => 0,
        State::Running => 1,
        State::Unhealthy => 2,
        _ => return None,
    };
    let is_replica = one.job.is_none();
    is_replica.then(|| {
        let is_other = Some(one.target) != live;
        (health, is_other, one.desired != Desired::Run)
    })
}

#[cfg(test)]
mod tests {
    use skep_model::allocation::Observed;
    use skep_model::id::{DeploymentId, JobId, NodeId, ServiceId};

    use super::*;

    const LIVE: Target = Target {
        release: 2,
        deployment: DeploymentId::from_u128(2),
    };

    fn one(id: u128, release: u64, state: State) -> Arc<Allocation> {
        Arc::new(Allocation {
            id: AllocationId::from_u128(id),
            service: ServiceId::from_u128(1),
            target: Target { release, ..LIVE },
            node: NodeId::from_u128(1),
            desired: Desired::Run,
            reason: String::new(),
            desired_ms: 0,
            desired_index: 0,
            observed: Observed {
                state,
                ..Observed::pending()
            },
            observed_ms: 0,
            created_ms: 0,
            job: None,
        })
    }

    fn chosen(all: &[Arc<Allocation>], asked: Option<u128>) -> Result<u128, Code> {
        let asked = asked.map(AllocationId::from_u128);
        let found = choose(all.iter(), Some(LIVE), asked);
        found
            .map(|one| one.id.as_u128())
            .map_err(|problem| problem.code)
    }

    #[test]
    fn the_healthiest_of_the_live_release_and_of_those_the_oldest() {
        use State::{Failed, Healthy, Pending, Running, Starting, Unhealthy};
        for (all, expected) in [
            (
                vec![one(1, 1, Healthy), one(3, 2, Healthy), one(2, 2, Healthy)],
                2,
            ),
            (vec![one(1, 2, Running), one(2, 1, Healthy)], 2),
            (
                vec![one(1, 2, Unhealthy), one(2, 2, Running), one(3, 2, Pending)],
                2,
            ),
            (vec![one(1, 2, Failed), one(2, 2, Unhealthy)], 2),
        ] {
            assert_eq!(chosen(&all, None), Ok(expected), "{all:#?}");
        }
        let mut job = (*one(1, 2, Healthy)).clone();
        job.job = Some(JobId::from_u128(9));
        let none = [Arc::new(job), one(2, 2, Starting)];
        assert_eq!(chosen(&none, None), Err(Code::Conflict));
        assert_eq!(chosen(&[], None), Err(Code::Conflict));
        // Asked for by its id, each of them will do.
        assert_eq!(chosen(&none, Some(1)), Ok(1));
        assert_eq!(chosen(&none, Some(2)), Ok(2));
        assert_eq!(chosen(&none, Some(3)), Err(Code::NotFound));
        assert_eq!(chosen(&[one(4, 2, Failed)], Some(4)), Err(Code::Conflict));
    }
}
