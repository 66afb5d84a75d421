//! Which port a service is asked on, and what is said when it listens elsewhere.

use anyhow::Result;
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::{Cluster, with_cluster};

/// An image of the test app with these lines in its Dockerfile.
async fn image(cluster: &Cluster, tag: &str, lines: &str) -> Result<String> {
    let app = cluster.app(&format!("image-{tag}"), tag)?;
    app.set_lines(lines)?;
    cluster.image_of(&app, tag).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explicit_then_the_single_expose_then_8080() {
    with_cluster("ports", async |cluster| {
        let name = Name::of("port");
        let cases = [
            ("explicit", "EXPOSE 9100\n", json!({ "port": 7000 }), "7000"),
            ("exposed", "EXPOSE 9100\n", json!({}), "9100"),
            ("none", "", json!({}), "8080"),
            ("several", "EXPOSE 9100 9200\n", json!({}), "8080"),
        ];
        for (tag, expose, spec, wanted) in cases {
            let image = image(cluster, tag, &format!("ENV VERSION={tag}\n{expose}")).await?;
            cluster.api.put_service(&name, spec).await?;
            let live = cluster
                .api
                .live(&name, &json!({ "type": "image", "reference": image }))
                .await?;
            assert!(
                live.told().contains(&format!("port {wanted}")),
                "{}",
                live.told()
            );
            cluster.answers(&name, tag).await?;
            // Injected always: the test app listens where it is told.
            assert_eq!(cluster.environment(&name).await?["PORT"], wanted);
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_elsewhere_is_told_where() {
    with_cluster("elsewhere", async |cluster| {
        let quick = json!({ "health": { "deadline_ms": 2000 } });
        let (name, _) = cluster.service("web", "1", quick).await?;
        let cases = [
            ("other", "0.0.0.0:3000", ["8080", "3000"]),
            ("loopback", "127.0.0.1:8080", ["127.0.0.1", "0.0.0.0"]),
        ];
        for (tag, listen, wanted) in cases {
            let image = image(cluster, tag, &format!("ENV LISTEN={listen}\nEXPOSE 8080\n")).await?;
            let request = json!({ "type": "image", "reference": image });
            let (problem, failed) = cluster.api.fails(&name, &request).await?;
            assert_eq!(problem.code, "never_healthy");
            let told = problem.told();
            assert!(wanted.iter().all(|part| told.contains(part)), "{told}");
            // The last lines of the container are kept with the reason.
            assert!(
                failed.told().contains(&format!("listening on {listen}")),
                "{}",
                failed.told()
            );
            cluster.answers(&name, "1").await?;
        }
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}
