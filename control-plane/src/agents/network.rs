//! Asking a node whether it reaches the data planes of others, and how its private network does. A node that
//! is connected to another server is asked through that one.

use std::time::Duration;

use skep_model::id::NodeId;
use skep_model::network_check::{Ask, Found};
use skep_proto::v1;
use tokio::time::timeout;

use super::relay::Relay;

/// For an agent to try all its doors: four rounds of those that it tries at a time.
pub(crate) const ANSWER: Duration = Duration::from_secs(16);

impl Relay {
    /// What a node finds, wherever it is connected. None: it did not answer in time, or has an agent that
    /// does not know the question.
    pub async fn check_network(&self, node: NodeId, ask: Ask) -> Option<Found> {
        match self.elsewhere(node) {
            Some((server, elsewhere)) => {
                let answer = elsewhere.check_network(server, node, ask);
                timeout(ANSWER, answer).await.ok()?
            }
            None => self.check_network_here(node, ask).await,
        }
    }

    /// The same of a node that is connected to this server.
    pub async fn check_network_here(&self, node: NodeId, ask: Ask) -> Option<Found> {
        let place = self.checks().place(node);
        let message = v1::NetworkAsk {
            request: place.request(),
            ..(&ask).into()
        };
        let message = v1::to_agent::Kind::NetworkAsk(message);
        self.tell(node, message).ok()?;
        let found = place.answer(ANSWER).await?;
        (found.dialed.len() == ask.doors.len()).then_some(found)
    }

    /// A node has answered.
    pub(crate) fn network_found(&self, node: NodeId, message: v1::NetworkFound) {
        self.checks().answer(node, message.request, message.into());
    }
}
