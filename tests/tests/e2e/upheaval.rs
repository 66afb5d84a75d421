//! Repositories that change under a build: pushed over, deleted, swept; and one of very many files.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::git::{Repository, git};
use skep_tests::{Cluster, chaos, wait, with_cluster};

/// A step that was begun shows within it.
const SEEN: Duration = Duration::from_secs(60);
/// Files of a large repository, in `make test` and in `make chaos`.
const FILES: (u32, u32) = (10_000, 100_000);
/// In each of its folders.
const IN_FOLDER: u32 = 500;

/// Deploys the newest commit of main, and waits until its step goes on.
async fn begin(
    cluster: &Cluster,
    repository: &Repository,
    (name, version): (&Name, &str),
    seconds: u32,
) -> Result<(String, String)> {
    let mark = format!("begun {version} of {}", cluster.run);
    repository.app.set_steps(&format!(
        "ENV VERSION={version}\nRUN busybox echo {mark}; busybox sleep {seconds}"
    ))?;
    let commit = repository.push("main")?;
    let mut origin = origin(repository)?;
    origin["commit"] = commit.as_str().into();
    let id = cluster.api.deploy(name, &origin).await?.id;
    let path = format!("/v1/deployments/{id}/logs?limit=1000");
    wait::until_ok("the step to be begun", SEEN, async || {
        let page = cluster.api.get(&path).await?;
        let mut events = page["events"].as_array().context("events")?.iter();
        let is_begun = events.any(|event| {
            let text = event["text"].as_str().unwrap_or_default();
            text.ends_with(&mark) && !text.contains("RUN")
        });
        ensure!(is_begun, "{page}");
        Ok(())
    })
    .await?;
    Ok((id, commit))
}

fn origin(repository: &Repository) -> Result<Value> {
    Ok(json!({ "type": "git", "repository": repository.url()?, "branch": "main" }))
}

/// Another history in the place of main's, by a name of its own in the clone.
fn push_over(repository: &Repository, name: &str) -> Result<()> {
    let clone = repository.app.dir();
    git(clone, &["checkout", "--quiet", "--orphan", name])?;
    git(
        clone,
        &["commit", "--quiet", "--message", "another history"],
    )?;
    git(
        clone,
        &[
            "push",
            "--quiet",
            "--force",
            "origin",
            "HEAD:refs/heads/main",
        ],
    )
    .map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_a_branch_under_a_build_is_nothing_to_it() {
    with_cluster("upheaval", async |cluster| {
        let name = Name::of("web");
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "0")?;
        let bare = cluster.path("git/app.git");
        cluster.api.put_service(&name, json!({})).await?;

        // Pushed over, and then deleted, while it is built: it is the commit that was asked for.
        let (id, commit) = begin(cluster, &repository, (&name, "1"), 3).await?;
        push_over(&repository, "second")?;
        git(&bare, &["update-ref", "-d", "refs/heads/main"])?;
        let ended = cluster.api.ended(&id).await?;
        ensure!(
            ended.status == "live",
            "{:?}\n{}",
            ended.problem,
            ended.told()
        );
        ensure!(ended.commit.as_ref() == Some(&commit), "{ended:?}");
        cluster.answers(&name, "1").await?;
        let (gone, _) = cluster.api.fails(&name, &origin(&repository)?).await?;
        ensure!(
            gone.code == "source_failed" && gone.message.contains("`main`"),
            "{gone:?}"
        );

        // Pushed over and swept, and the agent begins anew: nobody has the commit any more, which is said.
        let (id, commit) = begin(cluster, &repository, (&name, "2"), 3_600).await?;
        push_over(&repository, "third")?;
        git(&bare, &["reflog", "expire", "--expire=now", "--all"])?;
        git(&bare, &["gc", "--quiet", "--prune=now"])?;
        // Not away for so long that its builds are given up.
        cluster.agent.kill().await?;
        cluster.agent.start().await?;
        let ended = cluster.api.ended(&id).await?;
        let problem = ended.problem.clone().context("a reason")?.told();
        ensure!(ended.status == "failed", "{ended:?}");
        ensure!(
            problem.contains(&commit) && problem.contains("may have been pushed over"),
            "{problem}"
        );
        cluster.answers(&name, "1").await?;
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_of_very_many_files_is_built() {
    with_cluster("manyfiles", async |cluster| {
        let name = Name::of("many");
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
        let files = chaos::count(FILES.0, FILES.1);
        for folder in 0..files / IN_FOLDER {
            let path = repository.app.dir().join(format!("data/{folder}"));
            std::fs::create_dir_all(&path)?;
            for file in 0..IN_FOLDER {
                std::fs::write(
                    path.join(format!("{file}.txt")),
                    format!("{folder}/{file}\n"),
                )?;
            }
        }
        // All of them come to Docker: it counts them.
        repository.app.set_steps(&format!(
            "ENV VERSION=1\nCOPY data /data\n\
             RUN test $(busybox find /data -type f | busybox wc -l) = {files}"
        ))?;
        repository.push("main")?;
        cluster.api.put_service(&name, json!({})).await?;
        let live = cluster.api.live(&name, &origin(&repository)?).await?;
        println!("{files} files\n{}", live.told());
        cluster.answers(&name, "1").await
    })
    .await;
}
