//! Static sites: files that the data plane hands out itself, with no container and no web server.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::app::App;
use skep_tests::{Cluster, wait, with_cluster};

const SOON: Duration = Duration::from_secs(60);

/// A folder of plain files, and nothing to build.
fn site(cluster: &Cluster, version: &str) -> Result<App> {
    let app = cluster.app("site", version)?;
    for gone in ["Dockerfile", "skep-test-app"] {
        let gone = app.dir().join(gone);
        if gone.exists() {
            std::fs::remove_file(gone)?;
        }
    }
    std::fs::create_dir_all(app.dir().join("www/docs"))?;
    app.write(
        "skep.toml",
        "builder = \"static\"\n[static]\noutput = \"www\"\nnot_found = \"404.html\"\n\
         headers = { X-Frame-Options = \"DENY\" }\n",
    )?;
    app.write(
        "www/index.html",
        &format!("<p>version={version} </p>{}", "<br>".repeat(500)),
    )?;
    app.write("www/app-1a2b3c4d.js", "console.log('hello')")?;
    app.write("www/docs/index.html", "documents")?;
    app.write("www/404.html", "not here")?;
    app.write("www/.env", "SECRET=1")?;
    Ok(app)
}

const UP: [&str; 4] = ["--project", "site", "--service", "site"];

async fn up(cluster: &Cluster, app: &App) -> Result<String> {
    let arguments = [&["up", app.path()?], &UP[..]].concat();
    let ended = cluster.skep.run(&arguments).await?.ok()?;
    Ok(ended.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_handed_out_without_a_container() {
    with_cluster("sites", async |cluster| {
        let name = Name::of("site");
        let told = up(cluster, &site(cluster, "1")?).await?;
        for said in [
            "static: plain files: nothing to build",
            "files on every node",
            "left out: `.env` is hidden",
        ] {
            ensure!(told.contains(said), "no `{said}` in {told}");
        }
        cluster.answers(&name, "1").await?;
        let none = cluster.containers.of_cluster(&cluster.id).await?;
        ensure!(none.is_empty(), "{none:#?}");

        // What each is, and for how long it may be kept.
        let page = cluster.get(&name, "/docs/").await?;
        ensure!(page.text() == "documents", "{}", page.text());
        ensure!(page.header("x-frame-options") == "DENY");
        ensure!(page.header("content-type").starts_with("text/html"));
        let script = cluster.get(&name, "/app-1a2b3c4d.js").await?;
        ensure!(script.header("cache-control").contains("immutable"));
        for (path, status) in [("/none", 404), ("/.env", 404), ("/../skep.toml", 404)] {
            let answer = cluster.get(&name, path).await?;
            ensure!(answer.status == status, "{path}: {}", answer.status);
            ensure!(answer.text() == "not here", "{path}: {}", answer.text());
        }

        // Neither the agent's end nor the data plane's takes it away, and nothing is begun anew.
        let before = cluster.api.live_allocations(&name).await?;
        cluster.agent.kill().await?;
        cluster.answers(&name, "1").await?;
        cluster.net.kill().await?;
        cluster.net.start().await?;
        wait::until_ok("the files, without an agent", SOON, async || {
            cluster.answers(&name, "1").await
        })
        .await?;
        cluster.start_all().await?;
        cluster.node_ready().await?;
        cluster.answers(&name, "1").await?;
        let after = cluster.api.live_allocations(&name).await?;
        let ids = |all: &[skep_tests::api::Allocation]| -> Vec<_> {
            all.iter()
                .map(|one| (one.id.clone(), one.restarts))
                .collect()
        };
        ensure!(ids(&before) == ids(&after), "{before:?} {after:?}");

        // The next one, and back without a build.
        up(cluster, &site(cluster, "2")?).await?;
        cluster.answers(&name, "2").await?;
        let back = json!({ "type": "rollback", "release": 1 });
        let back = cluster.api.live(&name, &back).await?;
        ensure!(!back.told().contains("building"), "{}", back.told());
        cluster.answers(&name, "1").await?;
        wait::until_ok("the folder of the other to go", SOON, async || {
            let folders = std::fs::read_dir(cluster.path("node/agent/bundles/sites"))?.count();
            ensure!(folders == 1, "{folders} folders");
            Ok(())
        })
        .await?;

        cluster.skep.run(&["stop", "site"]).await?.ok()?;
        let answer = cluster.get(&name, "/").await?;
        ensure!(
            answer.status == 503 || answer.status == 404,
            "{}",
            answer.status
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_in_a_file_fails_the_build() {
    with_cluster("sitesecrets", async |cluster| {
        let name = Name::of("site");
        let app = site(cluster, "1")?;
        up(cluster, &app).await?;
        let secret = "whsec_0123456789abcdef";
        let set = ["env", "set", "--secret", &format!("HOOK={secret}")];
        cluster.skep.run(&[&set[..], &UP].concat()).await?.ok()?;
        app.write("www/app-1a2b3c4d.js", &format!("const key = '{secret}'"))?;
        app.write("www/index.html", "version=2 ")?;
        let arguments = [&["up", app.path()?], &UP[..]].concat();
        let refused = async |says: &[&str]| -> Result<()> {
            let ended = cluster.skep.run(&arguments).await?;
            ensure!(ended.code != Some(0), "it was deployed: {ended}");
            ensure!(!ended.to_string().contains(secret), "{ended}");
            ended.says(says).map(drop)
        };
        refused(&["`app-1a2b3c4d.js` has the value of `HOOK` in it", "hint:"]).await?;
        cluster.answers(&name, "1").await?;

        // What cannot go with files alone is said.
        app.write("www/app-1a2b3c4d.js", "")?;
        app.write(
            "skep.toml",
            "builder = \"static\"\ncommand = [\"/serve\"]\n[static]\noutput = \"www\"\n",
        )?;
        refused(&["command", "files alone", "server ="]).await?;
        app.write(
            "skep.toml",
            "builder = \"static\"\n[static]\noutput = \"none\"\n",
        )?;
        refused(&["none"]).await?;
        app.write(
            "skep.toml",
            "builder = \"static\"\n[static]\noutput = \"www\"\nnot_found = \"gone.html\"\n",
        )?;
        refused(&["`gone.html` is none of the site's files"]).await?;
        cluster.answers(&name, "1").await
    })
    .await;
}
