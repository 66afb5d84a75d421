//! Builds by whichever builder the daemon has; builds that fail, are canceled or begun anew; and what
//! is left of each.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::dockerd::Dockerd;
use skep_tests::git::Repository;
use skep_tests::process::runs;
use skep_tests::{Cluster, wait, with_cluster, with_cluster_on};

/// A step that was begun shows, and one that was ended is gone, within it.
const SEEN: Duration = Duration::from_secs(60);

/// The newest deployment of a service and all that was said of it, as the API has it.
async fn events(cluster: &Cluster, id: &str) -> Result<Vec<Value>> {
    let page = cluster
        .api
        .get(&format!("/v1/deployments/{id}/logs?limit=1000"))
        .await?;
    Ok(page["events"].as_array().context("events")?.clone())
}

fn texts(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| event["text"].as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buildkit_builds_where_the_daemon_has_it() {
    with_cluster("buildkit", async |cluster| {
        let name = Name::of("kit");
        let app = cluster.app("app", "1")?;
        let up = ["up", app.path()?, "--project", "kit", "--service", "kit"];
        // The cache is the test's own, and outlives the first image.
        let lines = |version: u32| {
            format!(
                "ENV VERSION={version}\n\
                 RUN --mount=type=cache,id={},target=/cache busybox echo built >> /cache/times; \
                 busybox echo times $(busybox wc -l < /cache/times); \
                 busybox printf '\\033[31mred\\033[0m\\033[2J\\n'",
                cluster.run
            )
        };
        app.set_steps(&lines(1))?;
        let first = cluster.skep.run(&up).await?.ok()?;
        let first = first.says(&[
            "docker: BuildKit",
            "] RUN --mount",
            "times 1",
            "    #",
            "DONE",
        ])?;
        cluster.answers(&name, "1").await?;
        app.set_steps(&lines(2))?;
        cluster.skep.run(&up).await?.ok()?.says(&["times 2"])?;
        cluster.answers(&name, "2").await?;

        // Colours reach the API as they were written; a pipe gets the words alone.
        assert!(
            !first.stdout.contains('\x1b') && first.stdout.contains("red"),
            "{first}"
        );
        let all = cluster.api.get(&name.path("/deployments")).await?;
        let newest = &all["deployments"][0];
        let said = events(cluster, newest["id"].as_str().context("an id")?).await?;
        assert!(
            texts(&said).iter().any(|line| line.contains("\x1b[31mred")),
            "{said:#?}"
        );

        // Whose image it is.
        let releases = cluster.api.get(&name.path("/releases")).await?;
        let image = releases["releases"][0]["image"]["reference"]
            .as_str()
            .context("an image")?;
        let inspected = cluster.containers.docker().inspect_image(image).await?;
        let labels = inspected
            .config
            .and_then(|config| config.labels)
            .unwrap_or_default();
        assert_eq!(
            labels.get("sh.skep.cluster"),
            Some(&cluster.id),
            "{labels:?}"
        );
        assert_eq!(
            labels.get("sh.skep.service").map(String::as_str),
            newest["service_id"].as_str()
        );

        // A step that fails is named with its last words, and takes nothing away.
        app.set_steps("RUN busybox echo cc: no such file >&2; exit 3")?;
        let failed = cluster.skep.run(&up).await?.code(1)?;
        failed.says(&[
            "(RUN busybox echo",
            "failed with exit code 3",
            "  cc: no such file",
            "hint:",
        ])?;
        cluster.answers(&name, "2").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_classic_builder_builds_where_the_daemon_wants_it() {
    let config = json!({ "features": { "buildkit": false } });
    let daemon = Dockerd::start_with(&config)
        .await
        .expect("a Docker daemon of the test's own");
    let outcome = with_cluster_on(daemon.socket(), "classic", async |cluster| {
        let app = cluster.app("app", "1")?;
        let up = ["up", app.path()?, "--project", "old", "--service", "old"];
        let told = cluster.skep.run(&up).await?.ok()?;
        told.says(&[
            "docker: the classic builder (the daemon's configuration asks for it)",
            "Step 1/",
        ])?;
        cluster.answers(&Name::of("old"), "1").await?;
        app.set_steps("RUN --mount=type=cache,target=/c busybox true")?;
        let needs = cluster.skep.run(&up).await?.code(1)?;
        needs
            .says(&["hint: this Dockerfile needs BuildKit"])
            .map(drop)
    })
    .await;
    daemon.remove().await.expect("the daemon goes");
    outcome.expect("classic");
}

/// A service from a repository whose build goes on until it is ended, and its deployment.
async fn begin_endless(
    cluster: &Cluster,
    repository: &Repository,
    name: &Name,
    mark: &str,
) -> Result<String> {
    repository.app.set_steps(&format!(
        "RUN busybox echo begun {mark}; busybox sleep 3600; : {mark}"
    ))?;
    repository.push("main")?;
    cluster.api.put_service(name, json!({})).await?;
    let request = json!({ "type": "git", "repository": repository.url()?, "branch": "main" });
    let made = cluster.api.deploy(name, &request).await?;
    wait::until_ok("the step to be begun", SEEN, async || {
        let said = events(cluster, &made.id).await?;
        let begun = format!("begun {mark}");
        if !texts(&said).iter().any(|line| line.ends_with(&begun)) {
            bail!("{said:#?}");
        }
        Ok(())
    })
    .await?;
    Ok(made.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canceled_build_leaves_nothing_that_runs() {
    with_cluster("cancelbuild", async |cluster| {
        let mark = format!("{}-endless", cluster.run);
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
        let id = begin_endless(cluster, &repository, &Name::of("web"), &mark).await?;
        assert!(runs(&mark), "the step is a process of this machine");
        cluster
            .api
            .post(&format!("/v1/deployments/{id}/cancel"), &json!({}))
            .await?;
        assert_eq!(cluster.api.ended(&id).await?.status, "canceled");
        wait::until("the step to be gone", SEEN, async || {
            Ok((!runs(&mark)).then_some(()))
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_is_begun_anew_tells_both_runs() {
    with_cluster("anew", async |cluster| {
        let name = Name::of("web");
        let mark = format!("{}-anew", cluster.run);
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
        let id = begin_endless(cluster, &repository, &name, &mark).await?;
        let before = events(cluster, &id).await?;
        cluster.agent.kill().await?;
        // What the second run fetches ends.
        repository
            .app
            .set_steps("ENV VERSION=1\nRUN busybox echo the second run")?;
        repository.push("main")?;
        cluster.agent.start().await?;
        let ended = cluster.api.ended(&id).await?;
        assert_eq!(
            ended.status,
            "live",
            "{:?}\n{}",
            ended.problem,
            ended.told()
        );
        cluster.answers(&name, "1").await?;

        let all = events(cluster, &id).await?;
        assert_eq!(
            all[..before.len()],
            before,
            "what was read stays what it was"
        );
        let numbers: Vec<u64> = all
            .iter()
            .filter_map(|event| event["seq"].as_u64())
            .collect();
        assert_eq!(numbers, (1..=all.len() as u64).collect::<Vec<_>>());
        let lines = texts(&all);
        let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
        assert_eq!(count("builder: Dockerfile"), 2, "{lines:#?}");
        assert_eq!(count("the build begins anew"), 1, "{lines:#?}");
        assert!(
            lines.iter().any(|line| line.ends_with(" the second run")),
            "{lines:#?}"
        );

        // Who read up to the crash goes on behind it.
        let path = format!("/v1/deployments/{id}/logs");
        let last = before.len().to_string();
        let mut stream = cluster.api.events(&path, Some(&last)).await?;
        let next = stream.next().await?.context("an event")?;
        assert_eq!(
            serde_json::from_str::<Value>(&next.data)?,
            all[before.len()]
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_the_services_once_it_was_built() {
    with_cluster("newsource", async |cluster| {
        let name = Name::of("site");
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
        repository.push("main")?;
        let url = repository.url()?;
        let deploy = async |branch: &str| {
            let arguments = [
                "deploy",
                "--repo",
                url,
                "--branch",
                branch,
                "--project",
                "site",
                "--service",
                "site",
            ];
            cluster.skep.run(&arguments).await
        };
        let source = async || -> Result<Value> {
            let service = cluster.api.get(&name.path("")).await?;
            Ok(service["spec"]["source"].clone())
        };
        deploy("main").await?.ok()?;
        assert_eq!(source().await?["branch"], "main");
        // A branch that does not exist, and one that does not build: the service stays with its own.
        deploy("nope").await?.code(1)?.says(&["nope"])?;
        assert_eq!(source().await?["branch"], "main");
        repository.app.set_steps("RUN exit 1")?;
        repository.push("broken")?;
        deploy("broken").await?.code(1)?;
        assert_eq!(source().await?["branch"], "main");
        let again = cluster
            .api
            .live(&name, &json!({ "type": "source" }))
            .await?;
        assert_eq!(again.origin["branch"], "main");
        cluster.answers(&name, "1").await?;

        repository.app.set("2", &[])?;
        repository.push("next")?;
        deploy("next").await?.ok()?;
        assert_eq!(source().await?["branch"], "next");
        // What is set on the service itself is deployed without being named, and stays.
        let spec = json!({ "source": { "type": "git", "repository": url, "branch": "main" } });
        cluster.api.put_service(&name, spec).await?;
        cluster
            .api
            .live(&name, &json!({ "type": "source" }))
            .await?;
        assert_eq!(source().await?["branch"], "main");
        Ok(())
    })
    .await;
}
