//! Copies of repositories that a node keeps: what they spare, and whatever becomes of them.

use super::*;

/// The packs of the only copy: their sizes, the oldest first.
fn packs(copies: &Path) -> Vec<u64> {
    let copy = std::fs::read_dir(copies).expect("copies").next();
    let packs = copy.expect("a copy").expect("read").path();
    let mut all: Vec<_> = std::fs::read_dir(packs.join("objects/pack"))
        .expect("packs")
        .map(|file| file.expect("read"))
        .filter(|file| file.path().extension().is_some_and(|it| it == "pack"))
        .map(|file| file.metadata().expect("read"))
        .collect();
    all.sort_by_key(|it| it.modified().expect("a time"));
    all.iter().map(std::fs::Metadata::len).collect()
}

/// Until the last user of a copy has put it back: a thread of its own does that.
async fn put_back(copies: &Copies, repository: &str) {
    let kept = loop {
        match copies.take(ServiceId::from_u128(7), repository).await {
            Some(kept) => break kept,
            None => tokio::task::yield_now().await,
        }
    };
    // Outside of the runtime that is done when it is dropped.
    let dropped = std::thread::spawn(move || drop(kept));
    dropped.join().expect("put back");
}

#[tokio::test]
async fn a_push_brings_what_is_new_in_it_whatever_became_of_the_copy() {
    let repository = Repository::new();
    // Does not shrink.
    let noise: String = (0..5_000_u32)
        .map(|it| crate::images::Digest::of(&it.to_be_bytes()).hex())
        .collect();
    repository.git("work", &["checkout", "--quiet", "main"]);
    let folder = repository.dir.path().join("work/data");
    std::fs::create_dir_all(&folder).expect("folder");
    std::fs::write(folder.join("noise"), noise).expect("file");
    let url = repository.address();
    let push = |message: &str, path: &str| {
        repository.commit(message, path);
        repository.git(
            "work",
            &["push", "--quiet", "--force", "../bare.git", "HEAD:main"],
        );
    };
    push("a", "first");
    let place = tempfile::tempdir().expect("folder");
    let copies = Copies::new(place.path().join("copies"));
    let fetched = async |commit: Option<&str>| {
        put_back(&copies, &url).await;
        let dir = tempfile::tempdir().expect("folder");
        let got = get_beside(&copies, dir, (&url, "main", commit, "")).await;
        let fetched = got.fetched();
        let noise = std::fs::metadata(fetched.folder.join("data/noise")).expect("file");
        assert!(noise.len() > 300_000, "{noise:?}");
        fetched.commit.clone()
    };
    assert_eq!(fetched(None).await, repository.head("main"));
    push("b", "second");
    let head = repository.head("main");
    assert_eq!(fetched(Some(&head)).await, head);
    let sizes = packs(&place.path().join("copies"));
    assert_eq!(sizes.len(), 2, "{sizes:?}");
    assert!(sizes[0] > 100_000 && sizes[1] < 2_000, "{sizes:?}");

    // Pushed over with another history.
    repository.git("work", &["checkout", "--quiet", "--orphan", "again"]);
    push("c", "third");
    assert_eq!(fetched(None).await, repository.head("main"));

    // A killed agent leaves a lock, a machine that lost its power leaves packs without their end.
    put_back(&copies, &url).await;
    let copy = std::fs::read_dir(place.path().join("copies"))
        .expect("copies")
        .next();
    let copy = copy.expect("a copy").expect("read").path();
    std::fs::write(copy.join("shallow.lock"), "").expect("a lock");
    push("d", "fourth");
    assert_eq!(fetched(None).await, repository.head("main"));
    // It went, and the next one is the first again.
    put_back(&copies, &url).await;
    assert!(!copy.join("shallow.lock").exists());
    assert_eq!(fetched(None).await, repository.head("main"));
    put_back(&copies, &url).await;
    for file in std::fs::read_dir(copy.join("objects/pack"))
        .expect("packs")
        .flatten()
    {
        let is_pack = file.path().extension().is_some_and(|it| it == "pack");
        if is_pack {
            std::fs::remove_file(file.path()).expect("removed");
            std::fs::write(file.path(), "PACK").expect("written");
        }
    }
    push("e", "fifth");
    assert_eq!(fetched(None).await, repository.head("main"));

    // Who comes while another one has it goes without.
    put_back(&copies, &url).await;
    let taken = copies
        .take(ServiceId::from_u128(7), &url)
        .await
        .expect("free");
    let dir = tempfile::tempdir().expect("folder");
    let got = get_beside(&copies, dir, (&url, "main", None, "")).await;
    assert_eq!(got.fetched().commit, repository.head("main"));
    drop(taken);
}
