//! Backends that fail: what is retried, what is not, what the client is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::support::{App, HOST, Reply, Served, dead_address, serve_one};
use crate::Options;

#[tokio::test]
async fn a_dead_backend_costs_no_request_while_another_lives() {
    let app = App::start("a").await;
    let served = serve_one(Options::default(), &[dead_address(), app.address]).await;
    for number in 0..40 {
        let mut client = served.client().await;
        let reply = client
            .send(Request::post("/echo").header("host", HOST), "body")
            .await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (StatusCode::OK, "body"),
            "request {number}"
        );
    }
    assert_eq!(app.served(), 40);
}

#[tokio::test]
async fn without_a_living_backend_the_client_is_told_why() {
    let served = serve_one(Options::default(), &[dead_address(), dead_address()]).await;
    let reply = served.get(HOST, "/").await;
    assert_eq!(
        (reply.status, reply.code()),
        (StatusCode::BAD_GATEWAY, Some("connect_failed"))
    );
    served.ingress.publish(super::support::table(2, &[]));
    let reply = served.get(HOST, "/").await;
    assert_eq!(
        (reply.status, reply.code()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("no_backend"))
    );
    assert_eq!(reply.headers["retry-after"], "1");
    let metrics = served.ingress.metrics();
    assert_eq!(metrics.services[0].requests, [0, 0, 0, 0, 2, 0]);
    assert!(
        metrics.refusals.contains(&("connect_failed", 1))
            && metrics.refusals.contains(&("no_backend", 1))
    );
}

/// A table whose only service scales to zero.
fn asleep(revision: u64, backends: &[std::net::SocketAddr]) -> crate::Table {
    let mut table = super::support::table(revision, backends);
    table.routes[0].sleeps = backends.is_empty();
    table
}

/// A request that waits, once it shows as in flight: that is how somebody learns that the service is
/// wanted.
async fn held_request(served: &Arc<Served>) -> JoinHandle<Reply> {
    let own = Arc::clone(served);
    let waiting = tokio::spawn(async move { own.get(HOST, "/").await });
    let shown = async {
        while served.ingress.metrics().services[0].in_flight != 1 {
            tokio::task::yield_now().await;
        }
    };
    let shown = tokio::time::timeout(Duration::from_secs(10), shown).await;
    shown.expect("a request that waits is in flight");
    waiting
}

#[tokio::test]
async fn a_request_to_a_service_that_sleeps_waits_for_its_first_backend() {
    let app = App::start("a").await;
    let served = Arc::new(serve_one(Options::default(), &[]).await);
    served.ingress.publish(asleep(2, &[]));
    let waiting = held_request(&served).await;
    served.ingress.publish(asleep(3, &[]));
    assert!(
        !waiting.is_finished(),
        "a table that brings none wakes nobody"
    );
    served.ingress.publish(asleep(4, &[app.address]));
    assert_eq!(waiting.await.expect("answered").status, StatusCode::OK);

    // Its backends are elsewhere: whoever asked here is told to ask there.
    served.ingress.publish(asleep(5, &[]));
    let waiting = held_request(&served).await;
    served.ingress.publish(super::support::table(6, &[]));
    let reply = waiting.await.expect("answered");
    assert_eq!(reply.code(), Some("no_backend"));
}

#[tokio::test]
async fn a_service_that_does_not_wake_is_given_up() {
    let options = Options {
        wake_timeout: Duration::from_millis(50),
        ..Options::default()
    };
    let served = serve_one(options, &[]).await;
    served.ingress.publish(asleep(2, &[]));
    assert_eq!(served.get(HOST, "/").await.code(), Some("no_backend"));
}

#[tokio::test]
async fn not_too_many_wait_for_a_service_that_sleeps() {
    let app = App::start("a").await;
    let options = Options {
        max_waiting: 1,
        ..Options::default()
    };
    let served = Arc::new(serve_one(options, &[]).await);
    served.ingress.publish(asleep(2, &[]));
    let waiting = held_request(&served).await;
    assert_eq!(served.get(HOST, "/").await.code(), Some("no_backend"));
    assert!(!waiting.is_finished(), "the first waits on");
    served.ingress.publish(asleep(3, &[app.address]));
    assert_eq!(waiting.await.expect("answered").status, StatusCode::OK);
}

/// With its queue full, the kernel drops further connections silently.
async fn silent() -> (TcpListener, SocketAddr, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("bound");
    let listener = socket.listen(1).expect("listens");
    let full = listener.local_addr().expect("bound");
    let mut queue = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(full)).await
    {
        queue.push(stream);
    }
    (listener, full, queue)
}

#[tokio::test]
async fn the_only_backend_is_waited_for_until_lost_packets_are_sent_again() {
    let (listener, full, queue) = silent().await;
    let served = Arc::new(serve_one(Options::default(), &[full]).await);
    let began = Instant::now();
    let asked = {
        let served = served.clone();
        tokio::spawn(async move { served.get(HOST, "/").await })
    };
    // Past the first deadline; then its queue has room again.
    tokio::time::sleep(Options::default().dial_timeout * 2).await;
    drop(queue);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4_096];
            let is_asked = stream.read(&mut head).await.is_ok_and(|read| read > 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            if is_asked && stream.write_all(answer).await.is_err() {
                return;
            }
        }
    });
    assert_eq!(asked.await.expect("ended").status, StatusCode::OK);
    let options = Options::default();
    assert!(began.elapsed() < options.dial_timeout + options.last_dial_timeout);
}

#[tokio::test]
async fn a_backend_that_does_not_answer_connections_is_given_up_quickly() {
    let (_listener, full, _queue) = silent().await;
    let app = App::start("a").await;
    let options = Options {
        last_dial_timeout: Duration::from_millis(250),
        ..Options::default()
    };
    let served = serve_one(options, &[full]).await;
    let began = Instant::now();
    assert_eq!(served.get(HOST, "/").await.code(), Some("connect_failed"));
    assert!(
        (500..2_000).contains(&began.elapsed().as_millis()),
        "{:?}",
        began.elapsed()
    );
    served
        .ingress
        .publish(super::support::table(2, &[full, app.address]));
    for _ in 0..10 {
        assert_eq!(served.get(HOST, "/").await.status, StatusCode::OK);
    }
}

/// Answers the first request of each connection; then as `second` says.
#[derive(Clone, Copy, PartialEq)]
enum Second {
    /// Closes when the next request arrives: as if the closing had crossed it.
    CloseOnRequest,
    /// Closes at once after the first answer, without saying so in the answer.
    CloseAfterAnswer,
}

async fn fickle(second: Second) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let requests = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                if stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
                    counter.fetch_add(1, Ordering::SeqCst);
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                        .await;
                    if second == Second::CloseOnRequest
                        && stream.read(&mut buffer).await.is_ok_and(|count| count > 0)
                    {
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    (address, requests)
}

#[tokio::test]
async fn a_safe_request_survives_a_connection_closed_under_it() {
    let (address, requests) = fickle(Second::CloseOnRequest).await;
    let served = serve_one(Options::default(), &[address]).await;
    let mut client = served.client().await;
    for round in 1..=5 {
        let reply = client
            .send(Request::get("/").header("host", HOST), "")
            .await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (StatusCode::OK, "ok"),
            "round {round}"
        );
    }
    // 1, then each time a stale one and its repetition on a fresh connection.
    assert_eq!(requests.load(Ordering::SeqCst), 9);
}

#[tokio::test]
async fn an_unsafe_request_is_never_sent_twice() {
    let (address, requests) = fickle(Second::CloseOnRequest).await;
    let served = serve_one(Options::default(), &[address]).await;
    let mut client = served.client().await;
    assert_eq!(
        client
            .send(Request::get("/").header("host", HOST), "")
            .await
            .status,
        StatusCode::OK
    );
    let reply = client
        .send(Request::post("/").header("host", HOST), "body")
        .await;
    assert_eq!(
        (reply.status, reply.code()),
        (StatusCode::BAD_GATEWAY, Some("backend_closed"))
    );
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn connections_that_backends_close_are_not_used_again() {
    let (address, requests) = fickle(Second::CloseAfterAnswer).await;
    let served = serve_one(Options::default(), &[address]).await;
    let mut client = served.client().await;
    for method in [Method::POST, Method::POST, Method::GET, Method::POST] {
        let request = Request::builder()
            .method(method.clone())
            .uri("/")
            .header("host", HOST);
        assert_eq!(
            client.send(request, "body").await.status,
            StatusCode::OK,
            "{method}"
        );
        // The closing needs a moment to arrive.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(requests.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn connections_to_backends_are_reused_and_closed_with_their_backend() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let served = serve_one(Options::default(), &[address]).await;
    let backend = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        let (mut buffer, mut requests) = ([0; 4096], 0);
        while stream.read(&mut buffer).await.expect("read") > 0 {
            requests += 1;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await
                .expect("sent");
        }
        requests
    });
    let mut client = served.client().await;
    for _ in 0..3 {
        let request = Request::get("/").header("host", HOST);
        assert_eq!(client.send(request, "").await.body, "ok");
    }
    served.ingress.publish(super::support::table(2, &[]));
    let requests = tokio::time::timeout(super::support::SOON, backend)
        .await
        .expect("closed in time")
        .expect("ended");
    assert_eq!(requests, 3, "all on one connection");
}

#[tokio::test]
async fn idle_connections_close_at_once_though_their_backend_is_still_busy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let served = serve_one(Options::default(), &[address]).await;
    let mut busy = served.client().await;
    let held = tokio::spawn(async move {
        let request = Request::get("/hold").header("host", HOST);
        busy.try_send(request, "").await
    });
    let (_never_answered, _) = listener.accept().await.expect("accepts");
    let idle = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await.expect("read");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await
            .expect("sent");
        stream.read(&mut buffer).await.expect("read")
    });
    assert_eq!(served.get(HOST, "/").await.body, "ok");
    served.ingress.publish(super::support::table(2, &[]));
    let read = tokio::time::timeout(super::support::SOON, idle).await;
    assert_eq!(read.expect("closed in time").expect("ended"), 0);
    assert_eq!(served.status().drained_revision, 1, "one is held");
    held.abort();
    served.drained(2).await;
}

#[tokio::test]
async fn a_slow_answer_is_a_gateway_timeout() {
    let app = App::start("a").await;
    let options = Options {
        response_timeout: Duration::from_millis(100),
        ..Options::default()
    };
    let served = serve_one(options, &[app.address]).await;
    let reply = served.get(HOST, "/hold").await;
    assert_eq!(
        (reply.status, reply.code()),
        (StatusCode::GATEWAY_TIMEOUT, Some("timeout"))
    );
    served.ingress.publish(super::support::table(2, &[]));
    served.drained(2).await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_does_not_hold_up_the_upload() {
    const LENGTH: usize = 32 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    // Answers at the first byte and at length, and reads meanwhile.
    let app = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepts");
        stream.peek(&mut [0]).await.expect("a request");
        let (mut reads, mut writes) = stream.into_split();
        let answers = async move {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
            writes.write_all(head.as_bytes()).await?;
            writes.write_all(&vec![b'a'; LENGTH]).await?;
            Ok(writes)
        };
        let takes = async move {
            let (mut piece, mut taken) = (vec![0; 64 * 1024], 0);
            while taken < LENGTH {
                let read = reads.read(&mut piece).await?;
                if read == 0 {
                    break;
                }
                taken += read;
            }
            Ok(taken)
        };
        let (writes, taken): (_, std::io::Result<usize>) = tokio::join!(answers, takes);
        drop(writes.map_err(|error: std::io::Error| error));
        taken
    });
    let options = Options {
        // It takes one connection.
        dial_timeout: super::support::SOON,
        ..Options::default()
    };
    let served = serve_one(options, &[address]).await;
    let mut client = TcpStream::connect(served.address).await.expect("connects");
    let head = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {LENGTH}\r\n\r\n");
    client.write_all(head.as_bytes()).await.expect("sent");
    let upload = vec![b'u'; LENGTH];
    tokio::time::timeout(super::support::SOON, client.write_all(&upload))
        .await
        .expect("the whole upload goes out before anything is read")
        .expect("sent");
    let (mut piece, mut taken) = (vec![0; 64 * 1024], 0);
    while taken < LENGTH {
        let read = client.read(&mut piece).await.expect("answered");
        assert!(read > 0, "the answer ends after {taken} bytes");
        taken += read;
    }
    assert!(app.await.expect("runs").expect("reads") >= LENGTH);
}
