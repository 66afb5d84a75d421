//! Gates: what waits for a yes, for the end of a freeze, for a pinned service or for the checks of its commit takes nobody's place,
//! and goes on by itself when it may.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::forge::Forge;
use skep_tests::git::Repository;
use skep_tests::servers::{Servers, Site};
use skep_tests::skep::Ended;
use skep_tests::webhook::{Delivery, push_body};
use skep_tests::{wait, with_cluster};

/// Questions to a forge, and a loaded machine.
const ASKED: Duration = Duration::from_secs(90);
const COMMIT: &str = "366701fde727cb7a9e7f21eb88264f59f6f9b89c";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_at_a_gate_leaves_what_is_live_alone_until_somebody_opens() {
    with_cluster("gates", async |cluster| -> Result<()> {
        let name = Name::of("shop");
        let skep = async |line: &str| -> Result<Ended> {
            let words: Vec<&str> = line.split_whitespace().collect();
            cluster.skep.run(&words).await
        };
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
        repository.push("main")?;
        let url = repository.url()?.to_owned();
        let becomes = async |version: &str| -> Result<()> {
            let what = format!("version {version}");
            wait::until_ok(&what, ASKED, async || cluster.answers(&name, version).await).await
        };
        let deploy = format!("deploy --repo {url} --project shop --service shop");
        skep(&deploy).await?.ok()?;
        cluster.answers(&name, "1").await?;

        // Somebody's yes.
        let of = "--project shop -e production";
        skep(&format!("gate approval on {of}")).await?.ok()?;
        repository.app.set("2", &[])?;
        repository.push("main")?;
        skep(&deploy).await?.ok()?.says(&[
            "not begun yet",
            "has to be approved",
            "skep approve shop",
        ])?;
        cluster.answers(&name, "1").await?;
        skep(&format!("gate show {of}"))
            .await?
            .ok()?
            .says(&["approval", "shop/production/shop"])?;
        skep("status shop --project shop")
            .await?
            .ok()?
            .says(&["healthy", "at the gates"])?;
        // What brings nothing new is not held up, and what waits goes on waiting.
        skep("restart shop --project shop").await?.ok()?;
        cluster.answers(&name, "1").await?;
        // A folder cannot wait; it may be approved with the same breath.
        let app = cluster.app("folder", "folder")?;
        let folder = app.dir().display().to_string();
        skep(&format!("up {folder} --project shop --service shop"))
            .await?
            .says(&["a folder cannot wait", "--approve"])?
            .ok()
            .expect_err("refused");
        skep("approve shop --project shop").await?.ok()?;
        becomes("2").await?;
        skep("approve shop --project shop")
            .await?
            .says(&["no deployment of it waits at a gate"])?
            .ok()
            .expect_err("nothing waits");

        // The end of a freeze, or somebody who says that it does not matter.
        skep(&format!("gate approval off {of}")).await?.ok()?;
        let freeze = "gate freeze fair --from 2020-01-01 --until 2120-01-01 --reason stand";
        skep(&format!("{freeze} {of}"))
            .await?
            .ok()?
            .says(&["frozen until 2120-01-01 00:00:00 UTC", "stand"])?;
        repository.app.set("3", &[])?;
        repository.push("main")?;
        skep(&deploy).await?.ok()?.says(&["frozen until 2120"])?;
        skep(&format!("{deploy} --approve"))
            .await?
            .ok()?
            .says(&["frozen until 2120"])?;
        cluster.answers(&name, "2").await?;
        skep("approve shop --project shop")
            .await?
            .ok()?
            .says(&["it begins after the freeze `fair`"])?;
        skep("approve shop --project shop --despite-freeze")
            .await?
            .ok()?;
        becomes("3").await?;
        // A freeze that is taken away opens at once, without anybody's yes.
        repository.app.set("4", &[])?;
        repository.push("main")?;
        skep(&deploy).await?.ok()?.says(&["frozen until 2120"])?;
        skep(&format!("gate thaw fair {of}")).await?.ok()?;
        becomes("4").await?;

        // A pinned service.
        skep("rollback shop --project shop --pin").await?.ok()?;
        cluster.answers(&name, "3").await?;
        skep(&deploy)
            .await?
            .ok()?
            .says(&["pinned", "skep unpin shop"])?;
        skep("status shop --project shop")
            .await?
            .ok()?
            .says(&["pinned", "rolled back"])?;
        cluster.answers(&name, "3").await?;
        skep("cancel shop --project shop").await?.ok()?;
        skep(&deploy).await?.ok()?.says(&["pinned"])?;
        skep("unpin shop --project shop").await?.ok()?;
        becomes("4").await?;
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}

/// Servers without a node, near a forge: what is let through waits for a builder.
async fn with_servers(count: usize, test: impl AsyncFnOnce(&Servers) -> Result<()>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let site = |place: usize| {
        let site = Site::loopback(dir.path(), &format!("server{place}"))?;
        Ok(site.env("SKEP_NOTIFY_ALLOW", "127.0.0.0/8"))
    };
    let sites = (0..count).map(site).collect::<Result<_>>()?;
    let servers = Servers::start_at(sites).await?;
    let outcome = test(&servers).await;
    if outcome.is_err() {
        servers.print_logs();
    }
    outcome
}

fn runs(status: &str, conclusion: Option<&str>) -> Value {
    json!({ "check_runs": [
        { "name": "build", "status": status, "conclusion": conclusion },
        { "name": "skep/shop/production/shop", "status": "in_progress", "conclusion": null },
    ]})
}

/// A service that waits for the checks of what is pushed, and how it is told of pushes.
struct Watched {
    name: Name,
    path: String,
    secret: String,
}

impl Watched {
    async fn new(api: &Api, forge: &Forge) -> Result<Self> {
        let name = Name::of("shop");
        let spec = json!({
            "replicas": 1,
            "source": {
                "type": "git",
                "repository": "http://127.0.0.1/Codertocat/Hello-World.git",
                "branch": "main",
                "directory": "",
            },
            "pushes": { "wait_for_ci": { "deadline_ms": 600_000 }, "poll_ms": 0 },
        });
        api.put_service(&name, spec).await?;
        let request = json!({
            "kind": "github",
            "api_url": format!("http://{}/api/v1", forge.address),
            "token": "s3cret",
        });
        api.put("/v1/forges/127.0.0.1", &request).await?;
        let made = api.post(&name.path("/webhook"), &json!({})).await?;
        let text = |field: &str| made[field].as_str().map(str::to_owned);
        Ok(Self {
            name,
            path: text("path").context("a path")?,
            secret: text("secret").context("a secret")?,
        })
    }

    /// A push of this commit; the deployment that was made.
    async fn push(&self, api: &Api, commit: &str) -> Result<String> {
        let body = push_body("main", &"0".repeat(40), commit)?;
        let answer = Delivery::signed("push", commit, body, &self.secret)
            .post_to(api, &self.path)
            .await?;
        ensure!(answer.status == 202, "{answer:?}");
        let reply: Value = serde_json::from_slice(&answer.body)?;
        let id = reply["deployment"].as_str();
        Ok(id.context("a deployment")?.to_owned())
    }

    /// Waits until a deployment says this of itself.
    async fn says(&self, api: &Api, id: &str, text: &str) -> Result<Value> {
        let what = format!("`{text}`");
        wait::until_ok(&what, ASKED, async || {
            let view = api.get(&format!("/v1/deployments/{id}")).await?;
            ensure!(view.to_string().contains(text), "{view}");
            Ok(view)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_waits_until_its_checks_are_green_and_one_that_fails_is_never_deployed() -> Result<()>
{
    with_servers(1, async |servers| {
        let api = &servers.server(0).api;
        let forge = Forge::start(Vec::new()).await?;
        let required = json!({ "required_status_checks": { "contexts": ["build"] } });
        forge.show("/branches/main", json!({ "protection": required }));
        forge.show("/check-runs", runs("in_progress", None));
        forge.show("/status", json!({ "statuses": [] }));
        let shop = Watched::new(api, &forge).await?;
        let first = shop.push(api, COMMIT).await?;
        let view = shop.says(api, &first, "`build` has not ended").await?;
        ensure!(view["held"] == true && view["status"] == "queued", "{view}");

        // The forge says that something is new: it is asked at once.
        let before = forge.asked_for("/check-runs");
        forge.show("/check-runs", runs("completed", Some("success")));
        let name = json!({ "full_name": "Codertocat/Hello-World" });
        let body = json!({ "check_run": { "head_sha": COMMIT }, "repository": name });
        let told = Delivery::signed("check_run", "run-1", body.to_string(), &shop.secret)
            .post_to(api, &shop.path)
            .await?;
        ensure!(told.status == 200, "{told:?}");
        let text = String::from_utf8_lossy(&told.body);
        ensure!(text.contains("a deployment waits for it"), "{text}");
        let view = shop.says(api, &first, "nothing holds it any more").await?;
        ensure!(view["held"] == false, "{view}");
        ensure!(forge.asked_for("/check-runs") > before);

        // A newer push takes the place of what waits; red is the end of it.
        forge.show("/check-runs", runs("completed", Some("failure")));
        let second = shop.push(api, &"b".repeat(40)).await?;
        let view = shop.says(api, &second, "\"failed\"").await?;
        let why = view["problem"]["message"].as_str().context("a problem")?;
        ensure!(
            why.contains("the checks of its commit failed: `build`"),
            "{why}"
        );

        // By hand nobody waits.
        let by_hand = api.deploy(&shop.name, &json!({ "type": "source" })).await?;
        let view = api.get(&format!("/v1/deployments/{}", by_hand.id)).await?;
        ensure!(view["held"] == false, "{view}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_goes_on_waiting_for_checks() -> Result<()> {
    with_servers(3, async |servers| {
        servers.settled().await?;
        let first = &servers.server(0).api;
        let forge = Forge::start(Vec::new()).await?;
        let required = json!({ "required_status_checks": { "contexts": ["build"] } });
        forge.show("/branches/main", json!({ "protection": required }));
        forge.show("/check-runs", runs("queued", None));
        forge.show("/status", json!({ "statuses": [] }));
        let shop = Watched::new(first, &forge).await?;
        let waiting = shop.push(first, COMMIT).await?;
        shop.says(first, &waiting, "`build` has not ended").await?;
        let leader = servers.leader().await?;
        servers.kill(leader).await?;
        forge.show("/check-runs", runs("completed", Some("success")));
        let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
        servers.leader_among(&others).await?;
        let api = &servers.server(others[0]).api;
        let view = shop
            .says(api, &waiting, "nothing holds it any more")
            .await?;
        ensure!(view["held"] == false, "{view}");
        Ok(())
    })
    .await
}
