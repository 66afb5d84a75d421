use std::sync::Arc;

use futures_util::FutureExt as _;

use super::super::testing::{Image as TestImage, image};
use super::*;

const BUDGET: u64 = 1 << 20;

async fn put(store: &Store, bytes: &[u8]) -> Result<Digest, Error> {
    let digest = Digest::of(bytes);
    let mut writer = store.partial(digest, BUDGET).await?;
    writer.write(bytes).await?;
    store.keep(writer, digest).await?;
    Ok(digest)
}

async fn put_image(store: &Store, image: &TestImage, tag: &str) -> Digest {
    put(store, &image.config).await.expect("kept");
    put(store, &image.layer).await.expect("kept");
    let put = store.put_manifest(("skep/web", Some(tag)), &image.manifest, false);
    put.await.expect("kept")
}

#[tokio::test]
async fn what_is_kept_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), BUDGET).expect("opened");
    let digest = put_image(&store, &image(b"layer"), "one").await;
    let used = store.used_bytes();
    drop(store);
    let store = Store::open(folder.path(), BUDGET).expect("opened");
    assert_eq!(store.tagged("skep/web", "one"), Some(digest));
    assert_eq!(store.used_bytes(), used);
    let bytes = store
        .read_small(digest)
        .await
        .expect("read")
        .expect("there");
    assert_eq!(Digest::of(&bytes), digest);
}

#[tokio::test]
async fn what_is_not_what_it_says_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), BUDGET).expect("opened");
    let digest = Digest::of(b"right");
    let mut writer = store.partial(digest, BUDGET).await.expect("begun");
    writer.write(b"wrong").await.expect("written");
    let kept = store.keep(writer, digest).await;
    assert!(matches!(kept, Err(Error::Mismatch { .. })), "{kept:?}");
    assert_eq!(store.size(digest), None);
    let writer = store.partial(digest, BUDGET).await.expect("begun");
    assert_eq!(writer.written(), 0, "nothing of the lie is left");
}

#[tokio::test]
async fn a_fetch_goes_on_where_it_was_and_never_exceeds_its_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let digest = Digest::of(b"halves");
    {
        let store = Store::open(folder.path(), BUDGET).expect("opened");
        let mut writer = store.partial(digest, 6).await.expect("begun");
        writer.write(b"hal").await.expect("written");
        writer.flush().await.expect("flushed");
    }
    let store = Store::open(folder.path(), BUDGET).expect("opened");
    let mut writer = store.partial(digest, 6).await.expect("gone on");
    assert_eq!(writer.written(), 3);
    assert!(matches!(
        writer.write(b"ves!").await,
        Err(Error::TooLong { limit: 6 })
    ));
    writer.write(b"ves").await.expect("written");
    store.keep(writer, digest).await.expect("kept");
}

#[tokio::test]
async fn a_manifest_without_its_blobs_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), BUDGET).expect("opened");
    let image = image(b"layer");
    let refused = store
        .put_manifest(("skep/web", None), &image.manifest, false)
        .await;
    assert!(matches!(refused, Err(PutError::Missing(_))), "{refused:?}");
    let refused = store.put_manifest(("skep/web", None), b"{}", false).await;
    assert!(matches!(refused, Err(PutError::Invalid(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_put_one_manifest_at_the_same_time() {
    const AT_ONCE: usize = 16;
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Store::open(folder.path(), BUDGET).expect("opened"));
    let image = image(b"layer");
    put(&store, &image.config).await.expect("kept");
    put(&store, &image.layer).await.expect("kept");
    let all = (0..AT_ONCE).map(|number| {
        let (store, manifest) = (store.clone(), image.manifest.clone());
        tokio::spawn(async move {
            let place = format!("skep/web{number}");
            store
                .put_manifest((&place, Some("one")), &manifest, false)
                .await
        })
    });
    for put in futures_util::future::join_all(all).await {
        put.expect("no panic").expect("kept");
    }
    let tagged = |number| store.tagged(&format!("skep/web{number}"), "one");
    let digest = Digest::of(&image.manifest);
    assert!((0..AT_ONCE).all(|number| tagged(number) == Some(digest)));
}

#[tokio::test]
async fn room_is_made_from_what_nobody_uses() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), BUDGET).expect("opened");
    let mut all = Vec::new();
    for n in 0..5_u8 {
        let digest = put_image(&store, &image(&[n; 1_000]), &format!("t{n}")).await;
        all.push(digest);
        // Ages are told apart by the millisecond.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let in_use = BTreeSet::from([all[0]]);
    let (gone, short) = store.make_room(&in_use, 0, Some(1)).await.expect("made");
    assert!(
        gone == 3 && short > 0,
        "{gone} blobs, {short} bytes too many"
    );
    for (n, digest) in all.iter().enumerate() {
        assert_eq!(store.size(*digest).is_some(), n != 1, "image {n}");
    }
    assert_eq!(store.tagged("skep/web", "t1"), None);
    let reopened = Store::open(folder.path(), BUDGET).expect("opened");
    assert_eq!(reopened.used_bytes(), store.used_bytes());
}

#[tokio::test]
async fn a_caller_that_goes_in_the_middle_of_a_write_leaves_it_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), 4 * BUDGET).expect("opened");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let digest = Digest::of(&bytes);
    let mut writer = store.partial(digest, 4 * BUDGET).await.expect("begun");
    let mut was_left = false;
    for piece in bytes.chunks(200_000) {
        // Looked at once, and dropped where it waits for the disk.
        was_left |= writer.write(piece).now_or_never().is_none();
    }
    assert!(was_left, "nothing had to wait: the test shows nothing");
    assert_eq!(writer.written(), bytes.len() as u64);
    writer.flush().await.expect("flushed");
    assert_eq!(writer.readable(), bytes.len() as u64);
    store.keep(writer, digest).await.expect("what it was");
}
