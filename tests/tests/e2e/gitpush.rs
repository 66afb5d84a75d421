//! `git push skep main`: no forge anywhere, real git over TLS, and what the node keeps of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::Value;
use skep_tests::api::Name;
use skep_tests::app::App;
use skep_tests::git::git;
use skep_tests::random::Random;
use skep_tests::{Cluster, wait, with_cluster};

const SEEN: Duration = Duration::from_secs(60);
/// What pushes are in while they come.
const INCOMING: &str = "incoming-";
/// Larger than all that is on the way between git and the disk.
const LARGE: usize = 48 << 20;

/// Somebody's repository with the app in it.
struct Work {
    app: App,
}

impl Work {
    fn create(cluster: &Cluster, version: &str) -> Result<Self> {
        let app = cluster.app("work", version)?;
        git(
            app.dir(),
            &["init", "--quiet", "--initial-branch=main", "."],
        )?;
        let work = Self { app };
        work.commit()?;
        Ok(work)
    }

    fn commit(&self) -> Result<String> {
        let dir = self.app.dir();
        git(dir, &["add", "--all"])?;
        git(
            dir,
            &[
                "commit",
                "--quiet",
                "--allow-empty",
                "--message",
                "a change",
            ],
        )?;
        git(dir, &["rev-parse", "HEAD"])
    }
}

/// The store of the only service that was pushed to.
fn store(cluster: &Cluster) -> Result<PathBuf> {
    let folder = cluster.path("node/agent/pushed");
    let mut all = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    Ok(all.next().context("no store")??.path())
}

/// Sizes of the packs of a store, smallest first.
fn packs(store: &Path) -> Result<Vec<u64>> {
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(store.join("objects/pack"))? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|it| it == "pack") {
            sizes.push(entry.metadata()?.len());
        }
    }
    sizes.sort_unstable();
    Ok(sizes)
}

fn incoming(store: &Path) -> Result<Vec<PathBuf>> {
    let all = std::fs::read_dir(store)?.map(|entry| Ok(entry?.path()));
    let all: Result<Vec<PathBuf>> = all.collect();
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(INCOMING)
    };
    Ok(all?.into_iter().filter(is_one).collect())
}

/// What was pushed is built and rolled out in its own time.
async fn serves(cluster: &Cluster, name: &Name, version: &str) -> Result<()> {
    wait::until_ok("what was pushed to serve", SEEN, async || {
        cluster.answers(name, version).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_is_built_and_served() {
    with_cluster("gitpush", async |cluster| {
        let name = Name::of("pushed");
        let work = Work::create(cluster, "1")?;
        let noise: String = (0..200_000u32)
            .map(|n| format!("{:x}\n", n.wrapping_mul(2_654_435_761)))
            .collect();
        work.app.write("noise.txt", &noise)?;
        let first = work.commit()?;
        let dir = work.app.dir();
        let add = [
            "git",
            "remote",
            "add",
            "--service",
            "pushed",
            "--project",
            "pushed",
        ];
        let added = cluster.skep.run_in(dir, &add).await?.ok()?;
        added.says(&[
            "leads to pushed/production/pushed, which was made now",
            "git push skep main",
        ])?;
        let config = std::fs::read_to_string(dir.join(".git/config"))?;
        ensure!(
            !config.contains(&cluster.bootstrap.token),
            "the token is in {config}"
        );
        // By HTTP/2 Debian's git hangs now and then.
        ensure!(config.contains("version = HTTP/1.1"), "{config}");
        // A second time changes nothing.
        cluster.skep.run_in(dir, &add).await?.ok()?;
        let pushed = cluster
            .skep
            .git(dir, &["push", "skep", "main"])
            .await?
            .ok()?;
        pushed.says(&["remote: kept on node", "remote: deployment ", " is queued"])?;
        serves(cluster, &name, "1").await?;
        let kept = store(cluster)?;
        let whole = packs(&kept)?;

        // A small change sends little.
        work.app.set("2", &[])?;
        let second = work.commit()?;
        cluster
            .skep
            .git(dir, &["push", "skep", "main"])
            .await?
            .ok()?;
        serves(cluster, &name, "2").await?;
        let both = packs(&kept)?;
        ensure!(
            both.len() == 2 && both[0] * 100 < whole[0],
            "{whole:?} {both:?}"
        );
        let live: Value = cluster.api.get(&name.path("/deployments")).await?;
        let newest = &live["deployments"][0];
        ensure!(newest["commit"] == *second, "{newest}");
        ensure!(
            newest["origin"]["type"] == "pushed" && newest["origin"]["branch"] == "main",
            "{newest}"
        );

        // Back to the first by force, and by a rollback; another branch is stored and not deployed.
        cluster
            .skep
            .git(dir, &["push", "skep", &format!("+{first}:refs/heads/main")])
            .await?
            .ok()?;
        serves(cluster, &name, "1").await?;
        cluster.skep.run(&["rollback", "pushed"]).await?.ok()?;
        serves(cluster, &name, "2").await?;
        let other = cluster
            .skep
            .git(dir, &["push", "skep", "main:dev"])
            .await?
            .ok()?;
        other.says(&["dev is stored: the service deploys `main`, not `dev`"])?;
        // What the service comes from is what was pushed.
        cluster
            .api
            .live(&name, &serde_json::json!({ "type": "source" }))
            .await?;
        serves(cluster, &name, "1").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_or_breaks_off_leaves_nothing() {
    with_cluster("gitcut", async |cluster| {
        let name = Name::of("cut");
        let work = Work::create(cluster, "1")?;
        let dir = work.app.dir();
        let add = [
            "git",
            "remote",
            "add",
            "--service",
            "cut",
            "--project",
            "cut",
        ];
        cluster.skep.run_in(dir, &add).await?.ok()?;
        cluster
            .skep
            .git(dir, &["push", "skep", "main"])
            .await?
            .ok()?;
        serves(cluster, &name, "1").await?;
        let kept = store(cluster)?;
        let before = packs(&kept)?;

        let url = git(dir, &["remote", "get-url", "skep"])?;
        let wrong = url.replace("https://", "https://x:wrong-token@");
        let refused = cluster
            .skep
            .git(dir, &["push", &wrong, "main:other"])
            .await?
            .code(128)?;
        refused.says(&["the token is not one of this cluster"])?;
        let cloned = cluster.skep.git(dir, &["fetch", "skep"]).await?.code(128)?;
        cloned.says(&["takes pushes only"])?;

        // A git that dies while its pack is on the way.
        let mut random = Random::new(7);
        let noise: Vec<u8> = (0..LARGE / 8)
            .flat_map(|_| random.next_u64().to_le_bytes())
            .collect();
        std::fs::write(dir.join("large.bin"), noise)?;
        work.app.set("2", &[])?;
        work.commit()?;
        let pushing = cluster
            .skep
            .spawn_git(dir, &["-c", "pack.compression=0", "push", "skep", "main"])?;
        wait::until_ok("the pack to come", SEEN, async || {
            ensure!(!incoming(&kept)?.is_empty(), "nothing comes");
            Ok(())
        })
        .await?;
        pushing.kill().await?;
        wait::until_ok("nothing of it to be left", SEEN, async || {
            let left = incoming(&kept)?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await?;
        assert_eq!(packs(&kept)?, before);
        let all: Value = cluster.api.get(&name.path("/deployments")).await?;
        assert_eq!(
            all["deployments"].as_array().map(Vec::len),
            Some(1),
            "{all}"
        );

        // The same again, whole; and the store goes with its service when the node says that it has it.
        cluster
            .skep
            .git(dir, &["push", "skep", "main"])
            .await?
            .ok()?;
        serves(cluster, &name, "2").await?;
        cluster
            .api
            .call(Method::DELETE, &name.path(""), None)
            .await?;
        wait::until_ok("the service to be gone", SEEN, async || {
            let all = cluster.api.get("/v1/services").await?;
            ensure!(
                all["services"].as_array().is_some_and(Vec::is_empty),
                "{all}"
            );
            Ok(())
        })
        .await?;
        cluster.agent.kill().await?;
        cluster.agent.start().await?;
        wait::until_ok("the store to be gone", SEEN, async || {
            ensure!(!kept.exists(), "{} is there", kept.display());
            Ok(())
        })
        .await
    })
    .await;
}
