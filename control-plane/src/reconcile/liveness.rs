//! Who is there: the leader's judgement of nodes, from what their sessions say.

use skep_model::node::NodeStatus;
use skep_proto::LEVEL_SCHEDULING;
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1::SetNodeStatus;
use skep_proto::v1::command::Kind;

use super::Duties;

impl Duties {
    pub(super) async fn judge_nodes(&mut self) {
        let view = self.parts.store.view();
        for node in view.nodes() {
            let (mut status, look_again) = self.parts.fleet.judge(node);
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
            tracing::info!(node = node.name, from = ?node.status, to = ?status, "node judged");
            let number = enum_number(&NodeStatus::ALL, &status);
            let command = SetNodeStatus {
                node: id_bytes(node.id.as_u128()),
                status: number,
            };
            if !self.propose(Kind::SetNodeStatus(command)).await {
                self.dirty.nodes = true;
            }
        }
    }
}
