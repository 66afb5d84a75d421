//! The gRPC service between servers: who may call what, and the streams that live as long as the
//! caller is a server of the cluster. What is said goes to consensus, the fleet, the relay.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use skep_identity::grpc::Peer;
use skep_model::id::{AllocationId, NodeId, ServerId, UploadId};
use skep_model::problem::{Code, Problem};
use skep_proto::convert::id_bits;
use skep_proto::v1;
use skep_proto::v1::servers_server::{Servers, ServersServer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::directory::{Contact, Directory, Standing, is_beyond};
use super::transport::{ADDRESS_HEADER, Outbox};
use super::{MAX_WIRE_BYTES, history, presence, probes, proposals, receive, samples, shells};
use crate::agents::fleet::Fleet;
use crate::agents::relay::{Ask, Lines, Relay};
use crate::agents::status;
use crate::agents::uploads::Uploads;
use crate::history::History;
use crate::samples::Samples;
use crate::store::Store;

/// Takes in servers that bring a token: the one call that needs no certificate.
#[tonic::async_trait]
pub trait JoinServers: Send + Sync + 'static {
    /// Makes the caller a server of the cluster.
    ///
    /// # Errors
    /// The token or the request is refused, or nobody can take it just now.
    async fn join(&self, request: v1::JoinServerRequest) -> Result<v1::JoinServerReply, Problem>;
}

/// What the service needs. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The replicated state.
    pub store: Store,
    /// Who is a server.
    pub directory: Directory,
    /// This server's own way out: it hears who is there.
    pub outbox: Outbox,
    /// Who is connected where.
    pub fleet: Fleet,
    /// What the nodes measure.
    pub samples: Samples,
    /// App logs and shells passing through.
    pub relay: Relay,
    /// Folders passing through.
    pub uploads: Uploads,
    /// What the others copy, or read here.
    pub history: History,
    /// Takes in servers.
    pub joiner: Arc<dyn JoinServers>,
    /// Ends every stream.
    pub shutdown: CancellationToken,
}

/// The service.
pub struct PeersService {
    parts: Parts,
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl PeersService {
    /// Over these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// Ready to be added to the cluster's listener.
    pub fn into_server(self) -> ServersServer<Self> {
        ServersServer::new(self)
            .max_decoding_message_size(MAX_WIRE_BYTES)
            .max_encoding_message_size(MAX_WIRE_BYTES)
    }

    /// The server that calls: named by its certificate, and of the cluster.
    fn caller<T>(&self, request: &Request<T>) -> Result<Contact, Status> {
        let server = certified(request)?;
        self.parts.directory.of_server(server).ok_or_else(stranger)
    }

    /// The member that calls in Raft's name. One that the state has dropped is heard until the group
    /// is without it; one that this replica is too far behind to know is let in while nobody leads
    /// here, else the group might never elect anybody.
    fn member<T>(&self, request: &Request<T>, from: u64) -> Result<Contact, Status> {
        let server = certified(request)?;
        if let Some(contact) = self.parts.directory.get(from) {
            let is_the_one = contact.server == server;
            return is_the_one.then_some(contact).ok_or_else(stranger);
        }
        let is_from_the_future = is_beyond(&self.parts.store.view(), from);
        let leadership = self.parts.store.consensus().leadership();
        let has_leader = leadership.borrow().leader.is_some();
        let address = request.metadata().get(ADDRESS_HEADER);
        match address.and_then(|address| address.to_str().ok()) {
            Some(address) if is_from_the_future && !has_leader => {
                let guest = Contact {
                    member: from,
                    server,
                    address: address.to_owned(),
                    standing: Standing::Guest,
                };
                tracing::info!(member = from, %server, "a server that this replica does not know yet");
                self.parts.directory.host(guest.clone());
                Ok(guest)
            }
            _ => Err(stranger()),
        }
    }

    /// Runs `work` for as long as the caller is a server of the cluster.
    async fn while_member<T>(
        parts: &Parts,
        contact: &Contact,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        tokio::select! {
            done = work => done,
            () = parts.directory.until_dropped(contact) => Err(stranger()),
            () = parts.shutdown.cancelled() => Err(Status::unavailable("the server is stopping")),
        }
    }
}

fn certified<T>(request: &Request<T>) -> Result<ServerId, Status> {
    let peer = request.extensions().get::<Peer>();
    let identity = peer.and_then(|peer| peer.identity);
    identity
        .and_then(|identity| identity.server_id())
        .ok_or_else(|| Status::unauthenticated("a server's certificate is needed"))
}

fn stranger() -> Status {
    Status::permission_denied("this is no server of the cluster (any more)")
}

fn malformed(error: skep_proto::convert::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

#[tonic::async_trait]
impl Servers for PeersService {
    type ProposeStream = Messages<v1::ProposeReply>;
    type FetchUploadStream = Messages<v1::Chunk>;
    type FetchLogsStream = Messages<v1::LogChunk>;
    type ShellStream = Messages<v1::ShellFrame>;

    async fn join(
        &self,
        request: Request<v1::JoinServerRequest>,
    ) -> Result<Response<v1::JoinServerReply>, Status> {
        let joined = self.parts.joiner.join(request.into_inner()).await;
        joined.map(Response::new).map_err(status)
    }

    async fn messages(
        &self,
        mut request: Request<Streaming<v1::RaftMessages>>,
    ) -> Result<Response<v1::MessagesDone>, Status> {
        certified(&request)?;
        let Some(first) = request.get_mut().message().await? else {
            return Ok(Response::new(v1::MessagesDone {}));
        };
        let contact = self.member(&request, first.from)?;
        let mut stream = request.into_inner();
        let consensus = self.parts.store.consensus();
        let post = &self.parts.outbox.post;
        let listen = async {
            let mut next = Some(first);
            while let Some(batch) = next {
                if batch.from != contact.member {
                    return Err(stranger());
                }
                post.note_heard(batch.from, batch.messages.len());
                for message in batch.messages {
                    // Raft repeats what found no room.
                    if let Err(error) = consensus.deliver(message) {
                        tracing::debug!(member = batch.from, %error, "message dropped");
                    }
                }
                next = stream.message().await?;
            }
            Ok(Response::new(v1::MessagesDone {}))
        };
        tokio::select! {
            done = listen => done,
            () = self.parts.directory.until_removed(&contact) => Err(stranger()),
            () = self.parts.shutdown.cancelled() => Err(Status::unavailable("the server is stopping")),
        }
    }

    async fn offer_snapshot(
        &self,
        request: Request<v1::SnapshotOffer>,
    ) -> Result<Response<v1::SnapshotPlace>, Status> {
        self.member(&request, request.get_ref().from)?;
        let consensus = self.parts.store.consensus().clone();
        let offset = receive::place(consensus, request.into_inner()).await?;
        Ok(Response::new(v1::SnapshotPlace { offset }))
    }

    async fn send_snapshot(
        &self,
        mut request: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Result<Response<v1::SnapshotReceived>, Status> {
        certified(&request)?;
        let first = receive::next(request.get_mut()).await?.unwrap_or_default();
        let from = first.offer.map_or(0, |offer| offer.from);
        let contact = self.member(&request, from)?;
        let consensus = self.parts.store.consensus().clone();
        let work = receive::whole(consensus, first, request.into_inner());
        tokio::select! {
            done = work => done.map(|()| Response::new(v1::SnapshotReceived {})),
            () = self.parts.directory.until_removed(&contact) => Err(stranger()),
            () = self.parts.shutdown.cancelled() => Err(Status::unavailable("the server is stopping")),
        }
    }

    async fn propose(
        &self,
        request: Request<Streaming<v1::ProposeRequest>>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        let contact = self.caller(&request)?;
        let (replies, stream) = mpsc::channel(proposals::REPLIES);
        let parts = self.parts.clone();
        tokio::spawn(async move {
            let consensus = parts.store.consensus().clone();
            let work = proposals::answer(consensus, request.into_inner(), replies.clone());
            if let Err(status) = Self::while_member(&parts, &contact, work).await {
                // A caller who has gone needs no reason.
                let _ = replies.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn presence(
        &self,
        request: Request<Streaming<v1::PresenceReport>>,
    ) -> Result<Response<v1::PresenceDone>, Status> {
        let contact = self.caller(&request)?;
        let mut stream = request.into_inner();
        let fleet = &self.parts.fleet;
        let listen = async {
            while let Some(report) = stream.message().await? {
                let words = report.nodes.iter().map(presence::word);
                let words = words.collect::<Result<_, _>>().map_err(malformed)?;
                fleet.learn(contact.server, report.full, words);
            }
            Ok(Response::new(v1::PresenceDone {}))
        };
        let done = Self::while_member(&self.parts, &contact, listen).await;
        if self.parts.directory.of_server(contact.server).is_none() {
            fleet.forget(contact.server);
        }
        done
    }

    async fn samples(
        &self,
        request: Request<Streaming<v1::SampleReport>>,
    ) -> Result<Response<v1::SamplesDone>, Status> {
        let contact = self.caller(&request)?;
        let mut stream = request.into_inner();
        let listen = async {
            while let Some(report) = stream.message().await? {
                if !self.parts.samples.is_leading() {
                    return Err(Status::failed_precondition("this server does not lead"));
                }
                let words = samples::words(report).map_err(malformed)?;
                self.parts.samples.learn(words);
            }
            Ok(Response::new(v1::SamplesDone {}))
        };
        Self::while_member(&self.parts, &contact, listen).await
    }

    async fn fetch_upload(
        &self,
        request: Request<v1::FetchUploadRequest>,
    ) -> Result<Response<Self::FetchUploadStream>, Status> {
        let contact = self.caller(&request)?;
        let upload = id_bits("upload", &request.get_ref().upload).map_err(malformed)?;
        let uploads = &self.parts.uploads;
        let wait = async {
            let taken = uploads.take_here(UploadId::from_u128(upload)).await;
            taken.map_err(|problem| match problem.code {
                Code::SourceFailed => Status::failed_precondition(problem.message),
                _ => status(problem),
            })
        };
        let chunks = Self::while_member(&self.parts, &contact, wait).await?;
        let stream = ReceiverStream::new(chunks).map(|chunk| {
            let chunk = chunk.map_err(status)?;
            Ok(v1::Chunk {
                data: chunk.to_vec(),
            })
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn probe(
        &self,
        request: Request<v1::ProbeThere>,
    ) -> Result<Response<v1::Probed>, Status> {
        let contact = self.caller(&request)?;
        let message = request.into_inner();
        let probing = async {
            let probed = probes::serve(&self.parts.relay, message).await;
            probed.map_err(malformed)
        };
        let probed = Self::while_member(&self.parts, &contact, probing).await?;
        Ok(Response::new(probed))
    }

    async fn check_network(
        &self,
        request: Request<v1::NetworkAskThere>,
    ) -> Result<Response<v1::NetworkFoundThere>, Status> {
        let contact = self.caller(&request)?;
        let message = request.into_inner();
        let checking = async {
            let found = probes::serve_network(&self.parts.relay, message).await;
            found.map_err(malformed)
        };
        let found = Self::while_member(&self.parts, &contact, checking).await?;
        Ok(Response::new(found))
    }

    async fn ask_source(
        &self,
        request: Request<v1::SourceAskThere>,
    ) -> Result<Response<v1::SourceFoundThere>, Status> {
        let contact = self.caller(&request)?;
        let message = request.into_inner();
        let asking = async {
            let found = probes::serve_source(&self.parts.relay, message).await;
            found.map_err(malformed)
        };
        let found = Self::while_member(&self.parts, &contact, asking).await?;
        Ok(Response::new(found))
    }

    async fn ask_registry(
        &self,
        request: Request<v1::RegistryAskThere>,
    ) -> Result<Response<v1::RegistryFoundThere>, Status> {
        let contact = self.caller(&request)?;
        let message = request.into_inner();
        let asking = async {
            let found = probes::serve_registry(&self.parts.relay, message).await;
            found.map_err(malformed)
        };
        let found = Self::while_member(&self.parts, &contact, asking).await?;
        Ok(Response::new(found))
    }

    async fn fetch_history(
        &self,
        request: Request<v1::FetchHistoryRequest>,
    ) -> Result<Response<v1::FetchHistoryReply>, Status> {
        let contact = self.caller(&request)?;
        let offering = history::offer(&self.parts.history, request.into_inner());
        let offered = Self::while_member(&self.parts, &contact, offering).await?;
        Ok(Response::new(offered))
    }

    async fn fetch_events(
        &self,
        request: Request<v1::FetchEventsRequest>,
    ) -> Result<Response<v1::FetchEventsReply>, Status> {
        let contact = self.caller(&request)?;
        let Parts { history, store, .. } = &self.parts;
        let reading = history::events(history, store, request.into_inner());
        let read = Self::while_member(&self.parts, &contact, reading).await?;
        Ok(Response::new(read))
    }

    async fn fetch_logs(
        &self,
        request: Request<v1::FetchLogsRequest>,
    ) -> Result<Response<Self::FetchLogsStream>, Status> {
        let contact = self.caller(&request)?;
        let request = request.into_inner();
        let node = id_bits("node", &request.node).map_err(malformed)?;
        let allocation = id_bits("allocation", &request.allocation).map_err(malformed)?;
        let ask = Ask {
            node: NodeId::from_u128(node),
            allocation: AllocationId::from_u128(allocation),
            follow: request.follow,
            tail: request.tail,
            after_ns: request.after_ns,
            until_ns: request.until_ns,
            grep: request.grep.into(),
        };
        let lines = self.parts.relay.open_here(ask).map_err(status)?;
        let parts = self.parts.clone();
        let over = async move {
            tokio::select! {
                () = parts.directory.until_dropped(&contact) => {}
                () = parts.shutdown.cancelled() => {}
            }
        };
        let stream = log_chunks(lines).take_until(Box::pin(over));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn shell(
        &self,
        request: Request<Streaming<v1::PeerShell>>,
    ) -> Result<Response<Self::ShellStream>, Status> {
        let contact = self.caller(&request)?;
        let (replies, stream) = mpsc::channel(shells::REPLIES);
        let parts = self.parts.clone();
        tokio::spawn(async move {
            let work = shells::serve(&parts.relay, request.into_inner(), &replies);
            if let Err(status) = Self::while_member(&parts, &contact, work).await {
                // A caller who has gone needs no reason.
                let _ = replies.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

fn log_chunks(lines: Lines) -> impl Stream<Item = Result<v1::LogChunk, Status>> + Send {
    futures_util::stream::unfold(lines, |mut lines| async move {
        let chunk = lines.next().await?;
        Some((Ok(chunk), lines))
    })
}
