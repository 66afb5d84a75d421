//! The gRPC service that agents dial: who may call what, and the streams that pass through.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::Stream;
use skep_identity::grpc::Peer;
use skep_identity::random;
use skep_identity::renewal::Proof;
use skep_identity::token::hash_secret;
use skep_model::id::{NodeId, TokenId, UploadId};
use skep_model::node::{Facts, Node, NodeStatus};
use skep_model::problem::{Code, Problem};
use skep_proto::convert::{id_bits, id_bytes};
use skep_proto::v1::agents_server::Agents;
use skep_proto::v1::command::Kind;
use skep_proto::{LEVEL_SCHEDULING, v1};
use skep_state::Reply;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::fleet::Fleet;
use super::notices::Notices;
use super::relay::Relay;
use super::session::{Session, is_member, status};
use super::shells;
use super::uploads::Uploads;
use crate::forges::Tokens;
use crate::history::History;
use crate::pki::Authority;
use crate::samples::Samples;
use crate::secrets::Secrets;
use crate::store::{Store, now_ms};

/// Messages under way to one node: a slow agent slows its own session only.
const DOWN_QUEUE: usize = 64;
/// Tells sessions of one process apart.
static NEXT_SESSION: AtomicU64 = AtomicU64::new(1);

/// What every session needs. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// The replicated state.
    pub store: Store,
    /// Opens variables for assignments.
    pub secrets: Secrets,
    /// As whom nodes fetch what is of a GitHub App.
    pub tokens: Tokens,
    /// Keeps build logs.
    pub history: History,
    /// Who is connected.
    pub fleet: Fleet,
    /// What the nodes measure.
    pub samples: Samples,
    /// Wakes the sessions that a change concerns.
    pub notices: Notices,
    /// App logs and shells passing through.
    pub relay: Relay,
    /// Folders passing through.
    pub uploads: Uploads,
    /// Signs certificates of nodes.
    pub authority: Authority,
    /// Ends every session.
    pub shutdown: CancellationToken,
}

impl Shared {
    /// A node's word about itself, as far as a cluster of this level can take it: what came later is
    /// left out, so that the node can join before the last server is new.
    pub(super) fn facts(&self, message: v1::Facts) -> Result<Facts, Status> {
        let facts = Facts::try_from(message)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        facts.check().map_err(status)?;
        if self.store.view().feature_level() >= LEVEL_SCHEDULING {
            return Ok(facts);
        }
        Ok(Facts {
            devices: Default::default(),
            private_network: false,
            meta: Default::default(),
            storage: false,
            volumes: Vec::new(),
            host_paths: Vec::new(),
            shared_storage: Vec::new(),
            image_address: None,
            mesh_address: None,
            machine: Default::default(),
            ..facts
        })
    }
}

impl Shared {
    /// Before the last server is new, an image that nodes would share stays on the node that built it.
    pub(super) fn keep_images_local(&self, builds: &mut [v1::BuildObservation]) {
        if self.store.view().feature_level() >= LEVEL_SCHEDULING {
            return;
        }
        for build in builds {
            let outcome = build.outcome.as_mut().and_then(|it| it.kind.as_mut());
            if let Some(v1::build_outcome::Kind::Built(built)) = outcome
                && let Some(image) = &mut built.image
            {
                image.shared = false;
            }
        }
    }
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
    async fn caller<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let identity = request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.identity);
        let node = identity
            .and_then(|identity| identity.node_id())
            .ok_or_else(|| {
                Status::unauthenticated("a node's certificate is needed: join with a token first")
            })?;
        self.member(node).await
    }

    /// The node, if it is of the cluster.
    async fn member(&self, node: NodeId) -> Result<NodeId, Status> {
        // A replica that is behind has not heard of a node that joined a moment ago elsewhere.
        let is_known = is_member(&self.shared.store.view(), node)
            || is_member(&self.shared.store.read().await.map_err(status)?, node);
        if !is_known {
            return Err(Status::permission_denied(
                "this node is not a member of the cluster (any more)",
            ));
        }
        Ok(node)
    }

    /// Returns when the node is no longer of the cluster: what it has under way ends then.
    fn removal(&self, node: NodeId) -> impl Future<Output = ()> + Send + use<> {
        let store = self.shared.store.clone();
        async move {
            let mut applied = store.consensus().applied();
            while applied.changed().await.is_ok() && is_member(&store.view(), node) {}
        }
    }

    /// The node that asks for its next certificate: named by the present one, or, where that has run
    /// out, by the proof in the request. That is good for nothing else.
    async fn renewing(&self, request: &Request<v1::RenewRequest>) -> Result<NodeId, Status> {
        let message = request.get_ref();
        let peer = request.extensions().get::<Peer>();
        let is_certified = peer.is_some_and(|peer| peer.identity.is_some());
        if is_certified || message.expired_pem.is_empty() {
            return self.caller(request).await;
        }
        let proof = Proof {
            expired_pem: message.expired_pem.clone(),
            signature: message.signature.clone(),
        };
        let named = self.shared.authority.lapsed_node(&message.csr_pem, &proof);
        let node = self.member(named.map_err(status)?).await?;
        tracing::info!(%node, "renews a certificate that has run out");
        Ok(node)
    }
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Agents for AgentsService {
    type SessionStream = Messages<v1::ToAgent>;
    type FetchUploadStream = Messages<v1::Chunk>;
    type ShellStream = Messages<v1::ShellFrame>;

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinReply>, Status> {
        let message = request.into_inner();
        let facts = message
            .facts
            .ok_or_else(|| Status::invalid_argument("facts are missing"))?;
        let facts = self.shared.facts(facts)?;
        let token = id_bits("token", &message.token)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let token = TokenId::from_u128(token);
        let drawn = NodeId::from_u128(random::new_id());
        // Before anything is changed: a request that cannot be signed spends no token.
        let certify = |id| self.shared.authority.certify_node(id, &message.csr_pem);
        let mut certified = certify(drawn).map_err(status)?;
        let cluster = self.shared.authority.cluster().map_err(status)?;
        let node = Node {
            id: drawn,
            name: message.name.clone(),
            facts,
            status: NodeStatus::Lost,
            status_ms: 0,
            generation: 0,
            joined_ms: 0,
            meta: std::collections::BTreeMap::new(),
            admin: Default::default(),
            seat: 0,
            witnesses: Vec::new(),
            fencing: Default::default(),
        };
        let command = v1::JoinNode {
            token: id_bytes(token.as_u128()),
            secret_hash: hash_secret(&message.secret).to_vec(),
            node: Some((&node).into()),
        };
        // An agent that has heard no answer asks again with the same key pair: it is the same node
        // then, and its token is spent once.
        let asked = [message.csr_pem.as_bytes(), message.name.as_bytes()];
        let store = self.shared.store.with_request(asked[0], asked[1]);
        let joined = store.propose(Kind::JoinNode(command)).await;
        let Reply::Node(id) = joined.map_err(status)? else {
            return Err(Status::internal("the state gave the node no identity"));
        };
        if id != drawn {
            certified = certify(id).map_err(status)?;
        }
        tracing::info!(node = %id, name = node.name, "node joined");
        Ok(Response::new(v1::JoinReply {
            cluster: id_bytes(cluster.id.as_u128()),
            node: id_bytes(id.as_u128()),
            certificate_pem: certified.certificate_pem,
            ca_pem: certified.ca_pem,
        }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewReply>, Status> {
        let node = self.renewing(&request).await?;
        let csr_pem = request.into_inner().csr_pem;
        let certified = self.shared.authority.certify_node(node, &csr_pem);
        let certified = certified.map_err(status)?;
        Ok(Response::new(v1::RenewReply {
            certificate_pem: certified.certificate_pem,
            ca_pem: certified.ca_pem,
            clock_ms: now_ms(),
        }))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = self.caller(&request).await?;
        let id = NEXT_SESSION.fetch_add(1, Ordering::Relaxed);
        if !self.shared.fleet.connect(node, id) {
            super::seat::tell(&self.shared, node);
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
        let messages = ReceiverStream::new(messages).map(|message| message.map(|boxed| *boxed));
        Ok(Response::new(Box::pin(messages)))
    }

    async fn fetch_upload(
        &self,
        request: Request<v1::FetchUploadRequest>,
    ) -> Result<Response<Self::FetchUploadStream>, Status> {
        let node = self.caller(&request).await?;
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
        let stream = futures_util::StreamExt::take_until(stream, Box::pin(self.removal(node)));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn send_logs(
        &self,
        request: Request<Streaming<v1::LogChunk>>,
    ) -> Result<Response<v1::LogsDone>, Status> {
        let node = self.caller(&request).await?;
        let mut chunks = request.into_inner();
        let mut current = None;
        let pass = async {
            while let Some(chunk) = chunks.message().await? {
                current = Some(chunk.request);
                if !self.shared.relay.deliver(node, chunk).await {
                    return Err(status(Problem::new(
                        Code::Canceled,
                        "nobody reads these lines any more",
                    )));
                }
            }
            Ok(())
        };
        tokio::select! {
            passed = pass => passed?,
            () = self.removal(node) => return Err(Status::permission_denied("this node was removed from the cluster")),
        }
        if let Some(request) = current {
            self.shared.relay.finish(node, request);
        }
        Ok(Response::new(v1::LogsDone {}))
    }

    async fn shell(
        &self,
        request: Request<Streaming<v1::ShellFrame>>,
    ) -> Result<Response<Self::ShellStream>, Status> {
        let node = self.caller(&request).await?;
        let (removed, shutdown) = (self.removal(node), self.shared.shutdown.clone());
        let over = async move {
            tokio::select! {
                () = removed => Problem::new(Code::Forbidden, "the node was removed from the cluster"),
                () = shutdown.cancelled() => Problem::new(Code::Unavailable, "the server is stopping"),
            }
        };
        let met = shells::meet(&self.shared.relay, node, request.into_inner(), over);
        let frames = met.await?.map(|frame| Ok(frame.into()));
        Ok(Response::new(Box::pin(frames)))
    }
}
