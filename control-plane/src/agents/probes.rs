//! Asking a node to knock at others: the request goes down its session and the answer comes up there, so
//! whoever answers has been heard in that moment. A node that is connected to another server is asked
//! through that one.

use std::time::Duration;

use skep_model::id::NodeId;
use skep_model::probe::{Reach, Target};
use skep_proto::convert::reaches_of;
use skep_proto::v1;
use tokio::time::timeout;

use super::relay::Relay;

/// An agent needs up to a second and a half where others are to show who they are, and half of it to
/// knock.
pub(crate) const ANSWER: Duration = Duration::from_secs(2);

impl Relay {
    /// What a node finds when it knocks, wherever it is connected, in the order of the targets. None: it
    /// did not answer in time, or has an agent that does not knock.
    pub async fn probe(&self, node: NodeId, targets: Vec<Target>) -> Option<Vec<Reach>> {
        match self.elsewhere(node) {
            Some((server, elsewhere)) => {
                let answer = elsewhere.probe(server, node, targets);
                timeout(ANSWER, answer).await.ok()?
            }
            None => self.probe_here(node, targets).await,
        }
    }

    /// The same of a node that is connected to this server.
    pub async fn probe_here(&self, node: NodeId, targets: Vec<Target>) -> Option<Vec<Reach>> {
        let place = self.probes().place(node);
        let message = v1::Probe {
            request: place.request(),
            targets: targets.iter().map(Into::into).collect(),
        };
        self.tell(node, v1::to_agent::Kind::Probe(message)).ok()?;
        let found = place.answer(ANSWER).await?;
        (found.len() == targets.len()).then_some(found)
    }

    /// A node has answered.
    pub(super) fn probed(&self, node: NodeId, message: &v1::Probed) {
        let found = reaches_of(&message.found);
        self.probes().answer(node, message.request, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId::from_u128(1);
    const TWO: NodeId = NodeId::from_u128(2);

    fn target() -> Target {
        Target {
            node: Some(TWO),
            address: "10.0.0.2:1".into(),
            also_port: None,
            identify: false,
        }
    }

    async fn asked(messages: &mut crate::agents::relay::ToNode) -> v1::Probe {
        match messages.recv().await {
            Some(v1::to_agent::Kind::Probe(probe)) => probe,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_node_answers_for_itself_and_only_what_it_was_asked() {
        let relay = Relay::default();
        let (_, mut messages) = relay.connect(ONE);
        let answer = async {
            let probe = asked(&mut messages).await;
            let said = |found: Vec<u32>| v1::Probed {
                request: probe.request,
                found,
            };
            relay.probed(TWO, &said(vec![2]));
            relay.probed(ONE, &said(vec![3]));
            // Said twice it counts once.
            relay.probed(ONE, &said(vec![2]));
        };
        let (found, ()) = tokio::join!(relay.probe(ONE, vec![target()]), answer);
        assert_eq!(found, Some(vec![Reach::Silent]));
        assert!(relay.probes().is_empty());
    }

    #[tokio::test]
    async fn no_session_no_answer() {
        let relay = Relay::default();
        assert_eq!(relay.probe(ONE, vec![target()]).await, None);
        let (session, mut messages) = relay.connect(ONE);
        let leave = async {
            asked(&mut messages).await;
            relay.disconnect(ONE, session);
        };
        let (found, ()) = tokio::join!(relay.probe(ONE, vec![target()]), leave);
        assert_eq!(found, None);
        let (_, mut messages) = relay.connect(ONE);
        let short = async {
            let request = asked(&mut messages).await.request;
            let found = Vec::new();
            relay.probed(ONE, &v1::Probed { request, found });
        };
        let (found, ()) = tokio::join!(relay.probe(ONE, vec![target()]), short);
        assert_eq!(found, None, "an answer to less than was asked is none");
    }
}
