//! The agent is killed at every step of a start and of a stop, before Docker has made the step and after,
//! and each time goes on from where its last life was.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::docker_proxy::{Change, DockerProxy, Hold};
use skep_tests::load::Load;
use skep_tests::{Cluster, containers, with_cluster_on};

const BACK: Duration = Duration::from_secs(90);
const RATE: u32 = 40;
/// What a deployment asks of Docker, in this order: a command before the app's own, run and removed; the app;
/// then what the old one is asked before its end, and that end. Counted anew in each life, and each begins a
/// start from its first step.
const STEPS: [(Change, u32); 9] = [
    (Change::Create, 1),
    (Change::Start, 1),
    (Change::Remove, 1),
    (Change::Create, 2),
    (Change::Start, 2),
    (Change::ExecCreate, 1),
    (Change::ExecStart, 1),
    (Change::Stop, 1),
    (Change::Remove, 1),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_each_step_of_a_start_and_of_a_stop_the_agent_goes_on() {
    let proxy = DockerProxy::start(&containers::default_socket()).expect("a socket before Docker");
    let socket = proxy.socket().display().to_string();
    let outcome = with_cluster_on(&socket, "steps", async |cluster| {
        let name = Name::of("web");
        let shell = |script: &str| json!(["/bin/busybox", "sh", "-c", script]);
        let spec = json!({
            "update": { "drain_ms": 500 },
            "stop_grace_ms": 2000,
            "hooks": {
                "init": [{ "command": shell("true") }],
                "pre_stop": { "exec": shell("true") },
            },
        });
        cluster.api.put_service(&name, spec).await?;
        let image = cluster.shell_image("1").await?;
        let request = json!({ "type": "image", "reference": image });
        cluster.api.live(&name, &request).await?;
        cluster.answers(&name, "1").await?;
        let load = Load::start(cluster.ingress, &cluster.host(&name), RATE);
        kill_at_each(cluster, &proxy, &name).await?;
        cluster.converged(&[(&name, 1)]).await?;
        let report = load.stop().await;
        ensure!(report.failed() == 0 && report.served > 0, "{report:?}");
        Ok(())
    })
    .await;
    outcome.expect("an agent that is killed at each step");
}

/// All in one deployment: what is asked again after a life is the next life's first step.
async fn kill_at_each(cluster: &Cluster, proxy: &DockerProxy, name: &Name) -> Result<()> {
    let holds = [Hold::Before, Hold::After];
    let all = STEPS
        .iter()
        .flat_map(|step| holds.map(|hold| (*step, hold)));
    let mut made = None;
    for (step, hold) in all {
        let sprung = proxy.trap(step, hold);
        match &made {
            Some(_) => cluster.agent.start().await?,
            None => {
                let restart = json!({ "type": "restart" });
                made = Some(cluster.api.deploy(name, &restart).await?);
            }
        }
        let reached = tokio::time::timeout(BACK, sprung).await;
        reached.with_context(|| format!("{hold:?} {step:?} is never asked for"))??;
        cluster.agent.kill().await?;
        proxy.release();
    }
    cluster.agent.start().await?;
    let ended = cluster.api.ended(&made.context("deployed")?.id).await?;
    ensure!(ended.status == "live", "{}", ended.told());
    Ok(())
}
