//! What is asked of a container and what runs around it: checks of each kind by commands and log lines,
//! liveness, commands before and at its end, the release phase.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::{Cluster, wait, with_cluster};

/// For a container to begin anew.
const AGAIN: Duration = Duration::from_secs(60);

async fn container(cluster: &Cluster, name: &Name) -> Result<String> {
    let all = cluster.api.live_allocations(name).await?;
    let allocation = &all.first().context("an allocation")?.id;
    let found = cluster.containers.of_cluster(&cluster.id).await?;
    let mut found = found.into_iter();
    let mine = found.find(|one| one.runs && one.allocation == *allocation);
    Ok(mine.context("its container runs")?.id)
}

fn shell(script: &str) -> Value {
    json!(["/bin/busybox", "sh", "-c", script])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_asked_by_command_and_log_and_begins_anew_where_it_is_not_alive() {
    with_cluster("asked", async |cluster| {
        let name = Name::of("asked");
        let image = cluster.shell_image("asked").await?;
        let spec = json!({ "health": {
            "check": { "exec": shell("exec /bin/busybox test ! -e /unfit") },
            "interval_ms": 200,
            "failures": 2,
            "startup": { "check": { "log": "listening on" } },
            "liveness": {
                "check": { "exec": shell("exec /bin/busybox test ! -e /dead") },
                "interval_ms": 200,
                "failures": 2,
            },
        }});
        cluster.api.put_service(&name, spec).await?;
        let request = json!({ "type": "image", "reference": image });
        cluster.api.live(&name, &request).await?;
        let first = container(cluster, &name).await?;

        let touch = async |container: &str, script: &str| -> Result<()> {
            let command = ["/bin/busybox", "sh", "-c", script];
            let (code, told) = cluster.containers.exec(container, &command).await?;
            anyhow::ensure!(code == 0, "{told}");
            Ok(())
        };
        touch(&first, "echo > /unfit").await?;
        wait::until_ok("it to be unfit", AGAIN, async || {
            let all = cluster.api.live_allocations(&name).await?;
            if all[0].state != "unhealthy" {
                bail!("{all:?}");
            }
            Ok(())
        })
        .await?;
        assert_eq!(
            container(cluster, &name).await?,
            first,
            "readiness restarts nothing"
        );
        touch(&first, "/bin/busybox rm /unfit; echo > /dead").await?;
        wait::until_ok("another container", AGAIN, async || {
            let now = container(cluster, &name).await?;
            let all = cluster.api.live_allocations(&name).await?;
            if now == first || all[0].state != "healthy" {
                bail!("{now}: {all:?}");
            }
            Ok(())
        })
        .await?;
        // Its route follows its health.
        let answers = async || cluster.answers(&name, "asked").await;
        wait::until_ok("it to answer", AGAIN, answers).await?;

        // Who never writes the line is told so.
        let spec =
            json!({ "health": { "check": { "log": "no such words" }, "deadline_ms": 2_000 } });
        cluster.api.put_service(&name, spec).await?;
        let (problem, _) = cluster
            .api
            .fails(&name, &json!({ "type": "redeploy" }))
            .await?;
        assert!(
            problem.told().contains("no line with `no such words`"),
            "{}",
            problem.told()
        );
        cluster.answers(&name, "asked").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_run_before_the_app_and_at_its_end_and_a_release_has_a_phase_of_its_own() {
    with_cluster("around", async |cluster| {
        let happened = cluster.containers.follow(&cluster.id);
        let name = Name::of("around");
        let image = cluster.shell_image("around").await?;
        let hooks = |release: Value, init: Value| {
            json!({ "hooks": {
                "release": release,
                "init": init,
                "pre_stop": { "exec": shell("echo farewell") },
            }})
        };
        let init = json!([{ "command": shell("true") }, { "command": shell("echo second") }]);
        cluster
            .api
            .put_service(&name, hooks(shell("echo migrated"), init))
            .await?;
        let request = json!({ "type": "image", "reference": image });
        let live = cluster.api.live(&name, &request).await?;
        assert!(
            live.told().contains("the release phase is done"),
            "{}",
            live.told()
        );
        cluster.answers(&name, "around").await?;
        let jobs = cluster
            .api
            .get("/v1/jobs?project=around&service=around")
            .await?;
        let phase = &jobs["jobs"][0];
        assert_eq!(phase["cause"]["type"], "release", "{jobs}");
        assert_eq!(phase["status"], "succeeded", "{jobs}");
        assert!(
            phase["log_tail"]
                .as_str()
                .is_some_and(|text| text.contains("migrated"))
        );

        // Each ended before the next began, and nothing of them is left.
        let told = happened.lines();
        let first = |what: &str| {
            let found = told.iter().position(|line| line.contains(what));
            found.with_context(|| format!("`{what}` in {told:#?}"))
        };
        let last = told.iter().rposition(|line| line == "start replica");
        assert!(first("destroy init0")? < first("start init1")?, "{told:#?}");
        assert!(Some(first("destroy init1")?) < last, "{told:#?}");
        let all = cluster.containers.of_cluster(&cluster.id).await?;
        // The replica's and, for its log, the release phase's.
        assert_eq!(all.len(), 2, "{all:#?}");

        // A phase that fails fails its deployment: what is live goes on, in the same container.
        let before = container(cluster, &name).await?;
        let failing = hooks(shell("echo no such table; exit 3"), json!([]));
        cluster.api.put_service(&name, failing).await?;
        let (problem, failed) = cluster
            .api
            .fails(&name, &json!({ "type": "redeploy" }))
            .await?;
        assert!(
            problem.told().contains("release phase failed"),
            "{}",
            problem.told()
        );
        assert!(failed.told().contains("no such table"), "{}", failed.told());
        assert_eq!(container(cluster, &name).await?, before);

        // So does a command before the app's own, which says which one it was.
        let init = json!([{ "command": shell("echo cannot reach db; exit 4") }]);
        let mut spec = hooks(json!([]), init);
        spec["restart"] = json!({ "attempts": 0 });
        cluster.api.put_service(&name, spec).await?;
        let (problem, _) = cluster
            .api
            .fails(&name, &json!({ "type": "redeploy" }))
            .await?;
        for part in ["command 1 of 1", "exited with code 4", "cannot reach db"] {
            assert!(problem.told().contains(part), "{}", problem.told());
        }
        cluster.answers(&name, "around").await?;

        cluster.skep.run(&["stop", "around"]).await?.ok()?;
        wait::until_ok("it to stop", AGAIN, async || {
            let all = cluster.containers.of_cluster(&cluster.id).await?;
            let left = all.iter().filter(|one| one.runs).count();
            if left > 0 {
                bail!("{left} still run");
            }
            Ok(())
        })
        .await?;
        wait::until_ok("the question and the signal", AGAIN, async || {
            let told = happened.lines();
            let is_asked =
                |line: &String| line.starts_with("exec_start") && line.contains("farewell");
            let asked = told.iter().position(is_asked);
            let killed = told.iter().rposition(|line| line == "kill replica");
            if asked.is_none() || asked > killed {
                bail!("{told:#?}");
            }
            Ok(())
        })
        .await
    })
    .await;
}
