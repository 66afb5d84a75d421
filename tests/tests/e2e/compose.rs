//! `skep import`: a Compose file becomes services that answer; what is there is left alone, what has no
//! counterpart is told.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_tests::api::Name;
use skep_tests::app::App;
use skep_tests::skep::Ended;
use skep_tests::{Cluster, with_cluster};

const SECRET: &str = "hunter2-that-nobody-may-see";

fn of(service: &str) -> Name {
    Name {
        project: "shop".into(),
        service: service.into(),
    }
}

async fn import(cluster: &Cluster, app: &App, options: &[&str], wanted: i32) -> Result<Ended> {
    let arguments = [&["import", app.path()?], options].concat();
    cluster.skep.run(&arguments).await?.code(wanted)
}

/// Each service with its generation.
async fn services(cluster: &Cluster) -> Result<Vec<(String, u64)>> {
    let view = cluster.api.get("/v1/services").await?;
    let all = view["services"].as_array().context("a list")?;
    let one = |it: &Value| {
        let name = it["name"].as_str().context("a name")?.to_owned();
        Ok((name, it["generation"].as_u64().context("a number")?))
    };
    all.iter().map(one).collect()
}

/// A service that is built beside the file, and one of an image that nobody reaches from outside.
fn file(image: &str, more: &str) -> String {
    format!(
        "\
services:
  web:
    build: .
    ports: [\"8080:8080\"]
    environment: [\"GREETING=${{GREETING:?say it}}\", \"DB_PASSWORD={SECRET}\"]
    depends_on: {{db: {{condition: service_healthy}}}}
    mem_limit: 64m
    {more}
  db:
    image: {image}
    mem_limit: 64m
    volumes: [\"data:/data\"]
volumes:
  data:
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_becomes_services_that_answer() {
    with_cluster("compose", async |cluster| {
        let image = cluster.image("1", &[]).await?;
        let app = cluster.app("shop", "2")?;
        app.write(".env", "GREETING=hello\n")?;

        // What is not understood is told, and refused where that was asked for.
        app.write("compose.yaml", &file(&image, "typo: 1"))?;
        let told = ["services.web.typo (number)", "not understood"];
        let refused = import(cluster, &app, &["--strict", "--yes"], 2).await?;
        refused.says(&told)?.says(&["1 of its settings", "hint:"])?;
        let shown = import(cluster, &app, &["--dry-run"], 0).await?;
        shown
            .says(&told)?
            .says(&["make", "web, port 8080", "data:/data"])?;

        // Shown, not confirmed: nothing is made.
        app.write("compose.yaml", &file(&image, ""))?;
        import(cluster, &app, &["--dry-run", "--strict"], 0).await?;
        import(cluster, &app, &[], 2)
            .await?
            .says(&["not confirmed", "--yes"])?;
        ensure!(services(cluster).await?.is_empty(), "something was made");

        let made = import(cluster, &app, &["--yes"], 0).await?;
        let at = |name: &str| {
            made.stdout
                .find(&format!("deploying shop/production/{name}"))
        };
        ensure!(
            at("db") < at("web") && at("db").is_some(),
            "the wrong order: {made}"
        );
        let (web, db) = (of("web"), of("db"));
        cluster.answers(&web, "2").await?;
        let environment = cluster.environment(&web).await?;
        let values = ["GREETING", "DB_PASSWORD"].map(|name| environment[name].as_str());
        assert_eq!(values, ["hello", SECRET]);
        let listed = cluster.api.get(&web.path("/variables")).await?.to_string();
        ensure!(
            !listed.contains(SECRET) && listed.contains("hello"),
            "{listed}"
        );
        cluster.converged(&[(&web, 1), (&db, 1)]).await?;

        // The same again, and changed: what exists is kept.
        let before = services(cluster).await?;
        app.write(".env", "GREETING=goodbye\n")?;
        app.set("3", &[])?;
        let kept = import(cluster, &app, &["--yes"], 0).await?;
        kept.says(&["keep", "nothing to do", "--replace"])?;
        assert_eq!(services(cluster).await?, before);
        cluster.answers(&web, "2").await?;

        let shown = import(cluster, &app, &["--replace", "--dry-run", "--json"], 0).await?;
        ensure!(!shown.stdout.contains(SECRET), "{shown}");
        let plan = shown.json()?;
        let steps = [0, 1].map(|at| &plan["services"][at]["step"]);
        assert_eq!(steps, ["replace", "replace"], "{plan}");
        assert_eq!(services(cluster).await?, before);
        import(cluster, &app, &["--replace", "--yes"], 0).await?;
        cluster.answers(&web, "3").await?;
        assert_eq!(cluster.environment(&web).await?["GREETING"], "goodbye");
        cluster.converged(&[(&web, 1), (&db, 1)]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_broke_off_goes_on() {
    with_cluster("compose-again", async |cluster| {
        let image = cluster.image("1", &[]).await?;
        let app = cluster.app("shop", "2")?;
        let web = format!("  web: {{image: \"{image}\", ports: [8080], depends_on: [db]}}\n");
        let file = |db: &str| format!("services:\n{web}  db: {{image: \"{db}\"}}\n");
        app.write("compose.yaml", &file("localhost:1/nobody/has-this:1"))?;
        let broken = import(cluster, &app, &["--yes"], 1).await?;
        broken.says(&[
            "nobody/has-this",
            "not live: db, web; the same import again",
        ])?;
        let made = services(cluster).await?;
        ensure!(made.len() == 1 && made[0].0 == "db", "{made:?}");

        app.write("compose.yaml", &file(&image))?;
        let done = import(cluster, &app, &["--yes"], 0).await?;
        done.says(&["finish", "make"])?;
        cluster.answers(&of("web"), "1").await?;
        cluster.converged(&[(&of("web"), 1), (&of("db"), 1)]).await
    })
    .await;
}
