//! A whole project as one file: made, repaired, written back, pruned; and what becomes of a failure half-way.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::cluster::Cluster;
use skep_tests::{wait, with_cluster};

const SECRET: &str = "s3cret-of-the-project";
/// Longer than a deployment takes.
const SOON: Duration = Duration::from_secs(60);

fn file(image: &str) -> String {
    format!(
        r#"project = "shop"

[variables]
REGION = "eu"

[services.api]
from = {{ image = "{image}" }}
replicas = 2
stop_grace = "2s"

[services.api.variables]
DB = "${{{{zdb.USER}}}}@${{{{shared.REGION}}}}"
KEY = {{ secret = true }}

[services.zdb]
from = {{ image = "{image}" }}
environments = ["production"]
stop_grace = "2s"

[services.zdb.variables]
USER = "ann"

[services.nightly]
from = {{ image = "{image}" }}
type = "worker"
environments = ["production"]
run = {{ mode = "cron", schedule = "0 3 1 1 *", time_zone = "Europe/Berlin" }}

[environments.production]

[environments.staging.services.api]
replicas = 1

[environments.staging.services.api.variables]
DB = "none"
"#
    )
}

fn api() -> Name {
    Name {
        project: "shop".to_owned(),
        service: "api".to_owned(),
    }
}

/// Writes a file beside the cluster's own; answers its path.
fn written(cluster: &Cluster, name: &str, text: &str) -> Result<String> {
    let path = cluster.path(name);
    std::fs::write(&path, text)?;
    Ok(path.to_str().context("a path of text")?.to_owned())
}

async fn has(cluster: &Cluster, path: &str) -> Result<bool> {
    let answer = cluster.api.call(Method::GET, path, None).await?;
    Ok(answer.status == 200)
}

async fn replicas(cluster: &Cluster) -> Result<Value> {
    Ok(cluster.api.get(&api().path("")).await?["spec"]["replicas"].clone())
}

/// How many deployments a service has had.
async fn deployments(cluster: &Cluster, name: &Name) -> Result<usize> {
    let answer = cluster.api.get(&name.path("/deployments")).await?;
    Ok(answer["deployments"].as_array().map_or(0, Vec::len))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_is_made_by_its_file_repaired_and_pruned() {
    with_cluster("project", async |cluster| {
        let image = cluster.image("1", &[]).await?;
        let skep = &cluster.skep;
        let path = &*written(cluster, "shop.toml", &file(&image))?;

        // Nothing of it is done until its secrets are set; they can be before there is a service.
        let refused = skep.run(&["apply", path, "--yes"]).await?.code(2)?;
        refused.says(&[
            "--service api --create --project shop --environment staging",
            "nothing is done",
        ])?;
        ensure!(!has(cluster, &api().path("")).await?, "something was made");
        for environment in ["production", "staging"] {
            let key = format!("KEY={SECRET}");
            let of = [
                "--service",
                "api",
                "--create",
                "--project",
                "shop",
                "--environment",
                environment,
            ];
            let set = ["env", "set", "--secret", &*key];
            skep.run(&[&set[..], &of[..]].concat()).await?.ok()?;
        }
        let unconfirmed = skep.run(&["apply", path]).await?.code(2)?;
        unconfirmed.says(&["+ production/zdb is made", "not confirmed"])?;
        skep.run(&["apply", path, "--yes"]).await?.ok()?;
        cluster.answers(&api(), "1").await?;
        let environment = cluster.environment(&api()).await?;
        assert_eq!(
            (&*environment["DB"], &*environment["KEY"]),
            ("ann@eu", SECRET)
        );
        let staging = "/v1/projects/shop/environments/staging/services/api";
        assert_eq!(cluster.api.get(staging).await?["spec"]["replicas"], 1);
        let again = skep.run(&["apply", path]).await?.ok()?;
        again.says(&["shop is as the file says"])?;
        skep.run(&["diff", path, "--exit-code"]).await?.ok()?;

        // By hand, behind the file's back.
        let body = json!({ "replicas": 1 });
        cluster.api.post(&api().path("/scale"), &body).await?;
        let bob = [
            "env",
            "set",
            "--service",
            "zdb",
            "--project",
            "shop",
            "--redeploy",
            "USER=bob",
        ];
        skep.run(&bob).await?.ok()?;
        wait::until_ok("the service that refers to it", SOON, async || {
            ensure!(cluster.environment(&api()).await?["DB"] == "bob@eu");
            Ok(())
        })
        .await?;
        let extra = Name {
            service: "extra".to_owned(),
            ..api()
        };
        cluster.api.put_service(&extra, json!({})).await?;
        let drift = skep.run(&["diff", path, "--exit-code"]).await?.code(1)?;
        let drift = drift.says(&["replicas: 1 -> 2", "variables.USER: \"bob\" -> \"ann\""])?;
        assert!(!drift.stdout.contains("extra"), "{drift}");
        let told = skep.run(&["diff", path, "--json"]).await?.json()?;
        let changed: Vec<_> = (told["changes"].as_array().context("changes")?.iter())
            .map(|it| ["change", "environment", "service", "deploy"].map(|key| it[key].as_str()))
            .collect();
        let service = |name, deploy| ["service", "production", name, deploy].map(Some);
        assert_eq!(
            changed,
            [service("zdb", "redeploy"), service("api", "nothing")]
        );
        skep.run(&["apply", path, "--yes"]).await?.ok()?;
        assert_eq!(replicas(cluster).await?, 2);
        assert_eq!(cluster.environment(&api()).await?["DB"], "ann@eu");
        skep.run(&["diff", path, "--exit-code"]).await?.ok()?;

        // What is written back says all of it, and no secret.
        let export = skep.run(&["export"]).await?.ok()?;
        assert!(
            !export.stdout.contains(SECRET) && export.stdout.contains("extra"),
            "{export}"
        );
        let json = skep.run(&["export", "--json"]).await?.json()?;
        assert_eq!(json["services"]["nightly"]["run"]["mode"], "cron", "{json}");
        let exported = &*written(cluster, "exported.toml", &export.stdout)?;
        skep.run(&["diff", exported, "--prune", "--exit-code"])
            .await?
            .ok()?;

        let pruned = skep.run(&["apply", path, "--prune", "--yes"]).await?.ok()?;
        pruned.says(&["- production/extra goes", "production/extra is removed"])?;
        ensure!(
            !has(cluster, &extra.path("")).await?,
            "the service is still there"
        );
        ensure!(has(cluster, staging).await?, "more went than was to go");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_half_way_is_gone_on_with_and_a_bad_file_does_nothing() {
    with_cluster("half", async |cluster| {
        let skep = &cluster.skep;
        let good = cluster.image("1", &[]).await?;
        let later = good.replace(":1", ":2");
        let text = format!(
            "project = \"half\"\n[services.a]\nfrom = {{ image = \"{good}\" }}\n\
             [services.b]\nfrom = {{ image = \"{later}\" }}\n"
        );
        let bad = &*written(cluster, "bad.toml", &format!("{text}\nreplica = 2\n"))?;
        let refused = skep.run(&["apply", bad, "--yes"]).await?.code(2)?;
        refused.says(&["line 7", "field: services.b.replica", "`replicas` perhaps?"])?;
        let of = |service: &str| Name {
            project: "half".to_owned(),
            service: service.to_owned(),
        };
        ensure!(
            !has(cluster, &of("a").path("")).await?,
            "something was made"
        );

        let path = &*written(cluster, "half.toml", &text)?;
        let failed = skep.run(&["apply", path, "--yes"]).await?.code(1)?;
        failed.says(&["production/a is live", "the same command goes on"])?;
        cluster.answers(&of("a"), "1").await?;
        let left = skep.run(&["diff", path, "--exit-code"]).await?.code(1)?;
        let left = left.says(&["production/b", "from.image: as usual -> "])?;
        assert!(!left.stdout.contains("production/a"), "{left}");

        let before = deployments(cluster, &of("a")).await?;
        assert_eq!(cluster.image("2", &[]).await?, later);
        skep.run(&["apply", path, "--yes"]).await?.ok()?;
        cluster.answers(&of("b"), "2").await?;
        assert_eq!(
            deployments(cluster, &of("a")).await?,
            before,
            "a was left alone"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_changed_in_an_editor_is_shown_and_applied_as_one() {
    with_cluster("edit", async |cluster| {
        let image = cluster.image("1", &[]).await?;
        let text = format!(
            "project = \"shop\"\n[services.api]\nfrom = {{ image = \"{image}\" }}\nreplicas = 1\n\
             [services.api.variables]\nA = \"one\"\nB = \"two\"\n"
        );
        let path = written(cluster, "shop.toml", &text)?;
        cluster.skep.run(&["apply", &path, "--yes"]).await?.ok()?;
        let before = deployments(cluster, &api()).await?;
        let edit = async |editor: &str, words: &[&str]| {
            let line = [&["edit", "--project", "shop"], words].concat();
            cluster.skep.run_with(("EDITOR", editor), &line).await
        };
        edit("true", &[])
            .await?
            .ok()?
            .says(&["nothing is changed"])?;
        edit("false", &[])
            .await?
            .says(&["nothing is done"])?
            .code(2)?;
        let unread = edit("sed -i s/replicas/replicass/", &[]).await?.code(2)?;
        let kept = unread.says(&["replicas", "kept in /"])?.stderr;
        let kept = kept
            .split("kept in ")
            .nth(1)
            .and_then(|it| it.split_whitespace().next());
        let kept = kept.context("a path")?.trim_end_matches('.').to_owned();
        ensure!(
            std::fs::read_to_string(&kept)?.contains("replicass"),
            "{kept}"
        );
        std::fs::remove_file(&kept)?;

        // Three things at once are one deployment.
        let all = "sed -i -e 's/replicas = 1/replicas = 2/' -e 's/one/eins/' -e '/^B = /d'";
        let unasked = edit(all, &[]).await?.code(2)?;
        unasked.says(&["eins", "not confirmed", "what you wrote is kept"])?;
        assert_eq!(replicas(cluster).await?, 1);
        edit(all, &["--yes"])
            .await?
            .ok()?
            .says(&["done: shop is as you wrote"])?;
        assert_eq!(replicas(cluster).await?, 2);
        let environment = cluster.environment(&api()).await?;
        assert_eq!(environment["A"], "eins");
        ensure!(!environment.contains_key("B"), "{environment:?}");
        assert_eq!(deployments(cluster, &api()).await?, before + 1);

        // Somebody else is faster.
        let scale = format!(
            "{} scale api 1 --project shop; sed -i s/eins/zwei/",
            cluster.skep.line()?
        );
        let late = edit(&scale, &["--yes"]).await?.ok();
        let late = late.expect_err("refused").to_string();
        ensure!(late.contains("somebody else changed the project"), "{late}");
        assert_eq!(replicas(cluster).await?, 1);
        assert_eq!(cluster.environment(&api()).await?["A"], "eins");
        cluster.converged(&[(&api(), 1)]).await
    })
    .await;
}
