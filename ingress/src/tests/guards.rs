//! What stands between a client and a service: pages from elsewhere, somebody who is asked, a breaker.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use skep_model::routing::{Cidr, CircuitBreaker, Cors, ForwardAuth, RouteSpec};

use super::support::{App, HOST, Reply, SOON, Served, dead_address, route, serve};
use crate::{Options, Route, Table};

async fn serve_ruled(options: Options, rules: RouteSpec, app: &App) -> Served {
    let served = serve(options).await;
    served.ingress.publish(Table {
        tcp: Vec::new(),
        revision: 1,
        routes: vec![Route {
            rules: Some(Arc::new(rules.clone())),
            ..route(HOST, &rules.path, 1, &[app.address])
        }],
    });
    served
}

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let value = reply.headers.get(name)?;
    value.to_str().ok()
}

#[tokio::test]
async fn browsers_are_told_which_pages_may_ask_and_refusals_can_be_read() {
    let app = App::start("a").await;
    let rules = RouteSpec {
        cors: Some(Cors {
            origins: vec!["https://a.example".into()],
            methods: vec!["PUT".into(), "DELETE".into()],
            headers: vec!["X-Token".into()],
            expose: vec!["X-Total".into()],
            credentials: true,
            max_age_s: 60,
        }),
        basic_auth: vec![format!(
            "ann:{}",
            bcrypt::hash("secret", 4).expect("hashes")
        )],
        ..RouteSpec::default()
    };
    let served = serve_ruled(Options::default(), rules, &app).await;
    let mut client = served.client().await;
    let mut ask = async |method: Method, origin: &str, may: bool| {
        let mut request = Request::builder().method(method).uri("/");
        request = request.header("host", HOST).header("origin", origin);
        if may {
            request = request.header("access-control-request-method", "PUT");
        }
        client.send(request, "").await
    };
    // Without a password: browsers send none with this question.
    let told = ask(Method::OPTIONS, "https://a.example", true).await;
    assert_eq!(told.status, StatusCode::OK);
    for (name, value) in [
        ("access-control-allow-origin", Some("https://a.example")),
        ("access-control-allow-methods", Some("PUT, DELETE")),
        ("access-control-allow-headers", Some("X-Token")),
        ("access-control-allow-credentials", Some("true")),
        ("access-control-max-age", Some("60")),
        ("vary", Some("Origin")),
    ] {
        assert_eq!(header(&told, name), value, "{name}");
    }
    let other = ask(Method::OPTIONS, "https://b.example", true).await;
    assert_eq!(header(&other, "access-control-allow-origin"), None);
    // That is no such question: it is the service's, after the password.
    for (method, may) in [(Method::OPTIONS, false), (Method::GET, true)] {
        let refused = ask(method, "https://a.example", may).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        let allowed = header(&refused, "access-control-allow-origin");
        assert_eq!(allowed, Some("https://a.example"));
        assert_eq!(
            header(&refused, "access-control-expose-headers"),
            Some("X-Total")
        );
    }
    assert_eq!(app.served(), 0);
}

#[tokio::test]
async fn for_every_origin_the_answer_is_the_same() {
    let app = App::start("a").await;
    let rules = RouteSpec {
        cors: Some(Cors {
            origins: vec!["*".into()],
            ..Cors::default()
        }),
        ..RouteSpec::default()
    };
    let served = serve_ruled(Options::default(), rules, &app).await;
    let request = Request::get("/").header("host", HOST);
    let request = request.header("origin", "https://x.example");
    let reply = served.client().await.send(request, "").await;
    assert_eq!(header(&reply, "access-control-allow-origin"), Some("*"));
    assert_eq!(header(&reply, "vary"), None);
}

/// As an operator who lets routes ask this machine.
fn asking_here() -> Options {
    let here = ["127.0.0.0/8", "::1"].map(|text| text.parse::<Cidr>().expect("a network"));
    Options {
        forward_auth_allow: here.into(),
        ..Options::default()
    }
}

fn asks(port: u16, path: &str) -> RouteSpec {
    RouteSpec {
        path: "/api".into(),
        strip_prefix: true,
        forward_auth: Some(ForwardAuth {
            url: format!("http://localhost:{port}{path}"),
            request_headers: Vec::new(),
            response_headers: vec!["X-User".into()],
        }),
        ..RouteSpec::default()
    }
}

#[tokio::test]
async fn who_is_asked_lets_a_request_through_and_says_whose_it_is() {
    let (app, auth) = (App::start("a").await, App::start("auth").await);
    let rules = asks(auth.address.port(), "/verify?x=1");
    let served = serve_ruled(asking_here(), rules, &app).await;
    let request = Request::post("/api/headers?q=1")
        .header("host", HOST)
        .header("x-user", "forged")
        .header("x_user", "forged")
        .header("x-answer-x-user", "ann");
    let reply = served.client().await.send(request, "body").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert!(
        reply.body.starts_with("POST /headers?q=1\n"),
        "{}",
        reply.body
    );
    assert!(reply.body.contains("x-user: ann\n"), "{}", reply.body);
    assert!(!reply.body.contains("forged"), "{}", reply.body);
    // Also where nothing is said of them, and under a name that some services take for the same.
    for name in ["x-user", "x_user", "X.User"] {
        let request = Request::get("/api/headers").header("host", HOST);
        let request = request.header(name, "forged");
        let reply = served.client().await.send(request, "").await;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(!reply.body.contains("forged"), "{name}: {}", reply.body);
    }
    assert_eq!((app.served(), auth.served()), (4, 4));
}

#[tokio::test]
async fn the_question_says_what_was_asked_for_and_its_answer_is_the_clients() {
    let (app, auth) = (App::start("a").await, App::start("auth").await);
    let rules = asks(auth.address.port(), "/headers");
    let served = serve_ruled(asking_here(), rules, &app).await;
    let request = Request::delete("/api/x?q=1")
        .header("host", HOST)
        .header("cookie", "a=1")
        .header("x-forwarded-uri", "/forged")
        .header("x-forwarded-for", "192.0.2.1")
        .header("x-answer-status", "302")
        .header("x-answer-location", "https://login.example/");
    let reply = served.client().await.send(request, "body").await;
    assert_eq!(reply.status, StatusCode::FOUND);
    assert_eq!(header(&reply, "location"), Some("https://login.example/"));
    for line in [
        "GET /headers\n",
        "cookie: a=1\n",
        "x-forwarded-method: DELETE\n",
        "x-forwarded-uri: /api/x?q=1\n",
        "x-forwarded-host: app.test\n",
        "x-forwarded-proto: http\n",
        "x-forwarded-for: 127.0.0.1\n",
    ] {
        assert!(reply.body.contains(line), "{line} in {}", reply.body);
    }
    assert!(!reply.body.contains("content-length"), "{}", reply.body);
    assert_eq!(app.served(), 0);
}

#[tokio::test]
async fn only_what_is_named_goes_along() {
    let (app, auth) = (App::start("a").await, App::start("auth").await);
    let mut rules = asks(auth.address.port(), "/headers");
    if let Some(asked) = &mut rules.forward_auth {
        asked.request_headers = vec!["X-Answer-Status".into()];
    }
    let served = serve_ruled(asking_here(), rules, &app).await;
    let request = Request::get("/api").header("host", HOST);
    let request = request
        .header("cookie", "a=1")
        .header("x-answer-status", "403");
    let reply = served.client().await.send(request, "").await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert!(!reply.body.contains("cookie"), "{}", reply.body);
    assert!(
        reply.body.contains("x-forwarded-uri: /api\n"),
        "{}",
        reply.body
    );
}

#[tokio::test]
async fn without_an_answer_nothing_passes() {
    let (app, auth) = (App::start("a").await, App::start("auth").await);
    let dead = dead_address().port();
    for (options, port) in [
        (asking_here(), dead),
        // This machine is off limits, whatever name stands for it.
        (Options::default(), auth.address.port()),
    ] {
        let served = serve_ruled(options, asks(port, "/"), &app).await;
        let reply = served.get(HOST, "/api").await;
        assert_eq!(
            (reply.status, reply.code()),
            (StatusCode::BAD_GATEWAY, Some("auth_unreachable"))
        );
    }
    assert_eq!((app.served(), auth.served()), (0, 0));
}

#[tokio::test]
async fn a_service_that_fails_is_left_alone_for_a_while() {
    let app = App::start("a").await;
    let rules = RouteSpec {
        circuit_breaker: Some(CircuitBreaker {
            response_5xx_percent: Some(50),
            open_ms: 1_500,
            ..CircuitBreaker::default()
        }),
        ..RouteSpec::default()
    };
    let served = serve_ruled(Options::default(), rules, &app).await;
    for _ in 0..3 {
        assert_eq!(served.get(HOST, "/").await.status, StatusCode::OK);
    }
    for _ in 0..3 {
        assert_eq!(served.get(HOST, "/bad").await.code(), None);
    }
    assert_eq!(
        served.get(HOST, "/bad").await.status,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    let asked = app.requests.load(Ordering::SeqCst);
    let open = served.get(HOST, "/").await;
    assert_eq!(
        (open.status, open.code()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("circuit_open"))
    );
    // What is left of two seconds, on a busy machine.
    let after = header(&open, "retry-after");
    assert!(matches!(after, Some("1" | "2")), "{after:?}");
    assert_eq!(app.served(), asked);
    // Then it is tried again.
    let closes = async {
        while served.get(HOST, "/").await.status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let closed = tokio::time::timeout(SOON, closes).await;
    assert_eq!(closed, Ok(()), "it stays open");
}
