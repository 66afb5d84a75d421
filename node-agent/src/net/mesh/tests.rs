//! Two data planes' halves on loopback: real TLS, real HTTP/2, containers that are plain listeners.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use skep_identity::ca::{ClusterCa, Grant};
use skep_identity::keypair::KeyAndRequest;
use skep_identity::name::Identity;
use skep_ingress::files::Bundles;
use skep_ingress::{Backend, Ingress, Place, Route, Stream, Table};
use skep_model::id::{ClusterId, ServiceId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;

/// Far above what anything here takes.
const LIMIT: Duration = Duration::from_secs(20);
const SHOP: AllocationId = AllocationId::from_u128(7);

/// A cluster's CA.
struct Cluster(ClusterCa);

impl Cluster {
    fn new(id: u128) -> Self {
        Self(ClusterCa::generate(ClusterId::from_u128(id), SystemTime::now()).expect("a CA"))
    }

    /// What a node's agent tells its data plane.
    fn node(&self, id: u128) -> Credentials {
        let key = KeyAndRequest::generate().expect("a key");
        let grant = Grant {
            identity: Identity::node(self.0.cluster(), NodeId::from_u128(id)),
            addresses: &[],
            lifetime: Duration::from_secs(3_600),
        };
        let now = SystemTime::now();
        let certificate = self.0.issue(&key.csr_pem, &grant, now).expect("issued");
        key.certified(certificate, self.0.cert_pem().to_owned())
    }
}

/// The receiving half of a node.
struct There {
    mesh: Arc<Mesh>,
    address: String,
    shutdown: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

async fn there(cluster: &Cluster, node: u128) -> There {
    let mesh = Mesh::new();
    mesh.identify(&cluster.node(node)).expect("a node\'s");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("an address").to_string();
    let shutdown = CancellationToken::new();
    let served = serve(listener, mesh.clone(), shutdown.clone(), || LIMIT);
    There {
        mesh,
        address,
        shutdown,
        served: tokio::spawn(served),
    }
}

fn here(cluster: &Cluster, node: u128, there: &There, their: u128) -> Arc<Mesh> {
    let mesh = Mesh::new();
    mesh.identify(&cluster.node(node)).expect("a node\'s");
    let peers = [(NodeId::from_u128(their), there.address.clone())].into();
    mesh.publish(peers, HashMap::new());
    mesh
}

/// An app that answers each connection with what it was sent, until it has heard all of it.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    port
}

impl There {
    fn offers(&self, allocation: AllocationId) {
        let local = [(allocation, Local::At(Ipv4Addr::LOCALHOST.into()))].into();
        self.mesh.publish(HashMap::new(), local);
    }
}

fn far(node: u128, port: u16) -> Far {
    Far {
        node: NodeId::from_u128(node),
        allocation: SHOP,
        port,
    }
}

async fn reach(mesh: &Mesh, far: Far) -> std::io::Result<Box<dyn Stream>> {
    let reached = timeout(LIMIT, mesh.reach(far)).await.expect("in time")?;
    Ok(reached.stream)
}

async fn ask(stream: &mut Box<dyn Stream>, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = vec![0; text.len()];
    timeout(LIMIT, stream.read_exact(&mut answer))
        .await
        .expect("in time")
        .expect("answered");
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn streams_share_a_connection_and_end_on_their_own() {
    let cluster = Cluster::new(1);
    let there = there(&cluster, 2).await;
    there.offers(SHOP);
    let here = here(&cluster, 1, &there, 2);
    let port = echo().await;
    let mut first = reach(&here, far(2, port)).await.expect("reached");
    let mut second = reach(&here, far(2, port)).await.expect("reached");
    assert_eq!(ask(&mut first, "one").await, "one");
    assert_eq!(ask(&mut second, "two").await, "two");
    // Half closed: what is under way still comes.
    first.write_all(b"last").await.expect("sent");
    first.shutdown().await.expect("closed");
    let mut rest = String::new();
    timeout(LIMIT, first.read_to_string(&mut rest))
        .await
        .expect("in time")
        .expect("to its end");
    assert_eq!(rest, "last");
    assert_eq!(ask(&mut second, "three").await, "three");
    drop(first);
    assert_eq!(here.counters().out.load(Ordering::Relaxed), 1);
    // A slow reader holds its own stream up, not the other.
    let mut slow = reach(&here, far(2, port)).await.expect("reached");
    let lot = vec![7; 64 << 20];
    let blocked = timeout(Duration::from_millis(300), slow.write_all(&lot)).await;
    assert!(blocked.is_err(), "64 MiB went into buffers");
    assert_eq!(ask(&mut second, "four").await, "four");
}

#[tokio::test]
async fn only_what_is_fit_for_traffic_there_is_reached_and_only_by_nodes_of_the_cluster() {
    let cluster = Cluster::new(1);
    let there = there(&cluster, 2).await;
    let mesh = here(&cluster, 1, &there, 2);
    let port = echo().await;
    let error = |opened: std::io::Result<Box<dyn Stream>>| {
        let error = opened.err().expect("not reached");
        assert_eq!(error.kind(), ErrorKind::Other);
        crate::error_chain(&error)
    };
    let why = error(reach(&mesh, far(2, port)).await);
    assert!(why.contains("not fit for traffic"), "{why}");
    there.offers(SHOP);
    reach(&mesh, far(2, port)).await.expect("reached");
    // Nobody listens on port 1.
    let why = error(reach(&mesh, far(2, 1)).await);
    assert!(why.contains("took no connection"), "{why}");
    // The table names another node at that address.
    let mistaken = here(&cluster, 1, &there, 3);
    error(reach(&mistaken, far(3, port)).await);
    let stranger = here(&Cluster::new(1), 1, &there, 2);
    error(reach(&stranger, far(2, port)).await);
    assert_eq!(stranger.counters().failed.load(Ordering::Relaxed), 1);
    let nobody = Mesh::new();
    error(reach(&nobody, far(2, port)).await);
}

#[tokio::test]
async fn a_successor_takes_new_streams_and_old_ones_are_finished() {
    let cluster = Cluster::new(1);
    let older = there(&cluster, 2).await;
    older.offers(SHOP);
    let here = here(&cluster, 1, &older, 2);
    let port = echo().await;
    let reached = timeout(LIMIT, here.reach(far(2, port))).await;
    let reached = reached.expect("in time").expect("reached");
    let (mut open, leaving) = (reached.stream, reached.leaving);
    assert_eq!(ask(&mut open, "one").await, "one");
    assert!(!leaving.is_cancelled());
    older.shutdown.cancel();
    timeout(LIMIT, leaving.cancelled()).await.expect("told");
    // The same address, another process.
    let next = loop {
        let bound = std::net::TcpListener::bind(&older.address);
        match bound {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    next.set_nonblocking(true).expect("set");
    let mesh = Mesh::new();
    mesh.identify(&cluster.node(2)).expect("a node\'s");
    mesh.publish(
        HashMap::new(),
        [(SHOP, Local::At(Ipv4Addr::LOCALHOST.into()))].into(),
    );
    let served = tokio::spawn(serve(next, mesh.clone(), CancellationToken::new(), || {
        LIMIT
    }));
    let mut fresh = reach(&here, far(2, port)).await.expect("reached");
    assert_eq!(ask(&mut fresh, "two").await, "two");
    assert_eq!(mesh.counters().within.load(Ordering::Relaxed), 1);
    assert_eq!(ask(&mut open, "three").await, "three");
    drop(open);
    let ended = timeout(LIMIT, older.served).await.expect("in time");
    ended.expect("no panic").expect("ended well");
    served.abort();
}

#[tokio::test]
async fn files_of_another_node_are_asked_for_over_its_data_plane() {
    let cluster = Cluster::new(1);
    let there = there(&cluster, 2).await;
    let folder = tempfile::tempdir().expect("a folder");
    let large = "0123456789abcdef".repeat(20_000);
    let files = [("index.html", "hello"), ("large.txt", &*large)];
    crate::testing::unpack(folder.path(), &files);
    let bundle = Bundles::default().open(folder.path()).expect("a bundle");
    let local = [(SHOP, Local::Files(bundle))].into();
    there.mesh.publish(HashMap::new(), local);
    let here = here(&cluster, 1, &there, 2);
    let ingress = Ingress::reaching(Default::default(), Default::default(), here.clone(), None);
    let place = Place::There {
        node: NodeId::from_u128(2),
        port: 80,
    };
    ingress.publish(Table {
        revision: 1,
        routes: vec![Route {
            host: "site.test".to_owned(),
            path_prefix: "/".to_owned(),
            service: ServiceId::from_u128(1),
            name: "site".to_owned(),
            backends: vec![Backend {
                allocation: SHOP,
                place,
            }],
            sleeps: false,
            rules: None,
            parts: Vec::new(),
            tried: Vec::new(),
        }],
        ..Table::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let shutdown = CancellationToken::new();
    let until = shutdown.clone();
    let served = tokio::spawn(async move { ingress.serve(listener, until).await });
    for (path, body) in [
        ("/", "hello"),
        ("/large.txt", &*large),
        ("/index.html", "hello"),
    ] {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let ask = format!("GET {path} HTTP/1.1\r\nhost: site.test\r\nconnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        let read = timeout(LIMIT, stream.read_to_string(&mut answer)).await;
        read.expect("in time").expect("to its end");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with(body), "{path}: {} bytes", answer.len());
    }
    // One stream carried them all.
    assert_eq!(there.mesh.counters().within.load(Ordering::Relaxed), 1);
    shutdown.cancel();
    served.await.expect("no panic");
}
