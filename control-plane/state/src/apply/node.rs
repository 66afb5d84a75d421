//! Nodes: joining, facts, metadata, judgement, removal.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::id::NodeId;
use skep_model::name;
use skep_model::node::{
    Admin, Facts, Fencing, MAX_META, MAX_WITNESSES, Node, NodeStatus, check_meta,
};
use skep_model::problem::{Code, Problem};
use skep_model::server::Role;
use skep_proto::convert::{enum_value, id_bits, node_ids, optional_id_bits};
use skep_proto::v1;

use super::{Context, Outcome, Reply, bits, missing, not_found, understood};
use crate::change::Change;

impl Context<'_> {
    pub(super) fn join_node(&mut self, message: v1::JoinNode) -> Outcome {
        let token = self.good_token(&message.token, &message.secret_hash, Role::Node)?;
        let node: Node = understood(message.node.ok_or_else(|| missing("node"))?)?;
        name::check("name", &node.name)?;
        if self.state.node_named(&node.name).is_some() {
            return Err(Problem::new(Code::Conflict, format!("there is a node `{}` already", node.name))
                .at("name")
                .hint("choose another with `skep agent --name`, or remove the old one with `skep node rm`"));
        }
        let guest = self.guest_of_token(&token, &node)?;
        self.spend(&token);
        let now = self.state.time_ms;
        let joined = node.id;
        let mut node = Node {
            status: NodeStatus::Lost,
            status_ms: now,
            generation: 1,
            joined_ms: now,
            // Operators say what is in it, not the node.
            meta: BTreeMap::new(),
            admin: Default::default(),
            seat: 0,
            witnesses: Vec::new(),
            fencing: Default::default(),
            ..node
        };
        if let Some(guest) = guest {
            self.guest_joined(&guest, &mut node);
        }
        self.state.put_node(node);
        self.changes.push(Change::Node(joined));
        Ok(Reply::Node(joined))
    }

    pub(super) fn update_node(&mut self, message: v1::UpdateNode) -> Outcome {
        let node = self.node(&message.node)?;
        let facts: Facts = understood(message.facts.ok_or_else(|| missing("facts"))?)?;
        if node.facts != facts {
            self.changes.push(Change::Node(node.id));
            let is_reached_elsewhere = node.facts.mesh_address != facts.mesh_address;
            self.state.put_node(Node {
                facts,
                generation: node.generation + 1,
                ..(*node).clone()
            });
            if is_reached_elsewhere {
                self.touch_routes();
            }
        }
        Ok(Reply::Done)
    }

    pub(super) fn set_node_status(&mut self, message: &v1::SetNodeStatus) -> Outcome {
        let node = self.node(&message.node)?;
        let status = enum_value("status", &NodeStatus::ALL, message.status)
            .map_err(|_| missing("status"))?;
        let mut witnesses = node_ids(&message.witnesses).map_err(|_| missing("witnesses"))?;
        witnesses.truncate(MAX_WITNESSES);
        if status != NodeStatus::Lost {
            witnesses.clear();
            if node.fencing.fenced.is_some() {
                let text = format!(
                    "node `{}` is fenced: its agent has to drop what it has first",
                    node.name
                );
                return Err(Problem::new(Code::Conflict, text).at("status"));
            }
        }
        if node.status != status {
            self.changes.push(Change::Node(node.id));
            let status_ms = self.state.time_ms;
            let fencing = Fencing {
                waits: None,
                ..node.fencing.clone()
            };
            self.state.put_node(Node {
                status,
                status_ms,
                witnesses,
                fencing,
                generation: node.generation + 1,
                ..(*node).clone()
            });
        }
        Ok(Reply::Done)
    }

    pub(super) fn take_seat(&mut self, message: &v1::TakeSeat) -> Outcome {
        let node = self.node(&message.node)?;
        let expected = optional_id_bits("expected", &message.expected);
        let seat = id_bits("seat", &message.seat);
        let (Ok(expected), Ok(seat)) = (expected, seat) else {
            return Err(missing("seat"));
        };
        // Said again by the one who has it: nothing to do.
        if node.seat == seat {
            return Ok(Reply::Done);
        }
        if node.seat != expected {
            let text = format!("another agent speaks for node `{}`", node.name);
            return Err(Problem::new(Code::Conflict, text).at("seat"));
        }
        // Placement need not know: no generation, no change.
        self.state.put_node(Node {
            seat,
            ..(*node).clone()
        });
        Ok(Reply::Done)
    }

    pub(super) fn set_node_meta(&mut self, message: v1::SetNodeMeta) -> Outcome {
        let node = self.node(&message.node)?;
        for (key, value) in &message.set {
            check_meta(key, value)?;
        }
        let mut meta = node.meta.clone();
        for key in &message.unset {
            meta.remove(key);
        }
        meta.extend(message.set);
        if meta.len() > MAX_META {
            let text = format!(
                "node `{}` would have {} metadata keys",
                node.name,
                meta.len()
            );
            return Err(Problem::invalid("set", text).hint(format!("at most {MAX_META}")));
        }
        if meta != node.meta {
            self.changes.push(Change::Node(node.id));
            self.state.put_node(Node {
                meta,
                generation: node.generation + 1,
                ..(*node).clone()
            });
        }
        Ok(Reply::Done)
    }

    pub(super) fn set_node_admin(&mut self, message: &v1::SetNodeAdmin) -> Outcome {
        let node = self.node(&message.node)?;
        self.check_stays(node.id)?;
        let admin = match message.drain_deadline_ms {
            Some(deadline_ms) => Admin::Draining { deadline_ms },
            None if message.cordoned => Admin::Cordoned,
            None => Admin::Eligible,
        };
        if !matches!(admin, Admin::Draining { .. }) {
            self.check_not_resized(node.id)?;
        }
        self.set_admin(node.id, admin);
        Ok(Reply::Done)
    }

    /// What operators want of a node, from now on.
    pub(super) fn set_admin(&mut self, id: NodeId, admin: Admin) {
        let Some(node) = self.state.node(id).filter(|node| node.admin != admin) else {
            return;
        };
        let node = Node {
            admin,
            generation: node.generation + 1,
            ..(**node).clone()
        };
        self.changes.push(Change::Node(id));
        self.state.put_node(node);
    }

    pub(super) fn remove_node(&mut self, message: &v1::RemoveNode) -> Outcome {
        let node = self.node(&message.node)?;
        self.check_no_shared_work(&node)?;
        self.drop_node(&node)
    }

    /// What has data on shared storage would go on elsewhere at once, and it may still run there.
    fn check_no_shared_work(&self, node: &Node) -> Result<(), Problem> {
        if self.state.shared_work_on(node.id).next().is_none() {
            return Ok(());
        }
        let text = format!(
            "node `{}` has work with shared storage, and is not confirmed dead",
            node.name
        );
        Err(Problem::new(Code::Conflict, text).at("node").hint(format!(
            "drain it first; where it is lost, make sure that it is off, then `skep node fence {} --confirm`",
            node.name
        )))
    }

    /// Forgets a node. Whoever asks knows that nothing of it runs that must not run twice.
    pub(super) fn drop_node(&mut self, node: &Arc<Node>) -> Outcome {
        if node.status == NodeStatus::Ready {
            return Err(
                Problem::new(Code::Conflict, format!("node `{}` is connected", node.name))
                    .hint("stop its agent first (`systemctl stop skep-agent` on the node)"),
            );
        }
        self.lose_allocations(node.id, "its node was removed from the cluster");
        self.forget_holdings(node.id);
        self.state.remove_node(node);
        self.changes.push(Change::Node(node.id));
        Ok(Reply::Done)
    }

    pub(super) fn node(&self, id: &[u8]) -> Result<Arc<Node>, Problem> {
        let id = NodeId::from_u128(bits("node", id)?);
        self.state
            .node(id)
            .cloned()
            .ok_or_else(|| not_found("node", id))
    }
}
