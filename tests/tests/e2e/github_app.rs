//! A GitHub App from the first command to a status at a commit: made and installed as a browser does it, a private
//! repository fetched with a token that reads it alone, a push deployed without a webhook of its own.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::git::{NO_COMMIT, Repository};
use skep_tests::github::{CLIENT_SECRET, GitHub, HOOK_SECRET, INSTALLATION, OTHERS, SLUG};
use skep_tests::http::{self as web, Answer};
use skep_tests::webhook::Delivery;
use skep_tests::{Cluster, wait, with_cluster_set};

/// Networks of the machine itself, where the GitHub is.
const HERE: &str = "127.0.0.0/8";
const TOLD: Duration = Duration::from_secs(90);
const DEPLOYED: Duration = Duration::from_secs(120);

async fn near_github(name: &str, test: impl AsyncFnOnce(&Cluster, &GitHub) -> Result<()>) {
    let server = [("SKEP_NOTIFY_ALLOW", HERE.to_owned())];
    with_cluster_set(name, &server, async |cluster| {
        let github = GitHub::start(&cluster.path("repositories")).await?;
        let outcome = test(cluster, &github).await;
        if outcome.is_err() {
            println!("refused at GitHub: {:#?}", github.refused());
        }
        outcome
    })
    .await;
}

/// Asks for a URL, of whichever of the two it is.
async fn open(method: Method, url: &str, form: Option<String>) -> Result<Answer> {
    let uri: http::Uri = url.parse()?;
    let authority = uri.authority().context("a host")?.clone();
    let path = uri.path_and_query().context("a path")?.as_str();
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, authority.as_str());
    if form.is_some() {
        request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    let request = request.body(Full::from(form.unwrap_or_default()))?;
    web::send(authority.as_str().parse()?, request).await
}

/// Follows where somebody is sent; answers with the page at the end.
async fn follow(mut answer: Answer) -> Result<Answer> {
    for _ in 0..5 {
        if !(300..400).contains(&answer.status) {
            return Ok(answer);
        }
        let to = answer.header("location").to_owned();
        answer = open(Method::GET, &to, None).await?;
    }
    bail!("sent around in circles")
}

/// The value of an attribute of a page, as a browser reads it.
fn attribute(page: &str, before: &str) -> Result<String> {
    let (_, rest) = page
        .split_once(before)
        .with_context(|| format!("{before}: {page}"))?;
    let (text, _) = rest.split_once('"').context("a quote")?;
    let text = text.replace("&quot;", "\"").replace("&#39;", "'");
    Ok(text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&"))
}

/// The URL that the command line prints.
async fn asked(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let step = cluster.skep.run(arguments).await?.ok()?.json()?;
    Ok(step["url"].as_str().context("a URL")?.to_owned())
}

async fn create(cluster: &Cluster, github: &GitHub) -> Result<String> {
    let (base, api, site) = (
        format!("http://{}", cluster.api.address()),
        github.api_url(),
        github.web_url(),
    );
    let arguments = [
        "forge",
        "app",
        "create",
        "--json",
        "--host",
        "127.0.0.1",
        "--organization",
        "acme",
        "--url",
        &base,
        "--api-url",
        &api,
        "--web-url",
        &site,
    ];
    asked(cluster, &arguments).await
}

/// Makes the App as a browser does; answers with where it is installed.
async fn made(cluster: &Cluster, github: &GitHub) -> Result<String> {
    let url = create(cluster, github).await?;
    let page = open(Method::GET, &url, None).await?;
    assert_eq!(page.status, 200, "{}", page.text());
    let policy = page.header("content-security-policy");
    let wanted = format!("form-action {};", github.web_url());
    ensure!(
        policy.contains("default-src 'none'") && policy.contains(&wanted),
        "{policy}"
    );
    let manifest = attribute(&page.text(), "name=\"manifest\" value=\"")?;
    let action = attribute(&page.text(), "action=\"")?;
    let form = form(&[("manifest", &manifest)]);
    let answer = open(Method::POST, &action, Some(form)).await?;
    let back = answer.header("location").to_owned();
    let page = follow(answer).await?;
    assert_eq!(page.status, 200, "{}", page.text());
    // Whoever comes with the same again gets nothing.
    let again = open(Method::GET, &back, None).await?;
    assert_eq!(again.status, 404, "{}", again.text());
    attribute(&page.text(), "<a href=\"")
}

fn form(fields: &[(&str, &str)]) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(fields).finish()
}

fn push_of(commit: &str, before: &str, installation: u64) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&json!({
        "ref": "refs/heads/main", "before": before, "after": commit, "commits": [],
        "installation": { "id": installation },
        "repository": { "full_name": "acme/shop", "default_branch": "main" },
    }))?)
}

/// A private repository at the GitHub, and a service that comes from there and says nothing else.
async fn service(cluster: &Cluster, github: &GitHub, name: &Name) -> Result<Repository> {
    let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
    repository.push("main")?;
    let place = cluster.path("repositories").join("acme");
    std::fs::create_dir_all(&place)?;
    std::os::unix::fs::symlink(repository.url()?, place.join("shop.git"))?;
    let url = format!("{}/acme/shop.git", github.web_url());
    let source = json!({ "type": "git", "repository": url, "branch": "main" });
    let spec = json!({ "source": source, "pushes": { "poll_ms": 0 } });
    cluster.api.put_service(name, spec).await?;
    Ok(repository)
}

async fn states(github: &GitHub, commit: &str, last: &str) -> Result<()> {
    wait::until_ok("the commit to show how it stands", TOLD, async || {
        let all = github.statuses();
        let its = all.iter().filter(|(path, _)| path.ends_with(commit));
        let its: Vec<_> = its
            .map(|(_, said)| said["state"].as_str().unwrap_or_default())
            .collect();
        ensure!(its.last() == Some(&last), "{its:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_made_in_a_browser_deploys_a_private_repository_and_shows_it() {
    near_github("github-app", async |cluster, github| {
        let name = Name::of("shop");
        let install = made(cluster, github).await?;
        let manifest = github.manifest().context("a manifest")?;
        assert_eq!(manifest["public"], false, "{manifest}");
        let page = follow(open(Method::GET, &install, None).await?).await?;
        ensure!(
            page.status == 200 && page.text().contains("acme"),
            "{}",
            page.text()
        );
        assert_eq!(github.people(), 0, "the person's token is thrown away");

        // Who may what is shown; nothing that is secret is.
        cluster
            .skep
            .run(&["forge", "ls"])
            .await?
            .ok()?
            .says(&["app at acme", "lacks rights"])?;
        let shown = cluster
            .skep
            .run(&["forge", "app", "show", "--json"])
            .await?
            .ok()?
            .json()?;
        assert_eq!(
            shown["installations"][0]["missing"],
            json!(["statuses: write"]),
            "{shown}"
        );
        for secret in [CLIENT_SECRET, HOOK_SECRET, "PRIVATE KEY"] {
            ensure!(!shown.to_string().contains(secret), "{shown}");
        }
        cluster
            .skep
            .run(&["forge", "test", "127.0.0.1"])
            .await?
            .ok()?
            .says(&["skep-test[bot] at acme"])?;

        // A push, signed with the App's secret, of a repository that nobody can read without a token.
        let repository = service(cluster, github, &name).await?;
        let hook = shown["hook"].as_str().context("a hook")?.to_owned();
        let first = repository.push("main")?;
        let push = |id: &str, commit: &str, before: &str, installation: u64| -> Result<Delivery> {
            let body = push_of(commit, before, installation)?;
            Ok(Delivery::signed("push", id, body, &github.hook_secret()))
        };
        let server = cluster.api.address();
        let foreign = push("d-0", &first, NO_COMMIT, OTHERS)?
            .post(server, &hook)
            .await?;
        ensure!(
            foreign.status == 200 && foreign.text().contains("no workspace"),
            "{}",
            foreign.text()
        );
        let taken = push("d-1", &first, NO_COMMIT, INSTALLATION)?
            .post(server, &hook)
            .await?;
        assert_eq!(taken.status, 202, "{}", taken.text());
        wait::until_ok("the first version", DEPLOYED, async || {
            cluster.answers(&name, "1").await
        })
        .await?;
        states(github, &first, "success").await?;
        let given = github.given();
        let reads = given
            .iter()
            .filter(|it| it.contents_of.as_deref() == Some("acme/shop"));
        assert_eq!(reads.count(), 1, "{given:?}");
        ensure!(
            given.iter().filter(|it| it.contents_of.is_none()).count() == 1,
            "{given:?}"
        );
        no_token_is_kept(cluster, github)?;

        // What was given has ended, whatever it said: another one is asked for.
        github.end_tokens();
        github.lasts(Duration::from_secs(200));
        cluster.server.kill().await?;
        cluster.server.start().await?;
        cluster.node_ready().await?;
        repository.app.set("2", &[])?;
        let second = repository.push("main")?;
        let taken = push("d-2", &second, &first, INSTALLATION)?
            .post(server, &hook)
            .await?;
        assert_eq!(taken.status, 202, "{}", taken.text());
        wait::until_ok("the second version", DEPLOYED, async || {
            cluster.answers(&name, "2").await
        })
        .await?;
        states(github, &second, "success").await?;
        // None is used within five minutes of its end: each status has one of its own.
        let after = github.given().len() - given.len();
        ensure!(after >= 4, "{after}");
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}

/// Nothing that the server keeps has a token: neither its log, nor a snapshot, nor its history.
fn no_token_is_kept(cluster: &Cluster, github: &GitHub) -> Result<()> {
    let given = github.given();
    let (mut folders, mut seen) = (vec![cluster.path("server")], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // A socket is no file.
            let Ok(bytes) = std::fs::read(&path) else {
                continue;
            };
            seen += bytes.len();
            let has = |text: &str| bytes.windows(text.len()).any(|it| it == text.as_bytes());
            let found = given.iter().find(|it| has(&it.token));
            ensure!(found.is_none() && !has(CLIENT_SECRET), "{}", path.display());
        }
    }
    ensure!(seen > 10_000, "{seen} bytes were looked at");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_github_takes_no_more_is_asked_for_anew() {
    near_github("github-anew", async |cluster, github| {
        let name = Name::of("shop");
        let install = made(cluster, github).await?;
        follow(open(Method::GET, &install, None).await?).await?;
        let repository = service(cluster, github, &name).await?;
        cluster.api.live(&name, &json!({ "type": "source" })).await?;
        let first = repository.push("main")?;
        cluster.skep.run(&["forge", "test", "127.0.0.1"]).await?.ok()?;
        let hook = github_hook(cluster).await?;
        let post = async |id: &str, commit: &str| -> Result<Answer> {
            let body = push_of(commit, NO_COMMIT, INSTALLATION)?;
            let push = Delivery::signed("push", id, body, &github.hook_secret());
            push.post(cluster.api.address(), &hook).await
        };
        // The tokens last for another hour, and GitHub has forgotten them.
        let before = github.given().len();
        github.end_tokens();
        post("d-1", &first).await?;
        states(github, &first, "success").await?;
        let general = |all: &[skep_tests::github::Given]| all.iter().filter(|it| it.contents_of.is_none()).count();
        let given = github.given();
        assert_eq!(general(&given[before..]), 1, "{given:?}");
        ensure!(github.refused().iter().any(|it| it.contains("statuses") && it.contains("401")));

        // A new secret of the webhook is told to GitHub, and the old one is void.
        let old = github.hook_secret();
        cluster.skep.run(&["forge", "app", "rotate", SLUG]).await?.ok()?;
        ensure!(github.hook_secret() != old);
        let body = push_of(&first, NO_COMMIT, INSTALLATION)?;
        let refused = Delivery::signed("push", "d-2", body, &old).post(cluster.api.address(), &hook).await?;
        assert_eq!(refused.status, 401, "{}", refused.text());
        let known = post("d-3", &first).await?;
        assert_eq!(known.status, 200, "{}", known.text());

        // What becomes of the installation is shown.
        let event = async |action: &str| -> Result<()> {
            let body = json!({ "action": action, "installation": { "id": INSTALLATION } });
            let body = serde_json::to_vec(&body)?;
            let said = Delivery::signed("installation", action, body, &github.hook_secret());
            let answer = said.post(cluster.api.address(), &hook).await?;
            assert_eq!(answer.status, 200, "{}", answer.text());
            Ok(())
        };
        event("suspend").await?;
        cluster.skep.run(&["forge", "ls"]).await?.ok()?.says(&["suspended"])?;
        event("unsuspend").await?;
        let body = json!({
            "action": "renamed", "installation": { "id": INSTALLATION },
            "repository": { "full_name": "acme/store" }, "changes": { "repository": { "name": { "from": "shop" } } },
        });
        let renamed = Delivery::signed("repository", "r-1", serde_json::to_vec(&body)?, &github.hook_secret());
        renamed.post(cluster.api.address(), &hook).await?;
        cluster.skep.run(&["forge", "show", "127.0.0.1"]).await?.ok()?.says(&["acme/shop is acme/store"])?;
        event("deleted").await?;
        cluster.skep.run(&["forge", "ls"]).await?.ok()?.says(&["not installed"])?;
        cluster.skep.run(&["forge", "app", "rm", SLUG]).await?.ok()?.says(&["its owner deletes it"])?;
        cluster.api.refused(Method::GET, "/v1/forge-apps/skep-test", None, 404).await?;
        Ok(())
    })
    .await;
}

async fn github_hook(cluster: &Cluster) -> Result<String> {
    let all = cluster.api.get("/v1/forge-apps").await?;
    Ok(all["apps"][0]["hook"]
        .as_str()
        .context("a hook")?
        .to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_binds_what_they_do_not_administer() {
    near_github("github-bind", async |cluster, github| {
        made(cluster, github).await?;
        let nowhere = |view: &Value| view["forges"].as_array().is_some_and(Vec::is_empty);
        let back = format!("http://{}/v1/github/installed", cluster.api.address());
        let begin = async || -> Result<String> {
            let url = asked(cluster, &["forge", "app", "install", "--json"]).await?;
            let (_, state) = url.split_once("state=").context("a state")?;
            Ok(state.to_owned())
        };
        let come = async |state: &str, installation: u64| -> Result<Answer> {
            let code = github.sign_in();
            let url = format!("{back}?code={code}&installation_id={installation}&state={state}");
            open(Method::GET, &url, None).await
        };
        // An installation of somebody else's App; one that there is not; a member who is no owner.
        for (installation, role, why) in [
            (OTHERS, "admin", "not among those"),
            (77, "admin", "not among those"),
            (INSTALLATION, "member", "do not administer"),
        ] {
            github.role(role);
            let state = begin().await?;
            let page = come(&state, installation).await?;
            ensure!(
                page.status == 403 && page.text().contains(why),
                "{}",
                page.text()
            );
            // A refusal has used it up.
            github.role("admin");
            assert_eq!(come(&state, INSTALLATION).await?.status, 404);
            ensure!(nowhere(&cluster.api.get("/v1/forges").await?), "{why}");
        }
        // A state that nobody began, and that of another step.
        assert_eq!(come("made-up", INSTALLATION).await?.status, 404);
        let other = create(cluster, github).await?;
        let (_, other) = other.split_once("state=").context("a state")?;
        assert_eq!(come(other, INSTALLATION).await?.status, 404);
        let state = begin().await?;
        assert_eq!(come(&state, INSTALLATION).await?.status, 200);
        assert_eq!(github.people(), 0);
        // By the App there is no token to be set.
        let add = [
            "forge",
            "add",
            "127.0.0.1",
            "--kind",
            "github",
            "--token-stdin",
        ];
        let (ended, _) = cluster.skep.feed(&add, b"s3cret").await?;
        ensure!(
            ended.code != Some(0) && ended.stderr.contains("needs no token"),
            "{ended:?}"
        );
        Ok(())
    })
    .await;
}
