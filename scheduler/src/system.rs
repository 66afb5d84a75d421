//! The rollout of a system service: one allocation on every node that can take it, instead of a
//! number of them. Level-triggered like [`crate::rollout`], of which it takes the plan's form; a node
//! that joins or comes back gets its allocation, one that can no longer take a new one keeps what it
//! has.
//!
//! Nodes are updated `max_surge` at a time: the new allocation beside the old one where there is room
//! for both, else in its place. A surge of none counts as one.

use std::collections::BTreeMap;

use skep_model::allocation::{Allocation, Desired, State};
use skep_model::id::{AllocationId, NodeId};
use skep_model::problem::{Code, Problem};
use skep_model::service::Target;

use crate::backoff;
use crate::cluster::{Candidate, Standing};
use crate::draft::Draft;
use crate::filter::Ask;
use crate::lens::Lens;
use crate::place::{self, score_of};
use crate::plan::{Desire, MAX_CHANGES, Plan, Start};
use crate::quota;
use crate::rollout::{self, Input};

/// What a node has of the service.
#[derive(Default)]
struct Here<'a> {
    /// Of the target, meant to run, not ended.
    new: Vec<&'a Allocation>,
    /// Of anything else, meant to run, not ended.
    old: Vec<&'a Allocation>,
    /// When attempts of the target failed here.
    failed_ms: Vec<u64>,
    /// Something is on its way out: until it has ended this node counts as being updated.
    is_leaving: bool,
    /// One failed while its rollout lasts: evidence, and not replaced.
    is_judged: bool,
    /// The node takes no new one: what it has of an older release stays, and holds up nobody.
    is_closed: bool,
}

struct Planner<'a, 'i> {
    input: &'i Input<'a>,
    target: Option<Target>,
    is_wanted: bool,
    nodes: BTreeMap<NodeId, Here<'a>>,
    /// Something is on its way out, or waits before it is tried again.
    is_waiting: bool,
    /// Nodes whose new allocation is not healthy yet.
    updating: usize,
    plan: Plan,
}

/// Plans the next step. Starts are counted in the draft; `ids` is asked once for each start.
pub fn plan(
    draft: &mut Draft<'_>,
    input: &Input<'_>,
    ids: &mut dyn FnMut() -> AllocationId,
) -> Plan {
    // Of a system service the other rollout wants no allocations: a plan that says what it is based
    // on, and nothing more.
    let nothing = Input {
        allocations: Vec::new(),
        ..input.clone()
    };
    let base = rollout::plan(draft, &nothing, ids);
    let mut planner = Planner::new(input, base);
    planner.sort();
    planner.leave(draft);
    planner.withdraw();
    planner.update(draft, ids);
    planner.finish()
}

impl<'a, 'i> Planner<'a, 'i> {
    fn new(input: &'i Input<'a>, plan: Plan) -> Self {
        let service = input.service;
        Self {
            input,
            target: service.target(),
            is_wanted: !service.stopped && !service.removing && service.target().is_some(),
            nodes: BTreeMap::new(),
            is_waiting: false,
            updating: 0,
            plan,
        }
    }

    /// What each node has; what is over is put away, what is drained is stopped.
    fn sort(&mut self) {
        let mut all = self.input.allocations.clone();
        all.sort_by_key(|allocation| allocation.id);
        let is_rolling_out = self.input.service.rollout.is_some();
        for one in all {
            let is_new = Some(one.target) == self.target;
            if is_new && one.observed.state == State::Failed {
                let here = self.nodes.entry(one.node).or_default();
                here.failed_ms.push(one.observed_ms);
                if is_rolling_out && self.is_wanted && one.desired == Desired::Run {
                    here.is_judged = true;
                    self.plan.failed_new.push(one.id);
                    continue;
                }
            }
            if one.is_live() && one.desired != Desired::Run {
                self.nodes.entry(one.node).or_default().is_leaving = true;
            }
            match (one.is_live(), one.desired) {
                (false, Desired::Stop) | (true, Desired::Stop) => {}
                (false, _) => self.desire(one, Desired::Stop, "it ended"),
                (true, Desired::Run) => {
                    let here = self.nodes.entry(one.node).or_default();
                    match is_new {
                        true => here.new.push(one),
                        false => here.old.push(one),
                    }
                }
                (true, Desired::Drain) => {
                    let is_done = !self.input.drains() || (self.input.drained)(one);
                    match is_done {
                        true => self.desire(one, Desired::Stop, "drained"),
                        false => self.is_waiting = true,
                    }
                }
            }
        }
    }

    /// A node that is to be empty gets rid of its own at once: no other node waits for it.
    fn leave(&mut self, draft: &Draft<'_>) {
        let mut going = Vec::new();
        for (id, here) in &mut self.nodes {
            let standing = draft.node(*id).map(|node| node.standing);
            here.is_closed = standing != Some(Standing::Ready);
            if standing == Some(Standing::Draining) {
                going.extend(here.new.drain(..).chain(here.old.drain(..)));
            }
        }
        for one in going {
            self.let_go(one, "its node is being drained");
        }
    }

    /// What is not wanted, or is there twice, or has a healthy successor.
    fn withdraw(&mut self) {
        let reason = match (self.is_wanted, self.input.service.removing) {
            (true, _) => "the new release has taken over here",
            (false, true) => "the service is being removed",
            (false, false) => "the service is stopped",
        };
        let mut going = Vec::new();
        for here in self.nodes.values_mut() {
            let is_healthy = here.new.iter().any(|one| one.is_routable());
            if !self.is_wanted || is_healthy {
                going.append(&mut here.old);
            }
            if !self.is_wanted {
                going.append(&mut here.new);
            }
            // Healthy ones first: those stay.
            here.new.sort_by_key(|one| (!one.is_routable(), one.id));
            going.extend(here.new.drain(1.min(here.new.len())..));
        }
        for one in going {
            self.let_go(one, reason);
        }
        let waits = |here: &&Here<'_>| match here.new.first() {
            _ if here.is_closed => false,
            Some(one) => !one.is_routable(),
            None => here.is_leaving,
        };
        self.updating = self.nodes.values().filter(waits).count();
    }

    fn update(&mut self, draft: &mut Draft<'_>, ids: &mut dyn FnMut() -> AllocationId) {
        let Some(ask) = self.plan.ask.clone().filter(|_| self.is_wanted) else {
            return;
        };
        let mut lens = Lens::new(draft, &ask);
        let candidates: Vec<Candidate<'_>> = draft.nodes().collect();
        for node in candidates {
            if self.plan.starts.len() + self.plan.desires.len() >= MAX_CHANGES {
                self.plan.is_partial = true;
                return;
            }
            if self.update_node((draft, &mut lens), &ask, &node, ids) {
                self.updating += 1;
            }
        }
        let is_nowhere = self.nodes.values().all(|here| here.new.is_empty());
        let is_nowhere = is_nowhere && self.plan.refusal.is_none();
        if is_nowhere && self.plan.is_empty() && !self.is_waiting && self.plan.failed_new.is_empty()
        {
            self.plan.refusal = place::place(draft, &ask).err().map(|refusal| {
                let name = &self.input.service.name;
                let text = format!("no node can take `{name}`: {refusal}");
                Problem::new(Code::Unplaceable, text).hint(&refusal.hint)
            });
        }
    }

    /// Brings the target to one node; whether that began something.
    fn update_node(
        &mut self,
        (draft, lens): (&mut Draft<'_>, &mut Lens<'_, '_>),
        ask: &Ask,
        node: &Candidate<'_>,
        ids: &mut dyn FnMut() -> AllocationId,
    ) -> bool {
        let here = self.nodes.get(&node.id);
        let is_settled = here.is_some_and(|here| !here.new.is_empty() || here.is_judged);
        let old = here.map_or_else(Vec::new, |here| here.old.clone());
        if is_settled || node.standing != Standing::Ready || self.is_held_back(node.id) {
            return false;
        }
        let Some(ordinal) = draft.cluster().ordinal(node.id) else {
            return false;
        };
        // A node without any is not taken anything from: it need not wait for the others.
        let is_limited = !old.is_empty() || self.input.service.rollout.is_some();
        let surge = self.input.service.spec.update.max_surge.max(1) as usize;
        if is_limited && self.updating >= surge {
            return false;
        }
        if lens.refuses(draft, ordinal).is_some() {
            // In the place of the old one; where there is none, this node cannot take it.
            let has_old = !old.is_empty();
            for one in old {
                self.let_go(one, "it makes room for the new release");
            }
            if let Some(here) = self.nodes.get_mut(&node.id) {
                here.old.clear();
            }
            return has_old;
        }
        let (started, name) = (self.plan.starts.len(), &self.input.service.name);
        if let Some(problem) = quota::refuses(self.input.quotas, ask, started, name) {
            self.plan.refusal.get_or_insert(problem);
            return false;
        }
        let score = score_of(draft, ask, lens, ordinal);
        draft.start(node.id, ask);
        lens.count(ordinal);
        self.plan.nodes.insert(node.id, node.generation);
        let release = self.target.map_or(0, |target| target.release);
        self.plan.starts.push(Start {
            allocation: ids(),
            node: node.id,
            reason: format!("release {release}: one on every node"),
            score,
        });
        true
    }

    /// Whether failures here are too recent; notes until when.
    fn is_held_back(&mut self, node: NodeId) -> bool {
        let failed = self.nodes.get(&node).map(|here| here.failed_ms.clone());
        let due = backoff::due_ms(failed.unwrap_or_default());
        let Some(due) = due.last().copied().filter(|due| *due > self.input.now_ms) else {
            return false;
        };
        self.is_waiting = true;
        let wake = self.plan.wake_at_ms.map_or(due, |old| old.min(due));
        self.plan.wake_at_ms = Some(wake);
        true
    }

    fn let_go(&mut self, one: &Allocation, reason: &str) {
        let desired = match self.input.drains() {
            true => Desired::Drain,
            false => Desired::Stop,
        };
        self.desire(one, desired, reason);
    }

    fn desire(&mut self, one: &Allocation, desired: Desired, reason: &str) {
        self.plan.desires.push(Desire {
            allocation: one.id,
            desired,
            reason: reason.to_owned(),
        });
    }

    fn finish(mut self) -> Plan {
        self.plan.is_partial |= self.plan.desires.len() > MAX_CHANGES;
        self.plan.desires.truncate(MAX_CHANGES);
        let is_done = |here: &Here<'_>| {
            (here.old.is_empty() || here.is_closed)
                && !here.is_judged
                && (here.is_closed || here.new.iter().all(|one| one.is_routable()))
        };
        let is_whole = self.nodes.values().all(is_done);
        self.plan.is_healthy = !self.is_wanted || (is_whole && self.plan.is_empty());
        self.plan.is_converged =
            is_whole && self.plan.is_empty() && !self.is_waiting && self.plan.refusal.is_none();
        self.plan
    }
}
