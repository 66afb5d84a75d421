//! Buckets: what is built lies in an object store, too, and comes back from there when no node has it any more.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_tests::api::Name;
use skep_tests::app::App;
use skep_tests::objects::{BUCKET, KEY, LocalObjects, SECRET};
use skep_tests::{Cluster, wait, with_cluster};

/// A put of some small objects over the loopback, after the pauses between attempts in vain.
const PUT: Duration = Duration::from_secs(120);
/// A node that comes back from nothing.
const BACK: Duration = Duration::from_secs(90);
/// A file that is most of its site, and what gets to the store before that ends.
const FILM_BYTES: usize = 32 << 20;
const BEGUN_BYTES: usize = 8 << 20;
/// Where the objects of the service lie in the bucket.
const OBJECTS: &str = "skep/default/site/site";

/// A folder of plain files, and nothing to build.
fn site(cluster: &Cluster, version: &str) -> Result<App> {
    let app = cluster.app("site", version)?;
    for gone in ["Dockerfile", "skep-test-app"] {
        let gone = app.dir().join(gone);
        if gone.exists() {
            fs::remove_file(gone)?;
        }
    }
    fs::create_dir_all(app.dir().join("www"))?;
    app.write(
        "skep.toml",
        "builder = \"static\"\n[static]\noutput = \"www\"\n",
    )?;
    app.write("www/index.html", &format!("<p>version={version} </p>"))?;
    Ok(app)
}

async fn up(cluster: &Cluster, version: &str) -> Result<()> {
    let app = site(cluster, version)?;
    let arguments = ["up", app.path()?, "--project", "site", "--service", "site"];
    cluster.skep.run(&arguments).await?.ok()?;
    Ok(())
}

/// Has the workspace's bucket be this one, with this secret.
async fn set(cluster: &Cluster, host: &str, secret: &str) -> Result<()> {
    let endpoint = format!("http://{host}");
    let arguments = [
        "bucket",
        "set",
        "--endpoint",
        &endpoint,
        "--bucket",
        BUCKET,
        "--prefix",
        "skep",
        "--access-key-id",
        KEY,
        "--secret-stdin",
    ];
    let (ended, _) = cluster.skep.feed(&arguments, secret.as_bytes()).await?;
    ended.ok()?;
    Ok(())
}

/// Waits until `skep bucket show` says all of this.
async fn shows(cluster: &Cluster, texts: &[&str]) -> Result<()> {
    wait::until_ok("what the bucket shows", PUT, async || {
        let ended = cluster.skep.run(&["bucket", "show"]).await?.ok()?;
        ended.says(texts)?;
        Ok(())
    })
    .await
}

/// Waits until the newest release is in the bucket.
async fn put(cluster: &Cluster, name: &Name) -> Result<()> {
    wait::until("the release in the bucket", PUT, async || {
        let view = cluster.api.get(&name.path("/releases")).await?;
        Ok(view["releases"][0]["image"]["pushed"].as_str().map(drop))
    })
    .await
}

/// The node, its store and its Docker lose all that they have of the site.
async fn lose(cluster: &Cluster) -> Result<()> {
    cluster.agent.kill().await?;
    // What it has opened it would go on handing out.
    cluster.net.kill().await?;
    cluster
        .containers
        .clean(Some(&cluster.id), &cluster.run)
        .await?;
    for folder in ["node/agent/images", "node/agent/bundles"] {
        let folder = cluster.path(folder);
        fs::remove_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    }
    Ok(())
}

async fn is_back(cluster: &Cluster, name: &Name, version: &str) -> Result<()> {
    wait::until_ok("the site to be back", BACK, async || {
        cluster.answers(name, version).await
    })
    .await
}

async fn builds(cluster: &Cluster, name: &Name) -> Result<usize> {
    let page = cluster.api.get(&name.path("/deployments")).await?;
    let all = page["deployments"].as_array().context("a list")?;
    let built = |it: &&Value| it["trigger"] != "rollback";
    Ok(all.iter().filter(built).count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_no_node_has_any_more_comes_back_from_the_bucket() {
    with_cluster("bucket-back", async |cluster| {
        let store = LocalObjects::start(&cluster.path("objects")).await?;
        let name = Name::of("site");
        // With a wrong secret a site goes live, and is put there when it is the right one.
        set(cluster, &store.host(), "wrong").await?;
        up(cluster, "1").await?;
        cluster.answers(&name, "1").await?;
        shows(cluster, &["SignatureDoesNotMatch", "site/production/site"]).await?;
        set(cluster, &store.host(), SECRET).await?;
        put(cluster, &name).await?;
        shows(cluster, &["waiting     0", BUCKET, KEY]).await?;

        // So it is with a store that is away.
        store.kill().await?;
        up(cluster, "2").await?;
        cluster.answers(&name, "2").await?;
        shows(cluster, &["cannot be reached"]).await?;
        store.start_again().await?;
        put(cluster, &name).await?;
        let manifests = store.objects(&format!("{OBJECTS}/manifests/sha256"))?;
        ensure!(manifests.len() == 2, "{manifests:?}");

        lose(cluster).await?;
        cluster.start_all().await?;
        is_back(cluster, &name, "2").await?;
        // What no node ever had since then is gone back to without a build.
        let back = ["rollback", "site/production/site", "1"];
        cluster.skep.run(&back).await?.ok()?;
        is_back(cluster, &name, "1").await?;
        ensure!(builds(cluster, &name).await? == 2, "somebody built");
        let log = cluster.agent.log();
        ensure!(log.contains("it is asked for at its registry"), "{log}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_in_the_bucket_is_never_handed_out() {
    with_cluster("bucket-lies", async |cluster| {
        let store = LocalObjects::start(&cluster.path("objects")).await?;
        let name = Name::of("site");
        set(cluster, &store.host(), SECRET).await?;
        up(cluster, "1").await?;
        put(cluster, &name).await?;
        let blobs = store.objects(&format!("{OBJECTS}/blobs/sha256"))?;
        ensure!(blobs.len() >= 2, "a layer and a configuration: {blobs:?}");
        let kept: Vec<(PathBuf, Vec<u8>)> = blobs
            .into_iter()
            .map(|path| Ok((path.clone(), fs::read(path)?)))
            .collect::<Result<_>>()?;
        for (path, bytes) in &kept {
            let mut changed = bytes.clone();
            *changed.last_mut().context("a byte")? ^= 1;
            fs::write(path, changed)?;
        }
        lose(cluster).await?;
        cluster.start_all().await?;
        wait::until_ok("the refusal", BACK, async || {
            let log = cluster.agent.log();
            ensure!(log.contains("gave something else"), "{log}");
            Ok(())
        })
        .await?;
        ensure!(
            cluster.answers(&name, "1").await.is_err(),
            "it is handed out"
        );
        for (path, bytes) in &kept {
            fs::write(path, bytes)?;
        }
        is_back(cluster, &name, "1").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_broke_off_leaves_nothing_that_counts() {
    with_cluster("bucket-broken", async |cluster| {
        let store = LocalObjects::start(&cluster.path("objects")).await?;
        let name = Name::of("site");
        let way = store.way(BEGUN_BYTES).await?;
        set(cluster, &way.host(), SECRET).await?;
        // Bytes that no compression makes fewer.
        let app = site(cluster, "1")?;
        let mut film = vec![0; FILM_BYTES];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut film)?;
        fs::write(app.dir().join("www/film.bin"), film)?;
        let arguments = ["up", app.path()?, "--project", "site", "--service", "site"];
        let went = async { cluster.skep.run(&arguments).await?.ok() };
        let (went, broken) = tokio::join!(went, store.kill_within(&way));
        went?;
        broken?;
        let manifests = store.objects(&format!("{OBJECTS}/manifests/sha256"));
        ensure!(
            manifests.is_err(),
            "what is not whole is named: {manifests:?}"
        );
        store.start_again().await?;
        put(cluster, &name).await?;
        lose(cluster).await?;
        cluster.start_all().await?;
        is_back(cluster, &name, "1").await?;
        let film = cluster.get(&name, "/film.bin").await?;
        ensure!(film.body.len() == FILM_BYTES, "{} bytes", film.body.len());
        Ok(())
    })
    .await;
}
