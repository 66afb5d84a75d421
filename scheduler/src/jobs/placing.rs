//! Where a job's next attempt is made.

use skep_model::id::{AllocationId, NodeId};
use skep_model::job::Status;
use skep_model::problem::{Code, Problem};

use super::Start;
use super::planner::Planner;
use crate::backoff::FAILURES_BEFORE_MOVING;
use crate::draft::Draft;
use crate::filter::Ask;
use crate::place::{self, Choice};
use crate::quota;

impl Planner<'_, '_> {
    pub(super) fn begin(
        &mut self,
        at: usize,
        draft: &mut Draft<'_>,
        ids: &mut dyn FnMut() -> u128,
    ) {
        let job = &self.jobs[at].job;
        let Some(release) = (self.input.releases)(job.target.release) else {
            let text = format!("release {} does not exist any more", job.target.release);
            let problem = Problem::new(Code::NotFound, text).hint("deploy again");
            return self.end(at, Status::Failed, Some(problem));
        };
        let ask = Ask::of(release, self.input.around);
        let avoided = job
            .node
            .filter(|_| job.failed_here >= FAILURES_BEFORE_MOVING);
        let started = self.plan.starts.len();
        let name = &self.input.service.name;
        if let Some(problem) = quota::refuses(self.input.quotas, &ask, started, name) {
            return self.refuse(at, problem);
        }
        match place_on(draft, ask, avoided) {
            Ok(choice) => self.begin_on(at, &choice, ids),
            Err(problem) => self.refuse(at, problem),
        }
    }

    fn refuse(&mut self, at: usize, problem: Problem) {
        self.plan.refusal = Some(problem.clone());
        if self.jobs[at].job.problem.as_ref() != Some(&problem) {
            self.change(at, |job| job.problem = Some(problem));
        }
    }

    fn begin_on(&mut self, at: usize, choice: &Choice, ids: &mut dyn FnMut() -> u128) {
        let allocation = AllocationId::from_u128(ids());
        let node = choice.node;
        self.change(at, |job| {
            if job.node != Some(node) {
                job.failed_here = 0;
            }
            job.status = Status::Running;
            job.attempts += 1;
            job.allocation = Some(allocation);
            job.node = Some(node);
        });
        let job = &self.jobs[at].job;
        let reason = format!(
            "attempt {} of job {}: {} of {} nodes can take it",
            job.attempts,
            job.id.short(),
            choice.fitting,
            choice.nodes
        );
        self.plan.nodes.insert(node, choice.generation);
        self.plan.starts.push(Start {
            job: job.id,
            allocation,
            node,
            target: job.target,
            reason,
        });
    }
}

/// The best node; one that a job failed on repeatedly only where no other can take it.
fn place_on(draft: &mut Draft<'_>, ask: Ask, avoided: Option<NodeId>) -> Result<Choice, Problem> {
    let avoided = avoided.and_then(|node| draft.node(node));
    let elsewhere = avoided.and_then(|node| {
        let others = ask.elsewhere(std::iter::once(node));
        place::place(draft, &others).ok()
    });
    let placed = match elsewhere {
        Some(choice) => Ok(choice),
        None => place::place(draft, &ask),
    };
    let choice = placed.map_err(|refusal| {
        let text = format!("it cannot be placed: {refusal}");
        Problem::new(Code::Unplaceable, text).hint(&refusal.hint)
    })?;
    draft.start(choice.node, &ask);
    Ok(choice)
}
