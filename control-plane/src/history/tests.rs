//! The history on real databases: one suite, on a SQLite file and on a PostgreSQL, and what only one
//! of them can do.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "a file of the end-to-end tests' helpers, of which not all is needed here"
)]
#[path = "../../../tests/src/postgres.rs"]
mod server;

mod copying;
mod postgres;
mod sqlite;

use tokio::task::JoinHandle;

use super::*;

/// Where a history may be, with nothing in it yet. Gone when it is dropped.
enum Place {
    File(tempfile::TempDir),
    Postgres(server::Postgres),
}

impl Place {
    fn file() -> Self {
        Self::File(tempfile::tempdir().expect("folder"))
    }

    fn postgres() -> Self {
        Self::Postgres(server::Postgres::start(None).expect("PostgreSQL"))
    }

    fn location(&self) -> String {
        match self {
            Self::File(dir) => dir.path().join("odd name ?#%.db").display().to_string(),
            Self::Postgres(postgres) => postgres.url(),
        }
    }
}

/// Each test of the suite on each kind of place.
macro_rules! suite {
    ($($test:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Place::file()).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Place::postgres()).await;
            })+
        }
    };
}

async fn open(location: &str) -> (History, JoinHandle<()>) {
    let (history, writer) = History::open(location, ServerId::from_u128(7))
        .await
        .expect("location");
    (history, tokio::spawn(writer))
}

fn id(n: u128) -> DeploymentId {
    // Of now, whenever it is called: the daily sweep keeps it.
    static NOW: std::sync::LazyLock<u128> = std::sync::LazyLock::new(|| u128::from(now_ms()));
    DeploymentId::from_u128((*NOW << 80) | n)
}

fn lines(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|n| format!("line {n}")).collect()
}

fn steps(count: u64) -> Vec<Step> {
    (0..count)
        .map(|n| Step {
            at_ms: n,
            text: format!("step {n}"),
        })
        .collect()
}

async fn lines_sent_again_are_kept_once_and_numbers_have_no_gap(place: Place) {
    let (history, writer) = open(&place.location()).await;
    let deployment = id(1);
    assert_eq!(
        history
            .build_lines(deployment, 0, 0, lines(0..3))
            .await
            .expect("kept"),
        3
    );
    assert_eq!(
        history
            .build_lines(deployment, 0, 1, lines(1..5))
            .await
            .expect("kept"),
        5
    );
    assert_eq!(
        history
            .build_lines(deployment, 0, 0, lines(0..2))
            .await
            .expect("kept"),
        5
    );
    history
        .flush_steps(deployment, &steps(2))
        .await
        .expect("kept");
    history
        .flush_steps(deployment, &steps(3))
        .await
        .expect("kept");
    history
        .build_lines(id(2), 0, 0, lines(0..1))
        .await
        .expect("kept");
    let events = history.events(deployment, 0, 100).await.expect("read");
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=8).collect::<Vec<_>>());
    let texts: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
    let expected = [
        "line 0", "line 1", "line 2", "line 3", "line 4", "step 0", "step 1", "step 2",
    ];
    assert_eq!(texts, expected);
    drop(history);
    writer.await.expect("ends when the last handle is gone");

    // After a restart numbers go on, and what is kept is still known to be.
    let (history, _writer) = open(&place.location()).await;
    if let Place::File(dir) = &place {
        let file = dir.path().join("odd name ?#%.db");
        assert!(file.exists(), "it has the name that was asked for");
    }
    history
        .flush_steps(deployment, &steps(4))
        .await
        .expect("kept");
    let events = history.events(deployment, 8, 100).await.expect("read");
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].seq, events[0].kind), (9, EventKind::Step));
}

async fn a_second_run_of_a_build_follows_the_first_in_one_sequence(place: Place) {
    let (history, _writer) = open(&place.location()).await;
    let deployment = id(1);
    let keep = async |run: u128, first: u64, lines: Vec<String>| {
        let kept = history.build_lines(deployment, run, first, lines).await;
        kept.expect("kept")
    };
    assert_eq!(keep(7, 0, lines(0..3)).await, 3);
    // The agent was restarted: another run, the same numbers, told twice as after a lost answer.
    assert_eq!(
        keep(8, 0, vec!["again 0".into(), "again 1".into()]).await,
        2
    );
    assert_eq!(
        keep(8, 0, vec!["again 0".into(), "again 1".into()]).await,
        2
    );
    assert_eq!(keep(8, 2, vec!["again 2".into()]).await, 3);
    let events = history.events(deployment, 0, 100).await.expect("read");
    let texts: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
    let expected = [
        "line 0", "line 1", "line 2", "again 0", "again 1", "again 2",
    ];
    assert_eq!(texts, expected);
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=6).collect::<Vec<_>>());
    // What a reader had seen before the restart still says where it goes on.
    let rest = history.events(deployment, 3, 100).await.expect("read");
    assert_eq!(rest.len(), 3);
}

async fn all_runs_of_a_build_share_one_limit(place: Place) {
    const RUN: u64 = MAX_LINES / 4;
    let (history, _writer) = open(&place.location()).await;
    for run in 1..=6 {
        let next = history.build_lines(id(1), run, 0, lines(0..RUN)).await;
        assert_eq!(next.expect("kept"), RUN);
    }
    let bound = MAX_LINES + skep_model::deployment::MAX_STEPS as u64;
    let last = history.events(id(1), bound, 10).await.expect("read");
    assert_eq!(last.len(), 1, "{last:?}");
    assert!(last[0].text.contains("are kept"), "{last:?}");
}

async fn watchers_wake_for_their_deployment_only(place: Place) {
    let (history, _writer) = open(&place.location()).await;
    let (mut mine, other) = (history.watch(id(1)), history.watch(id(2)));
    history
        .build_lines(id(1), 0, 0, lines(0..2))
        .await
        .expect("kept");
    tokio::time::timeout(Duration::from_secs(5), mine.changed())
        .await
        .expect("woken")
        .expect("open");
    assert_eq!(*mine.borrow(), 2);
    assert!(!other.has_changed().expect("open"));
}

async fn long_lines_are_cut_and_long_logs_end_with_a_marker(place: Place) {
    let (history, _writer) = open(&place.location()).await;
    let deployment = id(1);
    let long = format!("{}ü\0{}", "x".repeat(MAX_TEXT - 11), "x".repeat(99));
    history
        .build_lines(deployment, 0, 0, vec![long])
        .await
        .expect("kept");
    for first in [MAX_LINES - 1, MAX_LINES - 1, MAX_LINES + 4] {
        let next = history
            .build_lines(deployment, 0, first, lines(0..3))
            .await
            .expect("kept");
        assert_eq!(
            next,
            first + 3,
            "what is beyond the limit is not sent again and again"
        );
    }
    history
        .flush_steps(deployment, &steps(1))
        .await
        .expect("kept");
    let events = history.events(deployment, 0, 100).await.expect("read");
    let texts: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
    assert_eq!(texts.len(), 4, "{texts:?}");
    assert!(texts[0].len() <= MAX_TEXT && texts[0].ends_with("[cut]") && !texts[0].contains('\0'));
    assert_eq!((texts[1], texts[3]), ("line 0", "step 0"));
    assert!(texts[2].contains("100000 lines"), "{}", texts[2]);
}

async fn the_audit_trail_is_read_newest_first(place: Place) {
    let (history, _writer) = open(&place.location()).await;
    // Not older than what is kept: it would be deleted meanwhile.
    let now = crate::store::now_ms();
    for n in 0..3 {
        history.audit(AuditEntry {
            at_ms: now + n,
            principal: "adm\0in".into(),
            action: "deploy_service".into(),
            resource: format!("services/{n}"),
            outcome: "202".into(),
        });
        // Behind the audit in the queue: kept when this is.
        history
            .build_lines(id(1), 0, n, lines(n..n + 1))
            .await
            .expect("kept");
    }
    let entries = history.audit_entries(2).await.expect("read");
    let resources: Vec<&str> = entries
        .iter()
        .map(|entry| entry.resource.as_str())
        .collect();
    assert_eq!(resources, ["services/2", "services/1"]);
}

async fn what_is_old_is_deleted(place: Place) {
    let (history, _writer) = open(&place.location()).await;
    let old = DeploymentId::from_u128(u128::from(now_ms() - 200_000) << 80);
    for deployment in [old, id(1)] {
        history
            .build_lines(deployment, 0, 0, lines(0..1))
            .await
            .expect("kept");
    }
    let pool = history.inner.pool().expect("open");
    assert_eq!(
        database::delete_before(&pool, now_ms() - 100_000)
            .await
            .expect("deleted"),
        1
    );
    assert!(history.events(old, 0, 1).await.expect("read").is_empty());
    assert_eq!(history.events(id(1), 0, 1).await.expect("read").len(), 1);
}

suite! {
    lines_sent_again_are_kept_once_and_numbers_have_no_gap,
    a_second_run_of_a_build_follows_the_first_in_one_sequence,
    all_runs_of_a_build_share_one_limit,
    watchers_wake_for_their_deployment_only,
    long_lines_are_cut_and_long_logs_end_with_a_marker,
    the_audit_trail_is_read_newest_first,
    what_is_old_is_deleted,
}

#[test]
fn locations() {
    let is_file = |text: &str, wanted: &str| matches!(Location::parse(text), Ok(Location::Sqlite(path)) if path.ends_with(wanted) && path.is_absolute());
    assert!(is_file("sqlite:///var/h.db", "var/h.db") && is_file("h.db", "h.db"));
    for good in ["postgres://u@h/d", "postgresql://u:p@h:1/d?sslmode=require"] {
        assert!(matches!(Location::parse(good), Ok(Location::Postgres(_))));
    }
    for bad in [
        "",
        "sqlite://",
        "mysql://h/d",
        "postgres://h:port/d",
        "postgres://h/d?sslmode=perhaps",
    ] {
        assert!(Location::parse(bad).is_err(), "{bad}");
    }
}
