//! `skep promote`: what was built and proven in one environment serves in another one, without a build and with that
//! one's own variables.

use anyhow::{Result, ensure};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::git::Repository;
use skep_tests::skep::Ended;
use skep_tests::with_cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_goes_from_one_environment_to_another_without_a_build() {
    with_cluster("promote", async |cluster| -> Result<()> {
        let name = Name::of("shop");
        let skep = async |words: &[&str]| -> Result<Ended> { cluster.skep.run(words).await };
        let repository = Repository::create(&cluster.path("git"), &cluster.run, "1")?;
        let first = repository.push("main")?;
        let url = repository.url()?;
        let deploy = async |environment: &str| {
            let words = [
                "deploy",
                "--repo",
                url,
                "--project",
                "shop",
                "--service",
                "shop",
                "--environment",
                environment,
            ];
            skep(&words).await?.ok()
        };
        deploy("production").await?;
        cluster.answers(&name, "1").await?;
        skep(&[
            "env",
            "set",
            "--service",
            "shop",
            "--project",
            "shop",
            "WHERE=production",
        ])
        .await?
        .ok()?;

        repository.app.set("2", &[])?;
        let second = repository.push("main")?;
        deploy("staging").await?;
        let staging = [
            "env",
            "set",
            "--service",
            "shop",
            "--project",
            "shop",
            "--environment",
            "staging",
            "WHERE=staging",
        ];
        skep(&staging).await?.ok()?;
        cluster.answers(&name, "1").await?;

        let promote = ["promote", "shop", "--project", "shop", "--from", "staging"];
        let said = skep(&promote).await?.ok()?;
        ensure!(!said.stdout.contains("builder:"), "{}", said.stdout);
        cluster.answers(&name, "2").await?;
        let environment = cluster.environment(&name).await?;
        ensure!(environment["WHERE"] == "production", "{environment:?}");
        ensure!(environment["SKEP_GIT_COMMIT"] == second, "{environment:?}");
        ensure!(
            environment["SKEP_ENVIRONMENT"] == "production",
            "{environment:?}"
        );

        // Back to what it had before, as from any release of its own.
        skep(&["rollback", "shop", "--project", "shop"])
            .await?
            .ok()?;
        cluster.answers(&name, "1").await?;
        ensure!(cluster.environment(&name).await?["SKEP_GIT_COMMIT"] == first);

        // Each refusal says what is wrong, and nothing changes.
        for (from, release, words) in [
            ("production", None, "from another environment"),
            ("nowhere", None, "nowhere"),
            ("staging", Some("99"), "no release 99"),
        ] {
            let mut line = vec!["promote", "shop", "--project", "shop", "--from", from];
            line.extend(release.iter().flat_map(|number| ["--release", *number]));
            let refused = skep(&line).await?;
            ensure!(
                refused
                    .ok()
                    .is_err_and(|error| error.to_string().contains(words)),
                "{from}"
            );
        }
        let other = json!({ "type": "promote", "from": "staging" });
        cluster
            .api
            .put_service(&Name::of("other"), json!({}))
            .await?;
        let nothing = cluster.api.deploy(&Name::of("other"), &other).await;
        ensure!(nothing.is_err(), "another project has no such environment");
        cluster.answers(&name, "1").await?;
        // One in each environment.
        cluster.converged(&[(&name, 2)]).await
    })
    .await;
}
