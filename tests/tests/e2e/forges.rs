//! What is written back to forges: how each deployment of a commit stands arrives, whoever is away and whoever dies.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::forge::{Asked, Forge};
use skep_tests::servers::{Servers, Site};
use skep_tests::wait;

/// Networks of the machine itself, where the forges are.
const HERE: (&str, &str) = ("SKEP_NOTIFY_ALLOW", "127.0.0.0/8");
/// An attempt, two pauses, and a loaded machine.
pub(super) const TOLD: Duration = Duration::from_secs(90);
const COMMIT: &str = "366701fde727cb7a9e7f21eb88264f59f6f9b89c";
pub(super) const TOKEN: &str = "s3cret-of-the-test";
pub(super) const HOST: &str = "/v1/forges/127.0.0.1";

/// Servers without a node.
pub(super) async fn with_servers(
    count: usize,
    test: impl AsyncFnOnce(&Servers) -> Result<()>,
) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let site = |place: usize| {
        Ok(Site::loopback(dir.path(), &format!("server{place}"))?.env(HERE.0, HERE.1))
    };
    let sites = (0..count).map(site).collect::<Result<_>>()?;
    let servers = Servers::start_at(sites).await?;
    let outcome = test(&servers).await;
    if outcome.is_err() {
        servers.print_logs();
    }
    outcome
}

/// A connection to the forge as this kind.
pub(super) async fn connect(api: &Api, forge: &Forge, kind: &str, token: &str) -> Result<Value> {
    let request = json!({
        "kind": kind,
        "api_url": format!("http://{}/api/v1", forge.address),
        "token": token,
    });
    api.put(HOST, &request).await
}

/// A deployment of the commit; without a node it stays queued.
async fn deploy(api: &Api, name: &Name) -> Result<String> {
    let request = json!({
        "type": "git",
        "repository": "http://127.0.0.1/Team/shop.git",
        "branch": "main",
        "commit": COMMIT,
    });
    Ok(api.deploy(name, &request).await?.id)
}

async fn cancel(api: &Api, deployment: &str) -> Result<()> {
    let path = format!("/v1/deployments/{deployment}/cancel");
    api.post(&path, &json!({})).await.map(drop)
}

/// Waits for so many statuses.
async fn told(forge: &Forge, count: usize) -> Result<Vec<Asked>> {
    wait::until_ok("the forge to be told", TOLD, async || {
        let all = forge.statuses();
        ensure!(all.len() >= count, "{all:?}");
        Ok(all)
    })
    .await
}

/// Waits until a connection is as wanted.
async fn seen(api: &Api, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    wait::until_ok(what, TOLD, async || {
        let view = api.get(HOST).await?;
        ensure!(is_so(&view), "{view}");
        Ok(view)
    })
    .await
}

fn states(all: &[Asked]) -> Vec<&str> {
    let words = all.iter().map(|it| it.body["state"].as_str());
    words.map(Option::unwrap_or_default).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_shows_how_its_deployment_stands_though_the_forge_was_away() -> Result<()> {
    with_servers(1, async |servers| {
        let (api, name) = (&servers.server(0).api, Name::of("statuses"));
        api.put_service(&name, json!({ "replicas": 1 })).await?;
        let forge = Forge::start(vec![(500, None), (503, None)]).await?;
        let made = connect(api, &forge, "gitea", TOKEN).await?;
        ensure!(!made.to_string().contains(TOKEN), "{made}");
        let tested = api.post(&format!("{HOST}/test"), &json!({})).await?;
        assert_eq!(tested["user"], "skep-bot", "{tested}");

        let deployment = deploy(api, &name).await?;
        let all = told(&forge, 3).await?;
        for one in &all {
            let path = format!("POST /api/v1/repos/Team/shop/statuses/{COMMIT}");
            assert_eq!(one.line, path);
            assert_eq!(one.headers["authorization"], format!("token {TOKEN}"));
            assert_eq!(one.body["context"], "skep/statuses/production/statuses");
        }
        assert_eq!(states(&all), ["pending"; 3]);
        seen(api, "the outcome to be taken down", |it| {
            it["waiting"] == 0 && it["problem"].is_null()
        })
        .await?;
        cancel(api, &deployment).await?;
        let all = told(&forge, 4).await?;
        assert_eq!(states(&all)[3], "error");

        // What does not want to be seen is not; and neither is what nobody is connected for.
        let quiet = Name::of("quiet");
        let spec = json!({ "replicas": 1, "pushes": { "statuses": false } });
        api.put_service(&quiet, spec).await?;
        deploy(api, &quiet).await?;
        let again = deploy(api, &name).await?;
        let all = told(&forge, 5).await?;
        assert_eq!(all[4].body["context"], "skep/statuses/production/statuses");
        let removed = api.call(Method::DELETE, HOST, None).await?;
        assert_eq!(removed.status, 204);
        cancel(api, &again).await?;
        let gone = api.refused(Method::GET, HOST, None, 404).await?;
        assert!(gone.told().contains("skep forge add"), "{gone:?}");
        assert_eq!(forge.statuses().len(), 5);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_obeyed_and_a_token_that_is_not_known_stops_everything() -> Result<()> {
    with_servers(1, async |servers| {
        let (api, name) = (&servers.server(0).api, Name::of("limited"));
        api.put_service(&name, json!({ "replicas": 1 })).await?;
        let forge = Forge::start(vec![(429, Some(("retry-after", "3600".into())))]).await?;
        connect(api, &forge, "github", TOKEN).await?;
        let first = deploy(api, &name).await?;
        told(&forge, 1).await?;
        let limited = seen(api, "the limit", |it| !it["resume_ms"].is_null()).await?;
        let why = limited["problem"].as_str().context("a problem")?;
        assert!(why.contains("429"), "{why}");
        // Newer news wait, and take the place of older ones.
        cancel(api, &first).await?;
        let waits = api.get(HOST).await?;
        assert_eq!(waits["waiting"], 1, "{waits}");
        assert_eq!(forge.statuses().len(), 1);

        // Somebody changes the token: to one that is not known, then to one that is.
        forge.know("another");
        connect(api, &forge, "github", TOKEN).await?;
        let refused = seen(api, "the refusal", |it| it["refused"] == true).await?;
        let why = refused["problem"].as_str().context("a problem")?;
        assert!(why.contains("invalid credentials"), "{why}");
        assert!(!refused.to_string().contains(TOKEN), "{refused}");
        let path = format!("{HOST}/test");
        let test = api
            .refused(Method::POST, &path, Some(&json!({})), 503)
            .await?;
        assert!(test.told().contains("skep forge add"), "{test:?}");
        connect(api, &forge, "github", "another").await?;
        let all = told(&forge, 3).await?;
        assert_eq!(states(&all), ["pending", "error", "error"]);
        assert_eq!(all[2].headers["authorization"], "Bearer another");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_before_the_forge_answers_leaves_nothing_untold() -> Result<()> {
    with_servers(3, async |servers| {
        servers.settled().await?;
        let name = Name::of("outlived");
        let first = &servers.server(0).api;
        first.put_service(&name, json!({ "replicas": 1 })).await?;
        // It hears and never answers: the leader dies with the request under way.
        let forge = Forge::start(vec![(0, None)]).await?;
        connect(first, &forge, "forgejo", TOKEN).await?;
        deploy(first, &name).await?;
        told(&forge, 1).await?;
        let leader = servers.leader().await?;
        servers.kill(leader).await?;
        let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
        servers.leader_among(&others).await?;
        let all = told(&forge, 2).await?;
        assert_eq!(states(&all), ["pending", "pending"]);
        assert_eq!(all[0].body, all[1].body);
        let api = &servers.server(others[0]).api;
        seen(api, "it to be taken down", |it| it["waiting"] == 0).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn github_shows_each_deployment_once_in_its_environment_whoever_dies() -> Result<()> {
    with_servers(3, async |servers| {
        servers.settled().await?;
        let name = Name::of("shown");
        let first = &servers.server(0).api;
        first.put_service(&name, json!({ "replicas": 1 })).await?;
        // It takes the deployment and does not say so: the leader dies before it can take its number down.
        let forge = Forge::start(Vec::new()).await?;
        forge.be_mute();
        connect(first, &forge, "github", TOKEN).await?;
        let deployment = deploy(first, &name).await?;
        let made = wait::until_ok("a deployment", TOLD, async || {
            let all = forge.deployments();
            ensure!(all.len() == 1, "{all:?}");
            Ok(all[0].clone())
        })
        .await?;
        assert_eq!(made["environment"], "shown/production", "{made}");
        assert_eq!(made["ref"], COMMIT);
        assert_eq!(made["required_contexts"], json!([]));
        let leader = servers.leader().await?;
        servers.kill(leader).await?;
        let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
        servers.leader_among(&others).await?;
        let api = &servers.server(others[0]).api;
        seen(api, "it to be taken down", |it| it["waiting"] == 0).await?;
        assert_eq!(forge.deployments()[0]["state"], "queued");
        cancel(api, &deployment).await?;
        wait::until("its end", TOLD, async || {
            let all = forge.deployments();
            Ok((all[0]["state"] == "inactive").then_some(()))
        })
        .await?;
        assert_eq!(forge.deployments().len(), 1);
        Ok(())
    })
    .await
}
