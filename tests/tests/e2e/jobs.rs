//! Jobs: run to completion, tried again, by the clock, and by hand; with their exit codes, whatever
//! happens to the agent.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::Method;
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::{Cluster, wait, with_cluster};

/// For a job to get where it should.
const DONE: Duration = Duration::from_secs(60);

async fn jobs(cluster: &Cluster, name: &Name) -> Result<Vec<Value>> {
    let path = format!("/v1/jobs?project={}&service={}", name.project, name.service);
    let all = cluster.api.get(&path).await?;
    Ok(all["jobs"].as_array().context("jobs")?.clone())
}

/// Deploys the test app's image with these settings as a service of this specification.
async fn deploy(
    cluster: &Cluster,
    name: &str,
    settings: &[(&str, &str)],
    spec: Value,
) -> Result<Name> {
    let image = cluster.image(name, settings).await?;
    let name = Name::of(name);
    cluster.api.put_service(&name, spec).await?;
    let wanted = json!({ "type": "image", "reference": image });
    cluster.api.live(&name, &wanted).await?;
    Ok(name)
}

/// Waits until the service's newest job has ended.
async fn ended(cluster: &Cluster, name: &Name) -> Result<Value> {
    wait::until_ok("the job to end", DONE, async || {
        let all = jobs(cluster, name).await?;
        let newest = all.first().context("no job yet")?;
        if newest["ended"] != true {
            bail!("{newest}");
        }
        Ok(newest.clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_succeeds_or_is_tried_again_and_reports() {
    with_cluster("batch", async |cluster| {
        let run = json!({ "type": "worker", "run": { "mode": "batch" } });
        let name = deploy(cluster, "good", &[("EXIT_AT_ONCE", "0")], run).await?;
        let job = ended(cluster, &name).await?;
        assert_eq!(job["status"], "succeeded", "{job}");
        assert_eq!(
            (&job["exit_code"], &job["attempts"]),
            (&json!(0), &json!(1))
        );
        assert!(
            job["log_tail"]
                .as_str()
                .is_some_and(|text| text.contains("exit at once with 0"))
        );

        let run = json!({
            "type": "worker",
            "run": { "mode": "batch", "retries": 2, "backoff_ms": 100 },
        });
        let name = deploy(cluster, "bad", &[("EXIT_AT_ONCE", "9")], run).await?;
        let job = ended(cluster, &name).await?;
        assert_eq!(job["status"], "failed", "{job}");
        assert_eq!(
            (&job["exit_code"], &job["attempts"]),
            (&json!(9), &json!(3))
        );
        let told = job["problem"]["message"].as_str().context("a problem")?;
        assert!(told.contains("exited with code 9"), "{told}");
        // One job a deployment, however long one looks.
        assert_eq!(jobs(cluster, &name).await?.len(), 1);
        let listed = cluster.skep.run(&["jobs", "bad"]).await?.ok()?;
        assert!(listed.stdout.contains("3 of 3"), "{}", listed.stdout);

        let run = json!({ "type": "worker", "run": { "mode": "batch", "deadline_ms": 2_000 } });
        let name = deploy(cluster, "late", &[], run).await?;
        let job = ended(cluster, &name).await?;
        assert_eq!(job["status"], "failed", "{job}");
        assert_eq!(job["problem"]["code"], "timeout", "{job}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cron_runs_one_at_a_time_and_pauses() {
    with_cluster("cron", async |cluster| {
        // Due every second, and each takes longer than that.
        let settings = [("CRASH_AFTER_MS", "2500"), ("CRASH_CODE", "0")];
        let run = json!({
            "type": "worker",
            "run": { "mode": "cron", "schedule": "* * * * * *", "time_zone": "Europe/Berlin" },
        });
        let name = deploy(cluster, "clock", &settings, run).await?;
        let mut most_running = 0;
        let all = wait::until("runs and left-out times", DONE, async || {
            let all = jobs(cluster, &name).await?;
            let count = |status: &str| all.iter().filter(|job| job["status"] == status).count();
            most_running = most_running.max(count("running"));
            let containers = cluster.containers.of_cluster(&cluster.id).await?;
            let running = containers.iter().filter(|one| one.runs).count();
            assert!(running <= 1, "two at once: {all:?}");
            let is_enough = count("succeeded") >= 2 && count("missed") >= 2;
            Ok(is_enough.then_some(all))
        })
        .await?;
        assert_eq!(most_running, 1);
        // No time twice.
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        for job in &all {
            let at = job["cause"]["at_ms"].as_u64().context("a scheduled time")?;
            *times.entry(at).or_default() += 1;
        }
        assert!(times.values().all(|count| *count == 1), "{times:?}");
        let missed = all
            .iter()
            .find(|job| job["status"] == "missed")
            .context("one")?;
        assert!(
            missed["problem"]["message"]
                .as_str()
                .is_some_and(|it| it.contains("had not ended"))
        );

        cluster.skep.run(&["cron", "pause", "clock"]).await?.ok()?;
        let listed = cluster.skep.run(&["cron", "ls"]).await?.ok()?;
        assert!(listed.stdout.contains("paused"), "{}", listed.stdout);
        ended(cluster, &name).await?;
        let newest = jobs(cluster, &name).await?[0]["id"].clone();
        cluster
            .skep
            .run(&["cron", "run-now", "clock"])
            .await?
            .ok()?;
        let job = ended(cluster, &name).await?;
        assert_ne!(job["id"], newest);
        assert_eq!(
            (&job["cause"]["type"], &job["status"]),
            (&json!("request"), &json!("succeeded"))
        );
        cluster.skep.run(&["cron", "resume", "clock"]).await?.ok()?;
        wait::until_ok("the schedule to go on", DONE, async || {
            let all = jobs(cluster, &name).await?;
            if all[0]["cause"]["type"] != "schedule" {
                bail!("{all:?}");
            }
            Ok(())
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_with_the_output_and_exit_code_of_its_own() {
    with_cluster("run", async |cluster| {
        let (name, _) = cluster.service("web", "1", json!({})).await?;
        let run = ["run", "web", "--env", "EXIT_AT_ONCE=7", "--", "x"];
        let failed = cluster.skep.run(&run).await?.code(7)?;
        assert!(
            failed.stderr.contains("told to exit at once with 7"),
            "{failed}"
        );
        assert!(failed.stderr.contains("exited with code 7"), "{failed}");
        let run = ["run", "web", "--env", "EXIT_AT_ONCE=0", "--", "x"];
        let done = cluster.skep.run(&run).await?.ok()?;
        assert!(
            done.stderr.contains("told to exit at once with 0"),
            "{done}"
        );
        let made = cluster
            .skep
            .run(&[
                "run",
                "web",
                "--detach",
                "--json",
                "--env",
                "EXIT_AT_ONCE=0",
                "--",
                "x",
            ])
            .await?
            .json()?;
        let id = made["id"].as_str().context("an id")?;
        ended(cluster, &name).await?;
        let logs = cluster.skep.run(&["jobs", "logs", id]).await?.ok()?;
        assert!(
            logs.stderr.contains("told to exit at once with 0"),
            "{logs}"
        );

        // Canceled while it serves for ever.
        let made = cluster
            .skep
            .run(&["run", "web", "--detach", "--json", "--", "x"])
            .await?
            .json()?;
        let id = made["id"].as_str().context("an id")?;
        cluster.skep.run(&["jobs", "cancel", id]).await?.ok()?;
        let job = ended(cluster, &name).await?;
        assert_eq!(job["status"], "canceled", "{job}");
        // None of them was ever taken for a replica.
        cluster.answers(&name, "1").await?;
        let view = cluster.api.get(&name.path("")).await?;
        assert_eq!(view["allocations"]["healthy"], 1, "{view}");
        // Without a command only what ends by itself can be run.
        cluster.skep.run(&["run", "web"]).await?.code(2)?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_tells_how_a_job_ended_and_runs_it_once() {
    with_cluster("jobkill", async |cluster| {
        let settings = [("CRASH_AFTER_MS", "3000"), ("CRASH_CODE", "5")];
        let run = json!({ "type": "worker", "run": { "mode": "batch" } });
        let name = deploy(cluster, "once", &settings, run).await?;
        let begun = wait::until("its container to run", DONE, async || {
            let all = cluster.containers.of_cluster(&cluster.id).await?;
            Ok(all.into_iter().find(|one| one.runs).map(|one| one.id))
        })
        .await?;
        cluster.agent.kill().await?;
        wait::until("it to end unseen", DONE, async || {
            Ok((!cluster.containers.runs(&begun).await?).then_some(()))
        })
        .await?;
        cluster.agent.start().await?;
        let job = ended(cluster, &name).await?;
        assert_eq!(job["status"], "failed", "{job}");
        assert_eq!(
            (&job["exit_code"], &job["attempts"]),
            (&json!(5), &json!(1))
        );
        let all = cluster.containers.of_cluster(&cluster.id).await?;
        let ids: Vec<_> = all.iter().map(|one| &one.id).collect();
        assert_eq!(ids, [&begun], "never a second container");
        // Removed with its service.
        let path = name.path("");
        cluster.api.call(Method::DELETE, &path, None).await?;
        wait::until("its container to go", DONE, async || {
            let all = cluster.containers.of_cluster(&cluster.id).await?;
            Ok(all.is_empty().then_some(()))
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_service_is_once_on_the_node_and_is_updated() {
    with_cluster("system", async |cluster| {
        let spec = json!({ "replicas": 3, "run": { "mode": "system" } });
        let (name, _) = cluster.service("everywhere", "1", spec).await?;
        cluster.converged(&[(&name, 1)]).await?;
        let image = cluster.image("2", &[]).await?;
        let wanted = json!({ "type": "image", "reference": image });
        cluster.api.live(&name, &wanted).await?;
        cluster.answers(&name, "2").await?;
        cluster.converged(&[(&name, 1)]).await?;
        let refused = cluster.skep.run(&["scale", "everywhere", "2"]).await?;
        refused.code(1)?.says(&["has no replicas"])?;
        Ok(())
    })
    .await;
}
