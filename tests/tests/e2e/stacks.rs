//! `skep stack`: each push of a Compose file in a repository is carried out, and no more than it; what goes is shown
//! first, and what cannot be read changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_tests::api::Name;
use skep_tests::app::App;
use skep_tests::git::Repository;
use skep_tests::skep::Ended;
use skep_tests::{Cluster, wait, with_cluster};

const SECRET: &str = "hunter2-that-nobody-may-see";
/// A pause of ten seconds, a build and a rollout.
const DEPLOYED: Duration = Duration::from_secs(90);

fn of(service: &str) -> Name {
    Name {
        project: "shop".into(),
        service: service.into(),
    }
}

async fn stack(cluster: &Cluster, arguments: &[&str], wanted: i32) -> Result<Ended> {
    let all = [&["stack"], arguments, &["--project", "shop"]].concat();
    cluster.skep.run(&all).await?.code(wanted)
}

/// The ids of all deployments of a service.
async fn deployments(cluster: &Cluster, service: &str) -> Result<Vec<String>> {
    let page = cluster.api.get(&of(service).path("/deployments")).await?;
    let all = page["deployments"]
        .as_array()
        .with_context(|| page.to_string())?;
    let id = |it: &Value| Some(it["id"].as_str()?.to_owned());
    all.iter().map(id).collect::<Option<_>>().context("ids")
}

async fn all(cluster: &Cluster, services: &[&str]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found = BTreeMap::new();
    for service in services {
        found.insert((*service).to_owned(), deployments(cluster, service).await?);
    }
    Ok(found)
}

async fn names(cluster: &Cluster) -> Result<Vec<String>> {
    let view = cluster.api.get("/v1/services").await?;
    let services = view["services"].as_array().context("a list")?;
    let name = |it: &Value| Some(it["name"].as_str()?.to_owned());
    services
        .iter()
        .map(name)
        .collect::<Option<_>>()
        .context("names")
}

/// Two services that are built, and one of an image.
fn file(image: &str, more: &str) -> String {
    format!(
        "\
services:
  web:
    build: ./web
    ports: [\"8080:8080\"]
    env_file: [config/web.env]
    environment: [\"DB_PASSWORD=${{DB_PASSWORD}}\"]
    depends_on: [api]
    mem_limit: 64m
    privileged: true
  api:
    build: ./api
    ports: [\"8080:8080\"]
    mem_limit: 64m
  cache:
    image: {image}
    mem_limit: 64m
    volumes: [\"data:/data\"]
{more}volumes:
  data:
"
    )
}

struct Shop {
    repository: Repository,
    web: App,
    image: String,
}

async fn shop(cluster: &Cluster) -> Result<Shop> {
    let image = cluster.image("1", &[]).await?;
    let repository = Repository::create(&cluster.path("git"), &cluster.run, "0")?;
    let folder = |name: &str| App::create(repository.app.dir().join(name), &cluster.run, "1");
    let web = folder("web")?;
    folder("api")?;
    repository.app.write("config/web.env", "GREETING=hello\n")?;
    repository.app.write("compose.yaml", &file(&image, ""))?;
    repository.push("main")?;
    Ok(Shop {
        repository,
        web,
        image,
    })
}

async fn connected(cluster: &Cluster, shop: &Shop) -> Result<Ended> {
    cluster
        .skep
        .run(&[
            "env",
            "set",
            "--shared",
            "--secret",
            "--project",
            "shop",
            "-e",
            "production",
            &format!("DB_PASSWORD={SECRET}"),
        ])
        .await?
        .ok()?;
    let url = shop.repository.url()?;
    stack(cluster, &["connect", url, "--poll", "10s"], 0).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_push_is_carried_out_and_no_more_than_it() {
    with_cluster("stacks", async |cluster| {
        let shop = shop(cluster).await?;
        let made = connected(cluster, &shop).await?;
        made.says(&[
            "in force",
            "services.web.privileged (true or false)",
            "make",
        ])?;
        let (web, api, cache) = (of("web"), of("api"), of("cache"));
        cluster.answers(&web, "1").await?;
        cluster.answers(&api, "1").await?;
        let environment = cluster.environment(&web).await?;
        let values = ["GREETING", "DB_PASSWORD"].map(|name| environment[name].as_str());
        assert_eq!(values, ["hello", SECRET]);
        let listed = cluster.api.get(&web.path("/variables")).await?.to_string();
        ensure!(
            !listed.contains(SECRET) && listed.contains("hello"),
            "{listed}"
        );
        let first = all(cluster, &["web", "api", "cache"]).await?;
        ensure!(first.values().all(|it| it.len() == 1), "{first:?}");

        // A push that nobody tells of: what it touches is built, and nothing else.
        shop.web.set("2", &[])?;
        let second = shop.repository.push("main")?;
        wait::until_ok("the second version", DEPLOYED, async || {
            cluster.answers(&web, "2").await
        })
        .await?;
        stack(cluster, &["sync"], 0)
            .await?
            .says(&["in force", &second[..12]])?;
        let then = all(cluster, &["web", "api", "cache"]).await?;
        assert_eq!(
            (&then["api"], &then["cache"]),
            (&first["api"], &first["cache"])
        );
        assert_eq!(
            then["web"].len(),
            2,
            "one build, and none for a sync of what is in force: {then:?}"
        );

        // A variable alone: the same image with another configuration. A service more, and nothing else.
        shop.repository
            .app
            .write("config/web.env", "GREETING=goodbye\n")?;
        let more = format!("  extra:\n    image: {}\n    mem_limit: 64m\n", shop.image);
        shop.repository
            .app
            .write("compose.yaml", &file(&shop.image, &more))?;
        shop.repository.push("main")?;
        stack(cluster, &["sync"], 0)
            .await?
            .says(&["configure", "variables.GREETING", "make"])?;
        assert_eq!(cluster.environment(&web).await?["GREETING"], "goodbye");
        cluster.answers(&web, "2").await?;
        let releases = cluster.api.get(&web.path("/releases")).await?;
        let digest = |at: usize| releases["releases"][at]["image"]["digest"].clone();
        ensure!(
            digest(0) == digest(1) && digest(1) != digest(2),
            "{releases}"
        );
        let last = all(cluster, &["web", "api", "cache"]).await?;
        assert_eq!(
            (&last["api"], &last["cache"]),
            (&first["api"], &first["cache"])
        );

        // One service less: it is shown, and runs on until somebody says yes.
        shop.repository
            .app
            .write("compose.yaml", &file(&shop.image, ""))?;
        shop.repository.push("main")?;
        stack(cluster, &["sync"], 0)
            .await?
            .says(&["has no more, and run on: extra", "approve"])?;
        cluster
            .converged(&[(&web, 1), (&api, 1), (&cache, 1), (&of("extra"), 1)])
            .await?;
        stack(cluster, &["approve"], 2)
            .await?
            .says(&["not confirmed"])?;
        ensure!(
            names(cluster).await?.contains(&"extra".to_owned()),
            "it went"
        );
        stack(cluster, &["approve", "--yes"], 0).await?;
        wait::until("the end of the service", DEPLOYED, async || {
            let is_gone = !names(cluster).await?.contains(&"extra".to_owned());
            Ok(is_gone.then_some(()))
        })
        .await?;
        cluster
            .converged(&[(&web, 1), (&api, 1), (&cache, 1)])
            .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_changes_nothing() {
    with_cluster("stacks-broken", async |cluster| {
        let shop = shop(cluster).await?;
        connected(cluster, &shop).await?;
        let services = ["web", "api", "cache"];
        let before = all(cluster, &services).await?;
        let repository = &shop.repository;
        for (text, told) in [
            ("services:\n  web: [\n", "line 2"),
            ("services: {}\n", "the file has no services"),
            (
                "services: {web: {build: ./nowhere}}\n",
                "no folder `nowhere`",
            ),
            (
                "services: {web: {image: \"a:${DB_PASSWORD}\"}}\n",
                "a secret of the environment",
            ),
            ("services: {web: {build: ../../etc}}\n", "has neither"),
        ] {
            repository.app.write("compose.yaml", text)?;
            shop.web.set("2", &[])?;
            let commit = repository.push("main")?;
            let refused = stack(cluster, &["sync"], 1).await?;
            refused.says(&[told, "compose.yaml", "changes nothing", &commit[..12]])?;
            let shown = stack(cluster, &["status", "--json"], 0).await?;
            ensure!(!shown.stdout.contains(SECRET), "{shown}");
            assert_eq!(all(cluster, &services).await?, before, "{text}");
        }
        cluster.answers(&of("web"), "1").await?;

        // By hand: what the file does not say stays, what it says is in force again.
        cluster
            .skep
            .run(&["scale", "shop/production/api", "2"])
            .await?
            .ok()?;
        repository
            .app
            .write("compose.yaml", &file(&shop.image, ""))?;
        repository.push("main")?;
        stack(cluster, &["sync"], 0).await?.says(&["in force"])?;
        cluster.answers(&of("web"), "2").await?;
        let more = file(&shop.image, "").replace("build: ./api", "build: ./api\n    scale: 3");
        repository.app.write("compose.yaml", &more)?;
        let web = (of("web"), of("api"), of("cache"));
        cluster
            .converged(&[(&web.0, 1), (&web.1, 2), (&web.2, 1)])
            .await?;
        repository.push("main")?;
        stack(cluster, &["sync"], 0)
            .await?
            .says(&["set", "replicas"])?;
        cluster
            .converged(&[(&web.0, 1), (&web.1, 3), (&web.2, 1)])
            .await?;

        // Followed no more: everything stays, and a push is nobody's.
        stack(cluster, &["disconnect"], 0).await?;
        stack(cluster, &["status"], 1)
            .await?
            .says(&["no stack", "skep stack connect"])?;
        cluster
            .converged(&[(&web.0, 1), (&web.1, 3), (&web.2, 1)])
            .await
    })
    .await;
}

/// Has the file read and does not wait.
async fn asked(cluster: &Cluster) -> Result<()> {
    stack(cluster, &["sync", "--no-wait"], 0).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_it_goes_on_and_nothing_is_made_twice() {
    with_cluster("stacks-killed", async |cluster| {
        let shop = shop(cluster).await?;
        connected(cluster, &shop).await?;
        let services = ["web", "api", "cache"];
        let first = all(cluster, &services).await?;
        let api = App::create(shop.repository.app.dir().join("api"), &cluster.run, "2")?;
        // Long enough on its way for whoever depends on it not to have begun.
        api.set("2", &[("START_DELAY_MS", "6000")])?;
        shop.web.set("2", &[])?;
        let commit = shop.repository.push("main")?;
        asked(cluster).await?;
        // One of two is under way, the other waits for it.
        wait::until("the first of two", DEPLOYED, async || {
            let is_begun = deployments(cluster, "api").await?.len() == 2;
            Ok(is_begun.then_some(()))
        })
        .await?;
        let begun = all(cluster, &services).await?;
        assert_eq!(begun["web"].len(), 1, "it waits: {begun:?}");
        cluster.server.kill().await?;
        cluster.agent.kill().await?;
        cluster.agent.start().await?;
        cluster.server.start().await?;
        cluster.server_answers().await?;
        wait::until_ok("both", DEPLOYED, async || {
            cluster.answers(&of("api"), "2").await?;
            cluster.answers(&of("web"), "2").await
        })
        .await?;
        let shown = stack(cluster, &["status", "--json"], 0).await?.json()?;
        assert_eq!(shown["reading"]["commit"], commit.as_str());
        let last = all(cluster, &services).await?;
        let counts = services.map(|name| last[name].len());
        assert_eq!(counts, [2, 2, 1], "{last:?}");
        assert_eq!(last["cache"], first["cache"]);

        // What fails is told, with who depends on it, and what ran goes on.
        api.set("3", &[("EXIT_AT_ONCE", "3")])?;
        shop.web.set("3", &[])?;
        shop.repository.push("main")?;
        let failed = stack(cluster, &["sync"], 1).await?;
        failed.says(&[
            "api:",
            "web: it depends on `api`, which is not live",
            "sync",
        ])?;
        cluster.answers(&of("api"), "2").await?;
        cluster.answers(&of("web"), "2").await?;
        api.set("4", &[])?;
        shop.repository.push("main")?;
        stack(cluster, &["sync"], 0).await?.says(&["in force"])?;
        cluster.answers(&of("api"), "4").await?;
        cluster.answers(&of("web"), "3").await?;
        let last = all(cluster, &services).await?;
        assert_eq!(last["cache"], first["cache"]);
        cluster
            .converged(&[(&of("web"), 1), (&of("api"), 1), (&of("cache"), 1)])
            .await
    })
    .await;
}
