//! Previews: a pull request of a real repository is served, moves with a push, and goes without a trace; production
//! never notices.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::git::Repository;
use skep_tests::webhook::Delivery;
use skep_tests::{Cluster, http as plain, wait, with_cluster};

/// A build, a rollout, or the end of containers.
const SOON: Duration = Duration::from_secs(120);

struct Hook {
    path: String,
    secret: String,
}

/// A web service from a repository, live at version 1, a database with a volume beside it, and rules.
async fn start(cluster: &Cluster, name: &Name, rules: Value) -> Result<(Repository, Hook)> {
    let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
    repository.push("main")?;
    let source = json!({ "type": "git", "repository": repository.url()?, "branch": "main" });
    cluster
        .api
        .put_service(name, json!({ "source": source }))
        .await?;
    cluster.api.live(name, &json!({ "type": "source" })).await?;
    let db = Name {
        project: name.project.clone(),
        service: "db".into(),
    };
    let volume = json!({ "storage": { "volumes": [{ "name": "data", "path": "/data" }] } });
    cluster.api.put_service(&db, volume).await?;
    let image = cluster.shell_image("db").await?;
    cluster
        .api
        .live(&db, &json!({ "type": "image", "reference": image }))
        .await?;
    let path = format!("/v1/preview-rules/{}/production", name.project);
    cluster.api.put(&path, &rules).await?;
    let made = cluster.api.post(&name.path("/webhook"), &json!({})).await?;
    let text = |field: &str| made[field].as_str().map(str::to_owned).context("a webhook");
    let hook = Hook {
        path: text("path")?,
        secret: text("secret")?,
    };
    Ok((repository, hook))
}

impl Hook {
    async fn change(
        &self,
        cluster: &Cluster,
        (id, action): (&str, &str),
        commit: &str,
    ) -> Result<Value> {
        let body = json!({"action": action, "number": 12, "repository": {"full_name": "team/shop"},
            "pull_request": {"title": "More",
                "head": {"ref": "more", "sha": commit, "repo": {"full_name": "team/shop"}},
                "base": {"ref": "main", "repo": {"full_name": "team/shop"}}}});
        let body = serde_json::to_vec(&body)?;
        let delivery = Delivery::signed("pull_request", id, body, &self.secret);
        let answer = delivery.post(cluster.api.address(), &self.path).await?;
        ensure!(answer.status < 300, "{}: {}", answer.status, answer.text());
        answer.json()
    }
}

/// Waits until the preview's web service answers with this version.
async fn shows(cluster: &Cluster, name: &Name, version: &str) -> Result<()> {
    let host = format!("{}-pr-12-{}.localhost", name.service, name.project);
    let wanted = format!("version={version} ");
    wait::until_ok("the preview", SOON, async || {
        let answer = plain::get(cluster.ingress, &host, "/").await?;
        ensure!(answer.text().contains(&wanted), "{}", answer.text());
        Ok(())
    })
    .await
}

/// Waits until nothing of the preview is left: no environment, no container.
async fn is_gone(cluster: &Cluster, containers: usize) -> Result<()> {
    wait::until("the end of the preview", SOON, async || {
        let previews = cluster.api.get("/v1/previews").await?;
        let is_empty = previews["previews"].as_array().is_some_and(Vec::is_empty);
        let all = cluster.containers.of_cluster(&cluster.id).await?;
        let running = all.iter().filter(|one| one.runs).count();
        Ok((is_empty && running == containers).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_request_is_served_moves_with_a_push_and_goes_without_a_trace() {
    with_cluster("preview", async |cluster| {
        let name = Name::of("shop");
        let (repository, hook) = start(cluster, &name, json!({ "idle_ms": 0 })).await?;
        let before = cluster.containers.of_cluster(&cluster.id).await?;
        let database = before.iter().find(|one| one.runs).context("it runs")?;
        ensure!(
            before.iter().filter(|one| one.runs).count() == 2,
            "{before:?}"
        );

        repository.app.set("2", &[])?;
        let commit = repository.push("more")?;
        hook.change(cluster, ("d-1", "opened"), &commit).await?;
        shows(cluster, &name, "2").await?;
        cluster.answers(&name, "1").await?;
        wait::until("the preview's database", SOON, async || {
            let shown = cluster.api.get("/v1/previews/shop/pr-12").await?;
            let services = shown["services"].as_array().context("a list")?;
            let is_live = |it: &&Value| it["deployment"] == "live";
            Ok((services.iter().filter(is_live).count() == 2).then_some(()))
        })
        .await?;
        let volumes = cluster.api.get("/v1/volumes").await?;
        let held = volumes["volumes"].as_array().context("a list")?.len();
        ensure!(held == 2, "a volume of its own: {volumes}");

        repository.app.set("3", &[])?;
        let commit = repository.push("more")?;
        hook.change(cluster, ("d-2", "synchronize"), &commit)
            .await?;
        shows(cluster, &name, "3").await?;
        cluster.answers(&name, "1").await?;

        hook.change(cluster, ("d-3", "closed"), &commit).await?;
        is_gone(cluster, 2).await?;
        let path = "/v1/previews/shop/pr-12";
        cluster
            .api
            .refused(Method::GET, path, None, 404)
            .await?
            .with_hint()?;
        cluster.answers(&name, "1").await?;
        let after = cluster.containers.of_cluster(&cluster.id).await?;
        ensure!(
            after.iter().any(|one| one.id == database.id && one.runs),
            "production's own"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_ends_by_itself_when_nothing_is_pushed() {
    with_cluster("preview-ttl", async |cluster| {
        let name = Name::of("shop");
        let rules = json!({ "services": ["shop"], "ttl_ms": 10_000, "idle_ms": 0 });
        let (repository, hook) = start(cluster, &name, rules).await?;
        let commit = repository.push("more")?;
        let told = hook.change(cluster, ("d-1", "opened"), &commit).await?;
        ensure!(told["deployment"].is_string(), "{told}");
        is_gone(cluster, 2).await?;
        cluster.answers(&name, "1").await
    })
    .await;
}
