//! Asking a node that builds where a repository's branches and tags are. A node that is connected to another server
//! is asked through that one.

use std::time::Duration;

use skep_model::id::NodeId;
use skep_model::polling::{Ask, Found};
use skep_proto::convert::found_in;
use skep_proto::v1;
use tokio::time::timeout;

use super::relay::Relay;

/// An agent gives up after 90 s, and says so.
pub(crate) const ANSWER: Duration = Duration::from_secs(100);

impl Relay {
    /// What a node finds, wherever it is connected. None: it did not answer in time, or has an agent that
    /// does not know the question.
    pub async fn ask_source(&self, node: NodeId, ask: Ask) -> Option<Found> {
        match self.elsewhere(node) {
            Some((server, elsewhere)) => {
                let answer = elsewhere.ask_source(server, node, ask);
                timeout(ANSWER, answer).await.ok()?
            }
            None => self.ask_source_here(node, ask).await,
        }
    }

    /// The same of a node that is connected to this server.
    pub async fn ask_source_here(&self, node: NodeId, ask: Ask) -> Option<Found> {
        let place = self.sources().place(node);
        let message = v1::SourceAsk {
            request: place.request(),
            ..(&ask).into()
        };
        let message = v1::to_agent::Kind::SourceAsk(message);
        self.tell(node, message).ok()?;
        let found = place.answer(ANSWER).await?;
        is_whole(&found, ask.wants.len()).then_some(found)
    }

    /// A node has answered.
    pub(super) fn source_found(&self, node: NodeId, message: v1::SourceFound) {
        let request = message.request;
        match found_in(message) {
            Ok(found) => self.sources().answer(node, request, found),
            Err(error) => {
                tracing::warn!(%node, %error, "what a node found in a repository means nothing")
            }
        }
    }
}

/// An answer to less than was asked is none.
pub(crate) fn is_whole(found: &Found, asked: usize) -> bool {
    found.as_ref().map_or(true, |tips| tips.len() == asked)
}
