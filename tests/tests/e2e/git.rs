//! `skep deploy --repo`: a branch of a real bare repository becomes a service.

use anyhow::{Context as _, Result};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::git::Repository;
use skep_tests::with_cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_is_built_and_served() {
    with_cluster("git", async |cluster| {
        let name = Name::of("site");
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
        let commit = repository.push("main")?;
        let url = repository.url()?;
        let arguments = ["deploy", "--repo", url, "--branch", "main", "--project", "site", "--service", "site"];
        cluster.skep.run(&arguments).await?.ok()?.says(&["builder: Dockerfile", &commit])?;
        cluster.answers(&name, "1").await?;

        // Another branch, and one exact commit of it that is not its newest.
        repository.app.set("2", &[])?;
        let second = repository.push("next")?;
        repository.app.set("3", &[])?;
        repository.push("next")?;
        let git = |branch: &str, commit: Option<&str>| {
            json!({ "type": "git", "repository": url, "branch": branch, "commit": commit })
        };
        let live = cluster.api.live(&name, &git("next", Some(&second))).await?;
        assert_eq!(live.commit.as_deref(), Some(second.as_str()));
        cluster.answers(&name, "2").await?;

        // Each refusal tells what is wrong and what to do, and changes nothing.
        let (missing, _) = cluster.api.fails(&name, &git("nowhere", None)).await?;
        let told = missing.told();
        assert!(told.contains("nowhere") && told.contains("main"), "{told}");
        assert_eq!(missing.code, "source_failed");
        let (no_commit, _) = cluster.api.fails(&name, &git("main", Some(&"f".repeat(40)))).await?;
        assert!(no_commit.told().contains("ffffffff"), "{no_commit:?}");
        let folder = cluster.path("config");
        let folder = folder.to_str().context("a path of text")?;
        let request = json!({ "type": "git", "repository": folder, "branch": "main" });
        let (no_repository, _) = cluster.api.fails(&name, &request).await?;
        assert!(no_repository.message.contains("not a git repository"), "{no_repository:?}");
        cluster.answers(&name, "2").await?;
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_in_a_folder_of_the_repository() {
    with_cluster("monorepo", async |cluster| -> Result<()> {
        let name = Name::of("inner");
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "outer")?;
        let inner = repository.app.dir().join("apps/inner");
        skep_tests::app::App::create(inner, &cluster.run, "inner")?;
        repository.push("main")?;
        cluster.api.put_service(&name, json!({})).await?;
        let mut request = json!({
            "type": "git", "repository": repository.url()?, "branch": "main", "directory": "apps/inner",
        });
        cluster.api.live(&name, &request).await?;
        cluster.answers(&name, "inner").await?;
        request["directory"] = "apps/missing".into();
        let (missing, _) = cluster.api.fails(&name, &request).await?;
        assert!(missing.told().contains("apps/missing"), "{missing:?}");
        request["directory"] = "../outside".into();
        let path = name.path("/deployments");
        cluster.api.refused(http::Method::POST, &path, Some(&request), 400).await?.with_hint()?;
        cluster.answers(&name, "inner").await
    })
    .await;
}
