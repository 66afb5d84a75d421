//! The gRPC service that agents dial: who may call what, and the streams that pass through.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use skep_identity::ca::{ClusterCa, Grant};
use skep_identity::grpc::Peer;
use skep_identity::name::Identity;
use skep_identity::random;
use skep_identity::token::hash_secret;
use skep_model::id::{NodeId, TokenId, UploadId};
use skep_model::node::{Facts, Node, NodeStatus};
use skep_model::problem::{Code, Problem};
use skep_proto::convert::{id_bits, id_bytes};
use skep_proto::v1;
use skep_proto::v1::agents_server::Agents;
use skep_proto::v1::command::Kind;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::fleet::Fleet;
use super::relay::Relay;
use super::session::{Session, status};
use super::uploads::Uploads;
use crate::history::History;
use crate::secrets::Secrets;
use crate::store::Store;

/// Messages under way to one node: a slow agent slows its own session only.
const DOWN_QUEUE: usize = 64;
/// Life of a node's certificate.
pub const NODE_CERTIFICATE: Duration = Duration::from_secs(24 * 3_600);
/// Tells sessions of one process apart.
static NEXT_SESSION: AtomicU64 = AtomicU64::new(1);

/// What every session needs. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// The replicated state.
    pub store: Store,
    /// Opens variables for assignments.
    pub secrets: Secrets,
    /// Keeps build logs.
    pub history: History,
    /// Who is connected.
    pub fleet: Fleet,
    /// App logs passing through.
    pub relay: Relay,
    /// Folders passing through.
    pub uploads: Uploads,
    /// Signs certificates of nodes.
    pub ca: Arc<ClusterCa>,
    /// Ends every session.
    pub shutdown: CancellationToken,
}

/// The service.
pub struct AgentsService {
    shared: Shared,
}

impl AgentsService {
    /// Over these parts.
    pub fn new(shared: Shared) -> Self {
        Self { shared }
    }

    /// The node that calls: named by its certificate, and still a member.
    fn caller<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let identity = request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.identity);
        let node = identity
            .and_then(|identity| identity.node_id())
            .ok_or_else(|| {
                Status::unauthenticated("a node's certificate is needed: join with a token first")
            })?;
        if self.shared.store.view().node(node).is_none() {
            return Err(Status::permission_denied(
                "this node is not a member of the cluster (any more)",
            ));
        }
        Ok(node)
    }

    fn issue(&self, node: NodeId, csr_pem: &str) -> Result<String, Status> {
        let identity = Identity::node(self.shared.ca.cluster(), node);
        let grant = Grant {
            identity,
            addresses: &[],
            lifetime: NODE_CERTIFICATE,
        };
        self.shared
            .ca
            .issue(csr_pem, &grant, SystemTime::now())
            .map_err(|error| {
                Status::invalid_argument(format!("the certificate request is refused: {error}"))
            })
    }
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Agents for AgentsService {
    type SessionStream = Messages<v1::ToAgent>;
    type FetchUploadStream = Messages<v1::Chunk>;

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinReply>, Status> {
        let message = request.into_inner();
        let facts = message
            .facts
            .ok_or_else(|| Status::invalid_argument("facts are missing"))?;
        let facts =
            Facts::try_from(facts).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let token = id_bits("token", &message.token)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let token = TokenId::from_u128(token);
        let id = NodeId::from_u128(random::new_id());
        let certificate_pem = self.issue(id, &message.csr_pem)?;
        let node = Node {
            id,
            name: message.name,
            facts,
            status: NodeStatus::Lost,
            status_ms: 0,
            generation: 0,
            joined_ms: 0,
        };
        let command = v1::JoinNode {
            token: id_bytes(token.as_u128()),
            secret_hash: hash_secret(&message.secret).to_vec(),
            node: Some((&node).into()),
        };
        self.shared
            .store
            .propose(Kind::JoinNode(command))
            .await
            .map_err(status)?;
        tracing::info!(node = %id, name = node.name, "node joined");
        Ok(Response::new(v1::JoinReply {
            cluster: id_bytes(self.shared.ca.cluster().as_u128()),
            node: id_bytes(id.as_u128()),
            certificate_pem,
            ca_pem: self.shared.ca.cert_pem().to_owned(),
        }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewReply>, Status> {
        let node = self.caller(&request)?;
        let certificate_pem = self.issue(node, &request.into_inner().csr_pem)?;
        Ok(Response::new(v1::RenewReply {
            certificate_pem,
            ca_pem: self.shared.ca.cert_pem().to_owned(),
        }))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = self.caller(&request)?;
        let id = NEXT_SESSION.fetch_add(1, Ordering::Relaxed);
        if !self.shared.fleet.connect(node, id) {
            return Err(Status::already_exists(
                "another agent with this node's identity is connected",
            ));
        }
        tracing::info!(%node, "session begins");
        let (down, messages) = mpsc::channel(DOWN_QUEUE);
        let session = Session {
            shared: self.shared.clone(),
            node,
            id,
            down,
        };
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn fetch_upload(
        &self,
        request: Request<v1::FetchUploadRequest>,
    ) -> Result<Response<Self::FetchUploadStream>, Status> {
        let node = self.caller(&request)?;
        let upload = id_bits("upload", &request.into_inner().upload)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let upload = UploadId::from_u128(upload);
        let is_its_own = self.shared.store.view().builds_on(node).any(|deployment| {
            deployment.origin == skep_model::deployment::Origin::Upload { upload }
        });
        if !is_its_own {
            return Err(Status::permission_denied(
                "the upload belongs to no build of this node",
            ));
        }
        let chunks = self.shared.uploads.take(upload).await.map_err(status)?;
        let stream = ReceiverStream::new(chunks).map(|chunk| {
            chunk
                .map(|data| v1::Chunk {
                    data: data.to_vec(),
                })
                .map_err(status)
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn send_logs(
        &self,
        request: Request<Streaming<v1::LogChunk>>,
    ) -> Result<Response<v1::LogsDone>, Status> {
        let node = self.caller(&request)?;
        let mut chunks = request.into_inner();
        let mut current = None;
        while let Some(chunk) = chunks.message().await? {
            current = Some(chunk.request);
            if !self.shared.relay.deliver(node, chunk).await {
                return Err(status(Problem::new(
                    Code::Canceled,
                    "nobody reads these lines any more",
                )));
            }
        }
        if let Some(request) = current {
            self.shared.relay.finish(node, request);
        }
        Ok(Response::new(v1::LogsDone {}))
    }
}
