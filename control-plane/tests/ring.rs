//! The control plane's half of the ring, with a node played by the test over real mTLS gRPC:
//! join, session, build, release, placement, routes, drain, stop.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_control_plane::agents::fleet::Fleet;
use skep_control_plane::agents::notices::Notices;
use skep_control_plane::agents::relay::Relay;
use skep_control_plane::agents::service::{AgentsService, Shared};
use skep_control_plane::agents::uploads::Uploads;
use skep_control_plane::history::History;
use skep_control_plane::machine::Machine;
use skep_control_plane::pki::{Authority, Terms};
use skep_control_plane::secrets::Secrets;
use skep_control_plane::store::Store;
use skep_control_plane::{consensus, reconcile};
use skep_identity::ca::{ClusterCa, Grant};
use skep_identity::key_id::KeyId;
use skep_identity::keypair::{Credentials, KeyAndRequest};
use skep_identity::name::{Identity, Role};
use skep_identity::seal::SealingKey;
use skep_identity::tls::{
    ALPN_GRPC, ClientAuth, Expected, Reloadable, anonymous_client_config, client_config,
    pinned_client_config, server_config,
};
use skep_identity::token::JoinToken as TokenText;
use skep_identity::{grpc, random, renewal};
use skep_model::allocation::{Desired, Observed, State as Seen};
use skep_model::deployment::{BuildOutcome, Built, Deployment, Origin, Status, Trigger};
use skep_model::id::{
    ClusterId, DeploymentId, EnvironmentId, NodeId, ProjectId, ServerId, ServiceId, TokenId,
    WorkspaceId,
};
use skep_model::node::{Facts, NodeStatus};
use skep_model::server::JoinToken;
use skep_model::service::{Image, Service};
use skep_model::spec::ServiceSpec;
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_model::variable::VariableInput;
use skep_proto::convert::{enum_value, id_bytes};
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;
use skep_proto::v1::agents_server::AgentsServer;
use skep_proto::v1::command::Kind;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

const SERVICE: ServiceId = ServiceId::from_u128(4);
/// Nothing here takes longer than some milliseconds; a hang should fail, not block.
const PATIENCE: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(24 * 3_600);

struct Server {
    store: Store,
    secrets: Secrets,
    ca: Arc<ClusterCa>,
    fleet: Fleet,
    address: SocketAddr,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let options = consensus::Options::new(1, dir.path().join("raft"));
        let (service, handle) =
            consensus::Service::open(options, Machine::default(), Box::new(consensus::NoPeers))
                .unwrap();
        tokio::spawn(service.run(stop.clone()));
        let store = Store::new(handle);
        let cluster = ClusterId::from_u128(random::new_id());
        let ca = Arc::new(ClusterCa::generate(cluster, SystemTime::now() - 200 * DAY).unwrap());
        let secrets = Secrets::new(SealingKey::generate());
        found(&store, &secrets, &ca).await;
        let (history, writer) = History::open(&dir.path().join("history.db").display().to_string())
            .await
            .unwrap();
        tokio::spawn(writer);
        let notices = Notices::default();
        tokio::spawn(notices.follow(&store, stop.clone()));
        let shared = Shared {
            notices,
            store: store.clone(),
            secrets: secrets.clone(),
            history: history.clone(),
            fleet: Fleet::default(),
            relay: Relay::default(),
            uploads: Uploads::default(),
            authority: Authority::new(store.clone(), secrets.clone(), Terms::default()),
            shutdown: stop.clone(),
        };
        let parts = reconcile::Parts {
            store: store.clone(),
            fleet: shared.fleet.clone(),
            history,
            secrets: secrets.clone(),
        };
        tokio::spawn(reconcile::run(parts, stop.clone()));
        let fleet = shared.fleet.clone();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = server_config(
            &Reloadable::new(&own_credentials(&ca)).unwrap(),
            ClientAuth::Optional,
            ALPN_GRPC,
        );
        let incoming = grpc::incoming(listener, tls, stop.clone());
        let router = tonic::transport::Server::builder()
            .add_service(AgentsServer::new(AgentsService::new(shared)));
        tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
        Self {
            store,
            secrets,
            ca,
            fleet,
            address,
            stop,
            _dir: dir,
        }
    }

    async fn token(&self) -> TokenText {
        let id = TokenId::from_u128(random::new_id());
        let text = TokenText::generate(self.ca.fingerprint(), id);
        let record = JoinToken {
            id,
            secret_hash: text.secret_hash().to_vec(),
            expires_ms: u64::MAX,
            uses_left: 1,
            role: skep_model::server::Role::Node,
            note: String::new(),
            created_ms: 0,
        };
        self.store
            .propose(Kind::PutToken(v1::PutToken {
                token: Some((&record).into()),
            }))
            .await
            .unwrap();
        text
    }

    async fn deploy(&self, trigger: Trigger, origin: Origin) -> DeploymentId {
        let deployment = Deployment {
            id: DeploymentId::from_u128(random::new_id()),
            service: SERVICE,
            trigger,
            origin,
            status: Status::Queued,
            problem: None,
            build: None,
            release: None,
            steps: Vec::new(),
            created_ms: 0,
            status_ms: 0,
            generation: 0,
            source: None,
        };
        let command = v1::CreateDeployment {
            deployment: Some((&deployment).into()),
            delivery: None,
        };
        self.store
            .propose(Kind::CreateDeployment(command))
            .await
            .unwrap();
        deployment.id
    }

    async fn until(&self, what: &str, check: impl Fn(&skep_state::State) -> bool) {
        let mut applied = self.store.consensus().applied();
        let reached = async {
            while !check(&self.store.view()) {
                applied.changed().await.unwrap();
            }
        };
        let done = tokio::time::timeout(PATIENCE, reached).await;
        assert!(
            done.is_ok(),
            "never: {what}; deployments: {:#?}",
            self.store.view().deployments().collect::<Vec<_>>()
        );
    }

    fn status(&self, id: DeploymentId) -> Status {
        self.store.view().deployment(id).unwrap().status
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn own_credentials(ca: &ClusterCa) -> Credentials {
    let key = KeyAndRequest::generate().unwrap();
    let names = ["127.0.0.1".to_owned()];
    let identity = Identity::server(ca.cluster(), ServerId::from_u128(1));
    let grant = Grant {
        identity,
        addresses: &names,
        lifetime: Duration::from_secs(3_600),
    };
    let certificate = ca.issue(&key.csr_pem, &grant, SystemTime::now()).unwrap();
    key.certified(certificate, ca.cert_pem().to_owned())
}

async fn found(store: &Store, secrets: &Secrets, ca: &ClusterCa) {
    let (workspace, project, environment) = (
        WorkspaceId::from_u128(1),
        ProjectId::from_u128(2),
        EnvironmentId::from_u128(3),
    );
    let init = v1::InitCluster {
        cluster: id_bytes(ca.cluster().as_u128()),
        ca_cert_pem: ca.cert_pem().to_owned(),
        sealed_ca_key: secrets.seal_ca_key(&ca.key_pem()),
        base_domain: "localhost".into(),
        workspace: Some(
            (&Workspace {
                id: workspace,
                name: "default".into(),
            })
                .into(),
        ),
        ..Default::default()
    };
    store.propose(Kind::InitCluster(init)).await.unwrap();
    let ensure = v1::EnsureEnvironment {
        workspace: id_bytes(workspace.as_u128()),
        project: Some(
            (&Project {
                id: project,
                workspace,
                name: "shop".into(),
            })
                .into(),
        ),
        environment: Some(
            (&Environment {
                id: environment,
                project,
                name: "production".into(),
            })
                .into(),
        ),
    };
    store
        .propose(Kind::EnsureEnvironment(ensure))
        .await
        .unwrap();
}

async fn put_service(server: &Server) {
    let input = VariableInput {
        name: "SECRET".into(),
        value: "s3cret".into(),
        secret: true,
    };
    let service = Service {
        id: SERVICE,
        environment: EnvironmentId::from_u128(3),
        name: "web".into(),
        spec: ServiceSpec::default(),
        variables: BTreeMap::from([(
            "SECRET".to_owned(),
            server.secrets.seal_variable(SERVICE, &input),
        )]),
        webhook_secret: None,
        live: None,
        rollout: None,
        last_release: 0,
        stopped: false,
        removing: false,
        generation: 0,
        created_ms: 0,
    };
    let command = v1::PutService {
        service: Some((&service).into()),
        expected_generation: 0,
    };
    server
        .store
        .propose(Kind::PutService(command))
        .await
        .unwrap();
}

fn facts() -> Facts {
    Facts {
        cpu_millis: 2_000,
        memory_bytes: 4 << 30,
        builder: true,
        ingress_port: Some(80),
        ..Facts::default()
    }
}

/// A node that does what it is told, when the test says so.
struct Node {
    id: NodeId,
    up: mpsc::Sender<v1::FromAgent>,
    down: tonic::Streaming<v1::ToAgent>,
    sequence: u64,
    credentials: Credentials,
}

async fn join(server: &Server, name: &str) -> Result<(NodeId, Credentials), tonic::Status> {
    let key = KeyAndRequest::generate().unwrap();
    let (id, reply) = ask_to_join(server, name, &key).await?;
    Ok((id, key.certified(reply.certificate_pem, reply.ca_pem)))
}

async fn ask_to_join(
    server: &Server,
    name: &str,
    key: &KeyAndRequest,
) -> Result<(NodeId, v1::JoinReply), tonic::Status> {
    let token = server.token().await;
    let tls = pinned_client_config(token.ca, ALPN_GRPC);
    let channel = grpc::channel(&server.address.to_string(), tls).unwrap();
    let request = v1::JoinRequest {
        token: id_bytes(token.id.as_u128()),
        secret: token.secret().to_owned(),
        name: name.into(),
        csr_pem: key.csr_pem.clone(),
        facts: Some((&facts()).into()),
    };
    let reply = AgentsClient::new(channel).join(request).await?.into_inner();
    let id = NodeId::from_u128(skep_proto::convert::id_bits("node", &reply.node).unwrap());
    Ok((id, reply))
}

#[tokio::test]
async fn a_node_that_heard_no_answer_joins_once() {
    let server = Server::start().await;
    let key = KeyAndRequest::generate().unwrap();
    let (id, _) = ask_to_join(&server, "n1", &key).await.unwrap();
    let (again, reply) = ask_to_join(&server, "n1", &key).await.unwrap();
    assert_eq!(again, id);
    assert_eq!(server.store.view().nodes().count(), 1);
    // What it is given then is good for the one node that there is.
    let credentials = key.certified(reply.certificate_pem, reply.ca_pem);
    Node::connect(&server, id, &credentials).await.unwrap();
    let stranger = join(&server, "n1").await.unwrap_err();
    assert_eq!(stranger.code(), tonic::Code::AlreadyExists);
}

impl Node {
    async fn connect(
        server: &Server,
        id: NodeId,
        credentials: &Credentials,
    ) -> Result<Self, tonic::Status> {
        let own = Reloadable::new(credentials).unwrap();
        let tls = client_config(&own, Expected::Role(Role::Server), ALPN_GRPC);
        let channel = grpc::channel(&server.address.to_string(), tls).unwrap();
        let (up, messages) = mpsc::channel(8);
        let hello = v1::Hello {
            facts: Some((&facts()).into()),
            held: None,
        };
        up.send(v1::FromAgent {
            kind: Some(v1::from_agent::Kind::Hello(hello)),
        })
        .await
        .unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
        let down = AgentsClient::new(channel)
            .session(stream)
            .await?
            .into_inner();
        Ok(Self {
            id,
            up,
            down,
            sequence: 0,
            credentials: credentials.clone(),
        })
    }

    async fn join(server: &Server, name: &str) -> Self {
        let (id, credentials) = join(server, name).await.unwrap();
        Self::connect(server, id, &credentials).await.unwrap()
    }

    async fn next(&mut self) -> v1::to_agent::Kind {
        let message = tokio::time::timeout(PATIENCE, self.down.message())
            .await
            .expect("the server says something");
        message.unwrap().expect("the session goes on").kind.unwrap()
    }

    /// The next message about work; acknowledgements on the way are passed over, tables applied.
    async fn desired(&mut self) -> v1::Desired {
        loop {
            match self.next().await {
                v1::to_agent::Kind::Desired(desired) => return desired,
                v1::to_agent::Kind::Routes(table) => {
                    self.routes(table.revision, table.revision).await
                }
                _ => {}
            }
        }
    }

    async fn say(&self, kind: v1::from_agent::Kind) {
        self.up
            .send(v1::FromAgent { kind: Some(kind) })
            .await
            .unwrap();
    }

    async fn routes(&self, applied_revision: u64, drained_revision: u64) {
        self.say(v1::from_agent::Kind::Routes(v1::RouteStatus {
            applied_revision,
            drained_revision,
            incarnation: 0,
        }))
        .await;
    }

    async fn observe(
        &mut self,
        allocations: Vec<v1::AllocationObservation>,
        builds: Vec<v1::BuildObservation>,
    ) {
        self.sequence += 1;
        let set = v1::ObservedSet {
            sequence: self.sequence,
            full: false,
            allocations,
            builds,
            runtime_ok: true,
            quarantine: Vec::new(),
        };
        self.say(v1::from_agent::Kind::Observed(set)).await;
    }

    async fn see(&mut self, allocation: Vec<u8>, state: Seen) {
        let observed = Observed {
            state,
            ..Observed::pending()
        };
        self.observe(
            vec![v1::AllocationObservation {
                allocation,
                observed: Some((&observed).into()),
            }],
            vec![],
        )
        .await;
    }

    async fn built(&mut self, deployment: Vec<u8>) {
        let image = Image {
            reference: "app".into(),
            digest: "sha256:abc".into(),
            node: Some(self.id),
        };
        let built = Built {
            image,
            exposed: vec![3000],
            commit: None,
            manifest: None,
        };
        let outcome = Some((&BuildOutcome::Built(built)).into());
        self.observe(
            vec![],
            vec![v1::BuildObservation {
                deployment,
                outcome,
            }],
        )
        .await;
    }

    /// Waits for a start, says it is healthy, and returns the allocation's id.
    async fn take_start(&mut self) -> Vec<u8> {
        let assignment = loop {
            let set = self.desired().await.set.unwrap();
            if let Some(assignment) = set.assignments.into_iter().find(|a| is(a, Desired::Run)) {
                break assignment;
            }
        };
        assert_eq!(assignment.port, Some(3000));
        let environment: BTreeMap<_, _> = assignment
            .environment
            .into_iter()
            .map(|e| (e.name, e.value))
            .collect();
        assert_eq!(environment["SECRET"], "s3cret");
        assert_eq!(environment["PORT"], "3000");
        assert_eq!(environment["SKEP_SERVICE"], "web");
        self.see(assignment.allocation.clone(), Seen::Healthy).await;
        assignment.allocation
    }
}

fn is(assignment: &v1::Assignment, desired: Desired) -> bool {
    enum_value("desired", &Desired::ALL, assignment.desired) == Ok(desired)
}

fn image() -> Origin {
    Origin::Image {
        reference: "app".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_goes_round_and_the_next_replaces_it_in_order() {
    let server = Server::start().await;
    put_service(&server).await;
    let mut node = Node::join(&server, "one").await;
    assert!(node.desired().await.full);
    server
        .until("ready", |view| {
            view.nodes().all(|node| node.status == NodeStatus::Ready)
        })
        .await;

    let first = server.deploy(Trigger::Api, image()).await;
    let order = node.desired().await;
    assert!(!order.full);
    assert_eq!(
        order.set.unwrap().builds[0].deployment,
        id_bytes(first.as_u128())
    );
    node.built(id_bytes(first.as_u128())).await;
    let old = node.take_start().await;
    // The table is acknowledged as it comes: only then is it live.
    while server.status(first) != Status::Live {
        match node.next().await {
            v1::to_agent::Kind::Routes(table) => {
                node.routes(table.revision, table.revision).await;
                if table.routes.iter().any(|route| !route.backends.is_empty()) {
                    server
                        .until("live", |view| {
                            view.deployment(first).unwrap().status == Status::Live
                        })
                        .await;
                }
            }
            _ => continue,
        }
    }

    // Restart: the same release in a new allocation; the old one drains, and stops only when the
    // ingress says that it has let go of it.
    let second = server
        .deploy(Trigger::Restart, Origin::Release { number: 1 })
        .await;
    let new = node.take_start().await;
    assert_ne!(new, old);
    let (mut told_drain, mut withdrawn) = (false, None);
    while !told_drain || withdrawn.is_none() {
        match node.next().await {
            v1::to_agent::Kind::Routes(table) => {
                let lacks_old = table
                    .routes
                    .iter()
                    .all(|r| r.backends.iter().all(|b| b.allocation != old));
                let has_new = table
                    .routes
                    .iter()
                    .any(|r| r.backends.iter().any(|b| b.allocation == new));
                if lacks_old && has_new {
                    withdrawn = Some(table.revision);
                } else {
                    node.routes(table.revision, table.revision).await;
                }
            }
            v1::to_agent::Kind::Desired(desired) => {
                let set = desired.set.unwrap();
                assert!(
                    !set.assignments.iter().any(|a| is(a, Desired::Stop)),
                    "stopped before the ingress let go"
                );
                told_drain |= set
                    .assignments
                    .iter()
                    .any(|a| a.allocation == old && is(a, Desired::Drain));
            }
            _ => {}
        }
    }
    let revision = withdrawn.unwrap();
    // Applied but not drained: requests are still under way, nothing stops.
    node.routes(revision, revision - 1).await;
    server
        .until("second is live", |view| {
            view.deployment(second).unwrap().status == Status::Live
        })
        .await;
    let still = |view: &skep_state::State| view.allocations().all(|a| a.desired != Desired::Stop);
    assert!(still(&server.store.view()));
    node.routes(revision, revision).await;
    let stop = loop {
        let set = node.desired().await.set.unwrap();
        if let Some(stop) = set.assignments.into_iter().find(|a| is(a, Desired::Stop)) {
            break stop;
        }
    };
    assert_eq!(stop.allocation, old);
    node.see(old.clone(), Seen::Stopped).await;
    let gone = node.desired().await;
    assert_eq!(gone.removed_allocations, vec![old]);
    assert_eq!(server.status(first), Status::Superseded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_doubles_are_refused() {
    let server = Server::start().await;
    let (id, credentials) = join(&server, "one").await.unwrap();
    let code = join(&server, "one")
        .await
        .expect_err("the name is taken")
        .code();
    assert_eq!(code, tonic::Code::AlreadyExists);
    let first = Node::connect(&server, id, &credentials).await.unwrap();
    let second = Node::connect(&server, id, &credentials)
        .await
        .err()
        .expect("one identity, one session");
    assert_eq!(second.code(), tonic::Code::AlreadyExists);
    drop(first);

    // No certificate at all: only Join is open.
    let tls = pinned_client_config(server.ca.fingerprint(), ALPN_GRPC);
    let channel = grpc::channel(&server.address.to_string(), tls).unwrap();
    let refused = AgentsClient::new(channel)
        .renew(v1::RenewRequest {
            csr_pem: String::new(),
            ..Default::default()
        })
        .await;
    assert_eq!(
        refused.expect_err("no identity").code(),
        tonic::Code::Unauthenticated
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_cut_off_and_a_certificate_can_be_renewed() {
    let server = Server::start().await;
    let mut node = Node::join(&server, "one").await;
    assert!(node.desired().await.full);
    let own = Reloadable::new(&node.credentials).unwrap();
    let tls = client_config(&own, Expected::Role(Role::Server), ALPN_GRPC);
    let mut client = AgentsClient::new(grpc::channel(&server.address.to_string(), tls).unwrap());
    let csr_pem = KeyAndRequest::generate().unwrap().csr_pem;
    let renewed = client
        .renew(v1::RenewRequest {
            csr_pem: csr_pem.clone(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_ne!(renewed.certificate_pem, node.credentials.cert_chain_pem);

    server
        .until("ready", |view| {
            view.nodes().all(|node| node.status == NodeStatus::Ready)
        })
        .await;
    let is_refused = server
        .store
        .propose(Kind::RemoveNode(remove(node.id)))
        .await;
    assert!(is_refused.is_err(), "a connected node is not removed");
    let broken = v1::ObservedSet {
        sequence: 1,
        runtime_ok: false,
        ..Default::default()
    };
    node.say(v1::from_agent::Kind::Observed(broken)).await;
    server
        .until("down", |view| {
            view.nodes()
                .all(|node| node.status == NodeStatus::RuntimeDown)
        })
        .await;
    server
        .store
        .propose(Kind::RemoveNode(remove(node.id)))
        .await
        .unwrap();
    loop {
        match tokio::time::timeout(PATIENCE, node.down.message())
            .await
            .unwrap()
        {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a removed node is told why"),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::PermissionDenied);
                break;
            }
        }
    }
    let refused = client
        .renew(v1::RenewRequest {
            csr_pem,
            ..Default::default()
        })
        .await
        .expect_err("no member");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
}

fn remove(node: NodeId) -> v1::RemoveNode {
    v1::RemoveNode {
        node: id_bytes(node.as_u128()),
    }
}

/// What this identity would have held `age` ago, and a client without a certificate that asks under it.
fn sleeper(
    server: &Server,
    identity: Identity,
    age: Duration,
) -> (Credentials, AgentsClient<Channel>) {
    let key = KeyAndRequest::generate().unwrap();
    let grant = Grant {
        identity,
        addresses: &[],
        lifetime: DAY,
    };
    let issued = server
        .ca
        .issue(&key.csr_pem, &grant, SystemTime::now() - age);
    let held = key.certified(issued.unwrap(), server.ca.cert_pem().to_owned());
    let own = Reloadable::new(&held).unwrap();
    let tls = anonymous_client_config(&own, Expected::Role(Role::Server), ALPN_GRPC);
    let channel = grpc::channel(&server.address.to_string(), tls).unwrap();
    (held, AgentsClient::new(channel))
}

fn proven(held: &Credentials, key: &KeyAndRequest) -> v1::RenewRequest {
    let proof = renewal::prove(held, &key.csr_pem).unwrap();
    v1::RenewRequest {
        csr_pem: key.csr_pem.clone(),
        expired_pem: proof.expired_pem,
        signature: proof.signature,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_for_a_month_renews_by_its_key_and_nobody_else_does() {
    let server = Server::start().await;
    let (id, _) = join(&server, "one").await.unwrap();
    let cluster = server.ca.cluster();
    let (held, mut client) = sleeper(&server, Identity::node(cluster, id), 31 * DAY);
    let key = KeyAndRequest::generate().unwrap();
    let request = proven(&held, &key);
    let reply = client.renew(request.clone()).await.unwrap().into_inner();
    let now_ms = skep_control_plane::store::now_ms();
    assert!(reply.clock_ms.abs_diff(now_ms) < 60_000);
    let fresh = key.certified(reply.certificate_pem, reply.ca_pem);
    assert_eq!(fresh.identity().unwrap(), Identity::node(cluster, id));
    Node::connect(&server, id, &fresh).await.unwrap();

    // The certificate is public, the key is not; and the way in is good for nothing else.
    let mut forged = request.clone();
    forged.csr_pem = KeyAndRequest::generate().unwrap().csr_pem;
    let refused = client.renew(forged).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let hello = tokio_stream::once(v1::FromAgent { kind: None });
    let refused = client.session(hello).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);

    // Who is too late, no member, or no node.
    let stranger = Identity::node(cluster, NodeId::from_u128(77));
    let other_role = Identity::server(cluster, ServerId::from_u128(1));
    let node = Identity::node(cluster, id);
    for (identity, age, code) in [
        (node, 92 * DAY, tonic::Code::PermissionDenied),
        (stranger, 31 * DAY, tonic::Code::PermissionDenied),
        (other_role, 31 * DAY, tonic::Code::Unauthenticated),
    ] {
        let (held, mut client) = sleeper(&server, identity, age);
        let key = KeyAndRequest::generate().unwrap();
        let refused = client.renew(proven(&held, &key)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{identity} {age:?}: {refused}");
    }
}

fn step(step: v1::rotate_ca::Step) -> Kind {
    Kind::RotateCa(v1::RotateCa { step: Some(step) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ca_is_replaced_while_sessions_go_on() {
    use v1::rotate_ca::Step;
    let server = Server::start().await;
    let mut node = Node::join(&server, "one").await;
    assert!(node.desired().await.full);
    let next = ClusterCa::generate(server.ca.cluster(), SystemTime::now()).unwrap();
    let begin = v1::Ca {
        cert_pem: next.cert_pem().to_owned(),
        sealed_key: server.secrets.seal_ca_key(&next.key_pem()),
    };
    let behind = || {
        let group = server.store.consensus().group().borrow().clone();
        skep_control_plane::pki::behind(&server.store.view(), &server.fleet, &group)
    };
    server
        .store
        .propose(step(Step::Begin(begin)))
        .await
        .unwrap();
    let (old, new) = (key_id(&server.ca), key_id(&next));
    assert_eq!(behind(), [], "one server that knows, and nodes need not");
    server
        .store
        .propose(step(Step::Activate(true)))
        .await
        .unwrap();
    let say = |ca: KeyId| {
        let ca = ca.as_bytes().to_vec();
        v1::from_agent::Kind::Heartbeat(v1::Heartbeat { ca })
    };
    node.say(say(old)).await;
    until("the old CA is told", || {
        behind().iter().any(|it| it.why.contains("old CA"))
    })
    .await;

    // On the connection that was made under the old CA.
    let tls = client_config(
        &Reloadable::new(&node.credentials).unwrap(),
        Expected::Role(Role::Server),
        ALPN_GRPC,
    );
    let channel = grpc::channel(&server.address.to_string(), tls).unwrap();
    let key = KeyAndRequest::generate().unwrap();
    let request = v1::RenewRequest {
        csr_pem: key.csr_pem.clone(),
        ..Default::default()
    };
    let reply = AgentsClient::new(channel).renew(request).await.unwrap();
    let reply = reply.into_inner();
    let fresh = key.certified(reply.certificate_pem, reply.ca_pem);
    let fresh = Reloadable::new(&fresh).unwrap();
    assert_eq!(fresh.issuer(), Some(new), "the new one signs");
    node.say(say(new)).await;
    until("nobody is behind", || behind().is_empty()).await;
    server
        .store
        .propose(step(Step::Finish(true)))
        .await
        .unwrap();
    let view = server.store.view();
    assert_eq!(view.cluster().unwrap().trusted_ca_pem(), next.cert_pem());
    let report = v1::ObservedSet {
        sequence: 9,
        ..Default::default()
    };
    node.say(v1::from_agent::Kind::Observed(report)).await;
    loop {
        if let v1::to_agent::Kind::ObservedAck(ack) = node.next().await {
            assert_eq!(ack.sequence, 9, "the session lives");
            break;
        }
    }
}

fn key_id(ca: &ClusterCa) -> KeyId {
    KeyId::of_ca(ca.cert_pem()).unwrap()
}

async fn until(what: &str, check: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !check() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
