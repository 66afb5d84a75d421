//! Fencing: that what ran on a lost node has ended, and who may speak for it after that. The reasons are in
//! docs/adr/0077-fenced-failover.md.

use std::sync::Arc;

use skep_model::node::{Fenced, Fencing, MAX_FENCED_WHY, Node, NodeStatus};
use skep_model::problem::{Code, Problem};
use skep_proto::convert::optional_id_bits;
use skep_proto::v1;

use super::{Context, Outcome, Reply, missing};
use crate::change::Change;

impl Context<'_> {
    /// What ran there is lost, so that it may run elsewhere; its agent is refused until it has dropped all of it.
    pub(super) fn fence_node(&mut self, message: v1::FenceNode) -> Outcome {
        let node = self.node(&message.node)?;
        let expected = optional_id_bits("expected_seat", &message.expected_seat);
        let expected = expected.map_err(|_| missing("expected_seat"))?;
        if node.fencing.fenced.is_some() {
            return Ok(Reply::Done);
        }
        if node.status != NodeStatus::Lost {
            return Err(not_lost(&node));
        }
        if node.seat != expected {
            let text = format!("the agent of node `{}` has come back meanwhile", node.name);
            return Err(Problem::new(Code::Conflict, text).at("node"));
        }
        let why = cut(message.why);
        self.lose_allocations(node.id, &format!("its node was fenced: {why}"));
        let fenced = Fenced {
            at_ms: self.state.time_ms,
            by: cut(message.by),
            why,
        };
        self.put_fencing(
            &node,
            Fencing {
                incarnation: node.fencing.incarnation + 1,
                fenced: Some(fenced),
                waits: None,
            },
        );
        Ok(Reply::Done)
    }

    /// Its agent has nothing left of what ran before: the node is as good as new.
    pub(super) fn return_node(&mut self, message: &v1::ReturnNode) -> Outcome {
        let node = self.node(&message.node)?;
        let incarnation = node.fencing.incarnation;
        if incarnation != message.incarnation {
            let text = format!("node `{}` was fenced once more", node.name);
            return Err(Problem::new(Code::Conflict, text).at("incarnation"));
        }
        if node.fencing.fenced.is_some() {
            self.put_fencing(
                &node,
                Fencing {
                    incarnation,
                    ..Fencing::default()
                },
            );
        }
        Ok(Reply::Done)
    }

    /// Why it is not fenced yet, for people.
    pub(super) fn note_fencing(&mut self, message: v1::NoteFencing) -> Outcome {
        let node = self.node(&message.node)?;
        let waits = Some(cut(message.waits)).filter(|text| !text.is_empty());
        if node.may_run_unheard() && node.fencing.waits != waits {
            let fencing = Fencing {
                waits,
                ..node.fencing.clone()
            };
            self.put_fencing(&node, fencing);
        }
        Ok(Reply::Done)
    }

    fn put_fencing(&mut self, node: &Arc<Node>, fencing: Fencing) {
        // Losing its allocations may have changed it.
        let node = self.state.node(node.id).unwrap_or(node).clone();
        self.changes.push(Change::Node(node.id));
        self.state.put_node(Node {
            fencing,
            generation: node.generation + 1,
            ..(*node).clone()
        });
    }
}

fn not_lost(node: &Node) -> Problem {
    let text = format!("node `{}` is not lost: its agent is there", node.name);
    Problem::new(Code::Conflict, text).at("node").hint(format!(
        "`skep node drain {}` moves what runs there while its agent answers",
        node.name
    ))
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_FENCED_WHY));
    text
}
