//! Two histories, and what one takes from the other: once, whatever happens between. And a file that
//! is carried over to a shared database.

use std::path::Path;

use super::*;
use crate::history::journal::Part;

async fn file(dir: &Path, name: &str) -> (History, JoinHandle<()>) {
    open(dir.join(name).to_str().expect("UTF-8")).await
}

fn entry(n: u64) -> AuditEntry {
    AuditEntry {
        at_ms: now_ms() + n,
        principal: "admin".into(),
        action: "put_service".into(),
        resource: format!("services/{n}"),
        outcome: "200".into(),
    }
}

async fn note(history: &History, n: u64) {
    history.audit(entry(n));
    settle(history).await;
}

/// What was handed over before is kept when this returns.
async fn settle(history: &History) {
    history.take(Vec::new()).await.expect("kept");
}

/// One round of copying; answers how many entries were new.
async fn pull(to: &History, from: &History) -> u64 {
    let (_, places) = to.places().await.expect("places");
    let offer = from.offer(&places).await.expect("an offer");
    to.take(offer.parts).await.expect("kept")
}

async fn audited(history: &History) -> Vec<String> {
    let entries = history.audit_entries(100).await.expect("read");
    entries.into_iter().map(|entry| entry.resource).collect()
}

async fn texts(history: &History, n: u128) -> Vec<String> {
    let events = history.events(id(n), 0, 100).await.expect("read");
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    events.into_iter().map(|event| event.text).collect()
}

#[tokio::test]
async fn what_is_copied_twice_is_kept_once_and_goes_on_to_a_third() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, _a) = file(dir.path(), "a.db").await;
    let (b, _b) = file(dir.path(), "b.db").await;
    let (c, _c) = file(dir.path(), "c.db").await;
    for n in 0..3 {
        note(&a, n).await;
    }
    a.steps(id(1), &steps_of_now(2));
    settle(&a).await;
    let (_, nothing) = b.places().await.expect("places");
    let offer = a.offer(&nothing).await.expect("an offer");
    assert_eq!(b.take(offer.parts.clone()).await.expect("kept"), 5);
    assert_eq!(b.take(offer.parts).await.expect("kept"), 0);
    assert_eq!(pull(&b, &a).await, 0);
    note(&b, 9).await;
    assert_eq!(pull(&a, &b).await, 1);
    // C never hears of A itself.
    assert_eq!(pull(&c, &b).await, 6);
    for history in [&a, &b, &c] {
        let resources = audited(history).await;
        assert_eq!(resources.len(), 4, "{resources:?}");
        assert_eq!(resources[0], "services/9");
        assert_eq!(texts(history, 1).await, ["step 0", "step 1"]);
    }
}

/// Steps that are not too old to be kept.
fn steps_of_now(count: u64) -> Vec<Step> {
    let steps = steps(count).into_iter();
    steps
        .map(|step| Step {
            at_ms: now_ms(),
            ..step
        })
        .collect()
}

#[tokio::test]
async fn steps_that_two_leaders_told_are_one_timeline_in_order() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, _a) = file(dir.path(), "a.db").await;
    let (b, _b) = file(dir.path(), "b.db").await;
    let (c, _c) = file(dir.path(), "c.db").await;
    a.steps(id(1), &steps_of_now(2));
    settle(&a).await;
    pull(&b, &a).await;
    b.steps(id(1), &steps_of_now(4));
    settle(&b).await;
    // The later ones come first: they wait for what is before them.
    let (_, places) = b.places().await.expect("places");
    let parts = b.offer(&Default::default()).await.expect("an offer").parts;
    let (own, _) = b.places().await.expect("places");
    assert_eq!(places.len(), 2);
    let (later, earlier): (Vec<Part>, Vec<Part>) =
        parts.into_iter().partition(|part| part.store == own);
    assert_eq!(c.take(later).await.expect("kept"), 2);
    assert!(texts(&c, 1).await.is_empty());
    assert_eq!(c.take(earlier).await.expect("kept"), 2);
    assert_eq!(texts(&c, 1).await, ["step 0", "step 1", "step 2", "step 3"]);
}

#[tokio::test]
async fn it_is_known_where_a_build_log_is_and_the_lines_stay_there() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, _a) = file(dir.path(), "a.db").await;
    let (b, _b) = file(dir.path(), "b.db").await;
    let mut woken = b.watch(id(1));
    a.steps(id(1), &steps_of_now(1));
    for first in [0, 2] {
        let kept = a.build_lines(id(1), 3, first, lines(first..first + 2));
        kept.await.expect("kept");
    }
    // One step, and once where the log is.
    assert_eq!(pull(&b, &a).await, 2);
    woken.changed().await.expect("woken");
    assert_eq!(texts(&b, 1).await, ["step 0"]);
    let (there, here) = (b.holders(id(1)).await, a.holders(id(1)).await);
    let (there, here) = (there.expect("read"), here.expect("read"));
    assert_eq!((there.len(), here.len()), (1, 1));
    assert_eq!(there[0].server, ServerId::from_u128(7));
    assert!(!there[0].is_here && here[0].is_here);
    let page = b.page(id(1), 0, 10).await.expect("read");
    assert!(!page.holds_log && page.steps_before == 0);
    let page = a.page(id(1), 2, 10).await.expect("read");
    assert!(page.holds_log && page.steps_before == 1 && page.events.len() == 3);
}

#[tokio::test]
async fn a_file_that_is_removed_while_it_is_open_is_made_anew_and_filled_again() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, _a) = file(dir.path(), "a.db").await;
    let (b, _b) = file(dir.path(), "b.db").await;
    note(&a, 1).await;
    a.steps(id(1), &steps_of_now(1));
    settle(&a).await;
    pull(&b, &a).await;
    let (before, _) = a.places().await.expect("places");
    let mut renewed = a.renewed();
    for suffix in ["", "-wal", "-shm"] {
        // Not every file is there.
        let _ = std::fs::remove_file(dir.path().join(format!("a.db{suffix}")));
    }
    let noticed = tokio::time::timeout(Duration::from_secs(20), renewed.changed());
    noticed.await.expect("noticed").expect("open");
    assert!(dir.path().join("a.db").exists() && audited(&a).await.is_empty());
    let (after, _) = a.places().await.expect("places");
    assert_ne!(before, after, "its numbers are given out anew");
    note(&a, 2).await;
    // Its own former entries come back from the other.
    assert_eq!(pull(&a, &b).await, 2);
    assert_eq!(pull(&b, &a).await, 1);
    for history in [&a, &b] {
        assert_eq!(audited(history).await, ["services/2", "services/1"]);
        assert_eq!(texts(history, 1).await, ["step 0"]);
    }
    // The leader tells the timeline again where that is new to the store.
    a.steps(id(1), &steps_of_now(2));
    settle(&a).await;
    pull(&b, &a).await;
    assert_eq!(texts(&b, 1).await, ["step 0", "step 1"]);
}

#[tokio::test]
async fn an_older_copy_of_a_file_does_not_give_numbers_out_twice() {
    let dir = tempfile::tempdir().expect("dir");
    let (b, _b) = file(dir.path(), "b.db").await;
    let (a, writer) = file(dir.path(), "a.db").await;
    note(&a, 1).await;
    drop(a);
    writer.await.expect("closed");
    std::fs::copy(dir.path().join("a.db"), dir.path().join("old.db")).expect("copied");
    let (a, writer) = file(dir.path(), "a.db").await;
    note(&a, 2).await;
    pull(&b, &a).await;
    drop(a);
    writer.await.expect("closed");
    let (a, _a) = file(dir.path(), "old.db").await;
    assert_eq!(pull(&a, &b).await, 1);
    note(&a, 3).await;
    assert_eq!(pull(&b, &a).await, 1);
    for history in [&a, &b] {
        let all = audited(history).await;
        assert_eq!(all, ["services/3", "services/2", "services/1"]);
    }
}

#[tokio::test]
async fn what_is_too_old_is_neither_kept_nor_asked_for_again() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, _a) = file(dir.path(), "a.db").await;
    let (b, _b) = file(dir.path(), "b.db").await;
    for n in 0..3 {
        a.audit(AuditEntry {
            at_ms: if n < 2 { n } else { now_ms() },
            ..entry(n)
        });
    }
    settle(&a).await;
    assert_eq!(pull(&b, &a).await, 1);
    let pool = a.inner.pool().expect("open");
    let cutoff = now_ms() - 1_000_000;
    let deleted = copies::delete_before(&pool, cutoff, writer::KEEP_MS).await;
    assert_eq!(deleted.expect("deleted"), 2);
    let (_, places) = b.places().await.expect("places");
    let offer = a.offer(&places).await.expect("an offer");
    assert!(offer.parts.is_empty(), "{:?}", offer.parts);
    assert_eq!(pull(&a, &b).await, 0);
    assert_eq!(audited(&a).await, ["services/2"]);
    note(&a, 4).await;
    assert_eq!(pull(&b, &a).await, 1);
}

#[tokio::test]
async fn large_journals_go_in_bounded_answers() {
    const COUNT: u64 = journal::MAX_ENTRIES as u64 + 100;
    let dir = tempfile::tempdir().expect("dir");
    let (a, _a) = file(dir.path(), "a.db").await;
    let (b, _b) = file(dir.path(), "b.db").await;
    for n in 0..COUNT {
        a.audit(entry(n));
        if n % 500 == 0 {
            settle(&a).await;
        }
    }
    settle(&a).await;
    assert_eq!(pull(&b, &a).await, journal::MAX_ENTRIES as u64);
    assert_eq!(pull(&b, &a).await, 100);
    assert_eq!(pull(&b, &a).await, 0);
}

#[tokio::test]
async fn rows_of_before_the_journal_are_told_once() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.db");
    let (a, writer) = file(dir.path(), "a.db").await;
    a.flush_steps(id(1), &steps_of_now(2)).await.expect("kept");
    a.build_lines(id(1), 0, 0, lines(0..2)).await.expect("kept");
    let pool = a.inner.pool().expect("open");
    for sql in ["DELETE FROM journal", "DELETE FROM stores"] {
        sqlx::query(sql).execute(&pool).await.expect("as before");
    }
    sqlx::query("INSERT INTO audit VALUES ('1', $1, 'admin', 'x', 'services/old', '200')")
        .bind(database::signed(now_ms()))
        .execute(&pool)
        .await
        .expect("as before");
    drop((a, pool));
    writer.await.expect("closed");
    for _ in 0..2 {
        let (a, writer) = open(path.to_str().expect("UTF-8")).await;
        assert_eq!(audited(&a).await, ["services/old"]);
        let (own, places) = a.places().await.expect("places");
        assert_eq!(places[&own], 4);
        assert!(a.holders(id(1)).await.expect("read")[0].is_here);
        let (b, _b) = file(dir.path(), "b.db").await;
        pull(&b, &a).await;
        assert_eq!(texts(&b, 1).await, ["step 0", "step 1"]);
        assert!(!b.holders(id(1)).await.expect("read")[0].is_here);
        drop(a);
        writer.await.expect("closed");
    }
}

#[tokio::test]
async fn a_file_is_carried_over_to_a_shared_database_while_servers_run_on_both() {
    let postgres = server::Postgres::start(None).expect("PostgreSQL");
    let url = postgres.url();
    let dir = tempfile::tempdir().expect("dir");
    let (old, _old) = file(dir.path(), "a.db").await;
    let from = dir.path().join("a.db").display().to_string();
    note(&old, 1).await;
    old.steps(id(1), &steps_of_now(1));
    old.build_lines(id(1), 0, 0, lines(0..3))
        .await
        .expect("kept");
    old.steps(id(1), &steps_of_now(2));
    // A deployment that goes on while its server goes over.
    old.steps(id(2), &steps_of_now(1));
    old.build_lines(id(2), 5, 0, lines(0..2))
        .await
        .expect("kept");
    settle(&old).await;
    let (new, _new) = open(&url).await;
    pull(&new, &old).await;
    assert_eq!(texts(&new, 1).await, ["step 0", "step 1"]);
    new.build_lines(id(2), 6, 0, lines(7..8))
        .await
        .expect("kept");
    new.steps(id(2), &steps_of_now(2));
    settle(&new).await;
    assert!(!new.holders(id(1)).await.expect("read")[0].is_here);
    // A log counts as carried where it began before the copy did.
    tokio::time::sleep(Duration::from_millis(2)).await;

    let mut told = 0;
    let carried = carry::over((&from, &url), |_| told += 1)
        .await
        .expect("carried");
    assert_eq!((carried.deployments, carried.events), (2, 5), "{carried:?}");
    assert!(told > 0);
    let whole = ["step 0", "line 0", "line 1", "line 2", "step 1"];
    assert_eq!(texts(&new, 1).await, whole);
    assert_eq!(
        texts(&new, 2).await,
        ["step 0", "line 7", "step 1", "line 0", "line 1"]
    );
    assert_eq!(audited(&new).await, ["services/1"]);
    assert!(new.holders(id(1)).await.expect("read")[0].is_here);

    let again = carry::over((&from, &url), |_| {}).await.expect("carried");
    assert_eq!((again.events, again.entries), (0, 0), "{again:?}");
    assert_eq!(texts(&new, 1).await, whole);
    // What was written meanwhile comes with the next time.
    old.build_lines(id(1), 0, 3, lines(3..4))
        .await
        .expect("kept");
    note(&old, 2).await;
    let more = carry::over((&from, &url), |_| {}).await.expect("carried");
    assert_eq!((more.events, more.entries), (1, 1), "{more:?}");
    assert_eq!(texts(&new, 1).await.last().expect("a line"), "line 3");
}

#[tokio::test]
async fn a_long_log_is_carried_in_pieces_and_keeps_its_order() {
    const LINES: u64 = 4_500;
    let postgres = server::Postgres::start(None).expect("PostgreSQL");
    let url = postgres.url();
    let dir = tempfile::tempdir().expect("dir");
    let (old, _old) = file(dir.path(), "a.db").await;
    let from = dir.path().join("a.db").display().to_string();
    old.steps(id(1), &steps_of_now(1));
    old.build_lines(id(1), 0, 0, lines(0..LINES))
        .await
        .expect("kept");
    let (new, _new) = open(&url).await;
    pull(&new, &old).await;
    // The timeline goes on at the database alone.
    new.steps(id(1), &steps_of_now(3));
    settle(&new).await;
    let carried = carry::over((&from, &url), |_| {}).await.expect("carried");
    assert_eq!(carried.events, LINES, "{carried:?}");
    let events = new.events(id(1), 0, 10_000).await.expect("read");
    let all: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
    let mut wanted = vec!["step 0".to_owned()];
    wanted.extend(lines(0..LINES));
    wanted.extend(["step 1".to_owned(), "step 2".to_owned()]);
    assert_eq!(all, wanted);
}

#[tokio::test]
async fn only_a_file_that_is_there_is_carried_and_only_to_postgres() {
    let dir = tempfile::tempdir().expect("dir");
    let missing = dir.path().join("none.db").display().to_string();
    let to = "postgres://skep@localhost/none";
    for (from, to) in [(missing.as_str(), to), (to, to), (&missing, &missing)] {
        let refused = carry::over((from, to), |_| {}).await.expect_err("refused");
        assert!(
            matches!(refused, Error::Ends | Error::NoFile(_)),
            "{refused}"
        );
    }
    assert!(!Path::new(&missing).exists(), "nothing is made");
}
