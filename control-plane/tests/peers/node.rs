//! A node played by a test: connects to one server, says what the test says.

use skep_model::assignment::Generation;
use skep_model::id::NodeId;
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;
use skep_proto::v1::from_agent::Kind as Up;
use skep_proto::v1::to_agent::Kind as Down;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::world::{PATIENCE, World, facts};

pub(crate) struct Node {
    pub(crate) client: AgentsClient<Channel>,
    up: mpsc::Sender<v1::FromAgent>,
    down: tonic::Streaming<v1::ToAgent>,
}

impl Node {
    pub(crate) async fn connect(world: &World, id: NodeId, member: u64) -> Self {
        Self::connect_holding(world, id, member, None).await
    }

    /// With a desired set on disk already.
    pub(crate) async fn connect_holding(
        world: &World,
        id: NodeId,
        member: u64,
        held: Option<Generation>,
    ) -> Self {
        let own = world.as_node(id);
        let client = AgentsClient::new(world.dial(&own, member));
        let (up, messages) = mpsc::channel(8);
        let hello = v1::Hello {
            facts: Some((&facts()).into()),
            held: held.map(Into::into),
            ..Default::default()
        };
        let first = v1::FromAgent {
            kind: Some(Up::Hello(hello)),
        };
        up.send(first).await.unwrap();
        let stream = ReceiverStream::new(messages);
        let down = client.clone().session(stream).await.unwrap().into_inner();
        let node = Self { client, up, down };
        node.say(Up::Observed(v1::ObservedSet {
            sequence: 1,
            runtime_ok: true,
            ..Default::default()
        }))
        .await;
        node
    }

    pub(crate) async fn say(&self, kind: Up) {
        let message = v1::FromAgent { kind: Some(kind) };
        self.up.send(message).await.unwrap();
    }

    /// The next message, or why the session ended.
    pub(crate) async fn hear(&mut self) -> Result<Down, tonic::Status> {
        let message = tokio::time::timeout(PATIENCE, self.down.message())
            .await
            .expect("the server says something")?;
        Ok(message.expect("an end has a reason").kind.unwrap())
    }

    /// The next message of a kind.
    pub(crate) async fn hear_of<T>(&mut self, pick: impl Fn(Down) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.hear().await.expect("the session goes on")) {
                return found;
            }
        }
    }
}
