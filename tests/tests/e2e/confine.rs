//! What a container may do: exactly what was said, seen from inside it.

use anyhow::{Context as _, Result};
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::{Cluster, with_cluster};

/// NET_RAW alone.
const NET_RAW: &str = "0000000000002000";
/// What every container keeps: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID and
/// NET_BIND_SERVICE.
const KEPT: &str = "00000000000004fb";

async fn deploy(cluster: &Cluster, name: &Name, spec: serde_json::Value) -> Result<String> {
    let image = cluster.shell_image(&name.service).await?;
    cluster.api.put_service(name, spec).await?;
    let request = json!({ "type": "image", "reference": image });
    cluster.api.live(name, &request).await?;
    let id = cluster.api.live_allocations(name).await?[0].id.clone();
    let all = cluster.containers.of_cluster(&cluster.id).await?;
    let found = all.into_iter().find(|one| one.runs && one.allocation == id);
    Ok(found.context("its container")?.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_may_do_what_was_said_and_no_more() {
    with_cluster("confine", async |cluster| {
        let plain = deploy(cluster, &Name::of("plain"), json!({})).await?;
        let inside = async |container: &str, script: &str| {
            let command = ["/bin/busybox", "sh", "-c", script];
            cluster.containers.exec(container, &command).await
        };
        let status = "busybox grep -E '^(CapBnd|NoNewPrivs)' /proc/1/status";
        let (_, told) = inside(&plain, &status.replace("busybox", "/bin/busybox")).await?;
        assert!(
            told.contains(KEPT) && told.contains("NoNewPrivs:\t1"),
            "{told}"
        );

        let name = Name::of("tight");
        let spec = json!({ "container": {
            "user": "1000:1000",
            "read_only": true,
            "cap_drop": ["ALL"],
            "cap_add": ["NET_RAW"],
            "pids": 40,
            "ulimits": { "nofile": "512:1024" },
            "tmpfs": { "/scratch": 4 << 20 },
            "shm_bytes": 1 << 20,
            "sysctls": { "net.core.somaxconn": "777" },
        }});
        let tight = deploy(cluster, &name, spec).await?;
        // Of the app's process: some releases of runc race with Go's runtime over this limit of a command.
        let script = "B=/bin/busybox; $B id -u; $B grep CapBnd /proc/1/status; \
                      $B grep 'open files' /proc/1/limits; \
                      $B cat /proc/sys/net/core/somaxconn; \
                      $B dd if=/dev/zero of=/scratch/a bs=1M count=3 2>/dev/null && echo written; \
                      $B dd if=/dev/zero of=/scratch/b bs=1M count=3 2>/dev/null || echo full; \
                      echo x 2>/dev/null > /here || echo sealed; \
                      $B df -k /dev/shm | $B tail -1";
        let (_, told) = inside(&tight, script).await?;
        let wanted = [
            "1000", NET_RAW, "512", "777", "written", "full", "sealed", "1024",
        ];
        for part in wanted {
            assert!(told.contains(part), "`{part}` in {told}");
        }

        // A fork bomb ends at its own limit, and nobody else notices.
        let bomb =
            "i=0; while [ $i -lt 200 ]; do /bin/busybox sleep 20 & i=$((i+1)); done; echo all";
        let (_, told) = inside(&tight, bomb).await?;
        assert!(told.contains("fork") && !told.contains("all"), "{told}");
        cluster.answers(&Name::of("plain"), "plain").await?;

        // What would reach the node is refused where it is said.
        let spec = json!({ "container": { "cap_add": ["SYS_ADMIN"] } });
        let path = name.path("");
        let body = json!({ "spec": spec });
        let refused = cluster
            .api
            .refused(http::Method::PUT, &path, Some(&body), 400);
        let problem = refused.await?;
        assert!(problem.told().contains("SYS_ADMIN"), "{}", problem.told());
        Ok(())
    })
    .await;
}
