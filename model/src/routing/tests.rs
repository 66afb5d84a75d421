use super::*;

const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234";

fn full() -> RouteSpec {
    RouteSpec {
        host: Some("shop.example.com".into()),
        path: "/api".into(),
        strip_prefix: true,
        priority: Some(7),
        redirect: None,
        headers: Headers {
            request: HeaderChanges {
                set: BTreeMap::from([("X-Env".into(), "prod".into())]),
                remove: vec!["Cookie".into()],
            },
            response: HeaderChanges {
                set: BTreeMap::from([("Cache-Control".into(), "no-store".into())]),
                remove: vec!["Server".into()],
            },
        },
        allow_ips: vec!["10.0.0.0/8".into(), "::1".into()],
        basic_auth: vec![format!("ann:{HASH}")],
        rate_limit: Some(RateLimit {
            per_second: 5,
            burst: 10,
        }),
        body_limit_bytes: Some(1 << 20),
        in_flight: Some(100),
        sticky: true,
        compress: true,
        cors: Some(Cors {
            origins: vec!["https://app.example.com".into()],
            methods: vec!["PUT".into()],
            headers: vec!["X-Token".into()],
            expose: vec!["X-Total".into()],
            credentials: true,
            max_age_s: 60,
        }),
        forward_auth: Some(ForwardAuth {
            url: "https://auth.example.com/verify?x=1".into(),
            request_headers: vec!["Cookie".into()],
            response_headers: vec!["X-User".into()],
        }),
        circuit_breaker: Some(CircuitBreaker {
            network_error_percent: Some(30),
            response_5xx_percent: Some(50),
            open_ms: 5_000,
        }),
        split: vec![share("web", 90), share("web-next", 10)],
    }
}

fn share(service: &str, weight: u32) -> Split {
    Split {
        service: service.into(),
        weight,
    }
}

fn at_host(host: &str, path: &str) -> RouteSpec {
    RouteSpec {
        host: Some(host.into()),
        path: path.into(),
        ..RouteSpec::default()
    }
}

fn redirected(redirect: Redirect) -> RouteSpec {
    RouteSpec {
        redirect: Some(redirect),
        ..at_host("old.example.com", "/a")
    }
}

#[test]
fn a_full_route_is_accepted_and_says_itself_again() {
    assert_eq!(check_all(&[full()], &[]), Ok(()));
    let json = serde_json::to_string(&full()).expect("JSON");
    assert_eq!(
        serde_json::from_str::<RouteSpec>(&json).expect("reads"),
        full()
    );
    assert_eq!(
        serde_json::to_string(&RouteSpec::default()).expect("JSON"),
        r#"{"path":"/"}"#
    );
    let unknown = serde_json::from_str::<RouteSpec>(r#"{"hots":"a"}"#);
    assert!(unknown.is_err(), "an unknown key is refused");
}

#[test]
fn each_bound_of_a_route_is_named() {
    let headers = |name: &str, value: &str| Headers {
        request: HeaderChanges {
            set: BTreeMap::from([(name.into(), value.into())]),
            remove: Vec::new(),
        },
        response: HeaderChanges::default(),
    };
    let to = |host: Option<&str>, path: Option<&str>| {
        redirected(Redirect {
            host: host.map(str::to_owned),
            path: path.map(str::to_owned),
            ..Redirect::default()
        })
    };
    let with_headers = |headers| RouteSpec {
        headers,
        ..RouteSpec::default()
    };
    let broken = [
        ("host", at_host("A.com", "/")),
        ("path", at_host("a.com", "api")),
        ("path", at_host("a.com", "/a`) || Host(`x")),
        ("path", at_host("a.com", "/a/../b")),
        ("path", at_host("a.com", "//a")),
        (
            "strip_prefix",
            RouteSpec {
                strip_prefix: true,
                ..RouteSpec::default()
            },
        ),
        (
            "priority",
            RouteSpec {
                priority: Some(0),
                ..RouteSpec::default()
            },
        ),
        ("redirect", to(None, None)),
        ("redirect", to(Some("old.example.com"), Some("/a/"))),
        ("redirect.host", to(Some("*.a.com"), None)),
        ("redirect.path", to(None, Some("/a/b"))),
        ("redirect.path", to(Some("old.example.com"), Some("/a/b"))),
        ("headers.request", with_headers(headers("Host", "x"))),
        (
            "headers.request",
            with_headers(headers("X-Forwarded-For", "x")),
        ),
        ("headers.request", with_headers(headers("a b", "x"))),
        ("headers.request.set.A", with_headers(headers("A", ""))),
        (
            "headers.request.set.A",
            with_headers(headers("A", "x\r\nB: y")),
        ),
        (
            "headers.response",
            with_headers(Headers {
                request: HeaderChanges::default(),
                response: HeaderChanges {
                    set: BTreeMap::from([("A".into(), "1".into())]),
                    remove: vec!["a".into()],
                },
            }),
        ),
        (
            "allow_ips",
            RouteSpec {
                allow_ips: vec!["10.0.0.0/40".into()],
                ..RouteSpec::default()
            },
        ),
        (
            "basic_auth[0]",
            RouteSpec {
                basic_auth: vec!["ann:secret".into()],
                ..RouteSpec::default()
            },
        ),
        (
            "basic_auth[0]",
            RouteSpec {
                basic_auth: vec![format!("ann:{}", HASH.replace("$05$", "$20$"))],
                ..RouteSpec::default()
            },
        ),
        (
            "rate_limit.burst",
            RouteSpec {
                rate_limit: Some(RateLimit {
                    per_second: 1,
                    burst: 0,
                }),
                ..RouteSpec::default()
            },
        ),
        (
            "body_limit_bytes",
            RouteSpec {
                body_limit_bytes: Some(0),
                ..RouteSpec::default()
            },
        ),
        (
            "in_flight",
            RouteSpec {
                in_flight: Some(0),
                ..RouteSpec::default()
            },
        ),
    ];
    are_named(&broken);
}

#[test]
fn each_bound_of_a_split_is_named() {
    let split = |split: &[(&str, u32)]| RouteSpec {
        split: split
            .iter()
            .map(|(name, weight)| share(name, *weight))
            .collect(),
        ..RouteSpec::default()
    };
    for good in [split(&[("a", 1_000), ("b", 0)]), split(&[("a", 1)])] {
        assert_eq!(check_all(&[good], &[]), Ok(()));
    }
    let names: Vec<String> = (0..11).map(|number| format!("s{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (&**name, 1)).collect();
    are_named(&[
        ("split", split(&many)),
        ("split", split(&[("a", 1), ("a", 2)])),
        ("split", split(&[("a", 0), ("b", 0)])),
        ("split[1].service", split(&[("a", 1), ("B", 2)])),
        ("split[0].weight", split(&[("a", 1_001)])),
    ]);
}

fn are_named(broken: &[(&str, RouteSpec)]) {
    for (field, route) in broken {
        let problem = check_all(std::slice::from_ref(route), &[]).expect_err(field);
        assert_eq!(
            problem.field,
            Some(format!("routes[0].{field}")),
            "{route:?}"
        );
        assert!(problem.hint.is_some(), "{field} says what to do");
        assert!(!problem.message.contains("secret"), "{problem}");
    }
}

#[test]
fn each_bound_of_what_stands_before_a_service_is_named() {
    let cors = |change: &dyn Fn(&mut Cors)| {
        let mut cors = Cors {
            origins: vec!["https://a.example".into()],
            ..Cors::default()
        };
        change(&mut cors);
        RouteSpec {
            cors: Some(cors),
            ..RouteSpec::default()
        }
    };
    let from = |origin: &str| cors(&|it| it.origins = vec![origin.into()]);
    let asks = |url: &str, header: &str| RouteSpec {
        forward_auth: Some(ForwardAuth {
            url: url.into(),
            request_headers: Vec::new(),
            response_headers: vec![header.into()],
        }),
        ..RouteSpec::default()
    };
    let breaks = |failed, open_ms| RouteSpec {
        circuit_breaker: Some(CircuitBreaker {
            network_error_percent: None,
            response_5xx_percent: failed,
            open_ms,
        }),
        ..RouteSpec::default()
    };
    for good in [
        from("*"),
        from("http://localhost:3000"),
        from("capacitor://localhost"),
        asks("http://10.0.0.7:9000/verify?a=b", "X-User"),
        asks("https://auth", "X-User"),
        asks("http://[2001:db8::1]/", "X-User"),
        breaks(Some(1), 100),
    ] {
        assert_eq!(
            check_all(std::slice::from_ref(&good), &[]),
            Ok(()),
            "{good:?}"
        );
    }
    are_named(&[
        ("cors.origins", cors(&|it| it.origins.clear())),
        ("cors.origins", from("https://a.example/")),
        ("cors.origins", from("https://A.example")),
        ("cors.origins", from("https://a.example:443")),
        ("cors.origins", from("a.example")),
        ("cors.origins", from("null")),
        ("cors.origins", cors(&|it| it.origins.push("*".into()))),
        (
            "cors.origins",
            cors(&|it| it.origins.push(it.origins[0].clone())),
        ),
        (
            "cors.origins",
            cors(&|it| (it.origins, it.credentials) = (vec!["*".into()], true)),
        ),
        (
            "cors.headers",
            cors(&|it| (it.headers, it.credentials) = (vec!["*".into()], true)),
        ),
        ("cors.methods", cors(&|it| it.methods = vec!["put".into()])),
        ("cors.headers", cors(&|it| it.headers = vec!["a b".into()])),
        ("cors.expose", cors(&|it| it.expose = vec!["A,B".into()])),
        ("cors.max_age_s", cors(&|it| it.max_age_s = 0)),
        ("forward_auth.url", asks("", "A")),
        ("forward_auth.url", asks("/verify", "A")),
        ("forward_auth.url", asks("ftp://a.example/", "A")),
        (
            "forward_auth.url",
            asks("http://ann:secret@a.example/", "A"),
        ),
        ("forward_auth.url", asks("http://a_b.example/", "A")),
        ("forward_auth.url", asks("http://127.0.0.1:7070/", "A")),
        (
            "forward_auth.url",
            asks("http://169.254.169.254/latest", "A"),
        ),
        ("forward_auth.url", asks("http://[::ffff:127.0.0.1]/", "A")),
        (
            "forward_auth.response_headers",
            asks("http://a.example/", "Host"),
        ),
        (
            "forward_auth.response_headers",
            asks("http://a.example/", "X-Forwarded-For"),
        ),
        ("circuit_breaker", breaks(None, 1_000)),
        (
            "circuit_breaker.response_5xx_percent",
            breaks(Some(0), 1_000),
        ),
        (
            "circuit_breaker.response_5xx_percent",
            breaks(Some(100), 1_000),
        ),
        ("circuit_breaker.open_ms", breaks(Some(50), 99)),
    ]);
}

#[test]
fn a_redirect_elsewhere_is_accepted() {
    for (host, path) in [
        (Some("new.example.com"), None),
        (Some("new.example.com"), Some("/a/b")),
        (None, Some("/b")),
        (None, Some("/ab")),
        (None, Some("/")),
    ] {
        let redirect = Redirect {
            host: host.map(str::to_owned),
            path: path.map(str::to_owned),
            ..Redirect::default()
        };
        assert_eq!(
            check_all(&[redirected(redirect)], &[]),
            Ok(()),
            "{host:?} {path:?}"
        );
    }
}

#[test]
fn one_route_for_each_host_and_path() {
    let domains = ["a.com".to_owned()];
    let twice = [at_host("b.com", "/x"), at_host("b.com", "/x/")];
    for (routes, domains) in [(&twice[..], &[][..]), (&[at_host("a.com", "/")], &domains)] {
        let problem = check_all(routes, domains).expect_err("twice");
        assert!(problem.message.contains("already"), "{problem}");
    }
    let apart = [at_host("a.com", "/x"), RouteSpec::default()];
    assert_eq!(check_all(&apart, &domains), Ok(()));
}

#[test]
fn all_routes_together_are_bounded() {
    let many = vec![RouteSpec::default(); MAX_ROUTES + 1];
    assert_eq!(
        check_all(&many, &[]).expect_err("many").field.as_deref(),
        Some("routes")
    );
    let long: Vec<RouteSpec> = (0..MAX_ROUTES)
        .map(|number| at_host("a.com", &format!("/{number}{}", "x".repeat(1_000))))
        .collect();
    let problem = check_all(&long, &[]).expect_err("long");
    assert!(problem.message.contains("bytes of text"), "{problem}");
}
