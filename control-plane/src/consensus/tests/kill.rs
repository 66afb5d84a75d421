//! A real process, a real kill -9, again and again on the same directory.

use super::*;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Set for the child: where it writes.
const DIR: &str = "SKEP_TEST_KILL_DIR";
const KILLS: u64 = 10;

/// Writes one number after the other, eight at a time, and says which are acknowledged.
async fn write_until_killed(dir: PathBuf) {
    let running = Running::start(often(&dir));
    let mut next = running.handle.view().len() as u64 + 1;
    loop {
        let proposals: Vec<_> = (next..next + 8)
            .map(|id| {
                let handle = running.handle.clone();
                async move {
                    handle
                        .propose(id.to_string().into_bytes())
                        .await
                        .map(|_| id)
                }
            })
            .collect();
        for id in futures_util::future::join_all(proposals).await {
            println!("\nacknowledged {}", id.unwrap());
        }
        next += 8;
    }
}

/// One round: the last number that the child saw acknowledged before it died.
fn kill_after(dir: &Path, acknowledgements: u64) -> u64 {
    let test = format!("{}::killed_nothing_acknowledged_is_lost", module_path!());
    let (_crate, test) = test.split_once("::").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut last = 0;
    let mut count = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some(id) = line.unwrap().strip_prefix("acknowledged ") {
            last = id.parse().unwrap();
            count += 1;
            if count == acknowledgements {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(
        count >= acknowledgements,
        "the child died by itself after {count}"
    );
    last
}

#[tokio::test]
async fn killed_nothing_acknowledged_is_lost() {
    if let Some(dir) = std::env::var_os(DIR) {
        return write_until_killed(dir.into()).await;
    }
    let root = tempfile::tempdir().unwrap();
    for kill in 0..KILLS {
        let acknowledged = kill_after(root.path(), 5 + kill * 23);
        let running = Running::start(often(root.path()));
        let found = commands(&running.handle.read().await.unwrap());
        assert!(
            found.len() as u64 >= acknowledged,
            "{} of {acknowledged}",
            found.len()
        );
        assert_eq!(found, names(1..=found.len() as u64), "after kill {kill}");
        running.stop().await;
    }
}
