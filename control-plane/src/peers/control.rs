//! Writes of operators and automation, with a certificate of the role operator. Any server takes
//! them; each is a command of its own, and its answer comes when it is committed.

use std::pin::Pin;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use skep_identity::grpc::Peer;
use skep_identity::name::Role;
use skep_model::problem::Problem;
use skep_proto::v1;
use skep_proto::v1::control_server::{Control, ControlServer};
use skep_proto::v1::write_request::Kind as Write;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::store::Store;

/// Writes of one stream under way at once; more wait in the connection.
pub const MAX_IN_FLIGHT: usize = 1_024;
/// Answers that wait to be sent.
const REPLIES: usize = 256;
/// Longest idempotency key.
const MAX_KEY_BYTES: usize = 64;

/// The service.
pub struct ControlService {
    store: Store,
    shutdown: CancellationToken,
}

impl ControlService {
    /// Over the replicated state, until `shutdown`.
    pub fn new(store: Store, shutdown: CancellationToken) -> Self {
        Self { store, shutdown }
    }

    /// Ready to be added to the cluster's listener.
    pub fn into_server(self) -> ControlServer<Self> {
        ControlServer::new(self)
    }
}

/// An operator's certificate of this cluster is what it takes.
fn authorize<T>(request: &Request<T>) -> Result<(), Status> {
    let peer = request.extensions().get::<Peer>();
    let identity = peer.and_then(|peer| peer.identity);
    if identity.is_some_and(|identity| identity.role() == Role::Operator) {
        return Ok(());
    }
    Err(Status::permission_denied(
        "an operator's certificate is needed: `skep operator cert` makes one",
    ))
}

#[tonic::async_trait]
impl Control for ControlService {
    type WriteManyStream = Pin<Box<dyn Stream<Item = Result<v1::WriteReply, Status>> + Send>>;

    async fn write(
        &self,
        request: Request<v1::WriteRequest>,
    ) -> Result<Response<v1::WriteReply>, Status> {
        authorize(&request)?;
        Ok(Response::new(
            write(&self.store, request.into_inner()).await,
        ))
    }

    async fn write_many(
        &self,
        request: Request<Streaming<v1::WriteRequest>>,
    ) -> Result<Response<Self::WriteManyStream>, Status> {
        authorize(&request)?;
        let (replies, stream) = mpsc::channel(REPLIES);
        let (store, shutdown) = (self.store.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = many(&store, request.into_inner(), &replies) => ended,
                () = shutdown.cancelled() => Err(Status::unavailable("the server is stopping")),
            };
            if let Err(status) = ended {
                // A caller who has gone needs no reason.
                let _ = replies.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// One task for all writes of a stream.
async fn many(
    store: &Store,
    mut requests: Streaming<v1::WriteRequest>,
    replies: &mpsc::Sender<Result<v1::WriteReply, Status>>,
) -> Result<(), Status> {
    let mut in_flight = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !in_flight.is_empty() {
        tokio::select! {
            request = requests.message(), if is_open && in_flight.len() < MAX_IN_FLIGHT => {
                match request? {
                    Some(request) => in_flight.push(write(store, request)),
                    None => is_open = false,
                }
            }
            Some(reply) = in_flight.next() => {
                if replies.send(Ok(reply)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

async fn write(store: &Store, request: v1::WriteRequest) -> v1::WriteReply {
    let id = request.id;
    let (index, problem) = match commit(store, request).await {
        Ok(index) => (index, None),
        Err(problem) => (0, Some((&problem).into())),
    };
    v1::WriteReply { id, index, problem }
}

async fn commit(store: &Store, request: v1::WriteRequest) -> Result<u64, Problem> {
    if request.key.len() > MAX_KEY_BYTES {
        let text = format!("a key has at most {MAX_KEY_BYTES} bytes");
        return Err(Problem::invalid("key", text));
    }
    let (kind, said) = match request.kind {
        Some(Write::SetNodeMeta(set)) => {
            let said = set.encode_to_vec();
            (v1::command::Kind::SetNodeMeta(set), said)
        }
        None => return Err(Problem::invalid("kind", "the write says nothing")),
    };
    let store = if request.key.is_empty() {
        store.clone()
    } else {
        // The same key for another write is refused.
        store.with_request(&request.key, &said)
    };
    Ok(store.write(kind).await?.index)
}
