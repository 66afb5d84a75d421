//! Three servers in one process, over real mTLS on loopback, that can be stopped and started.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use skep_control_plane::agents::elsewhere::Elsewhere;
use skep_control_plane::agents::fleet::Fleet;
use skep_control_plane::agents::notices::Notices;
use skep_control_plane::agents::relay::Relay;
use skep_control_plane::agents::service::{AgentsService, Shared};
use skep_control_plane::agents::uploads::Uploads;
use skep_control_plane::forges::Tokens;
use skep_control_plane::history::History;
use skep_control_plane::machine::Machine;
use skep_control_plane::peers::directory::Standing;
use skep_control_plane::peers::samples::relay as relay_samples;
use skep_control_plane::peers::service::Parts;
use skep_control_plane::peers::{
    Contact, ControlService, Directory, Fetcher, Forwarder, JoinServers, Links, Outbox,
    PeerTransport, PeersService, copying, presence,
};
use skep_control_plane::pki::{Authority, Terms};
use skep_control_plane::samples::Samples;
use skep_control_plane::secrets::Secrets;
use skep_control_plane::store::Store;
use skep_control_plane::{consensus, reconcile};
use skep_identity::ca::{ClusterCa, Grant};
use skep_identity::keypair::{Credentials, KeyAndRequest};
use skep_identity::name::{Identity, Subject};
use skep_identity::seal::SealingKey;
use skep_identity::tls::{
    ALPN_GRPC, ClientAuth, Expected, Reloadable, client_config, server_config,
};
use skep_identity::{grpc, random};
use skep_model::id::{ClusterId, NodeId, OperatorId, ServerId, TokenId, WorkspaceId};
use skep_model::node::{Facts, Node, NodeStatus};
use skep_model::problem::{Code, Problem};
use skep_model::server::{JoinToken, Role as TokenRole, Server as Member};
use skep_model::tenancy::Workspace;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::agents_server::AgentsServer;
use skep_proto::v1::command::Kind;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tonic::transport::Channel;

/// Nothing here takes longer than some seconds; a hang should fail, not block.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const MEMBERS: [u64; 3] = [1, 2, 3];
const SECRET: &str = "secret";

/// Nobody joins in these tests.
struct NoJoin;

#[tonic::async_trait]
impl JoinServers for NoJoin {
    async fn join(&self, _: v1::JoinServerRequest) -> Result<v1::JoinServerReply, Problem> {
        Err(Problem::new(Code::Forbidden, "nobody joins here"))
    }
}

/// One server that runs.
pub(crate) struct Server {
    pub(crate) history: History,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) store: Store,
    pub(crate) fleet: Fleet,
    pub(crate) samples: Samples,
    pub(crate) relay: Relay,
    pub(crate) uploads: Uploads,
    pub(crate) outbox: Outbox,
    stop: CancellationToken,
    log: JoinHandle<()>,
    serving: JoinHandle<()>,
}

/// Everything that survives a server.
pub(crate) struct World {
    pub(crate) ca: Arc<ClusterCa>,
    secrets: Secrets,
    dirs: BTreeMap<u64, tempfile::TempDir>,
    /// Where each server listens.
    pub(crate) listens: BTreeMap<u64, SocketAddr>,
    /// Where the others reach it.
    pub(crate) contacts: Vec<Contact>,
    pub(crate) servers: BTreeMap<u64, Server>,
    snapshot_entries: u64,
}

/// How many there were in this process.
static WORLDS: AtomicU8 = AtomicU8::new(1);

pub(crate) fn server_id(member: u64) -> ServerId {
    ServerId::from_u128(u128::from(member) + 100)
}

impl World {
    /// Three servers that lead one cluster.
    pub(crate) async fn start() -> Self {
        let mut world = Self::prepare(10_000).await;
        for member in MEMBERS {
            world.start_server(member).await;
        }
        world.found().await;
        world
    }

    /// Addresses and identities, and nothing that runs.
    pub(crate) async fn prepare(snapshot_entries: u64) -> Self {
        let cluster = ClusterId::from_u128(random::new_id());
        let ca = ClusterCa::generate(cluster, SystemTime::now()).unwrap();
        let mut listens = BTreeMap::new();
        let mut dirs = BTreeMap::new();
        // Its own: a port that is free now is had again later, where connections of other tests may have it by then.
        let ip = Ipv4Addr::new(127, 83, 0, WORLDS.fetch_add(1, Ordering::Relaxed));
        for member in MEMBERS {
            let listener = TcpListener::bind((ip, 0)).await.unwrap();
            listens.insert(member, listener.local_addr().unwrap());
            dirs.insert(member, tempfile::tempdir().unwrap());
        }
        let contacts = listens.iter().map(|(member, address)| Contact {
            member: *member,
            server: server_id(*member),
            address: address.to_string(),
            standing: Standing::Server,
        });
        Self {
            ca: Arc::new(ca),
            secrets: Secrets::new(SealingKey::generate()),
            dirs,
            contacts: contacts.collect(),
            listens,
            servers: BTreeMap::new(),
            snapshot_entries,
        }
    }

    /// Where a server's history is.
    pub(crate) fn history_file(&self, member: u64) -> PathBuf {
        self.dirs[&member].path().join("history.db")
    }

    pub(crate) fn credentials(&self, identity: Identity) -> Arc<Reloadable> {
        let key = KeyAndRequest::generate().unwrap();
        let grant = Grant {
            identity,
            addresses: &[],
            lifetime: Duration::from_secs(3_600),
        };
        let certificate = (self.ca)
            .issue(&key.csr_pem, &grant, SystemTime::now())
            .unwrap();
        let credentials: Credentials = key.certified(certificate, self.ca.cert_pem().to_owned());
        Reloadable::new(&credentials).unwrap()
    }

    pub(crate) fn as_server(&self, member: u64) -> Arc<Reloadable> {
        self.credentials(Identity::server(self.ca.cluster(), server_id(member)))
    }

    pub(crate) fn as_node(&self, id: NodeId) -> Arc<Reloadable> {
        self.credentials(Identity::node(self.ca.cluster(), id))
    }

    pub(crate) fn as_operator(&self) -> Arc<Reloadable> {
        let id = OperatorId::from_u128(1);
        self.credentials(Identity::operator(self.ca.cluster(), id))
    }

    /// A connection to a server, with somebody's certificate.
    pub(crate) fn dial(&self, own: &Arc<Reloadable>, member: u64) -> Channel {
        let expected = Expected::Exactly(Subject::Server(server_id(member)));
        let tls = client_config(own, expected, ALPN_GRPC);
        grpc::channel(&self.listens[&member].to_string(), tls).unwrap()
    }

    pub(crate) async fn start_server(&mut self, member: u64) {
        let stop = CancellationToken::new();
        let dir = self.dirs[&member].path().to_owned();
        let mut options = consensus::Options::new(member, dir.join("raft"));
        options.founders = MEMBERS.to_vec();
        options.seed = member;
        options.snapshot_entries = self.snapshot_entries;
        options.tail_entries = 10;
        let (transport, outbox) = PeerTransport::new();
        let (service, handle) = tokio::task::spawn_blocking(move || {
            consensus::Service::open(options, Machine::default(), Box::new(transport)).unwrap()
        })
        .await
        .unwrap();
        let own = self.as_server(member);
        let directory = Directory::new(member, self.contacts.clone());
        let links = Links::new(Arc::clone(&own), directory.clone());
        let forward = Arc::new(Forwarder::new(links.clone(), handle.clone()));
        let store = Store::new(handle.clone()).with_forward(forward);
        let fleet = Fleet::default();
        let fetcher = Arc::new(Fetcher::new(links.clone()));
        let elsewhere: Arc<dyn Elsewhere> = fetcher.clone();
        let relay = Relay::reaching(fleet.clone(), Arc::clone(&elsewhere));
        let uploads = Uploads::reaching(elsewhere);
        let running = stop.clone();
        let log = tokio::spawn(async move { service.run(running).await.unwrap() });
        tokio::spawn(directory.clone().follow(handle.clone(), stop.clone()));
        tokio::spawn(outbox.clone().run(links.clone(), handle, stop.clone()));
        tokio::spawn(presence::report(links.clone(), fleet.clone(), stop.clone()));
        let path = self.history_file(member).display().to_string();
        let (history, writer) = History::open(&path, server_id(member)).await.unwrap();
        tokio::spawn(writer);
        let copied = copying::copy(links.clone(), history.clone(), stop.clone());
        tokio::spawn(copied);
        let samples = Samples::default();
        tokio::spawn(relay_samples(
            links.clone(),
            samples.clone(),
            store.clone(),
            stop.clone(),
        ));
        let parts = Parts {
            history,
            store,
            directory,
            outbox,
            fleet,
            samples,
            relay,
            uploads,
            joiner: Arc::new(NoJoin),
            shutdown: stop,
        };
        let serving = self.serve(member, own, &parts).await;
        let server = Server {
            history: parts.history,
            fetcher,
            store: parts.store,
            fleet: parts.fleet,
            samples: parts.samples,
            relay: parts.relay,
            uploads: parts.uploads,
            outbox: parts.outbox,
            stop: parts.shutdown,
            log,
            serving,
        };
        self.servers.insert(member, server);
    }

    /// The three services on the cluster's listener, and the duties.
    async fn serve(&self, member: u64, own: Arc<Reloadable>, parts: &Parts) -> JoinHandle<()> {
        let history = parts.history.clone();
        let notices = Notices::default();
        tokio::spawn(notices.follow(&parts.store, parts.shutdown.clone()));
        let shared = Shared {
            notices,
            store: parts.store.clone(),
            secrets: self.secrets.clone(),
            tokens: Tokens::new(self.secrets.clone(), &[]),
            history: history.clone(),
            fleet: parts.fleet.clone(),
            samples: parts.samples.clone(),
            relay: parts.relay.clone(),
            uploads: parts.uploads.clone(),
            authority: Authority::new(parts.store.clone(), self.secrets.clone(), Terms::default()),
            shutdown: parts.shutdown.clone(),
        };
        let duties = reconcile::Parts {
            store: parts.store.clone(),
            fleet: parts.fleet.clone(),
            history,
            secrets: self.secrets.clone(),
            tokens: Tokens::new(self.secrets.clone(), &[]),
            samples: Default::default(),
            scaling: Default::default(),
            relay: parts.relay.clone(),
            witnesses: Default::default(),
            means: Default::default(),
            tally: Default::default(),
            promises: Default::default(),
            programs: None,
            asked: Default::default(),
            notify_allow: Vec::new(),
        };
        let stop = parts.shutdown.clone();
        tokio::spawn(reconcile::run(duties, stop.clone()));
        let listener = TcpListener::bind(self.listens[&member]).await.unwrap();
        let tls = server_config(&own, ClientAuth::Optional, ALPN_GRPC);
        let incoming = grpc::incoming(listener, tls, stop.clone());
        let control = ControlService::new(parts.store.clone(), stop.clone());
        let router = tonic::transport::Server::builder()
            .add_service(AgentsServer::new(AgentsService::new(shared)))
            .add_service(PeersService::new(parts.clone()).into_server())
            .add_service(control.into_server());
        tokio::spawn(async move {
            router
                .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
                .await
                .unwrap();
        })
    }

    /// A server that knows none of the calls; it ends with the handle.
    pub(crate) async fn start_older(&self, member: u64) -> DropGuard {
        let stop = CancellationToken::new();
        let listener = TcpListener::bind(self.listens[&member]).await.unwrap();
        let tls = server_config(&self.as_server(member), ClientAuth::Optional, ALPN_GRPC);
        let incoming = grpc::incoming(listener, tls, stop.clone());
        let router = tonic::transport::Server::builder().add_routes(Routes::default());
        let serving = router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tokio::spawn(serving);
        stop.drop_guard()
    }

    /// Stops a server: its connections break, and its port is free on return.
    pub(crate) async fn stop_server(&mut self, member: u64) {
        let server = self.servers.remove(&member).unwrap();
        server.stop.cancel();
        server.log.await.unwrap();
        // Its streams have their own time to end; nobody waits for them here.
        server.serving.abort();
        let _ = server.serving.await;
    }

    pub(crate) fn store(&self, member: u64) -> &Store {
        &self.servers[&member].store
    }

    /// The member that leads, once one does.
    pub(crate) async fn leader(&self) -> u64 {
        let found = async {
            loop {
                for (member, server) in &self.servers {
                    if server.store.consensus().leadership().borrow().is_leader {
                        return *member;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .expect("a leader")
    }

    /// A running member that does not lead.
    pub(crate) async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.servers.keys().find(|id| **id != leader).unwrap()
    }

    /// Waits until a server's state is so.
    pub(crate) async fn until(
        &self,
        member: u64,
        what: &str,
        check: impl Fn(&skep_state::State) -> bool,
    ) {
        let store = self.store(member);
        let mut applied = store.consensus().applied();
        let reached = async {
            while !check(&store.view()) {
                applied.changed().await.unwrap();
            }
        };
        let done = tokio::time::timeout(PATIENCE, reached).await;
        assert!(done.is_ok(), "never at server {member}: {what}");
    }

    /// The cluster, its servers, and a token for as many nodes as a test may want.
    pub(crate) async fn found(&self) {
        let leader = self.leader().await;
        let store = self.store(leader);
        let workspace = Workspace {
            id: WorkspaceId::from_u128(1),
            name: "default".into(),
        };
        let init = v1::InitCluster {
            cluster: id_bytes(self.ca.cluster().as_u128()),
            ca_cert_pem: self.ca.cert_pem().to_owned(),
            sealed_ca_key: self.secrets.seal_ca_key(&self.ca.key_pem()),
            base_domain: "localhost".into(),
            workspace: Some((&workspace).into()),
            server: Some((&self.record(1)).into()),
            ..Default::default()
        };
        store.propose(Kind::InitCluster(init)).await.unwrap();
        for (id, role) in [(1, TokenRole::Node), (2, TokenRole::Server)] {
            let token = JoinToken {
                id: TokenId::from_u128(id),
                secret_hash: SECRET.into(),
                expires_ms: u64::MAX,
                uses_left: 10_000,
                role,
                note: String::new(),
                created_ms: 0,
            };
            let token = Some((&token).into());
            let put = v1::PutToken { token };
            store.propose(Kind::PutToken(put)).await.unwrap();
        }
        for member in [2, 3] {
            let join = v1::JoinServer {
                token: id_bytes(2),
                secret_hash: SECRET.into(),
                server: Some((&self.record(member)).into()),
                rebuild: false,
            };
            store.propose(Kind::JoinServer(join)).await.unwrap();
        }
    }

    fn record(&self, member: u64) -> Member {
        let contact = self
            .contacts
            .iter()
            .find(|contact| contact.member == member);
        Member {
            id: server_id(member),
            member,
            name: format!("server-{member}"),
            cluster_address: contact.unwrap().address.clone(),
            api_address: self.listens[&member].to_string(),
            version: "0.1.0".into(),
            feature_level: skep_state::feature_level(),
            joined_ms: 0,
        }
    }

    /// A node in the state, by whichever server.
    pub(crate) async fn add_node(&self, member: u64, id: u128) -> NodeId {
        let node = Node {
            id: NodeId::from_u128(id),
            name: format!("node-{id}"),
            facts: facts(),
            status: NodeStatus::Lost,
            status_ms: 0,
            generation: 0,
            joined_ms: 0,
            meta: BTreeMap::new(),
            admin: Default::default(),
            seat: 0,
            witnesses: Vec::new(),
            fencing: Default::default(),
        };
        let join = v1::JoinNode {
            token: id_bytes(1),
            secret_hash: SECRET.into(),
            node: Some((&node).into()),
        };
        let store = self.store(member);
        store.propose(Kind::JoinNode(join)).await.unwrap();
        node.id
    }
}

pub(crate) fn facts() -> Facts {
    Facts {
        cpu_millis: 2_000,
        memory_bytes: 4 << 30,
        builder: true,
        ..Facts::default()
    }
}

pub(crate) fn set_meta(node: NodeId, key: &str, value: &str) -> v1::SetNodeMeta {
    v1::SetNodeMeta {
        node: id_bytes(node.as_u128()),
        set: [(key.to_owned(), value.to_owned())].into(),
        unset: Vec::new(),
    }
}
