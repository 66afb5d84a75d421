//! Registries: what is built is pushed to one, whether it is there in that moment or not; a tag that moves is deployed.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::git::Repository;
use skep_tests::registry::{LocalRegistry, PASSWORD, USER};
use skep_tests::{Cluster, wait, with_cluster};

/// A push of a small image over the loopback.
const PUSHED: Duration = Duration::from_secs(60);
/// The same, after the pauses between attempts in vain.
const PUSHED_LATE: Duration = Duration::from_secs(180);

/// A pause of ten seconds, a pull and a rollout.
const DEPLOYED: Duration = Duration::from_secs(90);
/// A pause of ten seconds and a question.
const ASKED: Duration = Duration::from_secs(90);

/// Has the cluster push to `registry` from now on.
async fn push_to(cluster: &Cluster, registry: &LocalRegistry, more: Value) -> Result<()> {
    let mut request = json!({
        "host": registry.host(), "prefix": "team", "user": USER, "password": PASSWORD,
    });
    let fields = more.as_object().context("an object")?;
    request
        .as_object_mut()
        .context("an object")?
        .extend(fields.clone());
    cluster.api.put("/v1/push-registry", &request).await?;
    Ok(())
}

/// What is said of the push of a deployment.
async fn push_of(cluster: &Cluster, deployment: &str) -> Result<Value> {
    let view = cluster
        .api
        .get(&format!("/v1/deployments/{deployment}"))
        .await?;
    Ok(view["push"].clone())
}

async fn pushed(cluster: &Cluster, deployment: &str, within: Duration) -> Result<String> {
    wait::until("the image at the registry", within, async || {
        let push = push_of(cluster, deployment).await?;
        Ok(push["digest"].as_str().map(str::to_owned))
    })
    .await
}

async fn newest_image(cluster: &Cluster, name: &Name) -> Result<Value> {
    let releases = cluster.api.get(&name.path("/releases")).await?;
    Ok(releases["releases"][0]["image"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_built_is_pushed_under_its_commit_also_when_the_registry_was_away() {
    with_cluster("registry", async |cluster| {
        let registry = LocalRegistry::start(&cluster.path("registry")).await?;
        push_to(cluster, &registry, json!({})).await?;
        let name = Name::of("pushed");
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
        let first = repository.push("main")?;
        let source = json!({ "type": "git", "repository": repository.url()?, "branch": "main" });
        cluster
            .api
            .put_service(
                &name,
                json!({ "source": source, "pushes": { "poll_ms": 0 } }),
            )
            .await?;
        let request = json!({ "type": "source" });
        let live = cluster.api.live(&name, &request).await?;
        let digest = pushed(cluster, &live.id, PUSHED).await?;

        // Under its commit, labelled with it, and exactly what the release names.
        let at = format!("team/default/{0}/{0}", "pushed");
        let (there, labels) = registry.image(&at, &first).await?;
        ensure!(there == digest, "{there} {digest}");
        ensure!(
            labels["org.opencontainers.image.revision"] == json!(first),
            "{labels}"
        );
        let image = newest_image(cluster, &name).await?;
        ensure!(image["digest"] == json!(digest), "{image}");
        let by_digest = format!("{}/{at}@{digest}", registry.host());
        ensure!(image["pushed"] == json!(by_digest), "{image}");

        // A registry that is away keeps nothing from going live, and is told of.
        registry.kill().await?;
        repository.app.set("2", &[])?;
        let second = repository.push("main")?;
        let live = cluster.api.live(&name, &request).await?;
        cluster.answers(&name, "2").await?;
        wait::until("the trouble", PUSHED, async || {
            let push = push_of(cluster, &live.id).await?;
            Ok(push["problem"]["message"].as_str().map(str::to_owned))
        })
        .await?;
        let told = cluster
            .skep
            .run(&["deployments", "pushed/production/pushed"])
            .await?
            .ok()?;
        told.says(&["not pushed", &registry.host()])?;
        let told = cluster.skep.run(&["registry", "show"]).await?.ok()?;
        told.says(&["pushed/production/pushed", "cannot be reached"])?;

        // Another agent's life, and the registry is back: it is pushed by itself.
        cluster.agent.kill().await?;
        cluster.agent.start().await?;
        registry.start_again().await?;
        let digest = pushed(cluster, &live.id, PUSHED_LATE).await?;
        let (there, _) = registry.image(&at, &second).await?;
        ensure!(there == digest, "{there} {digest}");
        let told = cluster.skep.run(&["registry", "show"]).await?.ok()?;
        if told.stdout.contains("pushed/production/pushed") {
            bail!("still waiting: {}", told.stdout);
        }
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_be_pushed_waits_for_a_login_that_is_taken() {
    with_cluster("registry-required", async |cluster| {
        let registry = LocalRegistry::start(&cluster.path("registry")).await?;
        let wrong = json!({ "password": "not-it", "required": true });
        push_to(cluster, &registry, wrong).await?;
        let name = Name::of("strict");
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
        let commit = repository.push("main")?;
        cluster.api.put_service(&name, json!({})).await?;
        let request = json!({ "type": "git", "repository": repository.url()?, "branch": "main" });
        let deployment = cluster.api.deploy(&name, &request).await?;
        wait::until("the refusal", PUSHED_LATE, async || {
            let push = push_of(cluster, &deployment.id).await?;
            Ok((push["problem"]["code"] == "forbidden").then_some(()))
        })
        .await?;
        let waits = cluster.api.deployment(&deployment.id).await?;
        ensure!(waits.status == "pushing", "{}", waits.told());

        // The right password, by hand: it goes on.
        push_to(cluster, &registry, json!({ "required": true })).await?;
        let live = cluster.api.ended(&deployment.id).await?;
        ensure!(live.status == "live", "{}", live.told());
        registry
            .image("team/default/strict/strict", &commit)
            .await?;
        cluster.answers(&name, "1").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_moves_is_deployed_once() {
    with_cluster("registry-tag", async |cluster| {
        let registry = LocalRegistry::start(&cluster.path("registry")).await?;
        let host = registry.host();
        let login = json!({ "user": USER, "password": PASSWORD });
        cluster
            .api
            .put(&format!("/v1/registries/{host}"), &login)
            .await?;
        let first = cluster.image("1", &[]).await?;
        let at = ("team/tagged", "live");
        let reference = registry.push(&cluster.containers, &first, at).await?;
        let name = Name::of("tagged");
        let source = json!({ "type": "image", "reference": reference });
        let spec = json!({ "source": source, "pushes": { "poll_ms": 10_000 } });
        cluster.api.put_service(&name, spec).await?;
        cluster
            .api
            .live(&name, &json!({ "type": "source" }))
            .await?;
        cluster.answers(&name, "1").await?;

        let second = cluster.image("2", &[]).await?;
        registry.push(&cluster.containers, &second, at).await?;
        wait::until_ok("the second version", DEPLOYED, async || {
            cluster.answers(&name, "2").await
        })
        .await?;

        let told = cluster.skep.run(&["status", "tagged/production/tagged"]);
        told.await?.ok()?.says(&["asked", "ago"])?;

        // Its registry is away: said, and over when it is back; nothing is deployed for that.
        registry.kill().await?;
        let problem = async || {
            let view = cluster.api.get(&name.path("")).await?;
            Ok(view["source_problem"]["message"]
                .as_str()
                .map(str::to_owned))
        };
        let said = wait::until("the trouble", ASKED, problem).await?;
        ensure!(
            said.contains(&host) && said.contains("cannot be reached"),
            "{said}"
        );
        registry.start_again().await?;
        wait::until("its end", ASKED, async || {
            Ok(problem().await?.is_none().then_some(()))
        })
        .await?;
        let page = cluster.api.get(&name.path("/deployments")).await?;
        let all = page["deployments"].as_array().context("a list")?;
        let triggers: Vec<_> = all.iter().map(|it| &it["trigger"]).collect();
        ensure!(triggers == ["poll", "api"], "{triggers:?}");
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_no_node_has_any_more_comes_back_from_the_registry() {
    with_cluster("registry-back", async |cluster| {
        let registry = LocalRegistry::start(&cluster.path("registry")).await?;
        let pull = json!({ "pull": { "user": USER, "password": PASSWORD } });
        push_to(cluster, &registry, pull).await?;
        let name = Name::of("back");
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
        repository.push("main")?;
        cluster.api.put_service(&name, json!({})).await?;
        let request = json!({ "type": "git", "repository": repository.url()?, "branch": "main" });
        let live = cluster.api.live(&name, &request).await?;
        pushed(cluster, &live.id, PUSHED).await?;

        // The node's store and its Docker lose all of it, and nobody builds.
        cluster.agent.kill().await?;
        cluster
            .containers
            .clean(Some(&cluster.id), &cluster.run)
            .await?;
        std::fs::remove_dir_all(cluster.path("node/agent/images"))?;
        cluster.agent.start().await?;
        wait::until_ok("the app to be back", DEPLOYED, async || {
            cluster.answers(&name, "1").await
        })
        .await?;
        cluster.converged(&[(&name, 1)]).await?;
        let all = cluster.api.get(&name.path("/deployments")).await?;
        let count = all["deployments"].as_array().context("a list")?.len();
        ensure!(count == 1, "{all}");
        let log = cluster.agent.log();
        ensure!(log.contains("it is asked for at its registry"), "{log}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_docker_has_for_others_is_not_given_to_who_may_not_pull_it() {
    with_cluster("registry-tenants", async |cluster| {
        let registry = LocalRegistry::start(&cluster.path("registry")).await?;
        let image = cluster.image("1", &[]).await?;
        // Somebody else's, which Docker on the node has under this very name.
        let theirs = ("other/shop/web", "1");
        let reference = registry.push(&cluster.containers, &image, theirs).await?;
        let name = Name::of("thief");
        cluster.api.put_service(&name, json!({})).await?;
        let request = json!({ "type": "image", "reference": reference });

        // The workspace's own login there may not: the cache of the node is no way around.
        let wrong = json!({ "pull": { "user": "tenant", "password": "their-own" } });
        push_to(cluster, &registry, wrong).await?;
        let (refused, _) = cluster.api.fails(&name, &request).await?;
        ensure!(refused.code == "image_failed", "{refused:?}");
        ensure!(refused.told().contains("needs a login"), "{refused:?}");
        let never = json!({ "image": { "pull": "never" } });
        cluster.api.put_service(&name, never).await?;
        let (refused, _) = cluster.api.fails(&name, &request).await?;
        ensure!(refused.told().contains("never"), "{refused:?}");

        // Who may pull it gets it.
        cluster.api.put_service(&name, json!({})).await?;
        push_to(cluster, &registry, json!({})).await?;
        cluster.api.live(&name, &request).await?;
        cluster.answers(&name, "1").await?;

        // Nor by the name that it has in Docker where it was built.
        let built = Name::of("built");
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "2")?;
        repository.push("main")?;
        cluster.api.put_service(&built, json!({})).await?;
        let git = json!({ "type": "git", "repository": repository.url()?, "branch": "main" });
        cluster.api.live(&built, &git).await?;
        let image = newest_image(cluster, &built).await?;
        let request = json!({ "type": "image", "reference": image["reference"] });
        let (refused, _) = cluster.api.fails(&name, &request).await?;
        ensure!(refused.told().contains("skep promote"), "{refused:?}");
        cluster.answers(&name, "1").await
    })
    .await;
}
