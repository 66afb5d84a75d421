//! Quarantine: what nodes run and the state does not know, until somebody decides on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::allocation::{Allocation, Desired, Observed};
use skep_model::id::{AllocationId, NodeId};
use skep_model::problem::{Code, Problem};
use skep_model::quarantine::{MAX_PER_NODE, Quarantined};
use skep_proto::v1;

use super::{Context, Outcome, Reply, bits, not_found, understood};
use crate::change::Change;

/// What a node's list says.
pub(super) fn quarantine_list(list: v1::QuarantineList) -> Result<Vec<Quarantined>, Problem> {
    list.entries.into_iter().map(understood).collect()
}

impl Context<'_> {
    /// The node's whole list. What it does not name any more is gone there, and forgotten here.
    pub(super) fn observe_quarantine(&mut self, node: NodeId, entries: Vec<Quarantined>) {
        let mut seen = BTreeMap::new();
        for entry in entries {
            if entry.node == node && self.state.allocation(entry.allocation).is_none() {
                seen.insert(entry.allocation, entry);
            }
        }
        let gone: Vec<AllocationId> = self
            .state
            .dismissed_on(node)
            .filter(|allocation| !seen.contains_key(allocation))
            .collect();
        for allocation in &gone {
            self.state.dismissed.remove(&(node, *allocation));
        }
        seen.retain(|allocation, _| !self.state.dismissed.contains(&(node, *allocation)));
        let known: Vec<AllocationId> = self
            .state
            .quarantine_on(node)
            .map(|entry| entry.allocation)
            .collect();
        let mut is_changed = !gone.is_empty();
        for allocation in known {
            if seen.remove(&allocation).is_none() {
                self.state.quarantine.remove(&(node, allocation));
                is_changed = true;
            }
        }
        let room = MAX_PER_NODE.saturating_sub(self.state.quarantine_on(node).count());
        for (allocation, entry) in seen.into_iter().take(room) {
            let entry = Quarantined {
                since_ms: self.state.time_ms,
                ..entry
            };
            self.state
                .quarantine
                .insert((node, allocation), Arc::new(entry));
            is_changed = true;
        }
        if is_changed {
            self.changes.push(Change::Quarantine(node));
        }
    }

    pub(super) fn settle_quarantine(&mut self, message: &v1::SettleQuarantine) -> Outcome {
        let node = NodeId::from_u128(bits("node", &message.node)?);
        let id = AllocationId::from_u128(bits("allocation", &message.allocation)?);
        let entry = self
            .state
            .quarantine
            .get(&(node, id))
            .cloned()
            .ok_or_else(|| not_found("allocation in quarantine", id))?;
        if message.adopt {
            self.adopt(&entry)?;
        } else {
            self.state.dismissed.insert((node, id));
        }
        self.state.quarantine.remove(&(node, id));
        self.changes.push(Change::Quarantine(node));
        Ok(Reply::Done)
    }

    fn adopt(&mut self, entry: &Quarantined) -> Result<(), Problem> {
        let refused = |text: String| {
            Problem::new(Code::Conflict, text)
                .hint("deploy the app again, then dismiss this one with `skep alloc dismiss`")
        };
        let Some(service) = self.state.service(entry.service) else {
            let text = format!("its service {} does not exist", entry.service_label);
            return Err(refused(text));
        };
        if service.removing {
            let text = format!("its service {} is being removed", entry.service_label);
            return Err(refused(text));
        }
        let number = entry.target.release;
        if self.state.release(entry.service, number).is_none() {
            let text = format!("release {number} of {} is not known", entry.service_label);
            return Err(refused(text));
        }
        if self.state.allocation(entry.allocation).is_some() {
            return Err(refused("an allocation with this id exists".to_owned()));
        }
        let node = self
            .state
            .node(entry.node)
            .cloned()
            .ok_or_else(|| not_found("node", entry.node))?;
        self.raise_node(&node);
        let (now, index) = (self.state.time_ms, self.state.index);
        self.put_allocation(Allocation {
            id: entry.allocation,
            service: entry.service,
            target: entry.target,
            node: entry.node,
            desired: Desired::Run,
            reason: "adopted from quarantine".to_owned(),
            desired_ms: now,
            desired_index: index,
            // The agent, now told of it, says what it really is.
            observed: Observed::pending(),
            observed_ms: now,
            created_ms: now,
            job: None,
        });
        Ok(())
    }
}
