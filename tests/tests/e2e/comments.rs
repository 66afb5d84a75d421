//! Comments at pull requests: there is one of each preview, it follows what happens, whoever dies in between.

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use skep_tests::api::{Api, Name};
use skep_tests::forge::{Comment, Forge};
use skep_tests::wait;
use skep_tests::webhook::Delivery;

use super::forges::{HOST, TOKEN, TOLD, connect, with_servers};

const FIRST: &str = "366701fde727cb7a9e7f21eb88264f59f6f9b89c";
const SECOND: &str = "466701fde727cb7a9e7f21eb88264f59f6f9b89c";
const PREVIEW: &str = "/v1/previews/shop/pr-12";

/// What the forge calls.
struct Hook {
    path: String,
    secret: String,
}

impl Hook {
    /// A service from a repository of the forge whose pull requests get previews.
    async fn make(api: &Api) -> Result<Self> {
        let name = Name::of("shop");
        let source = json!({
            "type": "git",
            "repository": "http://127.0.0.1/Team/shop.git",
            "branch": "main",
        });
        // Nobody is at that address.
        let spec = json!({ "source": source, "pushes": { "poll_ms": 0 } });
        api.put_service(&name, spec).await?;
        api.put("/v1/preview-rules/shop/production", &json!({}))
            .await?;
        let made = api.post(&name.path("/webhook"), &json!({})).await?;
        let text = |field: &str| made[field].as_str().map(str::to_owned).context("a webhook");
        Ok(Self {
            path: text("path")?,
            secret: text("secret")?,
        })
    }

    async fn change(&self, api: &Api, (id, action): (&str, &str), commit: &str) -> Result<()> {
        let body = json!({"action": action, "number": 12, "repository": {"full_name": "Team/shop"},
            "pull_request": {"title": "More",
                "head": {"ref": "more", "sha": commit, "repo": {"full_name": "Team/shop"}},
                "base": {"ref": "main", "repo": {"full_name": "Team/shop"}}}});
        let body = serde_json::to_vec(&body)?;
        let delivery = Delivery::signed("pull_request", id, body, &self.secret);
        let answer = delivery.post_to(api, &self.path).await?;
        ensure!(answer.status < 300, "{}: {}", answer.status, answer.text());
        Ok(())
    }
}

/// Waits until the one comment that there is says this.
async fn says(forge: &Forge, words: &[&str]) -> Result<Comment> {
    wait::until_ok("the comment", TOLD, async || {
        let all = forge.comments();
        let text = all.first().map(|it| it.text.as_str()).unwrap_or_default();
        ensure!(words.iter().all(|word| text.contains(word)), "{all:?}");
        ensure!(all.len() == 1, "{all:?}");
        Ok(all[0].clone())
    })
    .await
}

/// Waits until what came of it is taken down.
async fn is_told(api: &Api) -> Result<Value> {
    wait::until_ok("it to be taken down", TOLD, async || {
        let view = api.get(PREVIEW).await?;
        ensure!(view["comment"]["state"] == "told", "{view}");
        Ok(view)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_request_has_one_comment_that_follows_its_preview() -> Result<()> {
    with_servers(1, async |servers| {
        let api = &servers.server(0).api;
        let hook = Hook::make(api).await?;
        let forge = Forge::start(Vec::new()).await?;
        forge.comment("Looks good to me");
        connect(api, &forge, "gitea", TOKEN).await?;
        hook.change(api, ("d-1", "opened"), FIRST).await?;
        let words = ["### Preview `pr-12` of `shop`", "| `shop` | queued |"];
        let made = says(&forge, &words).await?;
        ensure!(made.text.contains("| 366701f |"), "{made:?}");
        let view = is_told(api).await?;
        ensure!(view["comment"]["problem"].is_null(), "{view}");

        // A push, an end that is put off, the end.
        hook.change(api, ("d-2", "synchronize"), SECOND).await?;
        let pushed = says(&forge, &["| 466701f |"]).await?;
        let ends = |comment: &Comment| {
            let line = comment.text.lines().find(|it| it.contains("It ends by"));
            line.map(str::to_owned)
        };
        let far = json!({ "ttl_ms": 20 * 24 * 3_600_000_u64 });
        api.post(&format!("{PREVIEW}/extend"), &far).await?;
        let before = ends(&pushed).context("it says when it ends")?;
        wait::until("the later end", TOLD, async || {
            let now = forge.comments().first().and_then(ends);
            Ok(now.filter(|now| *now != before))
        })
        .await?;
        hook.change(api, ("d-3", "closed"), SECOND).await?;
        let ended = says(&forge, &["It ended on", "closed"]).await?;
        ensure!(!ended.text.contains("| `shop`"), "{ended:?}");

        // Opened again it has another preview, and the same comment.
        hook.change(api, ("d-4", "reopened"), SECOND).await?;
        let again = says(&forge, &["It ends by itself", "| `shop` | queued |"]).await?;
        ensure!(again.id == made.id, "{again:?}");
        let talks = forge.talks();
        let posts = talks.iter().filter(|it| it.line.starts_with("POST"));
        assert_eq!(posts.count(), 1, "{talks:?}");
        let listed = talks.iter().filter(|it| it.line.starts_with("GET"));
        assert_eq!(
            listed.count(),
            1,
            "what is known is not looked for: {talks:?}"
        );
        let waits = api.get(HOST).await?;
        ensure!(waits["problem"].is_null(), "{waits}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_before_it_knows_its_comment_leaves_no_second_one() -> Result<()> {
    with_servers(3, async |servers| {
        servers.settled().await?;
        let first = &servers.server(0).api;
        let hook = Hook::make(first).await?;
        let forge = Forge::start(Vec::new()).await?;
        forge.comment("Looks good to me");
        connect(first, &forge, "forgejo", TOKEN).await?;
        // It takes the comment and does not say so: the leader dies between that and what it would take down.
        forge.be_mute();
        hook.change(first, ("d-1", "opened"), FIRST).await?;
        let made = says(&forge, &["| 366701f |"]).await?;
        let leader = servers.leader().await?;
        servers.kill(leader).await?;
        let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
        servers.leader_among(&others).await?;
        let api = &servers.server(others[0]).api;
        is_told(api).await?;
        hook.change(api, ("d-2", "synchronize"), SECOND).await?;
        let pushed = says(&forge, &["| 466701f |"]).await?;
        assert_eq!(pushed.id, made.id);
        let talks = forge.talks();
        let posts = talks.iter().filter(|it| it.line.starts_with("POST"));
        assert_eq!(posts.count(), 1, "{talks:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comment_that_is_refused_says_why_and_one_that_was_deleted_is_made_again() -> Result<()> {
    with_servers(1, async |servers| {
        let api = &servers.server(0).api;
        let hook = Hook::make(api).await?;
        let forge = Forge::start(Vec::new()).await?;
        connect(api, &forge, "gitea", TOKEN).await?;
        forge.lock(true);
        hook.change(api, ("d-1", "opened"), FIRST).await?;
        let refused = wait::until_ok("the refusal", TOLD, async || {
            let view = api.get(PREVIEW).await?;
            ensure!(view["comment"]["state"] == "given_up", "{view}");
            Ok(view)
        })
        .await?;
        let why = refused["comment"]["problem"].as_str().context("a reason")?;
        ensure!(
            why.contains("403") && why.contains("comments at pull"),
            "{why}"
        );
        ensure!(forge.comments().is_empty());
        // Somebody has seen to it, and says so.
        forge.lock(false);
        connect(api, &forge, "gitea", TOKEN).await?;
        let made = says(&forge, &["| 366701f |"]).await?;
        is_told(api).await?;

        forge.delete(made.id);
        hook.change(api, ("d-2", "synchronize"), SECOND).await?;
        let again = says(&forge, &["| 466701f |"]).await?;
        ensure!(again.id != made.id, "{again:?}");
        let path = HOST.to_owned();
        api.call(Method::DELETE, &path, None).await?;
        let gone = api.get(PREVIEW).await?;
        ensure!(gone["comment"].is_null(), "nobody is told: {gone}");
        Ok(())
    })
    .await
}
