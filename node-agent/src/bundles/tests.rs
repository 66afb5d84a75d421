use super::*;

/// As `start` leaves it.
fn put(bundles: &Bundles, id: AllocationId, site: &str) {
    let folder = &bundles.inner.folder;
    fs::create_dir_all(folder.join("sites").join(site)).expect("a folder");
    let mark = Mark {
        site: site.to_owned(),
        attempt: 2,
        started_ms: 7,
    };
    let text = serde_json::to_vec(&mark).expect("plain data");
    fs::write(bundles.mark_path(id), text).expect("written");
    bundles.inner.running.lock().insert(id, mark);
}

fn sites(data: &Path) -> usize {
    fs::read_dir(data.join(FOLDER).join("sites"))
        .expect("a folder")
        .count()
}

#[tokio::test]
async fn an_agent_that_comes_back_finds_what_was_handed_out() {
    let data = tempfile::tempdir().expect("a folder");
    let [first, second] = [1, 2].map(AllocationId::from_u128);
    let site = "ab".repeat(32);
    let bundles = Bundles::open(data.path()).expect("opened");
    put(&bundles, first, &site);
    put(&bundles, second, &site);
    // What a crash leaves.
    let unfinished = data.path().join(FOLDER).join(format!("{UNFINISHED}x"));
    fs::create_dir(&unfinished).expect("a folder");
    let nobodys = data.path().join(FOLDER).join("sites").join("cd".repeat(32));
    fs::create_dir(&nobodys).expect("a folder");
    fs::write(bundles.mark_path(AllocationId::from_u128(3)), "{").expect("written");

    let again = Bundles::open(data.path()).expect("opened");
    assert_eq!(again.list().len(), 2);
    assert_eq!(again.list(), bundles.list());
    assert!(!unfinished.exists() && !nobodys.exists());
    assert!(again.list_of(first).is_some_and(|seen| seen.is_bundle()));

    again.remove(first).await.expect("removed");
    assert_eq!((again.list().len(), sites(data.path())), (1, 1));
    again.remove(first).await.expect("it is gone already");
    again.remove(second).await.expect("removed");
    assert_eq!((again.list().len(), sites(data.path())), (0, 0));
}

#[test]
fn a_mark_without_its_files_is_no_mark() {
    let data = tempfile::tempdir().expect("a folder");
    let bundles = Bundles::open(data.path()).expect("opened");
    let site = "ab".repeat(32);
    put(&bundles, AllocationId::from_u128(1), &site);
    fs::remove_dir(data.path().join(FOLDER).join("sites").join(&site)).expect("removed");
    assert!(
        Bundles::open(data.path())
            .expect("opened")
            .list()
            .is_empty()
    );
}
