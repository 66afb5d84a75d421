//! Whatever the API accepts of a route, Traefik itself takes: specifications made up at random, and none of
//! them may cost another one its router.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};
use skep_tests::api::Name;
use skep_tests::cluster::Cluster;
use skep_tests::random::Random;
use skep_tests::traefik::Traefik;
use skep_tests::{http, wait, with_cluster};

/// A poll of the provider, and Traefik's own throttle of 2 s between configurations.
const FOLLOWS: Duration = Duration::from_secs(90);
const ROUNDS: u64 = 6;
/// Of one service; the most that it may have is 50.
const ROUTES: u64 = 30;
/// `ann` with the password `secret`.
const USER: &str = "ann:$2y$04$hqqCpOR5LQaVdT7GQBB9IeM/FUT3jdb4reC3l/S80BB2G1uEgBGhu";
/// What means something to regular expressions, to rules and to templates, where it is accepted.
const PATHS: [&str; 6] = ["/", "/a.b", "/a$1(b)", "/*+", "/~x/y;z", "/$$"];
const VALUES: [&str; 5] = [
    "1",
    "{{ env `HOME` }}",
    "a`b\"c",
    "${1} $$",
    "Host(`x`) || true",
];

struct Made(Random);

impl Made {
    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.0.below(all.len() as u64) as usize]
    }

    fn is(&mut self) -> bool {
        self.0.below(2) == 0
    }

    fn some(&mut self, value: impl Into<Value>) -> Value {
        if self.is() { value.into() } else { Value::Null }
    }

    fn changes(&mut self) -> Value {
        let value = self.one_of(&VALUES);
        let set = if self.is() {
            json!({ "X-A": value })
        } else {
            json!({})
        };
        let remove = if self.is() { json!(["X-B"]) } else { json!([]) };
        json!({ "set": set, "remove": remove })
    }

    fn cors(&mut self) -> Value {
        let is_for_any = self.is();
        json!({
            "origins": if is_for_any { json!(["*"]) } else { json!(["https://a.example", "http://b.example:81"]) },
            "methods": if self.is() { json!(["PUT", "DELETE"]) } else { json!([]) },
            "headers": if self.is() { json!(["X-A"]) } else { json!([]) },
            "expose": if self.is() { json!(["X-B"]) } else { json!([]) },
            "credentials": !is_for_any && self.is(),
            "max_age_s": 1 + self.0.below(86_400),
        })
    }

    fn forward_auth(&mut self) -> Value {
        let urls = [
            "http://auth.example",
            "https://auth.example:8443/v?a=b&c=$d",
            "http://[2001:db8::1]/",
        ];
        json!({
            "url": self.one_of(&urls),
            "request_headers": if self.is() { json!(["Cookie", "X-A"]) } else { json!([]) },
            "response_headers": if self.is() { json!(["X-User"]) } else { json!([]) },
        })
    }

    fn breaker(&mut self) -> Value {
        let failed = 1 + self.0.below(99);
        json!({
            "network_error_percent": self.some(1 + failed / 2),
            "response_5xx_percent": failed,
            "open_ms": 100 + self.0.below(599_900),
        })
    }

    fn route(&mut self, number: u64) -> Value {
        let path = self.one_of(&PATHS);
        let wildcard = if self.0.below(4) == 0 { "*." } else { "" };
        let redirect = json!({ "path": "/n$w", "host": "new.test", "permanent": self.is() });
        let redirect = if self.0.below(4) == 0 {
            redirect
        } else {
            Value::Null
        };
        let cors = self.cors();
        let forward_auth = self.forward_auth();
        let circuit_breaker = self.breaker();
        let all = json!({
            "host": format!("{wildcard}h{number}.test"),
            "path": path,
            "strip_prefix": path != "/" && redirect.is_null() && self.is(),
            "redirect": redirect,
            "priority": self.some(1 + number),
            "headers": { "request": self.changes(), "response": self.changes() },
            "allow_ips": if self.is() { json!(["10.0.0.0/8", "::1"]) } else { json!([]) },
            "basic_auth": if self.is() { json!([USER]) } else { json!([]) },
            "rate_limit": self.some(json!({ "per_second": 5, "burst": 9 })),
            "body_limit_bytes": self.some(1_024),
            "in_flight": self.some(7),
            "sticky": self.is(),
            "compress": self.is(),
            "cors": self.some(cors),
            "forward_auth": self.some(forward_auth),
            "circuit_breaker": self.some(circuit_breaker),
        });
        let Value::Object(all) = all else { return all };
        let said: Map<_, _> = all.into_iter().filter(|(_, it)| !it.is_null()).collect();
        Value::Object(said)
    }
}

/// What the data plane provides for one kind, by name.
fn provided(body: &Value, kind: &str) -> Vec<String> {
    let all = body["http"][kind].as_object().into_iter().flatten();
    all.map(|(name, _)| format!("{name}@http")).collect()
}

/// All that is provided is in Traefik's API, and nothing of it is at fault.
async fn is_taken_whole(cluster: &Cluster, traefik: &Traefik) -> Result<Value> {
    let body = http::get(cluster.net_admin, "net", "/v1/traefik").await?;
    let body: Value = body.json()?;
    for kind in ["routers", "services", "middlewares"] {
        let path = format!("/api/http/{kind}?per_page=1000");
        let shown: Vec<Value> = http::get(traefik.api, "traefik", &path).await?.json()?;
        for name in provided(&body, kind) {
            let found = shown.iter().find(|it| it["name"] == *name);
            let found = found.with_context(|| format!("{kind}: {name} is not there"))?;
            if found["status"] != "enabled" || !found["error"].is_null() {
                bail!("{found:#}");
            }
        }
    }
    Ok(body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traefik_takes_whatever_the_api_accepts() {
    with_cluster("specs", async |cluster| {
        let provider = format!("http://{}/v1/traefik", cluster.net_admin);
        let traefik = Traefik::start(&cluster.path(""), &provider, cluster.traefik_api).await?;
        cluster.service("web", "1", json!({})).await?;
        let mut made = Made(Random::of_run("traefik_takes_whatever_the_api_accepts"));
        for round in 0..ROUNDS {
            let first = round * ROUTES;
            let numbers = first..first + ROUTES;
            let routes: Vec<_> = numbers.map(|number| made.route(number)).collect();
            let spec = json!({ "routes": routes });
            cluster
                .api
                .put_service(&Name::of("web"), spec.clone())
                .await?;
            wait::until_ok("Traefik to take it whole", FOLLOWS, async || {
                let body = is_taken_whole(cluster, &traefik).await?;
                let text = body.to_string();
                // With the generated name's, and the one that tells the revision.
                let count = provided(&body, "routers").len() as u64;
                ensure!(count > ROUTES, "{count} routers");
                ensure!(text.contains(&format!("h{first}")), "an older table");
                Ok(())
            })
            .await
            .with_context(|| format!("{spec:#}\n{}", traefik.log()))?;
        }
        traefik.stop().await
    })
    .await;
}
