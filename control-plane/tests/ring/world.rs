//! A server of one member with everything that a node speaks to, a service in its state.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_control_plane::agents::fleet::Fleet;
use skep_control_plane::agents::notices::Notices;
use skep_control_plane::agents::relay::Relay;
use skep_control_plane::agents::service::{AgentsService, Shared};
use skep_control_plane::agents::uploads::Uploads;
use skep_control_plane::forges::Tokens;
use skep_control_plane::history::History;
use skep_control_plane::machine::Machine;
use skep_control_plane::pki::{Authority, Terms};
use skep_control_plane::secrets::Secrets;
use skep_control_plane::store::Store;
use skep_control_plane::{consensus, reconcile};
use skep_identity::ca::{ClusterCa, Grant};
use skep_identity::keypair::{Credentials, KeyAndRequest};
use skep_identity::name::Identity;
use skep_identity::seal::SealingKey;
use skep_identity::tls::{ALPN_GRPC, ClientAuth, Reloadable, server_config};
use skep_identity::token::JoinToken as TokenText;
use skep_identity::{grpc, random};
use skep_model::deployment::{Deployment, Origin, Status, Trigger};
use skep_model::id::{
    ClusterId, DeploymentId, EnvironmentId, ProjectId, ServerId, ServiceId, TokenId, WorkspaceId,
};
use skep_model::server::JoinToken;
use skep_model::service::Service;
use skep_model::spec::ServiceSpec;
use skep_model::tenancy::{Environment, Project, Workspace};
use skep_model::variable::VariableInput;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::agents_server::AgentsServer;
use skep_proto::v1::command::Kind;
use tokio_util::sync::CancellationToken;

pub(crate) const SERVICE: ServiceId = ServiceId::from_u128(4);
/// Nothing here takes longer than some milliseconds; a hang should fail, not block.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3_600);

pub(crate) struct Server {
    pub(crate) store: Store,
    pub(crate) secrets: Secrets,
    pub(crate) ca: Arc<ClusterCa>,
    pub(crate) fleet: Fleet,
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
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
        let (history, writer) = History::open(
            &dir.path().join("history.db").display().to_string(),
            ServerId::from_u128(1),
        )
        .await
        .unwrap();
        tokio::spawn(writer);
        let notices = Notices::default();
        tokio::spawn(notices.follow(&store, stop.clone()));
        let shared = Shared {
            notices,
            samples: skep_control_plane::samples::Samples::default(),
            store: store.clone(),
            secrets: secrets.clone(),
            tokens: Tokens::new(secrets.clone(), &[]),
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
            tokens: Tokens::new(secrets.clone(), &[]),
            samples: Default::default(),
            scaling: Default::default(),
            relay: shared.relay.clone(),
            witnesses: Default::default(),
            means: Default::default(),
            tally: Default::default(),
            promises: Default::default(),
            programs: None,
            asked: Default::default(),
            notify_allow: Vec::new(),
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

    pub(crate) async fn token(&self) -> TokenText {
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

    pub(crate) async fn deploy(&self, trigger: Trigger, origin: Origin) -> DeploymentId {
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
            no_cache: false,
            told: None,
            held: None,
            shown: None,
            push: None,
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

    pub(crate) async fn until(&self, what: &str, check: impl Fn(&skep_state::State) -> bool) {
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

    pub(crate) fn status(&self, id: DeploymentId) -> Status {
        self.store.view().deployment(id).unwrap().status
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn own_credentials(ca: &ClusterCa) -> Credentials {
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

pub(crate) async fn found(store: &Store, secrets: &Secrets, ca: &ClusterCa) {
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

pub(crate) async fn put_service(server: &Server) {
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
        progress: Default::default(),
        last_release: 0,
        stopped: false,
        removing: false,
        generation: 0,
        created_ms: 0,
        scaling: None,
        pinned: None,
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

pub(crate) fn image() -> Origin {
    Origin::Image {
        reference: "app".into(),
    }
}

pub(crate) async fn until(what: &str, check: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !check() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
