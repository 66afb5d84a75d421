//! Notifications: every outcome of a deployment arrives, signed and under one id, whoever is away and whoever dies.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::listener::Listener;
use skep_tests::servers::{Servers, Site};
use skep_tests::{place, wait, with_cluster_set};

/// Networks of the machine itself, where the receivers are.
const HERE: (&str, &str) = ("SKEP_NOTIFY_ALLOW", "127.0.0.0/8");
/// An attempt, two pauses, and a loaded machine.
const ARRIVES: Duration = Duration::from_secs(90);
/// How a deployment ends that no node is there for.
const CANCELED: &str = "deployment.canceled";

fn receiver(name: &Name, receiver: &str, rest: &str) -> String {
    format!("/v1/projects/{}/receivers/{receiver}{rest}", name.project)
}

/// A receiver of everything; answers its secret.
async fn add(api: &Api, name: &Name, who: &str, url: &str) -> Result<String> {
    let request = json!({ "url": url, "events": ["deployment.queued", CANCELED] });
    let made = api.put(&receiver(name, who, ""), &request).await?;
    let secret = made["secret"].as_str().with_context(|| made.to_string());
    Ok(secret?.to_owned())
}

/// A deployment that is made and ended; answers its id.
async fn canceled(api: &Api, name: &Name) -> Result<String> {
    let request = json!({ "type": "image", "reference": "example.test/app:1" });
    let made = api.deploy(name, &request).await?;
    let path = format!("/v1/deployments/{}/cancel", made.id);
    api.post(&path, &json!({})).await?;
    Ok(made.id)
}

/// What became of a notification, newest attempt included.
async fn notification(api: &Api, name: &Name, who: &str, id: &str) -> Result<Value> {
    let view = api.get(&receiver(name, who, "/notifications")).await?;
    let all = view["notifications"].as_array();
    let mut all = all.with_context(|| view.to_string())?.iter();
    let found = all.find(|it| it["id"] == id);
    Ok(found.with_context(|| view.to_string())?.clone())
}

async fn has_arrived(api: &Api, name: &Name, who: &str, id: &str) -> Result<Value> {
    wait::until_ok("the notification to arrive", ARRIVES, async || {
        let seen = notification(api, name, who, id).await?;
        ensure!(seen["state"] == "delivered", "{seen}");
        Ok(seen)
    })
    .await
}

/// Servers without a node.
async fn with_servers(count: usize, test: impl AsyncFnOnce(&Servers) -> Result<()>) -> Result<()> {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_arrives_though_it_is_refused_twice_and_others_are_away() -> Result<()> {
    with_servers(1, async |servers| {
        let (api, name) = (&servers.server(0).api, Name::of("told"));
        api.put_service(&name, json!({ "replicas": 1 })).await?;
        // The queued one is taken, the outcome refused twice.
        let flaky = Listener::start(&[204, 500, 503]).await?;
        let silent = Listener::start(&[0; 20]).await?;
        let nobody = format!("http://{}/", place::free_address()?);
        add(api, &name, "away", &nobody).await?;
        add(api, &name, "silent", &silent.url()).await?;
        let secret = add(api, &name, "flaky", &flaky.url()).await?;

        let deployment = canceled(api, &name).await?;
        let id = format!("{deployment}.{CANCELED}");
        let seen = has_arrived(api, &name, "flaky", &id).await?;
        assert_eq!(
            (&seen["attempts"], &seen["last"]["status"]),
            (&json!(3), &json!(204)),
            "{seen}"
        );
        assert_eq!(flaky.ids_of(CANCELED), [&*id, &id, &id]);
        assert_eq!(flaky.ids_of("deployment.queued").len(), 1);
        for heard in flaky.heard() {
            heard.believed(&secret)?;
            assert!(heard.believed("whsec_AAAA").is_err());
            let data = &heard.body["data"];
            assert_eq!(data["deployment"], *deployment, "{data}");
            assert_eq!(
                (&data["project"], &data["service"]),
                (&json!("told"), &json!("told"))
            );
            assert_eq!(heard.body["version"], 1);
        }

        // The others have nothing, are shown, and have kept nobody waiting.
        let away = notification(api, &name, "away", &id).await?;
        assert_eq!(away["state"], "pending", "{away}");
        let why = away["last"]["problem"]
            .as_str()
            .with_context(|| away.to_string())?;
        assert!(why.contains("refused"), "{why}");
        let silent_one = notification(api, &name, "silent", &id).await?;
        assert_eq!(silent_one["state"], "pending", "{silent_one}");
        assert!(!silent.heard().is_empty());

        // What came once comes again where somebody wants it, under its id.
        let again = json!({ "notification": id });
        api.post(&receiver(&name, "flaky", "/retry"), &again)
            .await?;
        wait::until("it to come again", ARRIVES, async || {
            Ok((flaky.ids_of(CANCELED).len() == 4).then_some(()))
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_before_it_hears_an_answer_loses_nothing() -> Result<()> {
    with_servers(3, async |servers| {
        servers.settled().await?;
        let name = Name::of("outlived");
        let first = &servers.server(0).api;
        first.put_service(&name, json!({ "replicas": 1 })).await?;
        // The outcome is heard and never answered: the leader dies with it under way.
        let listener = Listener::start(&[204, 0]).await?;
        let secret = add(first, &name, "ci", &listener.url()).await?;
        let deployment = canceled(first, &name).await?;
        let id = format!("{deployment}.{CANCELED}");
        wait::until("the first attempt", ARRIVES, async || {
            Ok((listener.ids_of(CANCELED).len() == 1).then_some(()))
        })
        .await?;
        let leader = servers.leader().await?;
        servers.kill(leader).await?;
        let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
        servers.leader_among(&others).await?;
        let api = &servers.server(others[0]).api;
        let seen = has_arrived(api, &name, "ci", &id).await?;
        assert_eq!(
            seen["attempts"], 1,
            "the first one was never settled: {seen}"
        );
        assert_eq!(listener.ids_of(CANCELED), [&*id, &id]);
        for heard in listener.heard() {
            heard.believed(&secret)?;
        }
        // The one that was dead learns that it has arrived, and sends nothing.
        servers.start(leader).await?;
        servers.settled().await?;
        let seen = notification(&servers.server(leader).api, &name, "ci", &id).await?;
        assert_eq!(seen["state"], "delivered", "{seen}");
        assert_eq!(listener.heard().len(), 3);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_add_try_see_and_remove_receivers() {
    let here = [(HERE.0, HERE.1.to_owned())];
    with_cluster_set("notify", &here, async |cluster| {
        let (name, live) = cluster.service("notified", "1", json!({})).await?;
        let listener = Listener::start(&[]).await?;
        let run = async |words: &[&str]| {
            let line = [&["notify"], words, &["--project", "notified"]].concat();
            cluster.skep.run(&line).await
        };
        let added = run(&["add", "ci", &listener.url(), "--json"])
            .await?
            .ok()?
            .json()?;
        let secret = added["secret"].as_str().context("a secret")?.to_owned();
        run(&["add", "ci", &listener.url()])
            .await?
            .code(1)?
            .says(&["skep notify set"])?;
        run(&["test", "ci"]).await?.ok()?.says(&["has taken"])?;
        listener.heard()[0].believed(&secret)?;
        assert_eq!(listener.heard()[0].body["type"], "test");

        // A release that does not come up, and one that does.
        let broken = cluster.image("2", &[("EXIT_AT_ONCE", "3")]).await?;
        let request = json!({ "type": "image", "reference": broken });
        let failed = cluster.api.deploy(&name, &request).await?;
        let good = cluster.image("3", &[]).await?;
        let failed = cluster.api.ended(&failed.id).await?;
        assert_eq!(failed.status, "failed", "{failed:?}");
        let request = json!({ "type": "image", "reference": good });
        let third = cluster.api.live(&name, &request).await?;
        let ids = [
            format!("{}.deployment.failed", failed.id),
            format!("{}.deployment.superseded", live.id),
            format!("{}.deployment.live", third.id),
        ];
        for id in &ids {
            has_arrived(&cluster.api, &name, "ci", id).await?;
        }
        let heard = listener.heard();
        assert_eq!(heard.len(), 4, "{heard:?}");
        for (heard, id) in heard[1..].iter().zip(&ids) {
            heard.believed(&secret)?;
            assert_eq!(heard.id, *id);
        }
        let reason = heard[1].body["data"]["reason"].as_str();
        assert!(reason.is_some_and(|it| !it.is_empty()), "{:?}", heard[1]);
        let url = heard[3].body["data"]["url"].as_str().context("a url")?;
        assert!(url.contains(&cluster.host(&name)), "{url}");

        let seen = run(&["show", "ci"]).await?.ok()?;
        seen.says(&["deployment.failed", "delivered", "production/notified"])?;
        run(&["set", "ci", "--off"]).await?.ok()?.says(&["off"])?;
        run(&["test", "ci"]).await?.code(1)?.says(&["--on"])?;
        // A server's own link is nobody's to tell.
        let linked = json!({ "url": "http://169.254.169.254/latest" });
        let path = receiver(&name, "cloud", "");
        let refused = cluster
            .api
            .refused(Method::PUT, &path, Some(&linked), 400)
            .await?;
        assert!(refused.told().contains("--notify-allow"), "{refused:?}");
        run(&["rm", "ci"]).await?.ok()?;
        run(&["show", "ci"])
            .await?
            .code(1)?
            .says(&["skep notify ls"])?;
        Ok(())
    })
    .await;
}

/// What a CDN wants: its own token, its own words, of one site, once its new release serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cdn_is_told_in_its_own_words_when_a_release_serves() {
    let here = [(HERE.0, HERE.1.to_owned())];
    with_cluster_set("cdn", &here, async |cluster| {
        // It is away at first.
        let cdn = Listener::start(&[503]).await?;
        let dir = tempfile::tempdir()?;
        let headers = dir.path().join("headers.txt");
        std::fs::write(
            &headers,
            "Authorization: Bearer hunter2\nFastly-Soft-Purge: 1\n",
        )?;
        let site = Name::of("site");
        cluster
            .api
            .put_service(&site, json!({ "replicas": 1 }))
            .await?;
        let headers = headers.to_string_lossy().into_owned();
        let add = async |body: &str| {
            let url = cdn.url();
            let line = [
                "notify",
                "add",
                "cdn",
                &url,
                "--project",
                "site",
                "--service",
                "site",
                "--event",
                "deployment.live",
                "--body",
                body,
                "--headers-file",
                &headers,
            ];
            cluster.skep.run(&line).await
        };
        add(r#"{"hosts":[{{host}}]"#)
            .await?
            .code(2)?
            .says(&["no JSON"])?;
        add(r#"{"hosts":["{{secret}}"]}"#)
            .await?
            .code(2)?
            .says(&["{{secret}}", "service"])?;
        let made = add(r#"{"hosts":["{{host}}"],"tag":"{{service}}-{{release}}"}"#)
            .await?
            .ok()?;
        let made = made.says(&["a body and headers of its own"])?;
        assert!(!made.stdout.contains("hunter2"), "{}", made.stdout);

        let image = cluster.image("1", &[]).await?;
        let request = json!({ "type": "image", "reference": image });
        let live = cluster.api.live(&site, &request).await?;
        // Another service of the project is not its business.
        let other = Name {
            service: "api".to_owned(),
            ..site.clone()
        };
        cluster
            .api
            .put_service(&other, json!({ "replicas": 1 }))
            .await?;
        cluster.api.live(&other, &request).await?;
        let id = format!("{}.deployment.live", live.id);
        has_arrived(&cluster.api, &site, "cdn", &id).await?;
        let heard = cdn.heard();
        assert_eq!(
            heard.len(),
            2,
            "refused once, and of one service: {heard:?}"
        );
        for one in &heard {
            assert_eq!(one.id, id);
            assert_eq!(one.header("authorization")?, "Bearer hunter2");
            assert_eq!(one.header("fastly-soft-purge")?, "1");
            assert_eq!(one.body["hosts"][0], cluster.host(&site), "{}", one.body);
            assert_eq!(one.body["tag"], "site-1");
        }

        // Its own again, and the other service, too.
        let line = [
            "notify",
            "set",
            "cdn",
            "--project",
            "site",
            "--no-body",
            "--all-services",
        ];
        cluster.skep.run(&line).await?.ok()?;
        let next = cluster.image("2", &[]).await?;
        let request = json!({ "type": "image", "reference": next });
        let live = cluster.api.live(&other, &request).await?;
        let id = format!("{}.deployment.live", live.id);
        has_arrived(&cluster.api, &site, "cdn", &id).await?;
        let last = cdn.heard().pop().context("one more")?;
        assert_eq!(last.body["data"]["service"], "api", "{}", last.body);
        assert!(last.header("authorization").is_err());
        Ok(())
    })
    .await;
}
