//! The wait before an issuer is told to look: until every live ingress says that it answers the challenge. Any of them
//! may be the one that the issuer comes to, and in a handshake nothing can be waited for. One that says nothing, because
//! it is cut off or of an older version, holds up an order for a moment only: the issuer may well come to another.

use std::time::Duration;

use skep_model::id::NodeId;
use skep_state::State;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::agents::fleet::Fleet;
use crate::store::Store;

/// Longest wait for an ingress: an agent that is well takes milliseconds, and a second where another server has it.
const BOUND: Duration = Duration::from_secs(5);

/// Waits until the challenge for `host` that was put at index `revision` of the log is answered everywhere.
pub(super) async fn everywhere(fleet: &Fleet, store: &Store, (host, revision): (&str, u64)) {
    let applied = store.consensus().applied();
    let missing = until_held(fleet, (|| store.view(), applied), (revision, BOUND)).await;
    if missing.is_empty() {
        return;
    }
    let view = store.view();
    let names = missing.iter().filter_map(|id| view.node(*id));
    let nodes: Vec<_> = names.map(|node| node.name.as_str()).collect();
    tracing::warn!(
        host,
        nodes = nodes.join(" "),
        "these nodes do not say that they can prove the host: the issuer is told to look all the same, and the order fails if it is led to one of them"
    );
}

/// The live ingresses that do not have `revision` when the wait is over.
async fn until_held(
    fleet: &Fleet,
    (view, mut applied): (impl Fn() -> State, watch::Receiver<u64>),
    (revision, bound): (u64, Duration),
) -> Vec<NodeId> {
    let until = Instant::now() + bound;
    let mut changed = fleet.changed();
    loop {
        changed.mark_unchanged();
        applied.mark_unchanged();
        let missing = fleet.without_challenges(&view(), revision);
        if missing.is_empty() {
            return missing;
        }
        let news = async {
            tokio::select! {
                changed = changed.changed() => changed.is_ok(),
                // A node may be lost by now, or another one have come.
                changed = applied.changed() => changed.is_ok(),
            }
        };
        if !timeout_at(until, news).await.unwrap_or(false) {
            return missing;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use skep_model::id::{ServerId, TokenId};
    use skep_model::node::{Facts, Node, NodeStatus};
    use skep_model::server::{JoinToken, Role};
    use skep_proto::convert::{enum_number, id_bytes};
    use skep_proto::v1;
    use skep_proto::v1::command::Kind;

    use super::*;
    use crate::agents::fleet::{RouteStatus, Runtime, Word};

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);
    const HERE: NodeId = NodeId::from_u128(1);
    const THERE: NodeId = NodeId::from_u128(2);
    const BARE: NodeId = NodeId::from_u128(3);
    const LOST: NodeId = NodeId::from_u128(4);

    fn apply(state: &mut State, kind: Kind) {
        let bytes = skep_state::command(1, kind);
        let applied = state.apply(state.index() + 1, &bytes);
        applied.outcome.expect("accepted");
    }

    /// Two nodes with an ingress, one without, and one that is lost.
    fn cluster() -> State {
        let mut state = State::default();
        let token = JoinToken {
            id: TokenId::from_u128(1),
            secret_hash: vec![1],
            expires_ms: u64::MAX,
            uses_left: 4,
            role: Role::Node,
            note: String::new(),
            created_ms: 0,
        };
        let token = Some((&token).into());
        apply(&mut state, Kind::PutToken(v1::PutToken { token }));
        for (id, status) in [
            (HERE, NodeStatus::Ready),
            (THERE, NodeStatus::Ready),
            (BARE, NodeStatus::Ready),
            (LOST, NodeStatus::Lost),
        ] {
            join(&mut state, id);
            judge(&mut state, id, status);
        }
        state
    }

    fn join(state: &mut State, id: NodeId) {
        let node = Node {
            id,
            name: format!("n{id}"),
            facts: Facts {
                ingress_port: (id != BARE).then_some(8080),
                ..Facts::default()
            },
            status: NodeStatus::Lost,
            status_ms: 0,
            generation: 0,
            joined_ms: 0,
            meta: BTreeMap::new(),
            admin: Default::default(),
            seat: 0,
            witnesses: Vec::new(),
            fencing: Default::default(),
        };
        let join = v1::JoinNode {
            token: id_bytes(1),
            secret_hash: vec![1],
            node: Some((&node).into()),
        };
        apply(state, Kind::JoinNode(join));
    }

    fn judge(state: &mut State, id: NodeId, status: NodeStatus) {
        let judged = v1::SetNodeStatus {
            node: id_bytes(id.as_u128()),
            status: enum_number(&NodeStatus::ALL, &status),
            witnesses: Vec::new(),
        };
        apply(state, Kind::SetNodeStatus(judged));
    }

    /// What another server says of its node.
    fn there(fleet: &Fleet, challenges: u64) {
        let word = Word {
            node: THERE,
            connected: true,
            runtime: Runtime::Ok,
            routes: RouteStatus::default(),
            challenges,
            silent: Duration::ZERO,
            ca: None,
            broke: false,
        };
        fleet.learn(ServerId::from_u128(9), false, vec![word]);
    }

    async fn missing(fleet: &Fleet, state: &State, bound: Duration) -> Vec<NodeId> {
        let (_sender, applied) = watch::channel(0);
        until_held(fleet, (|| state.clone(), applied), (7, bound)).await
    }

    #[tokio::test]
    async fn all_live_ingresses_are_waited_for_wherever_they_are_connected() {
        let (fleet, state) = (Fleet::default(), cluster());
        fleet.connect(HERE, 1);
        fleet.connect(BARE, 1);
        there(&fleet, 6);
        assert_eq!(missing(&fleet, &state, SHORT).await, [HERE, THERE]);
        let said = async {
            fleet.challenges(HERE, 1, 8);
            assert_eq!(fleet.without_challenges(&state, 7), [THERE]);
            there(&fleet, 7);
        };
        let (left, ()) = tokio::join!(missing(&fleet, &state, LONG), said);
        assert_eq!(left, [], "neither the bare nor the lost one");
    }

    #[tokio::test]
    async fn one_that_says_nothing_is_waited_for_until_the_bound() {
        let (fleet, state) = (Fleet::default(), cluster());
        fleet.connect(HERE, 1);
        fleet.challenges(HERE, 1, 7);
        there(&fleet, 6);
        let begun = Instant::now();
        assert_eq!(missing(&fleet, &state, SHORT).await, [THERE]);
        assert!(begun.elapsed() >= SHORT, "not given the time");
        // What a data plane held that is gone does not count.
        fleet.challenges(HERE, 1, 0);
        assert_eq!(missing(&fleet, &state, SHORT).await, [HERE, THERE]);
    }

    #[tokio::test]
    async fn one_that_is_lost_meanwhile_is_waited_for_no_longer() {
        let (fleet, before) = (Fleet::default(), cluster());
        fleet.connect(HERE, 1);
        fleet.challenges(HERE, 1, 7);
        let mut after = before.clone();
        judge(&mut after, THERE, NodeStatus::Lost);
        let (sender, applied) = watch::channel(0);
        let view = || match *sender.borrow() {
            0 => before.clone(),
            _ => after.clone(),
        };
        let waited = until_held(&fleet, (view, applied), (7, LONG));
        let judged = async { sender.send_replace(1) };
        let (left, _) = tokio::join!(waited, judged);
        assert_eq!(left, []);
    }
}
