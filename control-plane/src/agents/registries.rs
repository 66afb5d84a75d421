//! Asking a node to push an image to a registry, or what a tag stands for there. A node that is connected to another
//! server is asked through that one.

use std::time::Duration;

use skep_model::id::NodeId;
use skep_model::registry::{Ask, Found};
use skep_proto::convert::registry_in;
use skep_proto::v1;
use tokio::time::timeout;

use super::relay::Relay;

/// An agent gives up after 20 minutes, and says so: a large image over a slow line takes its time, and what is
/// there already is not sent again.
pub(crate) const ANSWER: Duration = Duration::from_secs(20 * 60 + 30);

impl Relay {
    /// What a node did or found, wherever it is connected. None: it did not answer in time, or has an agent that
    /// does not know the question.
    pub async fn ask_registry(&self, node: NodeId, ask: Ask) -> Option<Found> {
        match self.elsewhere(node) {
            Some((server, elsewhere)) => {
                let answer = elsewhere.ask_registry(server, node, ask);
                timeout(ANSWER, answer).await.ok()?
            }
            None => self.ask_registry_here(node, ask).await,
        }
    }

    /// The same of a node that is connected to this server.
    pub async fn ask_registry_here(&self, node: NodeId, ask: Ask) -> Option<Found> {
        let place = self.registries().place(node);
        let message = v1::RegistryAsk {
            request: place.request(),
            ..(&ask).into()
        };
        let message = v1::to_agent::Kind::RegistryAsk(message);
        self.tell(node, message).ok()?;
        place.answer(ANSWER).await
    }

    /// A node has answered.
    pub(super) fn registry_found(&self, node: NodeId, message: v1::RegistryFound) {
        let request = message.request;
        match registry_in(message) {
            Ok(found) => self.registries().answer(node, request, found),
            Err(error) => {
                tracing::warn!(%node, %error, "what a node found at a registry means nothing")
            }
        }
    }
}
