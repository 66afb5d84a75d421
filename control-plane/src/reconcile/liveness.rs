//! Who is there: the leader's judgement of nodes, from what their sessions say, and of what others testify.

use futures_util::StreamExt as _;
use skep_model::id::NodeId;
use skep_model::node::{Node, NodeStatus};
use skep_proto::LEVEL_SCHEDULING;
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1::SetNodeStatus;
use skep_proto::v1::command::Kind;
use skep_state::State;

use super::Duties;
use crate::agents::fleet::Judgement;
use crate::history::AuditEntry;
use crate::store::now_ms;

/// Judgements under way at once: thousands of nodes come, or go, together, and one after the other each
/// would wait for the disk.
const AT_ONCE: usize = 64;

impl Duties {
    pub(super) async fn judge_nodes(&mut self) {
        let view = self.parts.store.view();
        let mut judged = Vec::new();
        for node in view.nodes() {
            // It is lost until its agent has dropped what it had, whatever is heard of it.
            if node.fencing.fenced.is_some() {
                continue;
            }
            let Judgement {
                mut status,
                witnesses,
                look_again,
            } = self.parts.fleet.judge(node);
            // Older servers know of no third way to be down.
            if status == NodeStatus::RuntimeWedged && view.feature_level() < LEVEL_SCHEDULING {
                status = NodeStatus::RuntimeDown;
            }
            if let Some(at) = look_again {
                self.wake_at_instant(at);
            }
            if status == node.status {
                continue;
            }
            let by = names(&view, &witnesses);
            tracing::info!(node = node.name, from = ?node.status, to = ?status, witnesses = %by, "node judged");
            let command = SetNodeStatus {
                node: id_bytes(node.id.as_u128()),
                status: enum_number(&NodeStatus::ALL, &status),
                // Nodes have doors from the level on that knows of witnesses.
                witnesses: (witnesses.iter())
                    .map(|witness| id_bytes(witness.as_u128()))
                    .collect(),
            };
            let told = (status == NodeStatus::Lost).then(|| told(node, &by));
            judged.push((Kind::SetNodeStatus(command), told));
        }
        let (store, history) = (self.parts.store.clone(), self.parts.history.clone());
        let proposals = judged.into_iter().map(|(kind, told)| {
            let proposed = store.propose(kind);
            async move { (proposed.await, told) }
        });
        let mut proposals = futures_util::stream::iter(proposals).buffer_unordered(AT_ONCE);
        while let Some((outcome, told)) = proposals.next().await {
            if !self.is_accepted(outcome) {
                self.dirty.nodes = true;
            } else if let Some(told) = told {
                history.audit(told);
            }
        }
    }
}

fn names(view: &State, nodes: &[NodeId]) -> String {
    let name = |id: &NodeId| {
        let node = view.node(*id);
        node.map_or_else(|| id.to_string(), |node| node.name.clone())
    };
    nodes.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// That a node is lost, and on which path that was known.
fn told(node: &Node, witnesses: &str) -> AuditEntry {
    let outcome = match witnesses {
        "" => "silent for too long".to_owned(),
        by => format!("no answer to {by}"),
    };
    AuditEntry {
        at_ms: now_ms(),
        principal: "the leader".to_owned(),
        action: "node_lost".to_owned(),
        resource: format!("nodes/{}", node.name),
        outcome,
    }
}
