//! Webhooks: a signed push deploys; what is not signed, not meant or known already does not.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::git::{NO_COMMIT, Repository};
use skep_tests::servers::{Servers, Site};
use skep_tests::storm::{Counts, Storm};
use skep_tests::webhook::{Delivery, push_body, sign};
use skep_tests::{Cluster, place, wait, with_cluster};

/// A build and a rollout.
const DEPLOYED: Duration = Duration::from_secs(60);
/// Deliveries of a storm, half of them duplicates, and what they are for.
const STORM: usize = 200;
/// See [`STORM`].
const STORM_SERVICES: usize = 20;
const STORM_TIME: Duration = Duration::from_secs(2);
/// As GitHub caps its own.
const MAX_BODY_BYTES: usize = 25 << 20;

struct Hook {
    server: SocketAddr,
    path: String,
    secret: String,
}

impl Hook {
    fn signed(&self, event: &str, id: &str, body: &[u8]) -> Delivery {
        Delivery::signed(event, id, body.to_vec(), &self.secret)
    }

    /// Posts and wants this status; answers the reply.
    async fn post(&self, delivery: &Delivery, status: u16) -> Result<Value> {
        let answer = delivery.post(self.server, &self.path).await?;
        assert_eq!(answer.status, status, "{delivery:?}: {}", answer.text());
        answer.json()
    }

    /// Posts and wants it ignored, with a reason.
    async fn ignored(&self, delivery: &Delivery) -> Result<String> {
        let reply = self.post(delivery, 200).await?;
        assert!(reply["deployment"].is_null(), "{reply}");
        Ok(reply["ignored"]
            .as_str()
            .with_context(|| reply.to_string())?
            .to_owned())
    }
}

/// A service from a repository, live at version 1, and its hook.
async fn hooked(cluster: &Cluster, name: &Name) -> Result<(Repository, Hook)> {
    let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
    repository.push("main")?;
    let source = json!({ "type": "git", "repository": repository.url()?, "branch": "main" });
    cluster
        .api
        .put_service(name, json!({ "source": source }))
        .await?;
    cluster.api.live(name, &json!({ "type": "source" })).await?;
    let made = cluster.api.post(&name.path("/webhook"), &json!({})).await?;
    let text = |field: &str| {
        made[field]
            .as_str()
            .map(str::to_owned)
            .with_context(|| made.to_string())
    };
    let hook = Hook {
        server: cluster.api.address(),
        path: text("path")?,
        secret: text("secret")?,
    };
    Ok((repository, hook))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_push_deploys_the_pushed_commit_once() {
    with_cluster("push", async |cluster| {
        let name = Name::of("pushed");
        let (repository, hook) = hooked(cluster, &name).await?;
        cluster.answers(&name, "1").await?;

        repository.app.set("2", &[])?;
        let commit = repository.push("main")?;
        let push = hook.signed(
            "push",
            "delivery-1",
            &push_body("main", NO_COMMIT, &commit)?,
        );
        let reply = hook.post(&push, 202).await?;
        let id = reply["deployment"]
            .as_str()
            .context("a deployment")?
            .to_owned();
        let live = cluster.api.ended(&id).await?;
        assert_eq!(
            (live.status.as_str(), live.commit.as_deref()),
            ("live", Some(commit.as_str())),
            "{live:?}"
        );
        cluster.answers(&name, "2").await?;

        // The same delivery again makes nothing new, also after the server was killed.
        let replayed = hook.post(&push, 200).await?;
        assert_eq!(
            (
                replayed["deployment"].as_str(),
                replayed["replayed"].as_bool()
            ),
            (Some(id.as_str()), Some(true))
        );
        cluster.server.kill().await?;
        cluster.server.start().await?;
        cluster.node_ready().await?;
        assert_eq!(
            hook.post(&push, 200).await?["deployment"].as_str(),
            Some(id.as_str())
        );

        // The command line as a post-receive hook uses it.
        repository.app.set("3", &[])?;
        let third = repository.push("main")?;
        let secret_file = cluster.path("hook.secret");
        std::fs::write(&secret_file, &hook.secret)?;
        std::fs::set_permissions(&secret_file, std::fs::Permissions::from_mode(0o600))?;
        let url = format!("http://{}{}", hook.server, hook.path);
        let file = secret_file.to_str().context("a path of text")?;
        let arguments = [
            "webhook",
            "push",
            "--url",
            &url,
            "--secret-file",
            file,
            "--repo",
            repository.url()?,
            "--ref",
            "refs/heads/main",
            "--before",
            &commit,
            "--after",
            &third,
        ];
        cluster.skep.run(&arguments).await?.ok()?;
        wait::until_ok("the third version", DEPLOYED, async || {
            cluster.answers(&name, "3").await
        })
        .await?;
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_signed_push_of_the_branch_changes_nothing() {
    with_cluster("hooks", async |cluster| {
        let name = Name::of("hooked");
        let (repository, hook) = hooked(cluster, &name).await?;
        repository.app.set("2", &[])?;
        let commit = repository.push("main")?;
        let body = push_body("main", NO_COMMIT, &commit)?;

        // Signatures: missing, empty, of another secret, over other bytes, cut, in other words.
        let right = sign(&hook.secret, &body);
        let wrong = [
            None,
            Some(String::new()),
            Some("sha256=".to_owned()),
            Some(sign("another secret", &body)),
            Some(sign("", &body)),
            Some(sign(&hook.secret, b"{}")),
            Some(right[..right.len() - 2].to_owned()),
            Some(right.replace("sha256=", "sha1=")),
        ];
        for (number, signature) in wrong.into_iter().enumerate() {
            let mut delivery = hook.signed("push", &format!("unsigned-{number}"), &body);
            delivery.signature = signature;
            let problem = hook.post(&delivery, 401).await?;
            assert_eq!(problem["code"], "unauthenticated", "{delivery:?}");
            assert!(problem["hint"].is_string(), "{problem}");
        }

        // A refused delivery does not use up its id; what is ignored says why.
        let ping = hook.signed("ping", "ping-1", b"{\"zen\":\"Design for failure.\"}");
        assert_eq!(hook.post(&ping, 200).await?["pong"], true);
        let other = push_body("other", NO_COMMIT, &commit)?;
        assert!(
            hook.ignored(&hook.signed("push", "other-1", &other))
                .await?
                .contains("other")
        );
        let mut deleted: Value = serde_json::from_slice(&push_body("main", &commit, NO_COMMIT)?)?;
        deleted["deleted"] = true.into();
        hook.ignored(&hook.signed("push", "deleted-1", &serde_json::to_vec(&deleted)?))
            .await?;
        let tag = std::fs::read(place::fixture("webhooks/github/HookTag.json"))?;
        hook.ignored(&hook.signed("push", "tag-1", &tag)).await?;
        hook.ignored(&hook.signed("issues", "issues-1", b"{\"action\":\"opened\"}"))
            .await?;

        // Not what a forge sends.
        let option = push_body("main", NO_COMMIT, "--upload-pack=x")?;
        hook.post(&hook.signed("push", "odd-1", &option), 400)
            .await?;
        hook.post(&hook.signed("push", "odd-2", b"not json"), 400)
            .await?;
        let large = vec![b' '; MAX_BODY_BYTES + 1];
        let problem = hook
            .post(&hook.signed("push", "large-1", &large), 413)
            .await?;
        assert_eq!(problem["code"], "too_large");

        // A hook without a secret takes nothing, whatever the signature.
        let bare = Name::of("bare");
        let made = cluster.api.put_service(&bare, json!({})).await?;
        let path = format!("/v1/hooks/{}", made["id"].as_str().context("an id")?);
        let bare_hook = Hook {
            server: hook.server,
            path,
            secret: String::new(),
        };
        let refused = bare_hook
            .signed("push", "bare-1", &body)
            .post(bare_hook.server, &bare_hook.path)
            .await?;
        assert!(
            matches!(refused.status, 401 | 403),
            "{} {}",
            refused.status,
            refused.text()
        );

        let all = cluster.api.get(&name.path("/deployments")).await?;
        assert_eq!(
            all["deployments"].as_array().map(Vec::len),
            Some(1),
            "{all}"
        );
        cluster.answers(&name, "1").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_deliveries_is_there_once_after_a_kill() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let servers = Servers::start_at(vec![Site::loopback(dir.path(), "server0")?]).await?;
    let outlived = outlives(&servers).await;
    if outlived.is_err() {
        servers.print_logs();
    }
    outlived
}

async fn outlives(servers: &Servers) -> Result<()> {
    let api: Api = servers.server(0).api.clone();
    let storm = Storm::prepare(&api, STORM_SERVICES).await?;
    let apis = [api.clone()];
    let mut told = storm.blow(&apis, STORM, STORM_TIME).await?;
    servers.kill(0).await?;
    servers.start(0).await?;
    wait::until_ok("the server to be ready", DEPLOYED, async || {
        let answer = api.call(Method::GET, "/readyz", None).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(())
    })
    .await?;
    let wanted = |replayed| Counts {
        deployments: STORM / 2,
        replayed,
        superseded: STORM / 2 - STORM_SERVICES,
        queued: STORM_SERVICES,
    };
    assert_eq!(storm.check(&api, &told).await?, wanted(STORM / 2));
    // All of it again: nothing is made, and every delivery is answered with what it made.
    told.extend(storm.blow(&apis, STORM, STORM_TIME).await?);
    assert_eq!(storm.check(&api, &told).await?, wanted(STORM + STORM / 2));
    Ok(())
}
