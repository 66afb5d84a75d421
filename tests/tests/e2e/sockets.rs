//! Thousands of connections that say nothing for long: none is lost, whatever changes around them.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use skep_tests::{chaos, with_cluster};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Each is two of the data plane's descriptors, of which a process often may have no more than 20,000.
const FULL: u32 = 9_500;
const SAMPLE: u32 = 500;
/// Opened and asked at a time.
const AT_ONCE: usize = 64;
const WORD: &[u8] = b"still there?";

async fn open(ingress: SocketAddr, host: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(ingress).await?;
    let head = format!(
        "GET /socket HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.context("the answer's head")?);
    }
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    Ok(stream)
}

async fn is_there(mut stream: TcpStream) -> bool {
    let mut answer = [0; WORD.len()];
    let asked = async {
        stream.write_all(WORD).await?;
        stream.read_exact(&mut answer).await
    };
    asked.await.is_ok() && answer == WORD
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sockets_outlive_every_change_around_them() {
    with_cluster("sockets", async |cluster| -> Result<()> {
        let (name, _) = cluster.service("chat", "1", json!({})).await?;
        let host = cluster.host(&name);
        let before = cluster.net.rss_bytes().await?;
        let count = chaos::count(SAMPLE, FULL);
        let opened = stream::iter(0..count).map(|_| open(cluster.ingress, &host));
        let opened: Vec<_> = opened.buffer_unordered(AT_ONCE).collect().await;
        let opened: Vec<TcpStream> = opened.into_iter().collect::<Result<_>>()?;
        let after = cluster.net.rss_bytes().await?;
        let each = after.saturating_sub(before) as f64 / f64::from(count) / 1024.0;
        println!("sockets: {count}, {each:.1} KiB each in the data plane");
        // Every table, also that of other services, goes through the ingress that holds them.
        let (other, _) = cluster.service("web", "2", json!({})).await?;
        cluster
            .api
            .put_service(&name, json!({ "replicas": 2 }))
            .await?;
        cluster.converged(&[(&name, 2), (&other, 1)]).await?;
        cluster
            .api
            .put_service(&other, json!({ "replicas": 2 }))
            .await?;
        cluster.converged(&[(&name, 2), (&other, 2)]).await?;
        let asked = stream::iter(opened).map(is_there);
        let answers = asked.buffer_unordered(AT_ONCE);
        let lost = answers.filter(|is_there| std::future::ready(!is_there));
        assert_eq!(lost.count().await, 0, "of {count}");
        Ok(())
    })
    .await;
}
