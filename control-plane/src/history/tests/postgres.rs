//! What only a server of its own can do: go away and come back, hang, serve several.

use std::net::SocketAddr;
use std::time::SystemTime;

use skep_identity::ca::{ClusterCa, Grant};
use skep_identity::keypair::KeyAndRequest;
use skep_identity::name::Identity;
use skep_model::id::{ClusterId, ServerId};
use tokio::net::TcpListener;

use super::*;

/// Until a history is open again once its database is: a pause, and two attempts.
const RETURNS: Duration = Duration::from_secs(20);

/// Waits for a read that goes well, and writes nothing meanwhile.
async fn readable(history: &History) -> Vec<Event> {
    let reading = async {
        loop {
            if let Ok(events) = history.events(id(1), 0, 100).await {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let read = tokio::time::timeout(RETURNS, reading).await;
    read.expect("it is opened again by itself")
}

#[tokio::test]
async fn a_database_that_goes_away_is_an_error_at_once_and_is_used_again_when_it_is_back() {
    let mut postgres = server::Postgres::start(None).expect("PostgreSQL");
    let (history, _writer) = open(&postgres.url()).await;
    history
        .build_lines(id(1), 0, 0, lines(0..2))
        .await
        .expect("kept");
    postgres.stop();
    for _ in 0..2 {
        let started = Instant::now();
        let writing = history.build_lines(id(1), 0, 2, lines(2..3)).await;
        writing.expect_err("no database");
        assert!(
            started.elapsed() < KEEP_DEADLINE,
            "the writer gave up itself"
        );
        history.events(id(1), 0, 1).await.expect_err("no database");
        history.audit_entries(1).await.expect_err("no database");
        assert!(started.elapsed() < READ_DEADLINE);
    }
    history.steps(id(1), &steps(1));
    let health = history.health();
    assert!(!health.is_ok && health.dropped >= 2, "{health:?}");

    postgres.resume().expect("PostgreSQL again");
    let texts = readable(&history).await;
    assert_eq!([&texts[0].text, &texts[1].text], ["line 0", "line 1"]);
    // What was lost may be said again; what follows is numbered on.
    history.flush_steps(id(1), &steps(2)).await.expect("kept");
    assert!(history.health().is_ok);
    history
        .build_lines(id(1), 0, 5, lines(5..6))
        .await
        .expect("kept");
    let events = readable(&history).await;
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    assert_eq!(events[4].text, "line 5");
}

#[tokio::test]
async fn a_history_may_be_there_before_its_database() {
    let mut postgres = server::Postgres::start(None).expect("PostgreSQL");
    postgres.stop();
    let (history, _writer) = open(&postgres.url()).await;
    let refused = history.events(id(1), 0, 1).await.expect_err("no database");
    assert!(matches!(refused, Error::Closed), "{refused}");
    postgres.resume().expect("PostgreSQL again");
    assert!(readable(&history).await.is_empty());
    assert!(history.health().is_ok);
}

#[tokio::test]
async fn a_database_that_takes_connections_and_never_answers_holds_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    let started = Instant::now();
    let (history, _writer) = open(&format!("postgres://skep@{address}/skep")).await;
    assert!(started.elapsed() < KEEP_DEADLINE, "opening is bounded");
    let started = Instant::now();
    let writing = history.build_lines(id(1), 0, 0, lines(0..1)).await;
    writing.expect_err("no answer");
    assert!(started.elapsed() < KEEP_DEADLINE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_that_share_a_database_number_one_log_together() {
    const EACH: u64 = 100;
    let postgres = server::Postgres::start(None).expect("PostgreSQL");
    let url = postgres.url();
    // Both find it empty, and make its tables.
    let ((one, _writer), (other, _writer2)) = tokio::join!(open(&url), open(&url));
    let building = tokio::spawn(async move {
        for n in 0..EACH {
            let kept = one.build_lines(id(1), 0, n, lines(n..n + 1)).await;
            assert_eq!(kept.expect("kept"), n + 1);
        }
    });
    for n in 0..EACH {
        let kept = other.flush_steps(id(1), &steps(n + 1)).await;
        kept.expect("kept");
    }
    building.await.expect("no line failed");
    let events = other.events(id(1), 0, 1_000).await.expect("read");
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=2 * EACH).collect::<Vec<_>>());
    for kind in [EventKind::Log, EventKind::Step] {
        let of_kind = events.iter().filter(|event| event.kind == kind);
        let count = of_kind.enumerate().inspect(|(n, event)| {
            assert!(event.text.ends_with(&format!(" {n}")), "{event:?}");
        });
        assert_eq!(count.count() as u64, EACH);
    }
}

#[tokio::test]
async fn ids_order_by_age_whatever_the_language_of_the_database() {
    let place = Place::postgres();
    let (history, _writer) = open(&place.location()).await;
    let pool = history.inner.pool().expect("open");
    let orders: Vec<String> = sqlx::query_scalar(
        "SELECT collation_name::TEXT FROM information_schema.columns WHERE \
         (table_name, column_name) IN (('deployment_events', 'deployment'), ('audit', 'id'))",
    )
    .fetch_all(&pool)
    .await
    .expect("collations");
    assert_eq!(orders, ["C", "C"]);
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

#[tokio::test]
async fn tls_is_spoken_where_the_url_asks_for_it_and_strangers_are_refused() {
    let ca = ClusterCa::generate(ClusterId::from_u128(1), SystemTime::now()).expect("a CA");
    let key = KeyAndRequest::generate().expect("a key");
    let grant = Grant {
        identity: Identity::server(ca.cluster(), ServerId::from_u128(1)),
        addresses: &["127.0.0.1".to_owned()],
        lifetime: Duration::from_secs(3_600),
    };
    let chain = ca.issue(&key.csr_pem, &grant, SystemTime::now());
    let own = key.certified(chain.expect("a certificate"), ca.cert_pem().to_owned());
    let address = free_address();
    let postgres = server::Postgres::start_tls(address, &own.cert_chain_pem, &own.key_pem);
    let url = postgres.as_ref().expect("PostgreSQL").url();

    let dir = tempfile::tempdir().expect("folder");
    let other = ClusterCa::generate(ClusterId::from_u128(2), SystemTime::now()).expect("a CA");
    let (root, strange) = (dir.path().join("root"), dir.path().join("strange"));
    std::fs::write(&root, ca.cert_pem()).expect("written");
    std::fs::write(&strange, other.cert_pem()).expect("written");
    for (settings, is_good) in [
        (
            format!("sslmode=verify-full&sslrootcert={}", root.display()),
            true,
        ),
        (
            format!("sslmode=verify-full&sslrootcert={}", strange.display()),
            false,
        ),
        ("sslmode=disable".to_owned(), false),
    ] {
        let (history, _writer) = open(&format!("{url}?{settings}")).await;
        let kept = history.flush_steps(id(1), &steps(1)).await;
        assert_eq!(kept.is_ok(), is_good, "{settings}: {kept:?}");
    }
}
