//! A node that the test plays: it joins, is told, and says what the test wants.

use std::collections::BTreeMap;

use skep_identity::grpc;
use skep_identity::keypair::{Credentials, KeyAndRequest};
use skep_identity::name::Role;
use skep_identity::tls::{ALPN_GRPC, Expected, Reloadable, client_config, pinned_client_config};
use skep_model::allocation::{Desired, Observed, State as Seen};
use skep_model::deployment::{BuildOutcome, Built};
use skep_model::id::NodeId;
use skep_model::node::Facts;
use skep_model::service::Image;
use skep_proto::convert::{enum_value, id_bytes};
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;
use tokio::sync::mpsc;

use super::world::*;

pub(crate) fn facts() -> Facts {
    Facts {
        cpu_millis: 2_000,
        memory_bytes: 4 << 30,
        builder: true,
        ingress_port: Some(80),
        ..Facts::default()
    }
}

/// A node that does what it is told, when the test says so.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) up: mpsc::Sender<v1::FromAgent>,
    pub(crate) down: tonic::Streaming<v1::ToAgent>,
    pub(crate) sequence: u64,
    pub(crate) credentials: Credentials,
}

pub(crate) async fn join(
    server: &Server,
    name: &str,
) -> Result<(NodeId, Credentials), tonic::Status> {
    let key = KeyAndRequest::generate().unwrap();
    let (id, reply) = ask_to_join(server, name, &key).await?;
    Ok((id, key.certified(reply.certificate_pem, reply.ca_pem)))
}

pub(crate) async fn ask_to_join(
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

impl Node {
    pub(crate) async fn connect(
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
            ..Default::default()
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

    pub(crate) async fn join(server: &Server, name: &str) -> Self {
        let (id, credentials) = join(server, name).await.unwrap();
        Self::connect(server, id, &credentials).await.unwrap()
    }

    pub(crate) async fn next(&mut self) -> v1::to_agent::Kind {
        let message = tokio::time::timeout(PATIENCE, self.down.message())
            .await
            .expect("the server says something");
        message.unwrap().expect("the session goes on").kind.unwrap()
    }

    /// The next message about work; acknowledgements on the way are passed over, tables applied.
    pub(crate) async fn desired(&mut self) -> v1::Desired {
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

    pub(crate) async fn say(&self, kind: v1::from_agent::Kind) {
        self.up
            .send(v1::FromAgent { kind: Some(kind) })
            .await
            .unwrap();
    }

    pub(crate) async fn routes(&self, applied_revision: u64, drained_revision: u64) {
        self.say(v1::from_agent::Kind::Routes(v1::RouteStatus {
            applied_revision,
            drained_revision,
            incarnation: 0,
        }))
        .await;
    }

    pub(crate) async fn observe(
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
            runtime_wedged: false,
        };
        self.say(v1::from_agent::Kind::Observed(set)).await;
    }

    pub(crate) async fn see(&mut self, allocation: Vec<u8>, state: Seen) {
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

    pub(crate) async fn built(&mut self, deployment: Vec<u8>) {
        let image = Image {
            reference: "app".into(),
            digest: "sha256:abc".into(),
            node: Some(self.id),
            shared: false,
            bundle: false,
            pushed: None,
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
    pub(crate) async fn take_start(&mut self) -> Vec<u8> {
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

pub(crate) fn is(assignment: &v1::Assignment, desired: Desired) -> bool {
    enum_value("desired", &Desired::ALL, assignment.desired) == Ok(desired)
}
