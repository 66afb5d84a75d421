//! What routes say of requests on their way.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, Request, StatusCode};
use skep_model::routing::{HeaderChanges, Headers, RateLimit, Redirect, RouteSpec, Scheme};

use super::support::{App, HOST, Reply, Served, dead_address, route, serve};
use crate::{Options, Route, Table};

fn ruled(rules: RouteSpec, backends: &[std::net::SocketAddr]) -> Route {
    Route {
        rules: Some(Arc::new(rules.clone())),
        ..route(HOST, &rules.path, 1, backends)
    }
}

async fn serve_ruled(rules: RouteSpec, app: &App) -> Served {
    let served = serve(Options::default()).await;
    served.ingress.publish(Table {
        revision: 1,
        routes: vec![ruled(rules, &[app.address])],
        ..Table::default()
    });
    served
}

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply
        .headers
        .get(name)
        .and_then(|value| value.to_str().ok())
}

#[tokio::test]
async fn a_redirect_answers_in_the_services_place() {
    let app = App::start("a").await;
    let rules = RouteSpec {
        redirect: Some(Redirect {
            host: Some("new.test".into()),
            scheme: Some(Scheme::Https),
            path: None,
            permanent: true,
        }),
        ..RouteSpec::default()
    };
    let served = serve_ruled(rules, &app).await;
    let mut client = served.client().await;
    for (method, status) in [
        (Method::GET, StatusCode::MOVED_PERMANENTLY),
        (Method::POST, StatusCode::PERMANENT_REDIRECT),
    ] {
        let request = Request::builder().method(method).uri("/x?y=1");
        let reply = client
            .send(request.header("host", "app.test:8080"), "")
            .await;
        assert_eq!(reply.status, status);
        assert_eq!(header(&reply, "location"), Some("https://new.test/x?y=1"));
    }
    assert_eq!(app.served(), 0);
}

#[tokio::test]
async fn a_request_that_is_there_already_is_the_services() {
    let app = App::start("a").await;
    let rules = RouteSpec {
        redirect: Some(Redirect {
            scheme: Some(Scheme::Http),
            ..Redirect::default()
        }),
        ..RouteSpec::default()
    };
    let served = serve_ruled(rules, &app).await;
    assert_eq!(served.get(HOST, "/").await.body, "a");
}

#[tokio::test]
async fn a_stripped_prefix_is_named_and_another_backend_is_found_all_the_same() {
    let app = App::start("a").await;
    let rules = RouteSpec {
        path: "/api".into(),
        strip_prefix: true,
        ..RouteSpec::default()
    };
    let served = serve(Options::default()).await;
    let dead = dead_address();
    served.ingress.publish(Table {
        revision: 1,
        routes: vec![ruled(rules, &[dead, app.address]), route(HOST, "/", 2, &[])],
        ..Table::default()
    });
    // Whichever backend is tried first, the path that the route was found by is not forgotten.
    for _ in 0..8 {
        let mut client = served.client().await;
        let request = Request::get("/api/headers?q=1")
            .header("host", HOST)
            .header("x-forwarded-prefix", "/forged");
        let reply = client.send(request, "").await;
        assert!(
            reply.body.starts_with("GET /headers?q=1\n"),
            "{}",
            reply.body
        );
        assert!(
            reply.body.contains("x-forwarded-prefix: /api\n"),
            "{}",
            reply.body
        );
    }
    assert_eq!(served.get(HOST, "/api").await.body, "a");
    assert_eq!(served.get(HOST, "/api?x").await.body, "a");
    assert_eq!(
        served.get(HOST, "/apis").await.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "whole segments"
    );
}

#[tokio::test]
async fn headers_are_set_and_removed() {
    let app = App::start("a").await;
    let changes = |name: &str, value: &str, remove: &str| HeaderChanges {
        set: BTreeMap::from([(name.into(), value.into())]),
        remove: vec![remove.into()],
    };
    let rules = RouteSpec {
        headers: Headers {
            request: changes("X-Env", "prod", "Cookie"),
            response: changes("X-Frame-Options", "DENY", "Date"),
        },
        ..RouteSpec::default()
    };
    let served = serve_ruled(rules, &app).await;
    let request = Request::get("/headers")
        .header("host", HOST)
        .header("x-env", "forged")
        .header("cookie", "a=1");
    let reply = served.client().await.send(request, "").await;
    assert!(reply.body.contains("x-env: prod\n"), "{}", reply.body);
    assert!(
        !reply.body.contains("forged") && !reply.body.contains("cookie"),
        "{}",
        reply.body
    );
    assert_eq!(header(&reply, "x-frame-options"), Some("DENY"));
}

#[tokio::test]
async fn only_those_networks_may_ask() {
    let app = App::start("a").await;
    let rules = |network: &str| RouteSpec {
        allow_ips: vec![network.into()],
        ..RouteSpec::default()
    };
    let served = serve_ruled(rules("127.0.0.0/8"), &app).await;
    assert_eq!(served.get(HOST, "/").await.body, "a");
    let served = serve_ruled(rules("10.0.0.0/8"), &app).await;
    let reply = served.get(HOST, "/").await;
    assert_eq!(
        (reply.status, reply.code()),
        (StatusCode::FORBIDDEN, Some("address_not_allowed"))
    );
    assert_eq!(app.served(), 1);
}

#[tokio::test]
async fn what_was_counted_goes_on_counting_over_tables() {
    let app = App::start("a").await;
    let rules = RouteSpec {
        rate_limit: Some(RateLimit {
            per_second: 1,
            burst: 3,
        }),
        ..RouteSpec::default()
    };
    let served = serve_ruled(rules.clone(), &app).await;
    let mut through = 0;
    for revision in 2..12 {
        let reply = served.get(HOST, "/").await;
        match reply.status {
            StatusCode::OK => through += 1,
            StatusCode::TOO_MANY_REQUESTS => {
                assert_eq!(reply.code(), Some("rate_limited"));
                assert!(reply.headers.contains_key("retry-after"));
            }
            other => panic!("{other}"),
        }
        served.ingress.publish(Table {
            revision,
            routes: vec![ruled(rules.clone(), &[app.address])],
            ..Table::default()
        });
    }
    // A slow machine may have earned further ones meanwhile, but never all.
    assert!((3..10).contains(&through), "{through}");
}

#[tokio::test]
async fn so_many_at_the_same_time_and_a_place_is_given_back_at_the_end() {
    let app = App::start("a").await;
    let rules = RouteSpec {
        in_flight: Some(1),
        ..RouteSpec::default()
    };
    let served = serve_ruled(rules, &app).await;
    let mut first = served.client().await;
    let stream = first
        .begin(Request::get("/stream").header("host", HOST), "")
        .await
        .expect("answered");
    let reply = served.get(HOST, "/").await;
    assert_eq!(
        (reply.status, reply.code()),
        (StatusCode::TOO_MANY_REQUESTS, Some("too_many_in_flight"))
    );
    app.gate.add_permits(1);
    http_body_util::BodyExt::collect(stream.into_body())
        .await
        .expect("the rest");
    assert_eq!(served.get(HOST, "/").await.body, "a");
}

#[tokio::test]
async fn a_password_is_asked_for_and_never_passed_on() {
    let app = App::start("a").await;
    let hash = bcrypt::hash("secret", 4).expect("hashes");
    let rules = RouteSpec {
        basic_auth: vec![format!("ann:{hash}")],
        ..RouteSpec::default()
    };
    let served = serve_ruled(rules, &app).await;
    let reply = served.get(HOST, "/").await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert!(header(&reply, "www-authenticate").is_some_and(|asked| asked.starts_with("Basic ")));
    // ann:secret
    let request = Request::get("/headers")
        .header("host", HOST)
        .header("authorization", "Basic YW5uOnNlY3JldA==");
    let reply = served.client().await.send(request, "").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert!(!reply.body.contains("authorization"), "{}", reply.body);
}

#[tokio::test]
async fn the_smaller_limit_of_a_body_counts() {
    let app = App::start("a").await;
    let rules = RouteSpec {
        body_limit_bytes: Some(4),
        ..RouteSpec::default()
    };
    let served = serve_ruled(rules, &app).await;
    let mut client = served.client().await;
    for (body, status) in [
        ("1234", StatusCode::OK),
        ("12345", StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let request = Request::post("/length").header("host", HOST);
        assert_eq!(client.send(request, body).await.status, status);
    }
}

#[tokio::test]
async fn priority_is_among_the_paths_of_one_host() {
    let (first, second) = (App::start("first").await, App::start("second").await);
    let served = serve(Options::default()).await;
    let with = |host: &str, path: &str, service, app: &App, priority| Route {
        rules: Some(Arc::new(RouteSpec {
            priority,
            ..RouteSpec::default()
        })),
        ..route(host, path, service, &[app.address])
    };
    served.ingress.publish(Table {
        revision: 1,
        routes: vec![
            with("a.test", "/", 1, &first, Some(5)),
            with("a.test", "/api", 2, &second, None),
            with("b.test", "/", 3, &first, Some(1)),
            with("b.test", "/api", 4, &second, Some(2)),
            with("*.test", "/", 5, &second, Some(1_000)),
        ],
        ..Table::default()
    });
    for (host, path, name) in [
        ("a.test", "/api", "first"),
        ("b.test", "/api", "second"),
        ("b.test", "/", "first"),
        ("a.test", "/", "first"),
        ("c.test", "/", "second"),
    ] {
        assert_eq!(served.get(host, path).await.body, name, "{host}{path}");
    }
}

#[tokio::test]
async fn a_route_whose_rules_are_broken_is_not_served_without_them() {
    let app = App::start("a").await;
    let rules = RouteSpec {
        allow_ips: vec!["nonsense".into()],
        ..RouteSpec::default()
    };
    let served = serve_ruled(rules, &app).await;
    assert_eq!(served.get(HOST, "/").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn who_brings_the_cookie_stays_with_its_replica_while_that_answers() {
    let apps = [App::start("a").await, App::start("b").await];
    let served = serve(Options::default()).await;
    let rules = RouteSpec {
        sticky: true,
        ..RouteSpec::default()
    };
    let both = apps.each_ref().map(|app| app.address);
    served.ingress.publish(Table {
        revision: 1,
        routes: vec![ruled(rules, &both)],
        ..Table::default()
    });
    let ask = async |cookie: &str| {
        let request = Request::get("/").header("host", HOST);
        let request = request.header("cookie", cookie);
        served.client().await.send(request, "").await
    };
    let told = |reply: &Reply| {
        let set = header(reply, "set-cookie")?;
        set.split(';').next().map(str::to_owned)
    };
    let first = ask("other=1").await;
    let cookie = told(&first).expect("told where to come back to");
    for _ in 0..20 {
        let again = ask(&format!("other=1; {cookie}")).await;
        assert_eq!(again.body, first.body);
        assert_eq!(told(&again), None, "it was told already");
    }
    let [a, b] = apps;
    let gone = if first.body == "a" { a } else { b };
    gone.kill().await;
    let other = ask(&cookie).await;
    assert_eq!(other.status, StatusCode::OK);
    assert_ne!(other.body, first.body);
    assert!(told(&other).is_some_and(|new| new != cookie));
}
