//! Which peers have let this node down lately, and so in which order they are asked. Pure.

use std::collections::BTreeMap;

use skep_model::assignment::ImagePeer;
use skep_model::id::NodeId;

/// For so long a peer whose content was not what it should be is asked nothing, in ms.
const LIAR_MS: u64 = 10 * 60_000;
/// For so long a failure counts, in ms.
const FAILURE_MS: u64 = 60_000;

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    failures: u32,
    failed_ms: u64,
    lied_ms: Option<u64>,
}

/// What is remembered of them.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<NodeId, Record>);

impl Troubles {
    /// It did not answer, or not to the end.
    pub(super) fn failed(&mut self, node: NodeId, now_ms: u64) {
        let record = self.0.entry(node).or_default();
        if now_ms.saturating_sub(record.failed_ms) > FAILURE_MS {
            record.failures = 0;
        }
        record.failures = record.failures.saturating_add(1);
        record.failed_ms = now_ms;
    }

    /// What it gave was something else.
    pub(super) fn lied(&mut self, node: NodeId, now_ms: u64) {
        self.0.entry(node).or_default().lied_ms = Some(now_ms);
    }

    /// It did its part.
    pub(super) fn worked(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    /// Those to ask, the best first: who has failed least, then as they were named. Liars are left out.
    pub(super) fn order<'a>(&self, peers: &'a [ImagePeer], now_ms: u64) -> Vec<&'a ImagePeer> {
        let record = |peer: &ImagePeer| self.0.get(&peer.node).copied().unwrap_or_default();
        let is_liar = |peer: &ImagePeer| {
            let lied = record(peer).lied_ms;
            lied.is_some_and(|lied| now_ms.saturating_sub(lied) < LIAR_MS)
        };
        let mut order: Vec<&ImagePeer> = peers.iter().filter(|peer| !is_liar(peer)).collect();
        order.sort_by_key(|peer| {
            let record = record(peer);
            match now_ms.saturating_sub(record.failed_ms) > FAILURE_MS {
                true => 0,
                false => record.failures,
            }
        });
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Vec<ImagePeer> {
        let peer = |n| ImagePeer {
            node: NodeId::from_u128(n),
            address: format!("10.0.0.{n}:1"),
        };
        (1..=3).map(peer).collect()
    }

    fn asked(troubles: &Troubles, now_ms: u64) -> Vec<u128> {
        let peers = peers();
        let order = troubles.order(&peers, now_ms);
        order.iter().map(|peer| peer.node.as_u128()).collect()
    }

    #[test]
    fn who_fails_is_asked_last_and_who_lies_not_at_all() {
        let (one, two) = (NodeId::from_u128(1), NodeId::from_u128(2));
        let mut troubles = Troubles::default();
        assert_eq!(asked(&troubles, 1_000_000), [1, 2, 3]);
        troubles.failed(one, 1_000_000);
        assert_eq!(asked(&troubles, 1_000_001), [2, 3, 1]);
        troubles.lied(two, 1_000_000);
        assert_eq!(asked(&troubles, 1_000_001), [3, 1]);
        troubles.worked(one);
        assert_eq!(asked(&troubles, 1_000_001), [1, 3]);
        assert_eq!(
            asked(&troubles, 1_000_000 + LIAR_MS),
            [1, 2, 3],
            "for a while"
        );
    }
}
