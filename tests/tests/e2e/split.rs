//! Shares of a route's requests, with both ingresses: about as the weights say, and all to the others
//! once one of the services stops.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::traefik::Traefik;
use skep_tests::{http as client, wait, with_cluster};

/// A poll of the provider, and Traefik's own throttle of 2 s between configurations.
const FOLLOWS: Duration = Duration::from_secs(90);
const ASKED: u32 = 1_000;

/// How many of `count` requests the second version answered; not one of them fails.
async fn of_second(entrance: SocketAddr, count: u32) -> Result<u32> {
    let mut second = 0;
    for _ in 0..count {
        let request = Request::get("/").header("host", "split.test");
        let request = request.body(Full::<Bytes>::default())?;
        let answer = client::send(entrance, request).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        second += u32::from(answer.text().contains("version=2 "));
    }
    Ok(second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_share_a_route_by_weight() {
    with_cluster("split", async |cluster| {
        let provider = format!("http://{}/v1/traefik", cluster.net_admin);
        let traefik = Traefik::start(&cluster.path(""), &provider, cluster.traefik_api).await?;
        let split =
            json!([{ "service": "web", "weight": 80 }, { "service": "next", "weight": 20 }]);
        let routes = json!([{ "host": "split.test", "split": split }]);
        let (web, _) = cluster
            .service("web", "1", json!({ "routes": routes }))
            .await?;
        let both = [("embedded", cluster.ingress), ("Traefik", traefik.entrance)];
        for (name, entrance) in both {
            wait::until_ok("the route", FOLLOWS, async || of_second(entrance, 1).await)
                .await
                .with_context(|| name)?;
            assert_eq!(
                of_second(entrance, 50).await?,
                0,
                "{name}: nobody shares yet"
            );
        }
        let next = Name {
            project: web.project.clone(),
            service: "next".to_owned(),
        };
        cluster.api.put_service(&next, json!({})).await?;
        let image = cluster.image("2", &[]).await?;
        let source = json!({ "type": "image", "reference": image });
        cluster.api.live(&next, &source).await?;
        for (name, entrance) in both {
            wait::until_ok("a share", FOLLOWS, async || {
                ensure!(
                    of_second(entrance, 20).await? > 0,
                    "all are the first one's"
                );
                Ok(())
            })
            .await
            .with_context(|| name)?;
            let second = of_second(entrance, ASKED).await.with_context(|| name)?;
            // Eight standard deviations on either side.
            assert!((100..=300).contains(&second), "{name}: {second} of {ASKED}");
        }
        let stop = ["stop", "next", "--project", &web.project];
        cluster.skep.run(&stop).await?.ok()?;
        for (name, entrance) in both {
            wait::until_ok("the first to have all", FOLLOWS, async || {
                let second = of_second(entrance, 50).await?;
                ensure!(second == 0, "{second} of 50");
                Ok(())
            })
            .await
            .with_context(|| name)?;
        }
        traefik.stop().await
    })
    .await;
}
