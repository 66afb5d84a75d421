//! A node under bad luck: its Docker hangs or is slow, its agent is killed at each step or has a double,
//! its machine loses power, its data plane is replaced, an app forks without end.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use skep_tests::docker_proxy::{DockerProxy, Hold, Mood};
use skep_tests::dockerd::Dockerd;
use skep_tests::load::Load;
use skep_tests::process::Process;
use skep_tests::{Cluster, containers, wait, with_cluster, with_cluster_on};

/// Two deadlines of a health check, the pause between two of them, and what a busy machine adds.
const NOTICED: Duration = Duration::from_secs(90);
const BACK: Duration = Duration::from_secs(90);
const RATE: u32 = 40;
/// Beyond the time in which a refused agent waits for a session that may be its own last life's.
const REFUSED: Duration = Duration::from_secs(60);

async fn node_is(cluster: &Cluster, status: &str) -> Result<()> {
    wait::until_ok(&format!("the node to be {status}"), NOTICED, async || {
        let nodes = cluster.api.get("/v1/nodes").await?;
        ensure!(nodes["nodes"][0]["status"] == status, "{nodes}");
        Ok(())
    })
    .await
}

fn proxied() -> DockerProxy {
    DockerProxy::start(&containers::default_socket()).expect("a socket in front of Docker")
}

fn path(proxy: &DockerProxy) -> String {
    proxy.socket().display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_docker_that_hangs_is_told_and_one_that_is_slow_is_not() {
    let proxy = proxied();
    let outcome = with_cluster_on(&path(&proxy), "wedged", async |cluster| {
        let (name, _) = cluster.service("web", "1", json!({})).await?;
        node_is(cluster, "ready").await?;

        proxy.set(Mood::Slow(Duration::from_secs(6)));
        wait::until_ok("the agent to notice", NOTICED, async || {
            ensure!(cluster.agent.log().contains("docker is slow"), "not yet");
            Ok(())
        })
        .await?;
        let nodes = cluster.api.get("/v1/nodes").await?;
        ensure!(nodes["nodes"][0]["status"] == "ready", "{nodes}");

        proxy.set(Mood::Wedged);
        node_is(cluster, "runtime_wedged").await?;
        let listed = cluster.skep.run(&["node", "ls"]).await?.ok()?;
        listed.says(&["runtime wedged"])?;
        let socket = path(&proxy);
        let doctor = ["agent", "doctor", "--docker-socket", &socket];
        let examined = cluster.skep.run(&doctor).await?.code(1)?;
        examined.says(&["FAIL  docker", "GET /info", "restart it"])?;
        // What runs goes on being served.
        cluster.answers(&name, "1").await?;

        proxy.set(Mood::Well);
        node_is(cluster, "ready").await?;
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
    outcome.expect("a Docker that hangs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_each_step_of_a_start_and_of_a_stop_the_agent_goes_on() {
    let proxy = proxied();
    let outcome = with_cluster_on(&path(&proxy), "steps", async |cluster| {
        let spec = json!({ "update": { "drain_ms": 500 }, "stop_grace_ms": 2000 });
        let (name, _) = cluster.service("web", "1", spec).await?;
        let load = Load::start(cluster.ingress, &cluster.host(&name), RATE);
        // Of each deployment: create, start; then stop, remove.
        for (nth, what) in [(1, "/create"), (2, "/start"), (3, "/stop"), (4, "DELETE")] {
            for hold in [Hold::Before, Hold::After] {
                let sprung = proxy.trap(nth, hold);
                let restart = json!({ "type": "restart" });
                let made = cluster.api.deploy(&name, &restart).await?;
                let step = tokio::time::timeout(BACK, sprung).await;
                let step = step.with_context(|| format!("no {what} in time"))??;
                ensure!(step.contains(what), "step {nth} is {step}");
                cluster.agent.kill().await?;
                proxy.release();
                cluster.agent.start().await?;
                let ended = cluster.api.ended(&made.id).await?;
                ensure!(ended.status == "live", "{hold:?} {what}: {}", ended.told());
                let settled = cluster.converged(&[(&name, 1)]).await;
                settled.with_context(|| format!("{hold:?} {what}"))?;
            }
        }
        let report = load.stop().await;
        ensure!(report.failed() == 0, "{report:?}");
        Ok(())
    })
    .await;
    outcome.expect("an agent that is killed at each step");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_containers_come_back_without_a_server() {
    let daemon = Dockerd::start().await.expect("a daemon of the test's own");
    let outcome = with_cluster_on(daemon.socket(), "power", async |cluster| {
        let spec = json!({ "replicas": 2 });
        let (name, _) = cluster.service("web", "1", spec).await?;
        cluster.converged(&[(&name, 2)]).await?;
        for part in [&cluster.agent, &cluster.server, &cluster.net] {
            part.kill().await?;
        }
        for container in cluster.containers.of_cluster(&cluster.id).await? {
            cluster.containers.kill(&container.id).await?;
        }
        daemon.cut().await?;

        // The agent before Docker, as it may happen.
        cluster.net.start().await?;
        cluster.agent.start().await?;
        daemon.start_again().await?;
        wait::until_ok("both to run with no server in sight", BACK, async || {
            let all = cluster.containers.of_cluster(&cluster.id).await?;
            let running = all.iter().filter(|one| one.runs).count();
            ensure!(running == 2, "{running} run");
            cluster.answers(&name, "1").await
        })
        .await?;
        cluster.server.start().await?;
        cluster.node_ready().await?;
        cluster.converged(&[(&name, 2)]).await
    })
    .await;
    daemon
        .remove()
        .await
        .expect("the daemon goes without a trace");
    outcome.expect("a power cut");
}

/// An agent with a copy of the agent's data folder, not started yet.
async fn double(cluster: &Cluster) -> Result<Process> {
    let (own, copy) = (cluster.path("node/agent"), cluster.path("node/copy"));
    let copied = tokio::process::Command::new("cp")
        .args([Path::new("-a"), &own, &copy])
        .status()
        .await?;
    ensure!(copied.success(), "cp: {copied}");
    let address = cluster.agent_admin.to_string();
    let any = Path::new("127.0.0.1:0");
    Ok(cluster
        .agent
        .like(&own, &copy)
        .like(Path::new(&address), any))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_agents_with_one_identity_the_second_is_refused_and_says_so() {
    with_cluster("double", async |cluster| {
        let (name, _) = cluster.service("web", "1", json!({})).await?;
        let before = cluster.containers.of_cluster(&cluster.id).await?;
        // A whole copy: of an agent that does not write.
        cluster.agent.terminate(BACK).await?;
        let double = double(cluster).await?;
        let sessions = cluster.agent.log().matches("in session").count();
        cluster.agent.start().await?;
        wait::until_ok("the agent to be back", BACK, async || {
            let now = cluster.agent.log().matches("in session").count();
            ensure!(now > sessions, "no session");
            Ok(())
        })
        .await?;
        node_is(cluster, "ready").await?;

        double.start().await?;
        let status = double.ended(REFUSED).await?;
        ensure!(!status.success(), "{status}");
        ensure!(
            double.log().contains("keeps its hands off the containers"),
            "not said"
        );
        let audit = cluster.skep.run(&["audit"]).await?.ok()?;
        audit.says(&["second_agent", "refused"])?;

        // Also where the node's own agent is away: the seat has gone on without the copy.
        cluster.agent.kill().await?;
        double.start().await?;
        let status = double.ended(REFUSED).await?;
        ensure!(!status.success(), "{status}");
        ensure!(
            double
                .log()
                .contains("the data folder of this one is a copy"),
            "not said"
        );

        cluster.agent.start().await?;
        cluster.node_ready().await?;
        cluster.converged(&[(&name, 1)]).await?;
        let after = cluster.containers.of_cluster(&cluster.id).await?;
        let ids = |all: &[containers::Container]| -> Vec<String> {
            all.iter().map(|one| one.id.clone()).collect()
        };
        assert_eq!(ids(&before), ids(&after), "no container was touched");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_plane_is_replaced_and_no_request_notices() {
    with_cluster("takeover", async |cluster| {
        let spec = json!({ "update": { "drain_ms": 30000 } });
        let (name, _) = cluster.service("web", "1", spec).await?;
        let load = Load::start(cluster.ingress, &cluster.host(&name), 4 * RATE);
        let nothing = Path::new("");
        // One after the other: the third takes over from a successor.
        let next = || cluster.net.like(nothing, nothing).args(["--takeover"]);
        let (second, third) = (next(), next());
        let held = async {
            let answer = cluster.get(&name, "/hold?ms=4000").await?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            Ok(())
        };
        let replaced = async {
            // Under way when its process hands over.
            tokio::time::sleep(Duration::from_millis(500)).await;
            second.start().await?;
            let status = cluster.net.ended(BACK).await?;
            ensure!(status.success(), "{status}");
            third.start().await?;
            let status = second.ended(BACK).await?;
            ensure!(status.success(), "{status}");
            Ok::<_, anyhow::Error>(())
        };
        tokio::try_join!(held, replaced)?;
        // The agent found the new one: routes follow.
        let image = cluster.image("2", &[]).await?;
        let request = json!({ "type": "image", "reference": image });
        cluster.api.live(&name, &request).await?;
        cluster.answers(&name, "2").await?;
        cluster.converged(&[(&name, 1)]).await?;
        let report = load.stop().await;
        ensure!(report.failed() == 0, "{report:?}");
        third.terminate(BACK).await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_bomb_stays_within_its_limit_and_the_neighbours_go_on() {
    with_cluster("bomb", async |cluster| {
        let (name, _) = cluster.service("web", "1", json!({})).await?;
        let load = Load::start(cluster.ingress, &cluster.host(&name), RATE);
        let bomb = skep_tests::api::Name::of("bomb");
        let image = cluster.image("bomb", &[("FORK_BOMB", "1")]).await?;
        cluster.api.put_service(&bomb, json!({})).await?;
        let request = json!({ "type": "image", "reference": image });
        cluster.api.deploy(&bomb, &request).await?;
        let log = wait::until("the bomb to meet its limit", BACK, async || {
            let read = cluster.skep.run(&["logs", "bomb", "--tail", "50"]).await?;
            let line = read
                .stdout
                .lines()
                .find(|line| line.contains("no more threads after"));
            Ok(line.map(str::to_owned))
        })
        .await?;
        let made = log.rsplit(' ').next().context("a number")?;
        ensure!(made.parse::<u32>()? < 4_096, "{log}");
        node_is(cluster, "ready").await?;
        cluster.answers(&name, "1").await?;
        let report = load.stop().await;
        if report.failed() > 0 {
            bail!("{report:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_runs_a_container_and_leaves_nothing() {
    with_cluster("doctor", async |cluster| {
        let net = cluster.path("node/net.sock").display().to_string();
        let data = cluster.path("node/agent").display().to_string();
        let server = cluster.bootstrap.agents.clone();
        let line = [
            "agent",
            "doctor",
            "--json",
            "--net-socket",
            &net,
            "--data-dir",
            &data,
            "--server",
            &server,
        ];
        let found = cluster.skep.run(&line).await?.ok()?.json()?;
        ensure!(found["ok"] == true, "{found}");
        let findings = found["findings"].as_array().context("a list")?;
        for check in [
            "docker",
            "cgroups",
            "container",
            "network",
            "data",
            "net",
            "clock",
        ] {
            let one = findings.iter().find(|one| one["check"] == check);
            ensure!(
                one.is_some_and(|one| one["level"] == "ok"),
                "{check}: {found}"
            );
        }
        let left = cluster.containers.images_named("skep-doctor").await?;
        ensure!(left.is_empty(), "{left:?}");
        let line = ["agent", "doctor", "--docker-socket", "/nonexistent"];
        let refused = cluster.skep.run(&line).await?.code(1)?;
        refused.says(&[
            "FAIL  docker",
            "systemctl start docker",
            "cannot be a node yet",
        ])?;
        Ok(())
    })
    .await;
}
