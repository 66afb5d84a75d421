//! Physical hosts under maintenance: their nodes are drained together, those that join or move there as well, and
//! are what they were before once that has ended or they are elsewhere. What operators drain by itself is left alone.

use std::sync::Arc;

use skep_model::id::NodeId;
use skep_model::maintenance::{Cause, MAX_MAINTENANCES, Maintenance, check_host};
use skep_model::node::{Admin, HOST, Node};
use skep_model::pool::Held;
use skep_model::problem::{Code, Problem};
use skep_proto::convert::enum_value;
use skep_proto::v1;

use super::{Context, Outcome, Reply};
use crate::change::Change;

impl Context<'_> {
    pub(super) fn set_host_maintenance(&mut self, message: &v1::SetHostMaintenance) -> Outcome {
        check_host(&message.host)?;
        let cause = enum_value("cause", &Cause::ALL, message.cause)
            .map_err(|error| Problem::new(Code::Invalid, error.to_string()))?;
        let known = self.state.maintenance(&message.host).cloned();
        if known.is_none() && self.state.maintenances.len() >= MAX_MAINTENANCES {
            let text = format!("{MAX_MAINTENANCES} hosts are under maintenance already");
            return Err(Problem::new(Code::TooLarge, text).hint("`skep host undrain` ends one"));
        }
        let mut nodes = known
            .as_ref()
            .map(|it| it.nodes.clone())
            .unwrap_or_default();
        if let Some(known) = &known {
            // They keep to the new deadline; what was said of a node itself since stays.
            for id in known.nodes.keys() {
                if self.is_drained_by(*id, known.deadline_ms) {
                    let deadline_ms = message.deadline_ms;
                    self.set_admin(*id, Admin::Draining { deadline_ms });
                }
            }
            nodes.retain(|id, _| self.state.node(*id).is_some());
        }
        let maintenance = Maintenance {
            host: message.host.clone(),
            cause,
            since_ms: known.map_or(self.state.time_ms, |it| it.since_ms),
            deadline_ms: message.deadline_ms,
            nodes,
        };
        self.follow(maintenance);
        Ok(Reply::Done)
    }

    pub(super) fn follow_host_maintenance(
        &mut self,
        message: &v1::FollowHostMaintenance,
    ) -> Outcome {
        let maintenance = self.under_maintenance(&message.host)?;
        self.follow((*maintenance).clone());
        Ok(Reply::Done)
    }

    pub(super) fn end_host_maintenance(&mut self, message: &v1::EndHostMaintenance) -> Outcome {
        let maintenance = self.under_maintenance(&message.host)?;
        self.state.maintenances.remove(&message.host);
        for (id, was_cordoned) in &maintenance.nodes {
            self.give_back(*id, *was_cordoned, maintenance.deadline_ms);
        }
        self.changes.push(Change::Guests);
        Ok(Reply::Done)
    }

    /// Drains what is on the host and not drained, gives back what is not there any more, and keeps it.
    fn follow(&mut self, mut maintenance: Maintenance) {
        let deadline_ms = maintenance.deadline_ms;
        let is_on = |node: &Node| node.meta(HOST) == Some(&*maintenance.host);
        let on: Vec<Arc<Node>> = self.state.nodes().filter(|it| is_on(it)).cloned().collect();
        let recorded = maintenance.nodes.clone();
        for (id, was_cordoned) in recorded {
            if !on.iter().any(|node| node.id == id) {
                self.give_back(id, was_cordoned, deadline_ms);
                maintenance.nodes.remove(&id);
            }
        }
        for node in on {
            if !matches!(node.admin, Admin::Draining { .. }) {
                let is_cordoned = node.admin == Admin::Cordoned;
                maintenance.nodes.entry(node.id).or_insert(is_cordoned);
                self.set_admin(node.id, Admin::Draining { deadline_ms });
            }
        }
        let host = maintenance.host.clone();
        self.state.maintenances.insert(host, Arc::new(maintenance));
        self.changes.push(Change::Guests);
    }

    fn give_back(&mut self, id: NodeId, was_cordoned: bool, deadline_ms: u64) {
        if self.is_drained_by(id, deadline_ms) && self.check_stays(id).is_ok() {
            let held = Held {
                was_cordoned,
                deadline_ms: Some(deadline_ms),
            };
            // Its guest is to be shut down: until then it stays empty for that.
            if self.hold_on(id, held) {
                return;
            }
            self.set_admin(
                id,
                match was_cordoned {
                    true => Admin::Cordoned,
                    false => Admin::Eligible,
                },
            );
        }
    }

    fn is_drained_by(&self, id: NodeId, deadline_ms: u64) -> bool {
        let node = self.state.node(id);
        node.is_some_and(|node| node.admin == Admin::Draining { deadline_ms })
    }

    fn under_maintenance(&self, host: &str) -> Result<Arc<Maintenance>, Problem> {
        self.state.maintenance(host).cloned().ok_or_else(|| {
            let text = format!(
                "the host `{}` is not under maintenance",
                host.escape_debug()
            );
            Problem::new(Code::NotFound, text)
                .at("host")
                .hint("`skep host ls` shows which are")
        })
    }
}
