//! Certificates that ran out, and a CA that is replaced, while sessions go on.

use std::time::{Duration, SystemTime};

use skep_identity::ca::{ClusterCa, Grant};
use skep_identity::key_id::KeyId;
use skep_identity::keypair::{Credentials, KeyAndRequest};
use skep_identity::name::{Identity, Role};
use skep_identity::tls::{ALPN_GRPC, Expected, Reloadable, anonymous_client_config, client_config};
use skep_identity::{grpc, renewal};
use skep_model::id::{NodeId, ServerId};
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;
use skep_proto::v1::command::Kind;
use tonic::transport::Channel;

use super::node::*;
use super::world::*;

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
        v1::from_agent::Kind::Heartbeat(v1::Heartbeat { ca, number: 0 })
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
