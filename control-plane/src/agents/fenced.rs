//! The agent of a node that was fenced: refused until it has dropped all that it had, since that may run elsewhere by now.
//! The reasons are in docs/adr/0077-fenced-failover.md.

use skep_model::id::NodeId;
use skep_model::node::{Fencing, NodeStatus};
use skep_proto::convert::id_bytes;
use skep_proto::v1::command::Kind;
use skep_proto::{INCARNATION, v1};
use skep_state::State;
use tonic::Status;
use tonic::metadata::MetadataValue;

use super::session::{Session, status};

/// What becomes of an agent that has dropped everything for an incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    /// It speaks for the node.
    Admitted,
    /// It has dropped what it had: the node is as good as new.
    Returns,
    /// It may still have what it had.
    Refused,
}

fn judge(dropped_for: u64, fencing: &Fencing) -> Judgement {
    match (dropped_for >= fencing.incarnation, fencing.fenced.is_some()) {
        (false, _) => Judgement::Refused,
        (true, true) => Judgement::Returns,
        (true, false) => Judgement::Admitted,
    }
}

impl Session {
    /// Whether an agent that has dropped everything for this incarnation may speak for the node. To be asked once it has
    /// its seat: this server has heard by then of all that came before.
    pub(super) async fn come_back(&self, dropped_for: u64) -> Result<(), Status> {
        let mut view = self.shared.store.view();
        let is_lost = |view: &State| {
            let node = view.node(self.node);
            node.is_some_and(|node| node.status == NodeStatus::Lost)
        };
        if is_lost(&view) {
            // Whoever holds its seat already takes none: this replica may not have heard that it was fenced.
            match self.shared.store.read().await {
                Ok(fresh) => view = fresh,
                // Without a leader nothing is fenced; but one may have been a moment ago.
                Err(problem) if view.shared_work_on(self.node).next().is_some() => {
                    return Err(status(problem));
                }
                Err(_) => {}
            }
        }
        let Some(node) = view.node(self.node) else {
            return Ok(());
        };
        match judge(dropped_for, &node.fencing) {
            Judgement::Admitted => Ok(()),
            Judgement::Refused => Err(refusal(node.fencing.incarnation)),
            Judgement::Returns => {
                tracing::info!(
                    node = node.name,
                    "a fenced node is back, with nothing of before"
                );
                self.propose(Kind::ReturnNode(v1::ReturnNode {
                    node: id_bytes(self.node.as_u128()),
                    incarnation: node.fencing.incarnation,
                }))
                .await
            }
        }
    }
}

/// What a session with a node ends with that was fenced meanwhile; none: it was not.
pub(super) fn since(view: &State, node: NodeId) -> Option<Status> {
    let fencing = &view.node(node)?.fencing;
    let is_fenced = fencing.fenced.is_some();
    is_fenced.then(|| refusal(fencing.incarnation))
}

fn refusal(incarnation: u64) -> Status {
    let mut refusal = Status::aborted(
        "this node was fenced: what it ran may run elsewhere. Its agent stops all of it and comes back anew",
    );
    let value = MetadataValue::from(incarnation);
    refusal.metadata_mut().insert(INCARNATION, value);
    refusal
}

#[cfg(test)]
mod tests {
    use skep_model::node::Fenced;

    use super::*;

    #[test]
    fn who_was_fenced_comes_back_with_nothing_or_not_at_all() {
        let fencing = |incarnation, is_fenced: bool| Fencing {
            incarnation,
            fenced: is_fenced.then(|| Fenced {
                at_ms: 1,
                by: "admin".into(),
                why: "it is off".into(),
            }),
            waits: None,
        };
        // Never fenced; an agent of before there was fencing says 0.
        assert_eq!(judge(0, &fencing(0, false)), Judgement::Admitted);
        assert_eq!(judge(0, &fencing(1, true)), Judgement::Refused);
        assert_eq!(judge(1, &fencing(1, true)), Judgement::Returns);
        assert_eq!(judge(1, &fencing(1, false)), Judgement::Admitted);
        // Also once another agent of it has come back: this one is a folder of before.
        assert_eq!(judge(0, &fencing(1, false)), Judgement::Refused);
        assert_eq!(judge(1, &fencing(2, true)), Judgement::Refused);
        let told = refusal(7);
        let told = told.metadata().get(INCARNATION).expect("it is said");
        assert_eq!(told.to_str().expect("a number"), "7");
    }
}
