//! Connections of any protocol between real sockets: by port and by name, to their own ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ppp::v2::{Addresses, Header};
use skep_model::id::{AllocationId, ServiceId};
use skep_model::tcp::{Door, TlsMode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::support::{SOON, crew, dead_address};
use crate::metrics::TcpSnapshot;
use crate::reach::NoWay;
use crate::{Backend, Closed, Ingress, Options, Place, Table, TcpRoute};

/// Reads a line, answers `name:line`, and so on; at the client's end it says `bye` and ends.
async fn talk(name: &str, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => {
                let answer = [name.as_bytes(), b":", &line, b"\n"].concat();
                line.clear();
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
            Ok(byte) => line.push(byte),
            Err(_) => break,
        }
    }
    let _ = stream.write_all(b"bye\n").await;
    let _ = stream.shutdown().await;
}

/// An app that talks; aborted when dropped.
pub(super) struct Talker {
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn talker(name: &'static str, tls: Option<TlsAcceptor>) -> Talker {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            match tls.clone() {
                Some(tls) => connections.spawn(async move {
                    if let Ok(stream) = tls.accept(stream).await {
                        talk(name, stream).await;
                    }
                }),
                None => connections.spawn(talk(name, stream)),
            };
        }
    });
    Talker { address, task }
}

/// A port that nobody has now.
async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound").port()
}

pub(super) fn tcp(door: Door, backends: &[SocketAddr]) -> TcpRoute {
    let backend = |address: &SocketAddr| Backend {
        allocation: AllocationId::from_u128(u128::from(address.port())),
        place: Place::Here(*address),
    };
    TcpRoute {
        door,
        proxy_protocol: false,
        service: ServiceId::from_u128(1),
        name: "db".to_owned(),
        backends: backends.iter().map(backend).collect(),
    }
}

pub(super) fn named(host: &str, tls: TlsMode, backends: &[SocketAddr]) -> TcpRoute {
    let host = host.to_owned();
    tcp(Door::Sni { host, tls }, backends)
}

pub(super) fn table(revision: u64, tcp: Vec<TcpRoute>) -> Table {
    Table {
        revision,
        tcp,
        ..Table::default()
    }
}

/// An ingress that serves entries.
struct Served {
    ingress: Ingress,
    shutdown: CancellationToken,
    task: JoinHandle<Closed>,
}

fn serve(options: Options) -> Served {
    let ingress = Ingress::reaching(options, crew(), Arc::new(NoWay), None);
    let (serving, shutdown) = (ingress.clone(), CancellationToken::new());
    let token = shutdown.clone();
    let task = tokio::spawn(async move {
        let never = (CancellationToken::new(), Duration::ZERO);
        let at = ([127, 0, 0, 1].into(), Vec::new());
        serving.serve_entries(at, token, never).await
    });
    Served {
        ingress,
        shutdown,
        task,
    }
}

impl Served {
    async fn drained(&self, revision: u64) {
        let mut status = self.ingress.status();
        let wait = status.wait_for(|status| status.drained_revision >= revision);
        timeout(SOON, wait)
            .await
            .expect("drained in time")
            .expect("lives");
    }

    fn drained_now(&self) -> u64 {
        self.ingress.status().borrow().drained_revision
    }

    /// The counters once they say this.
    async fn counted(&self, wanted: impl Fn(&TcpSnapshot) -> bool) -> TcpSnapshot {
        let look = async {
            loop {
                let counted = self.ingress.metrics().services[0].tcp;
                if wanted(&counted) {
                    return counted;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, look).await.expect("counted in time")
    }
}

/// Once somebody listens there.
async fn dial(port: u16) -> TcpStream {
    let dial = async {
        loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, dial).await.expect("listened on in time")
}

pub(super) async fn say(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), word: &str) -> String {
    stream.write_all(word.as_bytes()).await.expect("sent");
    stream.write_all(b"\n").await.expect("sent");
    let mut answer = Vec::new();
    let read = async {
        while answer.last() != Some(&b'\n') {
            answer.push(stream.read_u8().await.expect("an answer"));
        }
    };
    timeout(SOON, read).await.expect("answered in time");
    String::from_utf8(answer).expect("text").trim().to_owned()
}

pub(super) async fn rest(mut stream: impl AsyncRead + Unpin) -> std::io::Result<String> {
    let mut text = String::new();
    let read = timeout(SOON, stream.read_to_string(&mut text)).await;
    read.expect("ends in time").map(|_| text)
}

#[tokio::test]
async fn an_entry_leads_to_a_service_and_each_side_ends_its_own_half() {
    let app = talker("a", None).await;
    let served = serve(Options::default());
    let port = free_port().await;
    served
        .ingress
        .publish(table(1, vec![tcp(Door::Entry(port), &[app.address])]));
    let mut stream = dial(port).await;
    assert_eq!(say(&mut stream, "hi").await, "a:hi");
    let open = served.counted(|it| it.sent_bytes == 5).await;
    assert_eq!((open.open, open.received_bytes), (1, 3));
    // What the app says after our end still comes.
    stream.shutdown().await.expect("shut");
    assert_eq!(rest(stream).await.expect("a good end"), "bye\n");
    let over = served.counted(|it| it.open == 0).await;
    assert_eq!((over.total, over.failed, over.sent_bytes), (1, 0, 9));
    served.shutdown.cancel();
    assert_eq!(served.task.await.expect("ended"), Closed { cut: 0 });
}

#[tokio::test]
async fn a_dead_backend_costs_nothing_while_there_is_another_and_a_reset_without() {
    let app = talker("a", None).await;
    let served = serve(Options::default());
    let port = free_port().await;
    let publish = |revision, backends: &[SocketAddr]| {
        let route = tcp(Door::Entry(port), backends);
        served.ingress.publish(table(revision, vec![route]));
    };
    publish(1, &[dead_address(), dead_address(), app.address]);
    for _ in 0..20 {
        let mut stream = dial(port).await;
        assert_eq!(say(&mut stream, "hi").await, "a:hi");
    }
    for (revision, backends) in [(2, vec![dead_address()]), (3, Vec::new())] {
        publish(revision, &backends);
        let refused = rest(dial(port).await).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    let counted = served.counted(|it| it.failed == 2 && it.open == 0).await;
    assert_eq!(counted.total, 20);
}

#[tokio::test]
async fn connections_go_where_there_are_fewer() {
    let (one, other) = (talker("a", None).await, talker("b", None).await);
    let served = serve(Options::default());
    let port = free_port().await;
    let route = tcp(Door::Entry(port), &[one.address, other.address]);
    served.ingress.publish(table(1, vec![route]));
    let mut held = Vec::new();
    let mut names = Vec::new();
    for _ in 0..10 {
        let mut stream = dial(port).await;
        names.push(say(&mut stream, "").await);
        held.push(stream);
    }
    assert_eq!(names.iter().filter(|name| *name == "a:").count(), 5);
}

#[tokio::test]
async fn a_removed_backend_is_drained_when_its_connections_have_ended() {
    let (old, new) = (talker("old", None).await, talker("new", None).await);
    let served = serve(Options::default());
    let port = free_port().await;
    let route = |address| vec![tcp(Door::Entry(port), &[address])];
    served.ingress.publish(table(1, route(old.address)));
    let mut stream = dial(port).await;
    assert_eq!(say(&mut stream, "1").await, "old:1");
    served.ingress.publish(table(2, route(new.address)));
    assert_eq!(served.drained_now(), 1);
    assert_eq!(say(&mut dial(port).await, "1").await, "new:1");
    // The entry itself goes: it takes no more, and what is open goes on.
    served.ingress.publish(table(3, Vec::new()));
    let closed = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, closed).await.expect("closed in time");
    assert_eq!(say(&mut stream, "2").await, "old:2");
    assert_eq!(served.drained_now(), 1);
    stream.shutdown().await.expect("shut");
    assert_eq!(rest(stream).await.expect("a good end"), "bye\n");
    served.drained(3).await;
}

#[tokio::test]
async fn an_entry_that_is_taken_is_told_and_tried_again() {
    let app = talker("a", None).await;
    let served = serve(Options::default());
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let route = tcp(Door::Entry(port), &[app.address]);
    served.ingress.publish(table(1, vec![route]));
    let mut unbound = served.ingress.unbound_entries();
    let told = unbound.wait_for(|ports| ports.contains(&port));
    drop(timeout(SOON, told).await.expect("told").expect("lives"));
    drop(taken);
    assert_eq!(say(&mut dial(port).await, "hi").await, "a:hi");
    let over = unbound.wait_for(|ports| ports.is_empty());
    drop(timeout(SOON, over).await.expect("told").expect("lives"));
}

#[tokio::test]
async fn listeners_of_entries_go_to_a_successor() {
    let app = talker("a", None).await;
    let served = serve(Options::default());
    let port = free_port().await;
    let tables = || table(1, vec![tcp(Door::Entry(port), &[app.address])]);
    served.ingress.publish(tables());
    drop(dial(port).await);
    let given = served.ingress.entry_listeners().expect("handles");
    assert_eq!(given.len(), 1);
    served.shutdown.cancel();
    served.task.await.expect("ended");
    // Nobody accepts, and nobody is turned away.
    let mut waiting = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("waits");
    let next = Ingress::new(Options::default());
    next.publish(tables());
    let serving = next.clone();
    let never = (CancellationToken::new(), Duration::ZERO);
    tokio::spawn(async move {
        let at = ([127, 0, 0, 1].into(), given);
        serving
            .serve_entries(at, CancellationToken::new(), never)
            .await
    });
    assert_eq!(say(&mut waiting, "hi").await, "a:hi");
}

#[tokio::test]
async fn silence_in_both_directions_ends_a_connection() {
    let app = talker("a", None).await;
    let served = serve(Options {
        tcp_idle_timeout: Duration::from_secs(2),
        ..Options::default()
    });
    let port = free_port().await;
    let route = tcp(Door::Entry(port), &[app.address]);
    served.ingress.publish(table(1, vec![route]));
    let mut stream = dial(port).await;
    // Longer in all than the limit, and each far below it: a busy machine is late.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(say(&mut stream, "hi").await, "a:hi");
    }
    assert!(rest(stream).await.is_err(), "it is cut");
    served.counted(|it| it.open == 0).await;
}

#[tokio::test]
async fn a_service_is_told_whose_a_connection_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let served = serve(Options::default());
    let port = free_port().await;
    let route = TcpRoute {
        proxy_protocol: true,
        ..tcp(Door::Entry(port), &[address])
    };
    served.ingress.publish(table(1, vec![route]));
    let mut client = dial(port).await;
    client.write_all(b"hello").await.expect("sent");
    let (mut stream, _) = timeout(SOON, listener.accept())
        .await
        .expect("dialed")
        .expect("taken");
    let mut bytes = vec![0; 28 + 5];
    timeout(SOON, stream.read_exact(&mut bytes))
        .await
        .expect("in time")
        .expect("a header");
    let header = Header::try_from(&bytes[..28]).expect("a header");
    let Addresses::IPv4(told) = header.addresses else {
        panic!("{header:?}")
    };
    let own = client.local_addr().expect("bound");
    assert_eq!(
        (told.source_port, told.destination_port),
        (own.port(), port)
    );
    assert_eq!(&bytes[28..], b"hello");
}
