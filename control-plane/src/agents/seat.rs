//! That one agent alone speaks for a node: judges the seats that an agent shows at the beginning of a
//! session. The reasons are in docs/adr/0028-one-agent-a-node.md.

use skep_model::id::NodeId;
use skep_proto::convert::{id_bytes, optional_id_bits, optional_id_bytes};
use skep_proto::v1::command::Kind;
use skep_proto::{LEVEL_SCHEDULING, v1};
use tonic::Status;

use super::fleet::Place;
use super::service::Shared;
use super::session::{Session, status};
use crate::history::AuditEntry;
use crate::store::now_ms;

/// What an agent shows: the seat of its last life that was admitted, and of this one. 0: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    before: u128,
    mine: u128,
}

/// What becomes of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    /// It speaks for the node already, or is too old to say.
    Admitted,
    /// It is the node's agent in a new life: it takes the seat over from this one.
    Succeeds(u128),
    /// It is, but its last life is still connected to another server.
    Early,
    /// It is a copy, or what it was copied from has gone on without it.
    Copy,
}

/// `in_force`: the seat that the cluster knows. `is_elsewhere`: a session of the node lives at another
/// server.
fn judge(shown: Shown, in_force: u128, is_elsewhere: bool) -> Judgement {
    match shown.mine {
        0 => Judgement::Admitted,
        mine if mine == in_force => Judgement::Admitted,
        _ if in_force != 0 && shown.before != in_force => Judgement::Copy,
        _ if is_elsewhere => Judgement::Early,
        _ => Judgement::Succeeds(in_force),
    }
}

impl Session {
    /// Whether the agent that shows these seats may speak for the node; where it begins a new life the
    /// seat is its own when this returns.
    pub(super) async fn seat(&self, before: &[u8], mine: &[u8]) -> Result<(), Status> {
        let bits = |bytes| {
            optional_id_bits("seat", bytes).map_err(|e| Status::invalid_argument(e.to_string()))
        };
        let shown = Shown {
            before: bits(before)?,
            mine: bits(mine)?,
        };
        let mut view = self.shared.store.view();
        if view.feature_level() < LEVEL_SCHEDULING {
            return Ok(());
        }
        let in_force = |view: &skep_state::State| view.node(self.node).map_or(0, |node| node.seat);
        let is_elsewhere = matches!(self.shared.fleet.place_of(self.node), Some(Place::At(_)));
        let mut judgement = judge(shown, in_force(&view), is_elsewhere);
        if judgement == Judgement::Copy {
            // This replica may be behind what another server has admitted.
            view = self.shared.store.read().await.map_err(status)?;
            judgement = judge(shown, in_force(&view), is_elsewhere);
        }
        match judgement {
            Judgement::Admitted => Ok(()),
            Judgement::Succeeds(expected) => self.take_seat(expected, shown.mine).await,
            Judgement::Early => {
                tell(&self.shared, self.node);
                Err(Status::already_exists(
                    "another agent with this node's identity is connected to another server",
                ))
            }
            Judgement::Copy => {
                tell(&self.shared, self.node);
                Err(copy())
            }
        }
    }

    async fn take_seat(&self, expected: u128, seat: u128) -> Result<(), Status> {
        let command = v1::TakeSeat {
            node: id_bytes(self.node.as_u128()),
            expected: optional_id_bytes(expected),
            seat: id_bytes(seat),
        };
        match self.propose(Kind::TakeSeat(command)).await {
            // Another one was faster.
            Err(status) if status.code() == tonic::Code::AlreadyExists => Err(copy()),
            taken => taken,
        }
    }
}

/// Tells people that a second agent came with a node's identity.
pub(super) fn tell(shared: &Shared, node: NodeId) {
    if !shared.fleet.is_doubling_news(node) {
        return;
    }
    tracing::warn!(%node, "a second agent with this node's identity is refused");
    let view = shared.store.view();
    let name = view
        .node(node)
        .map_or_else(|| node.to_string(), |it| it.name.clone());
    shared.history.audit(AuditEntry {
        at_ms: now_ms(),
        principal: format!("node {name}"),
        action: "second_agent".to_owned(),
        resource: format!("nodes/{name}"),
        outcome: "refused".to_owned(),
    });
}

fn copy() -> Status {
    Status::failed_precondition(
        "another agent speaks for this node: the data folder of this one is a copy, or an old one that was \
         put back. Remove it and join with a token; where this is the right one, stop the other and \
         remove the node first (`skep node rm`)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_for_a_node_table() {
        let tell =
            |before, mine, in_force, elsewhere| judge(Shown { before, mine }, in_force, elsewhere);
        // An agent from before there were seats.
        assert_eq!(tell(0, 0, 7, true), Judgement::Admitted);
        // The first of its node, and the same life again, also from another server.
        assert_eq!(tell(0, 1, 0, false), Judgement::Succeeds(0));
        assert_eq!(tell(0, 1, 1, true), Judgement::Admitted);
        // Restarted: at once, or when its last life is known to be over.
        assert_eq!(tell(1, 2, 1, false), Judgement::Succeeds(1));
        assert_eq!(tell(1, 2, 1, true), Judgement::Early);
        // A copy from before, while the original goes on.
        assert_eq!(tell(1, 3, 2, false), Judgement::Copy);
        assert_eq!(tell(0, 3, 2, true), Judgement::Copy);
    }
}
