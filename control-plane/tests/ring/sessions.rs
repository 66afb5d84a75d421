//! Who is let in, and who is cut off.

use skep_identity::grpc;
use skep_identity::keypair::KeyAndRequest;
use skep_identity::name::Role;
use skep_identity::tls::{ALPN_GRPC, Expected, Reloadable, client_config, pinned_client_config};
use skep_model::deployment::Trigger;
use skep_model::id::NodeId;
use skep_model::node::NodeStatus;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::agents_client::AgentsClient;
use skep_proto::v1::command::Kind;

use super::node::*;
use super::world::*;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_a_build_that_went_elsewhere_are_taken_and_the_session_goes_on() {
    let server = Server::start().await;
    put_service(&server).await;
    let mut nodes = [
        Node::join(&server, "one").await,
        Node::join(&server, "two").await,
    ];
    for node in &mut nodes {
        assert!(node.desired().await.full);
    }
    let deployment = server.deploy(Trigger::Api, image()).await;
    let builder_of = |view: &skep_state::State| {
        let build = view.deployment(deployment)?.build.as_ref()?;
        Some(build.node)
    };
    server
        .until("a builder", |view| builder_of(view).is_some())
        .await;
    let builder = builder_of(&server.store.view());
    let other = nodes.iter_mut().find(|node| Some(node.id) != builder);
    let other = other.expect("two nodes, one builder");
    for first in 0..2 {
        let log = v1::BuildLog {
            deployment: id_bytes(deployment.as_u128()),
            first,
            lines: vec!["what it had still to say".into()],
            run: Vec::new(),
        };
        other.say(v1::from_agent::Kind::BuildLog(log)).await;
        let next = loop {
            if let v1::to_agent::Kind::BuildLogAck(ack) = other.next().await {
                break ack.next;
            }
        };
        assert_eq!(next, first + 1, "it is not said again");
    }
}
