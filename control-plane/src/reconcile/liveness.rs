//! Who is there: the leader's judgement of nodes, from what their sessions say.

use futures_util::StreamExt as _;
use skep_model::node::NodeStatus;
use skep_proto::LEVEL_SCHEDULING;
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1::SetNodeStatus;
use skep_proto::v1::command::Kind;

use super::Duties;

/// Judgements under way at once: thousands of nodes come, or go, together, and one after the other each
/// would wait for the disk.
const AT_ONCE: usize = 64;

impl Duties {
    pub(super) async fn judge_nodes(&mut self) {
        let view = self.parts.store.view();
        let mut judged = Vec::new();
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
            judged.push(Kind::SetNodeStatus(command));
        }
        let store = self.parts.store.clone();
        let proposals = judged.into_iter().map(|kind| store.propose(kind));
        let mut proposals = futures_util::stream::iter(proposals).buffer_unordered(AT_ONCE);
        while let Some(outcome) = proposals.next().await {
            if !self.is_accepted(outcome) {
                self.dirty.nodes = true;
            }
        }
    }
}
