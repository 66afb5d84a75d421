//! A server of the test's own, and an agent in session with it.

use std::pin::Pin;
use std::time::SystemTime;

use skep_identity::ca::{ClusterCa, Grant};
use skep_identity::grpc;
use skep_identity::keypair::KeyAndRequest;
use skep_identity::name::Identity;
use skep_model::allocation::{Observed, State};
use skep_model::id::NodeId;
use skep_model::node::Facts;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::agents_server::{Agents, AgentsServer};
use skep_proto::v1::from_agent::Kind as Up;
use skep_proto::v1::to_agent::Kind as Said;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::super::*;
use crate::network::Networks;
use crate::runtime::Runtime;
use crate::testing::assignment;
use tokio_util::task::TaskTracker;

pub(super) const PATIENCE: Duration = Duration::from_secs(10);
pub(super) const CLUSTER: ClusterId = ClusterId::from_u128(1);

/// One session as the server sees it.
pub(super) struct Seat {
    pub(super) up: Streaming<v1::FromAgent>,
    pub(super) down: mpsc::Sender<Result<v1::ToAgent, Status>>,
}

impl Seat {
    /// The next message that is not a heartbeat.
    pub(super) async fn hear(&mut self) -> Up {
        loop {
            let message = timeout(PATIENCE, self.up.message()).await.expect("in time");
            match message
                .expect("alive")
                .expect("a message")
                .kind
                .expect("a kind")
            {
                Up::Heartbeat(_) => {}
                kind => return kind,
            }
        }
    }

    pub(super) async fn hello(&mut self) -> v1::Hello {
        match self.hear().await {
            Up::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn observed(&mut self) -> v1::ObservedSet {
        match self.hear().await {
            Up::Observed(set) => set,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn say(&self, kind: Said) {
        self.down
            .send(Ok(v1::ToAgent { kind: Some(kind) }))
            .await
            .expect("listening");
    }
}

/// A server that hands each session to the test.
pub(super) struct Server {
    pub(super) seats: mpsc::Sender<Seat>,
    pub(super) ca: Option<Arc<ClusterCa>>,
}

pub(super) type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Server {
    pub(super) fn certify(&self, csr_pem: &str, node: NodeId) -> Result<(String, String), Status> {
        let ca = self
            .ca
            .as_ref()
            .ok_or_else(|| Status::unimplemented("no CA"))?;
        let grant = Grant {
            identity: Identity::node(ca.cluster(), node),
            addresses: &[],
            lifetime: Duration::from_secs(3_600),
        };
        let issued = ca.issue(csr_pem, &grant, SystemTime::now());
        let certificate = issued.map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok((certificate, ca.cert_pem().to_owned()))
    }
}

#[tonic::async_trait]
impl Agents for Server {
    type SessionStream = ReceiverStream<Result<v1::ToAgent, Status>>;
    type FetchUploadStream = Out<v1::Chunk>;
    type ShellStream = Out<v1::ShellFrame>;

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinReply>, Status> {
        let request = request.into_inner();
        if request.name != "n1" {
            return Err(Status::permission_denied("the name is taken"));
        }
        let node = NodeId::from_u128(5);
        let (certificate_pem, ca_pem) = self.certify(&request.csr_pem, node)?;
        Ok(Response::new(v1::JoinReply {
            cluster: id_bytes(CLUSTER.as_u128()),
            node: id_bytes(node.as_u128()),
            certificate_pem,
            ca_pem,
        }))
    }

    async fn renew(
        &self,
        _: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (down, stream) = mpsc::channel(8);
        let up = request.into_inner();
        self.seats
            .send(Seat { up, down })
            .await
            .map_err(|_| Status::unavailable("over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch_upload(
        &self,
        _: Request<v1::FetchUploadRequest>,
    ) -> Result<Response<Self::FetchUploadStream>, Status> {
        let chunks = [b"ab".to_vec(), b"c".to_vec()].map(|data| Ok(v1::Chunk { data }));
        let lost = Err(Status::aborted("the client left"));
        let chunks = tokio_stream::iter(chunks.into_iter().chain([lost]));
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn send_logs(
        &self,
        _: Request<Streaming<v1::LogChunk>>,
    ) -> Result<Response<v1::LogsDone>, Status> {
        Ok(Response::new(v1::LogsDone {}))
    }

    async fn shell(
        &self,
        _: Request<Streaming<v1::ShellFrame>>,
    ) -> Result<Response<Self::ShellStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

pub(super) struct World {
    pub(super) outbox: Arc<Outbox>,
    pub(super) seats: mpsc::Receiver<Seat>,
    pub(super) down: mpsc::Receiver<Down>,
    pub(super) servers: Servers,
    pub(super) logs: Logs,
    pub(super) shells: Shells,
    pub(super) runtime: Runtime,
    pub(super) stop: CancellationToken,
    _stop: tokio_util::sync::DropGuard,
    _dir: tempfile::TempDir,
}

pub(super) fn facts() -> Facts {
    Facts {
        hostname: "h".into(),
        ..Facts::default()
    }
}

pub(super) fn credentials() -> Arc<Reloadable> {
    let now = std::time::SystemTime::now();
    let ca = ClusterCa::generate(CLUSTER, now).expect("ca");
    let key = KeyAndRequest::generate().expect("key");
    let grant = Grant {
        identity: Identity::node(CLUSTER, NodeId::from_u128(5)),
        addresses: &[],
        lifetime: Duration::from_secs(3_600),
    };
    let certificate = ca.issue(&key.csr_pem, &grant, now).expect("issue");
    Reloadable::new(&key.certified(certificate, ca.cert_pem().to_owned())).expect("sound")
}

pub(super) fn witness(
    servers: &Servers,
    outbox: &Arc<Outbox>,
    stop: &CancellationToken,
) -> Witness {
    Witness::new(
        credentials(),
        servers.clone(),
        outbox.clone(),
        (TaskTracker::new(), stop.clone()),
    )
}

pub(super) fn checks(runtime: &Runtime, outbox: &Arc<Outbox>, stop: &CancellationToken) -> Checks {
    let node = NodeId::from_u128(5);
    let (_, content) = watch::channel(None);
    let (_, net) = watch::channel(None);
    Checks::new(
        credentials(),
        Networks::new(runtime.clone(), node, None, (content, net)),
        outbox.clone(),
        (TaskTracker::new(), stop.clone()),
    )
}

/// Has every tag at one digest, and takes every image.
pub(super) fn registries(
    outbox: &Arc<Outbox>,
    stop: &CancellationToken,
) -> crate::registries::Registries {
    let work = |_| -> futures_util::future::BoxFuture<'static, _> {
        Box::pin(async { Ok("sha256:1".to_owned()) })
    };
    let tasks = (TaskTracker::new(), stop.clone());
    crate::registries::Registries::new(Arc::new(work), outbox.clone(), tasks)
}

pub(super) fn sources(outbox: &Arc<Outbox>, stop: &CancellationToken) -> crate::sources::Sources {
    let folder = std::env::temp_dir();
    crate::sources::Sources::new(folder, outbox.clone(), (TaskTracker::new(), stop.clone()))
}

/// A server and an agent's session with it.
pub(super) fn world(held: Option<Generation>) -> World {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("run/server.sock");
    let stop = CancellationToken::new();
    let bound = grpc::bind_uds(&path).expect("bind");
    let incoming = grpc::incoming_uds(bound, stop.clone()).expect("serve");
    let (seat, seats) = mpsc::channel(8);
    let server = Server {
        seats: seat,
        ca: None,
    };
    let serve = tonic::transport::Server::builder().add_service(AgentsServer::new(server));
    tokio::spawn(serve.serve_with_incoming(incoming));
    let servers = Servers::only(grpc::channel_uds(&path));
    let metrics = Metrics::default();
    let identity = (CLUSTER, NodeId::from_u128(5));
    let runtime =
        Runtime::new(&dir.path().join("no.sock"), identity, metrics.clone()).expect("client");
    let (_, places) = watch::channel(Default::default());
    let outbox = Arc::new(Outbox::default());
    let (down, events) = mpsc::channel(8);
    let options = crate::Options {
        data_dir: dir.path().into(),
        ..crate::testing::options()
    };
    let shelf = Arc::new(crate::storage::Shelf::new(
        &options,
        identity.1,
        Arc::default(),
    ));
    let shells = Shells::new(
        (
            runtime.clone(),
            shelf,
            crate::build::Stores::new(dir.path().join("pushed")),
        ),
        servers.clone(),
        TaskTracker::new(),
        stop.clone(),
    );
    let checks = checks(&runtime, &outbox, &stop);
    let sources = sources(&outbox, &stop);
    let registries = registries(&outbox, &stop);
    let logs = Logs::new(
        runtime.clone(),
        places,
        servers.clone(),
        crate::logs::Watcher::start(stop.clone()),
    );
    let session = Session {
        lease: tokio::sync::watch::Sender::new(None),
        logins: Default::default(),
        certificates: Default::default(),
        servers: servers.clone(),
        cluster: CLUSTER,
        outbox: outbox.clone(),
        down,
        logs: logs.clone(),
        shells: shells.clone(),
        witness: witness(&servers, &outbox, &stop),
        checks,
        sources,
        registries,
        held,
        metrics,
        credentials: credentials(),
        seat: Arc::new(
            crate::seat::Seat::draw(dir.path(), &Default::default(), false).expect("seat"),
        ),
    };
    tokio::spawn(session.run(stop.clone()));
    World {
        outbox,
        seats,
        down: events,
        servers,
        logs,
        shells,
        runtime,
        stop: stop.clone(),
        _stop: stop.drop_guard(),
        _dir: dir,
    }
}

impl World {
    pub(super) async fn seat(&mut self) -> Seat {
        timeout(PATIENCE, self.seats.recv())
            .await
            .expect("in time")
            .expect("a session")
    }

    /// Takes a desired set and answers whether it is on disk. Ends of sessions may come before it.
    pub(super) async fn take(&mut self, ok: bool) -> DesiredChange {
        loop {
            match timeout(PATIENCE, self.down.recv()).await.expect("in time") {
                Some(Down::Desired { change, stored }) => {
                    stored.send(ok).expect("waited for");
                    return *change;
                }
                Some(Down::Ended) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

pub(super) fn generation(number: u64) -> Generation {
    Generation {
        incarnation: 1,
        number,
    }
}

pub(super) fn desired(full: bool, base: u64, number: u64) -> v1::Desired {
    let set = DesiredSet {
        cluster: CLUSTER,
        generation: generation(number),
        assignments: vec![assignment(u128::from(number))],
        builds: Vec::new(),
    };
    v1::Desired {
        full,
        base: Some(generation(base).into()),
        set: Some((&set).into()),
        ..Default::default()
    }
}

pub(super) fn healthy() -> Observed {
    Observed {
        state: State::Healthy,
        ..Observed::pending()
    }
}
