//! What routes say of requests, with both ingresses: one list of cases, and each of them answers all of
//! it. Then whose hosts are, as people see it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;
use skep_tests::api::Name;
use skep_tests::http::Answer;
use skep_tests::traefik::Traefik;
use skep_tests::{http as client, wait, with_cluster};

/// A poll of the provider, and Traefik's own throttle of 2 s between configurations.
const FOLLOWS: Duration = Duration::from_secs(90);
/// `ann` with the password `secret`.
const USER: &str = "ann:$2y$04$hqqCpOR5LQaVdT7GQBB9IeM/FUT3jdb4reC3l/S80BB2G1uEgBGhu";
/// Her name and password as browsers send them.
const HERS: (&str, &str) = ("authorization", "Basic YW5uOnNlY3JldA==");

/// A request, and what its answer is.
#[derive(Debug, Clone, Copy)]
struct Case {
    method: &'static str,
    host: &'static str,
    target: &'static str,
    header: Option<(&'static str, &'static str)>,
    body: &'static str,
    status: u16,
    /// In its body.
    says: &'static [&'static str],
    /// Not in its body.
    lacks: &'static [&'static str],
    /// A header of it; an empty value: it has none.
    answer_header: Option<(&'static str, &'static str)>,
}

const fn get(host: &'static str, target: &'static str, status: u16) -> Case {
    Case {
        method: "GET",
        host,
        target,
        header: None,
        body: "",
        status,
        says: &[],
        lacks: &[],
        answer_header: None,
    }
}

impl Case {
    const fn says(self, says: &'static [&'static str]) -> Self {
        Self { says, ..self }
    }

    const fn leads_to(self, location: &'static str) -> Self {
        Self {
            answer_header: Some(("location", location)),
            ..self
        }
    }

    const fn with(self, header: (&'static str, &'static str)) -> Self {
        Self {
            header: Some(header),
            ..self
        }
    }

    const fn posts(self, body: &'static str) -> Self {
        Self {
            method: "POST",
            body,
            ..self
        }
    }

    async fn send(self, entrance: SocketAddr) -> Result<Answer> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.target)
            .header("host", self.host);
        if let Some((name, value)) = self.header {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::from_static(self.body.as_bytes()));
        client::send(entrance, request.body(body)?).await
    }

    async fn holds(&self, entrance: SocketAddr) -> Result<()> {
        let answer = self.send(entrance).await?;
        let text = answer.text();
        let header = self
            .answer_header
            .is_none_or(|(name, value)| answer.header(name) == value);
        let is_said = self.says.iter().all(|part| text.contains(part));
        let is_lacked = self.lacks.iter().all(|part| !text.contains(part));
        if answer.status != self.status || !header || !is_said || !is_lacked {
            bail!(
                "{self:?}\ngot {} {:?}\n{text}",
                answer.status,
                answer.headers
            );
        }
        Ok(())
    }
}

const CASES: [Case; 33] = [
    // Paths of one host, shared by two services; whole segments, longest first.
    get("shop.test", "/", 200).says(&["version=1 "]),
    get("shop.test", "/api", 200).says(&["version=2 "]),
    get("shop.test", "/api/", 200).says(&["version=2 "]),
    get("shop.test", "/api?x=1", 200).says(&["version=2 "]),
    get("shop.test", "/apis", 404).says(&["/healthz"]),
    get("shop.test", "/api/head?x=1", 200).says(&["GET /head?x=1\n", "x-forwarded-prefix: /api\n"]),
    Case {
        lacks: &["forged"],
        ..get("shop.test", "/api/head", 200).with(("x-forwarded-prefix", "/forged"))
    },
    get("long.test", "/a/b", 200).says(&["version=1 "]),
    get("long.test", "/a/c", 404),
    get("prio.test", "/a/b", 404),
    // A wildcard is one label, and after any exact host.
    get("x.wild.test", "/", 200).says(&["version=1 "]),
    get("api.wild.test", "/", 200).says(&["version=2 "]),
    get("a.b.wild.test", "/", 404),
    // Redirects.
    get("www.shop.test", "/x?y=1", 301).leads_to("http://shop.test/x?y=1"),
    get("www.shop.test:8080", "/", 301).leads_to("http://shop.test:8080/"),
    get("www.shop.test", "/x", 308)
        .posts("z")
        .leads_to("http://shop.test/x"),
    get("tls.test:8080", "/x", 302).leads_to("https://tls.test/x"),
    get("tls.test", "/x", 307)
        .posts("z")
        .leads_to("https://tls.test/x"),
    get("old.test", "/old/x?y", 302).leads_to("http://shop.test/n$w/x?y"),
    get("old.test", "/old", 302).leads_to("http://shop.test/n$w"),
    get("old.test", "/older", 404),
    get("plain.test", "/", 200).says(&["version=1 "]),
    // Headers.
    get("head.test", "/head", 200)
        .with(("cookie", "a=1"))
        .says(&["x-env: prod\n"]),
    Case {
        lacks: &["cookie", "forged"],
        ..get("head.test", "/head", 200).with(("cookie", "a=forged"))
    },
    Case {
        answer_header: Some(("cache-control", "no-store")),
        ..get("head.test", "/", 200)
    },
    Case {
        answer_header: Some(("server", "")),
        ..get("head.test", "/healthz", 200)
    },
    // Who may ask, and how much.
    get("inside.test", "/", 403),
    get("local.test", "/", 200),
    Case {
        answer_header: Some(("www-authenticate", "Basic realm=\"skep\"")),
        ..get("auth.test", "/", 401)
    },
    get("auth.test", "/", 401).with(("authorization", "Basic YW5uOndyb25n")),
    Case {
        lacks: &["authorization"],
        ..get("auth.test", "/head", 200).with(HERS)
    },
    get("small.test", "/echo", 200)
        .posts("12345678")
        .says(&["12345678"]),
    get("small.test", "/echo", 413).posts("123456789"),
];

/// At most so many of one address in a moment.
async fn is_limited(entrance: SocketAddr) -> Result<()> {
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(get("slow.test", "/", 200).send(entrance).await?.status);
    }
    let through = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    // A slow machine lets some more through: what is earned meanwhile is earned.
    if through < 2 || refused == 0 || through + refused != statuses.len() {
        bail!("{statuses:?}");
    }
    Ok(())
}

/// While one request is answered no other is let in; after it they are again.
async fn is_one_at_a_time(entrance: SocketAddr) -> Result<()> {
    let hold = || tokio::spawn(get("few.test", "/hold?ms=4000", 200).send(entrance));
    let mut held = hold();
    wait::until_ok("a refusal", FOLLOWS, async || {
        // The question itself may have been the one that was let in.
        if held.is_finished() {
            held = hold();
        }
        get("few.test", "/", 429).holds(entrance).await
    })
    .await?;
    let held = held.await??;
    assert_eq!(held.status, 200, "{}", held.text());
    get("few.test", "/", 200).holds(entrance).await
}

/// Who brings the cookie that it was given is answered by the same replica each time, others by both.
async fn stays(entrance: SocketAddr) -> Result<()> {
    let ask = async |cookie: &str| {
        let request = Request::get("/").header("host", "stay.test");
        let request = request.header("cookie", cookie).body(Full::default())?;
        let answer = client::send(entrance, request).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(answer)
    };
    let first = ask("a=b").await?;
    let set = first.header("set-cookie");
    let (cookie, _) = set.split_once(';').context("no cookie")?;
    ensure!(cookie.starts_with("skep-"), "{cookie}");
    let mut others = 0;
    for _ in 0..20 {
        let again = ask(cookie).await?;
        ensure!(
            again.text() == first.text(),
            "{} {}",
            first.text(),
            again.text()
        );
        others += u32::from(ask("a=b").await?.text() != first.text());
    }
    ensure!(others > 0, "there is one replica");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ingresses_do_what_routes_say() {
    with_cluster("routes", async |cluster| {
        let provider = format!("http://{}/v1/traefik", cluster.net_admin);
        let traefik = Traefik::start(&cluster.path(""), &provider, cluster.traefik_api).await?;
        let host = |host: &str| json!({ "host": host });
        let changes = json!({
            "request": { "set": { "X-Env": "prod" }, "remove": ["Cookie"] },
            "response": { "set": { "Cache-Control": "no-store" }, "remove": ["Server"] },
        });
        let routes = json!([
            host("shop.test"),
            { "host": "long.test", "path": "/a/b", "strip_prefix": true },
            { "host": "prio.test", "path": "/a/b", "strip_prefix": true },
            host("*.wild.test"),
            { "host": "www.shop.test", "redirect": { "host": "shop.test", "permanent": true } },
            { "host": "tls.test", "redirect": { "scheme": "https" } },
            { "host": "plain.test", "redirect": { "scheme": "http" } },
            { "host": "old.test", "path": "/old", "redirect": { "host": "shop.test", "path": "/n$w" } },
            { "host": "head.test", "headers": changes },
            { "host": "inside.test", "allow_ips": ["10.99.0.0/16"] },
            { "host": "local.test", "allow_ips": ["127.0.0.0/8"] },
            { "host": "auth.test", "basic_auth": [USER] },
            { "host": "small.test", "body_limit_bytes": 8 },
            { "host": "slow.test", "rate_limit": { "per_second": 1, "burst": 2 } },
            { "host": "few.test", "in_flight": 1 },
        ]);
        let (web, _) = cluster.service("web", "1", json!({ "routes": routes })).await?;
        let api = Name {
            project: web.project.clone(),
            service: "api".to_owned(),
        };
        let routes = json!([
            { "host": "shop.test", "path": "/api", "strip_prefix": true },
            { "host": "long.test", "path": "/a", "strip_prefix": true },
            { "host": "prio.test", "path": "/a", "strip_prefix": true, "priority": 2 },
            host("api.wild.test"),
            { "host": "stay.test", "sticky": true },
        ]);
        let spec = json!({ "routes": routes, "replicas": 2 });
        cluster.api.put_service(&api, spec).await?;
        let image = cluster.image("2", &[]).await?;
        let source = json!({ "type": "image", "reference": image });
        cluster.api.live(&api, &source).await?;

        // Live means that the embedded ingress has it; Traefik follows within its poll and throttle.
        wait::until_ok("Traefik to follow", FOLLOWS, async || {
            get("shop.test", "/api", 200).says(&["version=2 "]).holds(traefik.entrance).await
        })
        .await
        .with_context(|| traefik.log())?;
        for (name, entrance) in [("embedded", cluster.ingress), ("Traefik", traefik.entrance)] {
            for case in CASES {
                case.holds(entrance).await.with_context(|| name)?;
            }
            is_limited(entrance).await.with_context(|| name)?;
            is_one_at_a_time(entrance).await.with_context(|| name)?;
            stays(entrance).await.with_context(|| name)?;
        }
        traefik.stop().await?;

        // A host belongs to the project: another one is told whose it is, and the list tells, too.
        let stranger = json!({ "spec": { "domains": ["shop.test"] } });
        let path = Name::of("blog").path("");
        let refused = cluster
            .api
            .refused(Method::PUT, &path, Some(&stranger), 409)
            .await?;
        let text = refused.message;
        assert!(text.contains("default/web/production/web"), "{text}");
        let listed = cluster.skep.run(&["domains"]).await?.ok()?;
        assert!(listed.stdout.contains("shop.test"), "{}", listed.stdout);
        assert!(listed.stdout.contains("/api -> production/api"), "{}", listed.stdout);
        Ok(())
    })
    .await;
}
