//! The API over a real one-member consensus and a real history, called without a network.

mod access;
mod autoscale;
mod backup;
mod certificates;
mod cluster;
mod deployments;
mod domains;
mod elsewhere;
mod forges;
mod git;
mod github;
mod hooks;
mod hosts;
mod jobs;
mod logs;
mod network;
mod node_pools;
mod notify;
mod previews;
mod rebalance;
mod registries;
mod repository_hooks;
mod rollouts;
mod samples;
mod servers;
mod services;
mod settings;
mod stacks;
mod tcp_ports;
mod variables;
mod volumes;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use skep_identity::ca::{ClusterCa, Grant};
use skep_identity::keypair::KeyAndRequest;
use skep_identity::name::Identity;
use skep_identity::seal::SealingKey;
use skep_identity::tls::Reloadable;
use skep_identity::{digest, random};
use skep_model::deployment::Status;
use skep_model::id::{ClusterId, DeploymentId, NodeId, ServerId, TokenId, WorkspaceId};
use skep_model::node::{Facts, Node, NodeStatus};
use skep_model::server::JoinToken;
use skep_model::service::{Image, Release};
use skep_model::tenancy::Workspace;
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use tower::ServiceExt as _;

use super::*;
use crate::consensus::log::MemoryLog;
use crate::consensus::{NoPeers, Options, Service};
use crate::machine::Machine;
use crate::store::now_ms;

const TOKEN: &str = "the-administrators-token";
const WEB: &str = "/v1/projects/shop/environments/production/services/web";

/// A server, ended when dropped.
struct Server {
    router: Router,
    context: Context,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.context.shutdown.cancel();
    }
}

/// An answer, read whole.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(Arc::new(crate::history::Nowhere)).await
    }

    async fn start_with(elsewhere: Arc<dyn Elsewhere>) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let options = Options::new(1, dir.path().join("raft"));
        let log = Arc::new(MemoryLog::default());
        let (service, consensus) =
            Service::open_with_log(options, log, Machine::default(), Box::new(NoPeers))
                .expect("opens");
        let shutdown = CancellationToken::new();
        tokio::spawn(service.run(shutdown.clone()));
        let cluster = ClusterId::from_u128(random::new_id());
        let ca = ClusterCa::generate(cluster, std::time::SystemTime::now()).expect("ca");
        let path = dir.path().join("history.db");
        let (history, writer) = History::open(path.to_str().expect("UTF-8"), own_server().id)
            .await
            .expect("opens");
        tokio::spawn(writer);
        let secrets = Secrets::new(SealingKey::generate());
        let context = Context {
            tokens: crate::forges::Tokens::new(secrets.clone(), &[]),
            store: Store::new(consensus),
            secrets,
            history,
            elsewhere,
            uploads: Uploads::default(),
            relay: Relay::default(),
            fleet: Fleet::default(),
            samples: Samples::default(),
            scaling: Default::default(),
            witnesses: Default::default(),
            tally: Default::default(),
            promises: Default::default(),
            programs: None,
            asked: Default::default(),
            resolvers: Vec::new(),
            notify_allow: Vec::new(),
            own: own(&ca, dir.path()),
            shutdown,
        };
        let server = Self {
            router: router(context.clone()),
            context,
            _dir: dir,
        };
        server.found(&ca).await;
        server
    }

    async fn found(&self, ca: &ClusterCa) {
        let cluster = ca.cluster();
        let workspace = Workspace {
            id: WorkspaceId::from_u128(random::new_id()),
            name: "default".into(),
        };
        self.propose(Kind::InitCluster(v1::InitCluster {
            cluster: id_bytes(cluster.as_u128()),
            ca_cert_pem: ca.cert_pem().to_owned(),
            sealed_ca_key: self.context.secrets.seal_ca_key(&ca.key_pem()),
            base_domain: "example.test".into(),
            server: Some((&own_server()).into()),
            workspace: Some((&workspace).into()),
            admin_token_hash: digest::sha256(TOKEN.as_bytes()).to_vec(),
            ..v1::InitCluster::default()
        }))
        .await;
    }

    async fn propose(&self, kind: Kind) {
        self.context.store.propose(kind).await.expect("accepted");
    }

    /// A ready node with an ingress.
    async fn join(&self, name: &str) -> NodeId {
        let token = JoinToken {
            id: TokenId::from_u128(random::new_id()),
            secret_hash: vec![7; 32],
            expires_ms: now_ms() + 60_000,
            uses_left: 1,
            role: skep_model::server::Role::Node,
            note: String::new(),
            created_ms: 0,
        };
        self.propose(Kind::PutToken(v1::PutToken {
            token: Some((&token).into()),
        }))
        .await;
        let node = Node {
            id: NodeId::from_u128(random::new_id()),
            name: name.into(),
            facts: Facts {
                ingress_port: Some(8080),
                builder: true,
                ..Facts::default()
            },
            status: NodeStatus::Ready,
            status_ms: 0,
            generation: 0,
            joined_ms: 0,
            meta: std::collections::BTreeMap::new(),
            admin: Default::default(),
            seat: 0,
            witnesses: Vec::new(),
            fencing: Default::default(),
        };
        self.propose(Kind::JoinNode(v1::JoinNode {
            token: id_bytes(token.id.as_u128()),
            secret_hash: token.secret_hash.clone(),
            node: Some((&node).into()),
        }))
        .await;
        self.judge(node.id, NodeStatus::Ready).await;
        node.id
    }

    async fn judge(&self, node: NodeId, status: NodeStatus) {
        self.propose(Kind::SetNodeStatus(v1::SetNodeStatus {
            node: id_bytes(node.as_u128()),
            status: enum_number(&NodeStatus::ALL, &status),
            witnesses: Vec::new(),
        }))
        .await;
    }

    async fn raw(&self, request: Request<Body>) -> axum::response::Response {
        self.router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible")
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.raw(request).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        Answer {
            status,
            headers,
            body,
        }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        self.send(request(method, path, body)).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Value::Null).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, body).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, body).await
    }

    /// Makes a deployment and plays leader and agent until it is live with a new release.
    async fn deploy_live(&self) -> u64 {
        let answer = self
            .post(
                &format!("{WEB}/deployments"),
                json!({"type": "image", "reference": "app:1"}),
            )
            .await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        let id = deployment_id(&answer.body);
        self.bring_live(id).await
    }

    async fn bring_live(&self, id: DeploymentId) -> u64 {
        let view = self.context.store.view();
        let deployment = view.deployment(id).expect("made");
        let service = view.service(deployment.service).expect("there");
        let number = service.last_release + 1;
        let release = Release {
            service: service.id,
            number,
            deployment: id,
            image: Image {
                reference: "app:1".into(),
                digest: "sha256:00".into(),
                node: None,
                shared: false,
                bundle: false,
                pushed: None,
            },
            kind: service.spec.kind,
            port: Some(8080),
            command: Vec::new(),
            variables: service.variables.clone(),
            resources: service.spec.resources,
            placement: service.spec.placement.clone(),
            container: service.spec.container.clone(),
            hooks: service.spec.hooks.clone(),
            health: service.spec.health.clone(),
            restart: service.spec.restart,
            stop_grace_ms: service.spec.stop_grace_ms,
            storage: service.spec.storage.clone(),
            commit: None,
            branch: None,
            public_url: None,
            file_variables: Default::default(),
            created_ms: 0,
        };
        self.roll_out(id, number, Some((&release).into())).await;
        number
    }

    /// Rolls out a release, a new one or one that exists, and ends the deployment as live.
    async fn roll_out(&self, id: DeploymentId, number: u64, release: Option<v1::Release>) {
        self.start_rollout(id, number, release).await;
        self.finish(id, Status::Live, "live").await;
    }

    async fn start_rollout(&self, id: DeploymentId, number: u64, release: Option<v1::Release>) {
        let view = self.context.store.view();
        let deployment = view.deployment(id).expect("made");
        let service = view.service(deployment.service).expect("there");
        self.propose(Kind::StartRollout(v1::StartRollout {
            deployment: id_bytes(id.as_u128()),
            expected_generation: deployment.generation,
            release,
            number,
            spec: None,
            expected_service_generation: service.generation,
            step: format!("release {number}"),
        }))
        .await;
    }

    async fn finish(&self, id: DeploymentId, status: Status, step: &str) {
        let view = self.context.store.view();
        self.propose(Kind::FinishDeployment(v1::FinishDeployment {
            deployment: id_bytes(id.as_u128()),
            expected_generation: view.deployment(id).expect("made").generation,
            status: enum_number(&Status::ALL, &status),
            problem: None,
            step: step.into(),
        }))
        .await;
    }
}

fn own_server() -> skep_model::server::Server {
    skep_model::server::Server {
        id: ServerId::from_u128(1),
        member: 1,
        name: "s1".into(),
        cluster_address: "127.0.0.1:1".into(),
        api_address: "127.0.0.1:2".into(),
        version: "0".into(),
        feature_level: skep_state::feature_level(),
        joined_ms: 0,
    }
}

fn own(ca: &ClusterCa, dir: &std::path::Path) -> Own {
    let key = KeyAndRequest::generate().expect("key");
    let grant = Grant {
        identity: Identity::server(ca.cluster(), own_server().id),
        addresses: &[],
        lifetime: std::time::Duration::from_secs(3_600),
    };
    let certificate = ca
        .issue(&key.csr_pem, &grant, std::time::SystemTime::now())
        .expect("issued");
    let credentials = key.certified(certificate, ca.cert_pem().to_owned());
    let credentials = Reloadable::new(&credentials).expect("good");
    Own {
        neighbours: neighbours::Neighbours::new(own_server().id, credentials),
        data_dir: Arc::new(dir.to_owned()),
        wrapped_data_key: Arc::new([5; 60]),
        started: std::time::Instant::now(),
        outbox: crate::peers::PeerTransport::new().1,
    }
}

fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path);
    builder
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(body)
        .expect("sound")
}

fn deployment_id(body: &Value) -> DeploymentId {
    body["id"].as_str().expect("an id").parse().expect("an id")
}

/// The answer is a problem of this code, about this field, in the one shape of all problems.
#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str, field: Option<&str>) {
    let body = &answer.body;
    assert_eq!(answer.status.as_u16(), status, "{body}");
    assert_eq!(body["code"], code, "{body}");
    assert!(
        body["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{body}"
    );
    assert!(body["retryable"].is_boolean(), "{body}");
    assert_eq!(body["field"].as_str(), field, "{body}");
}
