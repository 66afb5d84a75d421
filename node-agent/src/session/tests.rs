mod support;

use std::time::SystemTime;

use skep_identity::ca::{ClusterCa, Grant};
use skep_identity::grpc;
use skep_identity::name::Identity;
use skep_model::allocation::Observed;
use skep_model::deployment::BuildOutcome;
use skep_model::id::{NodeId, ServerId};
use skep_model::node::Facts;
use skep_model::problem::{Code, Problem};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::agents_server::AgentsServer;
use skep_proto::v1::from_agent::Kind as Up;
use skep_proto::v1::to_agent::Kind as Said;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::*;

use support::*;

#[tokio::test]
async fn desired_sets_go_forward_only() {
    let mut world = world(Some(generation(5)));
    world.outbox.set_facts(facts());
    let mut seat = world.seat().await;
    let hello = seat.hello().await;
    assert_eq!(hello.held, Some(generation(5).into()));
    assert_eq!(hello.facts.expect("facts").hostname, "h");

    seat.say(Said::Desired(desired(true, 0, 7))).await;
    assert!(world.take(true).await.full);
    seat.say(Said::Desired(desired(false, 7, 9))).await;
    let delta = world.take(true).await;
    assert_eq!((delta.full, delta.set.generation), (false, generation(9)));

    // A delta on something else: the session is begun anew, and says what is held.
    seat.say(Said::Desired(desired(false, 8, 10))).await;
    let mut seat = world.seat().await;
    assert_eq!(seat.hello().await.held, Some(generation(9).into()));
    // An older full set is refused too.
    seat.say(Said::Desired(desired(true, 0, 8))).await;
    let mut seat = world.seat().await;
    assert_eq!(seat.hello().await.held, Some(generation(9).into()));
    // What could not be stored is not held.
    seat.say(Said::Desired(desired(true, 0, 11))).await;
    world.take(false).await;
    let mut seat = world.seat().await;
    assert_eq!(seat.hello().await.held, Some(generation(9).into()));
    let mut foreign = desired(true, 0, 12);
    foreign.set.as_mut().expect("set").cluster = id_bytes(99);
    seat.say(Said::Desired(foreign)).await;
    world.seat().await.hello().await;
    while let Ok(down) = world.down.try_recv() {
        assert!(matches!(down, Down::Ended), "nothing refused got through");
    }
}

#[tokio::test]
async fn observations_are_full_first_then_deltas_until_acknowledged() {
    let mut world = world(None);
    let (one, two) = (AllocationId::from_u128(1), AllocationId::from_u128(2));
    world.outbox.set_facts(facts());
    let mut seat = world.seat().await;
    assert_eq!(seat.hello().await.held, None);
    // Nothing is said before the containers are known, but that Docker is away.
    world.outbox.observe(one, healthy());
    world.outbox.set_runtime(Condition::Wedged);
    let away = seat.observed().await;
    assert_eq!(
        (away.full, away.runtime_ok, away.allocations.len()),
        (false, false, 0)
    );
    assert!(away.runtime_wedged);
    world.outbox.set_ready();
    world.outbox.set_runtime(Condition::Works);
    let full = seat.observed().await;
    assert!(full.full && full.runtime_ok && full.allocations.len() == 1);

    world.outbox.observe(two, Observed::pending());
    let delta = seat.observed().await;
    assert!(!delta.full && delta.sequence > full.sequence);
    assert_eq!(delta.allocations[0].allocation, id_bytes(2));
    seat.say(Said::ObservedAck(v1::ObservedAck {
        sequence: full.sequence,
    }))
    .await;
    world.outbox.observe(two, Observed::pending());
    world.outbox.observe(two, healthy());
    let newest = seat.observed().await;
    assert_eq!(newest.allocations[0].observed, Some((&healthy()).into()));
    // The server forgot what it did not acknowledge: everything again.
    drop(seat);
    let mut seat = world.seat().await;
    seat.hello().await;
    let full = seat.observed().await;
    assert!(full.full && full.allocations.len() == 2);
}

#[tokio::test]
async fn build_lines_come_before_the_outcome_and_again_until_kept() {
    let mut world = world(None);
    let deployment = DeploymentId::from_u128(3);
    let problem = Problem::new(Code::BuildFailed, "no");
    world.outbox.begin_build(deployment, 77);
    world.outbox.build_line(deployment, "one".into());
    world.outbox.build_line(deployment, "two".into());
    world
        .outbox
        .finish_build(deployment, BuildOutcome::Failed(problem));
    world.outbox.set_ready();
    world.outbox.set_runtime(Condition::Works);
    world.outbox.set_facts(facts());
    let mut seat = world.seat().await;
    seat.hello().await;
    let Up::BuildLog(lines) = seat.hear().await else {
        panic!("lines first");
    };
    assert_eq!((lines.first, lines.lines.len()), (0, 2));
    assert_eq!(lines.run, id_bytes(77));
    assert_eq!(seat.observed().await.builds.len(), 1);
    let ack = v1::BuildLogAck {
        deployment: id_bytes(3),
        next: 1,
        run: lines.run,
    };
    // Of another run of the build: says nothing of this one's lines.
    let stale = v1::BuildLogAck {
        next: 2,
        run: id_bytes(76),
        ..ack.clone()
    };
    seat.say(Said::BuildLogAck(stale)).await;
    seat.say(Said::BuildLogAck(ack)).await;
    seat.say(Said::Desired(desired(true, 0, 1))).await;
    world.take(true).await;
    drop(seat);
    let mut seat = world.seat().await;
    seat.hello().await;
    let Up::BuildLog(lines) = seat.hear().await else {
        panic!("what is not kept comes again");
    };
    assert_eq!((lines.first, lines.lines), (1, vec!["two".to_owned()]));
}

#[tokio::test]
async fn changed_facts_are_told_by_a_new_greeting() {
    let mut world = world(None);
    world.outbox.set_facts(facts());
    world.seat().await.hello().await;
    let facts = Facts {
        ingress_port: Some(8_000),
        ..facts()
    };
    world.outbox.set_facts(facts);
    let hello = world.seat().await.hello().await;
    assert_eq!(hello.facts.expect("facts").ingress_port, Some(8_000));
}

#[tokio::test]
async fn a_server_that_is_gone_is_left_for_the_next_one() {
    let dir = tempfile::tempdir().expect("folder");
    let mut servers = Vec::new();
    for name in ["a", "b"] {
        let path = dir.path().join(name).join("server.sock");
        let stop = CancellationToken::new();
        let bound = grpc::bind_uds(&path).expect("bind");
        let incoming = grpc::incoming_uds(bound, stop.clone()).expect("serve");
        let (seat, seats) = mpsc::channel(8);
        let service = AgentsServer::new(Server {
            seats: seat,
            ca: None,
        });
        let serve = tonic::transport::Server::builder().add_service(service);
        servers.push((
            seats,
            tokio::spawn(serve.serve_with_incoming(incoming)),
            stop,
        ));
    }
    let folder = dir.path().to_owned();
    let dial = move |address: &str| {
        let name = address.trim_end_matches(":1");
        Ok(grpc::channel_uds(&folder.join(name).join("server.sock")))
    };
    let configured = vec!["a:1".to_owned(), "b:1".to_owned()];
    let chosen = Servers::new(configured, Vec::new(), dial).expect("addresses");
    // For its logs alone: two sessions must not share what goes up.
    let world = world(None);
    let outbox = Arc::new(Outbox::default());
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let session = Session {
        lease: tokio::sync::watch::Sender::new(None),
        logins: Default::default(),
        certificates: Default::default(),
        servers: chosen.clone(),
        cluster: CLUSTER,
        outbox: outbox.clone(),
        down: mpsc::channel(8).0,
        logs: world.logs.clone(),
        shells: world.shells.clone(),
        witness: witness(&chosen, &outbox, &stop),
        checks: checks(&world.runtime, &outbox, &stop),
        sources: sources(&outbox, &stop),
        registries: registries(&outbox, &stop),
        held: None,
        metrics: Metrics::default(),
        seat: Arc::new(
            crate::seat::Seat::draw(dir.path(), &Default::default(), false).expect("seat"),
        ),
        credentials: credentials(),
    };
    tokio::spawn(session.run(stop));
    outbox.set_facts(facts());
    let first = timeout(PATIENCE, servers[0].0.recv())
        .await
        .expect("in time");
    assert_eq!(chosen.address(), "a:1");
    servers[0].2.cancel();
    servers[0].1.abort();
    drop(first);
    let second = timeout(PATIENCE, servers[1].0.recv())
        .await
        .expect("in time");
    second.expect("a session").hello().await;
    assert_eq!(chosen.address(), "b:1");
}

#[tokio::test]
async fn uploads_arrive_or_say_why_not() {
    use crate::build::Uploads;
    let world = world(None);
    let uploads = ServerUploads {
        servers: world.servers.clone(),
    };
    let upload = skep_model::id::UploadId::from_u128(1);
    let mut chunks = uploads.fetch(upload).await.expect("begins");
    let mut got = Vec::new();
    let problem = loop {
        match chunks.next().await.expect("more") {
            Ok(bytes) => got.extend_from_slice(&bytes),
            Err(problem) => break problem,
        }
    };
    assert_eq!(got, b"abc");
    assert!(problem.to_string().contains("upload again"), "{problem}");
}

#[test]
fn a_build_that_floods_is_cut_and_says_so() {
    let mut logs = build_log::BuildLogs::default();
    let id = DeploymentId::from_u128(1);
    logs.begin(id, 1);
    for line in 0..5_000 {
        logs.push(id, format!("{line}"));
    }
    let mut next = 0;
    let mut last = String::new();
    while let Some(message) = logs.next() {
        assert_eq!(message.first, next, "no gap in the numbers");
        next += message.lines.len() as u64;
        last.clone_from(message.lines.last().expect("lines"));
        logs.acknowledge(id, &id_bytes(1), next);
    }
    assert_eq!(
        last,
        "... 904 lines were left out here: the server took them too slowly ..."
    );
    assert_eq!(next, 4_097);
}

#[test]
fn each_run_of_a_build_counts_from_0() {
    let mut logs = build_log::BuildLogs::default();
    let id = DeploymentId::from_u128(1);
    for run in 1..3 {
        logs.begin(id, run);
        logs.push(id, format!("of run {run}"));
        let message = logs.next().expect("a line");
        assert_eq!((message.first, message.run), (0, id_bytes(run)));
        assert_eq!(message.lines, [format!("of run {run}")]);
    }
}

#[tokio::test]
async fn a_node_joins_once_and_is_itself_ever_after() {
    use skep_identity::keypair::KeyAndRequest;
    use skep_identity::tls::{self, ALPN_GRPC, ClientAuth, Reloadable};
    use skep_identity::token::JoinToken;

    let ca = Arc::new(ClusterCa::generate(CLUSTER, SystemTime::now()).expect("ca"));
    let key = KeyAndRequest::generate().expect("key");
    let grant = Grant {
        identity: Identity::server(CLUSTER, ServerId::from_u128(1)),
        addresses: &[],
        lifetime: Duration::from_secs(3_600),
    };
    let cert = ca
        .issue(&key.csr_pem, &grant, SystemTime::now())
        .expect("issue");
    let server = Reloadable::new(&key.certified(cert, ca.cert_pem().to_owned())).expect("server");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let config = tls::server_config(&server, ClientAuth::Optional, ALPN_GRPC);
    let incoming = grpc::incoming(listener, config, stop.clone());
    let (seats, _) = mpsc::channel(1);
    let service = AgentsServer::new(Server {
        seats,
        ca: Some(ca.clone()),
    });
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );

    let dir = tempfile::tempdir().expect("folder");
    let token = JoinToken::generate(ca.fingerprint(), skep_model::id::TokenId::from_u128(1));
    let options = |name: &str, token: Option<String>| crate::Options {
        tools: Default::default(),
        data_dir: dir.path().join("agent"),
        server: address.clone(),
        join_token: token,
        name: name.into(),
        docker_socket: "/none".into(),
        net_socket: "/none".into(),
        metrics_addr: "127.0.0.1:0".parse().expect("address"),
        stop_on_exit: false,
        builder: false,
        meta: Default::default(),
        images: Default::default(),
        memory_bytes: None,
        moved: false,
        devices: Default::default(),
        host_paths: Vec::new(),
        shared_storage: Default::default(),
        secrets_dir: "/none".into(),
        volume_command: None,
        log_budget_bytes: 0,
        ship_logs_to: Vec::new(),
        private_network: None,
    };
    let start = |options| async { crate::Agent::start(options, &stop).await };
    let text = || Some(token.to_text().to_string());
    let error = start(options("n1", None)).await.expect_err("no token");
    assert!(crate::error_chain(&error).contains("give a join token"));
    let error = start(options("n2", text())).await.expect_err("refused");
    assert!(crate::error_chain(&error).contains("the name is taken"));
    let joined = start(options("n1", text())).await.expect("joins");
    assert_eq!(joined.node(), NodeId::from_u128(5));
    drop(joined);
    let again = start(options("n1", None)).await.expect("has its identity");
    assert_eq!(again.node(), NodeId::from_u128(5));
}

#[tokio::test]
async fn whoever_asks_it_to_knock_hears_what_it_found_in_the_same_session() {
    let mut world = world(None);
    world.outbox.set_facts(facts());
    let mut seat = world.seat().await;
    seat.hello().await;
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        listener.expect("a port").local_addr().expect("an address")
    };
    let target = |address: &str, identify| v1::ProbeTarget {
        node: id_bytes(9),
        address: address.to_owned(),
        also_port: 0,
        identify,
    };
    let closed = closed.to_string();
    let targets = vec![
        target(&closed, false),
        target(&closed, true),
        target("nowhere", false),
    ];
    let request = 7;
    seat.say(Said::Probe(v1::Probe { request, targets })).await;
    let probed = loop {
        match seat.hear().await {
            Up::Probed(probed) => break probed,
            Up::Observed(_) => {}
            other => panic!("{other:?}"),
        }
    };
    use skep_model::probe::Reach;
    assert_eq!(probed.request, request);
    assert_eq!(
        skep_proto::convert::reaches_of(&probed.found),
        [Reach::Answered, Reach::Unknown, Reach::Unknown],
        "a refusal is a sign of life, and nobody's identity"
    );
}

#[tokio::test]
async fn whoever_asks_it_to_dial_others_hears_which_answered() {
    let mut world = world(None);
    world.outbox.set_facts(facts());
    let mut seat = world.seat().await;
    seat.hello().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let open = listener.local_addr().expect("an address").to_string();
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let address = listener.expect("a port").local_addr();
        address.expect("an address").to_string()
    };
    let door = |address: &str| v1::NetworkDoor {
        node: id_bytes(9),
        address: address.to_owned(),
    };
    let ask = v1::NetworkAsk {
        request: 7,
        doors: [&*closed, &*open, "nowhere", "host.invalid:1"]
            .map(door)
            .into(),
        pool: "10.201.0.0/16".into(),
    };
    seat.say(Said::NetworkAsk(ask)).await;
    // Takes the connection, and is nobody of the cluster.
    let (stranger, _) = listener.accept().await.expect("dialed");
    drop(stranger);
    let found = loop {
        match seat.hear().await {
            Up::NetworkFound(found) => break found,
            Up::Observed(_) => {}
            other => panic!("{other:?}"),
        }
    };
    use skep_model::network_check::{Dialed, Found};
    assert_eq!(found.request, 7);
    let found = Found::from(found);
    assert_eq!(
        found.dialed,
        [
            Dialed::Refused,
            Dialed::Stranger,
            Dialed::NoName,
            Dialed::NoName
        ]
    );
    assert_eq!(found.own.pool, None);
}

#[tokio::test]
async fn an_agent_that_ends_ends_its_session_in_order() {
    let mut world = world(None);
    world.outbox.set_facts(facts());
    let mut seat = world.seat().await;
    seat.hello().await;
    world.stop.cancel();
    let end = async {
        loop {
            // A stream that broke would be an error.
            if seat
                .up
                .message()
                .await
                .expect("ended, not broken")
                .is_none()
            {
                return;
            }
        }
    };
    timeout(PATIENCE, end).await.expect("in time");
}
