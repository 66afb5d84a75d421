//! Static sites: tables that name folders.

use super::*;
use crate::testing::unpack;

fn files_table(sequence: u64, folder: &Path) -> NodeTable {
    let mut table = table(sequence, &[]);
    table.routes[0].backends.push(NodeBackend {
        allocation: id_bytes(1),
        files: folder.display().to_string(),
        ..NodeBackend::default()
    });
    table
}

#[tokio::test]
async fn files_are_handed_out_also_after_a_restart_and_a_folder_that_is_gone_is_left_out() {
    let dir = tempfile::tempdir().expect("folder");
    let folder = dir.path().join("bundle");
    unpack(&folder, &[("index.html", "hello")]);
    let net = start(dir.path()).await;
    net.client
        .publish(files_table(1, &folder))
        .await
        .expect("published");
    let answer = net.app("app.example").await;
    assert!(answer.ends_with("hello"), "{answer}");
    assert!(answer.contains("etag: "), "{answer}");
    status_where(&net, |it| {
        it.is_some_and(|it| it.serves_files && it.drained_sequence == 1)
    })
    .await
    .expect("told");
    net.stop().await;

    // No agent speaks.
    let net = start(dir.path()).await;
    assert!(net.app("app.example").await.ends_with("hello"));
    net.stop().await;

    std::fs::remove_dir_all(&folder).expect("removed");
    let net = start(dir.path()).await;
    let answer = net.app("app.example").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(net.admin("/readyz", "").await.starts_with("HTTP/1.1 200"));
    // It is looked for again with each table.
    unpack(&folder, &[("index.html", "again")]);
    net.client
        .publish(files_table(2, &folder))
        .await
        .expect("published");
    assert!(net.app("app.example").await.ends_with("again"));
    net.stop().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_opened_does_not_keep_others_from_being_served() {
    let dir = tempfile::tempdir().expect("folder");
    let net = start(dir.path()).await;
    let mut both = files_table(1, &dir.path().join("nothing"));
    both.routes[0]
        .backends
        .extend(table(1, &[app("app").await]).routes.remove(0).backends);
    net.client.publish(both).await.expect("published");
    assert!(net.app("app.example").await.ends_with("app"));
    net.stop().await;
}
