//! Golden bodies, and the laws that every body keeps.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use skep_model::id::{AllocationId, ServiceId};
use skep_model::route::Part;
use skep_model::routing::{
    CircuitBreaker, Cors, ForwardAuth, HeaderChanges, Headers, RateLimit, Redirect, RouteSpec,
    Scheme,
};
use skep_model::tcp::{Door, TlsMode};

use super::*;
use crate::table::{Backend, Fault, Place, Route, TcpRoute};

fn route(name: &str, host: &str, path_prefix: &str, ports: &[u16]) -> Route {
    let backend = |port: &u16| Backend {
        allocation: AllocationId::from_u128(u128::from(*port)),
        place: Place::Here(([127, 0, 0, 1], *port).into()),
    };
    Route {
        sleeps: false,
        rules: None,
        parts: Vec::new(),
        host: host.to_owned(),
        path_prefix: path_prefix.to_owned(),
        service: ServiceId::from_u128(1),
        name: name.to_owned(),
        backends: ports.iter().map(backend).collect(),
        tried: Vec::new(),
    }
}

fn options(entry_points: &[&str]) -> Options {
    Options {
        entry_points: entry_points
            .iter()
            .map(|entry| (*entry).to_owned())
            .collect(),
        ..Options::default()
    }
}

/// As if each backend's address were Traefik's to dial, and the first of a net where a route waits.
fn render_plain(table: &Table, options: &Options) -> Rendered {
    let mut addresses = Addresses::default();
    for route in &table.routes {
        for backend in &route.backends {
            if let Place::Here(address) = backend.place {
                addresses.backends.insert(backend.clone(), address);
            }
        }
        let prefix = route.path_prefix.trim_end_matches('/').to_owned();
        let waits = SocketAddr::from(([127, 64, 0, 1], 1));
        addresses.asleep.insert((route.host.clone(), prefix), waits);
    }
    let hosts = table.tcp.iter().filter_map(|tcp| match &tcp.door {
        Door::Sni { host, .. } => Some(host.clone()),
        Door::Entry(_) => None,
    });
    for (number, host) in hosts.collect::<BTreeSet<_>>().into_iter().enumerate() {
        let address = SocketAddr::from(([127, 64, 1, number as u8], 7078));
        addresses.named.insert(host, address);
    }
    render(table, &addresses, options)
}

fn by_name(name: &str, host: &str, tls: TlsMode) -> TcpRoute {
    TcpRoute {
        door: Door::Sni {
            host: host.to_owned(),
            tls,
        },
        proxy_protocol: false,
        service: ServiceId::from_u128(1),
        name: name.to_owned(),
        backends: Vec::new(),
    }
}

#[test]
fn connections_by_name_and_no_others() {
    let entry = TcpRoute {
        door: Door::Entry(15_000),
        ..by_name("db", "-", TlsMode::Passthrough)
    };
    let mut table = Table {
        tcp: vec![entry.clone()],
        routes: vec![
            route("web", "www.x.io", "/", &[]),
            route("web", "www.x.io", "/api", &[]),
            route("web", "a.b.x.io", "/", &[]),
            route("web", "*.y.io", "/", &[]),
        ],
        ..Table::default()
    };
    let body: serde_json::Value =
        serde_json::from_str(text(&render_plain(&table, &options(&[])))).expect("JSON");
    assert!(body.get("tcp").is_none(), "an empty map refuses all");
    table.tcp.extend([
        by_name("db", "db.x.io", TlsMode::Passthrough),
        by_name("mq", "*.x.io", TlsMode::Terminate),
        by_name("twin", "www.x.io", TlsMode::Terminate),
    ]);
    let rendered = render_plain(&table, &options(&["websecure", "other"]));
    let faults: Vec<_> = rendered.left_out.iter().map(|it| it.fault).collect();
    assert_eq!(faults, [Fault::Both]);
    let body: serde_json::Value = serde_json::from_str(text(&rendered)).expect("JSON");
    let wanted = serde_json::json!({
        "routers": {
            "db/db.2ex.2eio": {
                "entryPoints": ["websecure"], "priority": 2, "rule": "HostSNI(`db.x.io`)",
                "service": "db/db.2ex.2eio", "tls": {"passthrough": true},
            },
            "db/db.2ex.2eio//other": {
                "entryPoints": ["other"], "priority": 2, "rule": "HostSNI(`db.x.io`)",
                "service": "db/db.2ex.2eio", "tls": {"passthrough": true},
            },
            "mq/.2a.2ex.2eio": {
                "entryPoints": ["websecure"], "priority": 1,
                "rule": "HostSNIRegexp(`^[a-z0-9_-]+\\.x\\.io$`) && !HostSNI(`www.x.io`)",
                "service": "mq/.2a.2ex.2eio", "tls": {},
            },
            "mq/.2a.2ex.2eio//other": {
                "entryPoints": ["other"], "priority": 1,
                "rule": "HostSNIRegexp(`^[a-z0-9_-]+\\.x\\.io$`) && !HostSNI(`www.x.io`)",
                "service": "mq/.2a.2ex.2eio", "tls": {},
            },
        },
        "services": {
            "db/db.2ex.2eio": {"loadBalancer": {
                "proxyProtocol": {"version": 2}, "servers": [{"address": "127.64.1.1:7078"}], "terminationDelay": -1,
            }},
            "mq/.2a.2ex.2eio": {"loadBalancer": {
                "proxyProtocol": {"version": 2}, "servers": [{"address": "127.64.1.0:7078"}], "terminationDelay": -1,
            }},
        },
    });
    assert_eq!(body["tcp"], wanted);
}

fn text(rendered: &Rendered) -> &str {
    std::str::from_utf8(&rendered.body).expect("JSON is UTF-8")
}

#[test]
fn an_empty_table_is_not_an_empty_body() {
    let rendered = render_plain(&Table::default(), &options(&["web"]));
    let golden = include_str!("golden/empty.json");
    assert_eq!(text(&rendered), golden.trim_end());
}

#[test]
fn every_kind_of_route() {
    let routes = vec![
        route("web", "shop.example.com", "/", &[9002, 9001, 9001]),
        route("api", "shop.example.com", "/api/", &[9003]),
        route("any", "*.x.example.com", "/", &[9004]),
        route("asleep", "zzz.example.com", "/", &[]),
        route("skep-rev-7", "odd.example.com", "/", &[9005]),
        route("Web@1", "odd2.example.com", "/", &[9006]),
        route("web", "twin.example.com", "/", &[9007]),
        route("bad", "bad`) || Host(`x", "/", &[9008]),
    ];
    let mut table = Table {
        revision: 7,
        routes,
        ..Table::default()
    };
    let rendered = render_plain(&table, &options(&["web", "websecure"]));
    let golden = include_str!("golden/routes.json");
    assert_eq!(text(&rendered), golden.trim_end());
    let left: Vec<_> = rendered
        .left_out
        .iter()
        .map(|left| (left.name.as_str(), left.fault))
        .collect();
    assert_eq!(left, [("bad", Fault::Host)]);
    table.routes.reverse();
    assert_eq!(
        text(&render_plain(&table, &options(&["web", "websecure"]))),
        golden.trim_end()
    );
}

#[test]
fn what_a_route_says_becomes_middlewares_in_the_order_of_the_embedded_ingress() {
    let says = RouteSpec {
        path: "/a.b".into(),
        strip_prefix: true,
        priority: Some(3),
        headers: Headers {
            request: HeaderChanges {
                set: [("X-Env".to_owned(), "prod".to_owned())].into(),
                remove: vec!["Cookie".into()],
            },
            response: HeaderChanges::default(),
        },
        allow_ips: vec!["10.0.0.0/8".into()],
        rate_limit: Some(RateLimit {
            per_second: 5,
            burst: 9,
        }),
        body_limit_bytes: Some(1_024),
        in_flight: Some(7),
        compress: true,
        cors: Some(Cors {
            origins: vec!["https://a.example".into()],
            methods: vec!["PUT".into()],
            credentials: true,
            ..Cors::default()
        }),
        forward_auth: Some(ForwardAuth {
            url: "https://auth.example/verify".into(),
            request_headers: vec!["Cookie".into()],
            response_headers: vec!["X-User".into()],
        }),
        circuit_breaker: Some(CircuitBreaker {
            network_error_percent: Some(5),
            response_5xx_percent: Some(50),
            open_ms: 5_000,
        }),
        ..RouteSpec::default()
    };
    let moved = RouteSpec {
        path: "/o$d".into(),
        redirect: Some(Redirect {
            host: Some("new.example.com".into()),
            scheme: None,
            path: Some("/n$w".into()),
            permanent: true,
        }),
        ..RouteSpec::default()
    };
    let with = |rules: RouteSpec, ports: &[u16]| Route {
        rules: Some(Arc::new(rules.clone())),
        ..route("web", "shop.example.com", &rules.path, ports)
    };
    let table = Table {
        revision: 8,
        routes: vec![with(says, &[9001]), with(moved, &[9001])],
        ..Table::default()
    };
    let rendered = render_plain(&table, &options(&["web"]));
    assert_eq!(rendered.left_out, []);
    let golden = include_str!("golden/rules.json");
    assert_eq!(text(&rendered), golden.trim_end());
}

/// Each backend is of a service of its own.
fn by_backend(route: Route) -> Route {
    let mut parts = Vec::new();
    for backend in &route.backends {
        let number = backend.allocation.as_u128();
        let part = Part {
            service: ServiceId::from_u128(number),
            name: format!("s{number}"),
            weight: number as u32,
            allocations: vec![backend.allocation],
        };
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    Route { parts, ..route }
}

#[test]
fn shares_are_a_weighted_service_over_those_that_have_a_backend() {
    let rules = RouteSpec {
        sticky: true,
        ..RouteSpec::default()
    };
    let mut split = by_backend(route("web", "shop.example.com", "/", &[1, 9]));
    split.rules = Some(Arc::new(rules));
    split.parts.push(Part {
        allocations: Vec::new(),
        name: "gone".into(),
        ..split.parts[0].clone()
    });
    let services = |route: &Route| {
        let table = Table {
            routes: vec![route.clone()],
            ..Table::default()
        };
        let body = render_plain(&table, &options(&[])).body;
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        body["http"]["services"].clone()
    };
    let both = services(&split);
    let shares = serde_json::json!([
        { "name": "web//part/s1", "weight": 1 },
        { "name": "web//part/s9", "weight": 9 },
    ]);
    assert_eq!(both["web"]["weighted"]["services"], shares);
    let cookie = |it: &serde_json::Value| it["sticky"]["cookie"]["name"].clone();
    let (which, of_part) = (
        cookie(&both["web"]["weighted"]),
        cookie(&both["web//part/s9"]["loadBalancer"]),
    );
    assert!(which.is_string() && of_part.is_string() && which != of_part);
    let servers = &both["web//part/s9"]["loadBalancer"]["servers"];
    assert_eq!(
        *servers,
        serde_json::json!([{ "url": "http://127.0.0.1:9" }])
    );
    split.backends.truncate(1);
    let one = services(&split);
    let servers = &one["web"]["loadBalancer"]["servers"];
    assert_eq!(
        *servers,
        serde_json::json!([{ "url": "http://127.0.0.1:1" }])
    );
}

#[test]
fn hosts_of_a_service_that_lead_to_the_same_place_share_it() {
    let routes = vec![
        route("web", "a.example.com", "/", &[1, 2]),
        route("web", "b.example.com", "/", &[2, 1]),
        route("web", "c.example.com", "/", &[3]),
        route("api", "d.example.com", "/", &[1, 2]),
    ];
    let table = Table {
        routes,
        ..Table::default()
    };
    let body = render_plain(&table, &options(&[])).body;
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let of = |router: &str| body["http"]["routers"][router]["service"].clone();
    assert_eq!(of("web"), "web");
    assert_eq!(of("web/b.2eexample.2ecom/"), "web");
    assert_eq!(of("web/c.2eexample.2ecom/"), "web/c.2eexample.2ecom/");
    assert_eq!(of("api"), "api", "another service is another");
    let services = body["http"]["services"].as_object().expect("services");
    assert_eq!(services.len(), 4, "and our own");
}

fn any_route() -> impl Strategy<Value = Route> {
    let host = prop_oneof![
        "[a-c]{1,2}(\\.[a-c]{1,2}){0,2}",
        "\\*\\.[a-c]{1,2}",
        ".{0,6}",
    ];
    let name = prop_oneof!["[a-c]{0,2}", "skep-rev.{0,3}", ".{0,5}"];
    let path = prop_oneof![Just("/".to_owned()), "(/[a-b]{0,2}){1,3}", ".{0,5}"];
    let ports = prop::collection::vec(1..4u16, 0..3);
    let split = any::<bool>();
    (
        name,
        host,
        path,
        ports,
        prop::option::of(any_rules()),
        split,
    )
        .prop_map(|(name, host, path, ports, rules, is_split)| {
            let rules = rules.map(|rules| {
                let path = path.clone();
                Arc::new(RouteSpec { path, ..rules })
            });
            let route = Route {
                rules,
                ..route(&name, &host, &path, &ports)
            };
            if is_split { by_backend(route) } else { route }
        })
}

/// Rules of which each thing may be said or not.
fn any_rules() -> impl Strategy<Value = RouteSpec> {
    let redirect = prop::option::of(
        (
            prop::option::of("[a-c]{1,3}"),
            any::<bool>(),
            prop::option::of("/[x-z$.]{1,3}"),
        )
            .prop_map(|(host, https, path)| Redirect {
                host,
                scheme: https.then_some(Scheme::Https),
                path,
                permanent: https,
            }),
    );
    let changes = (
        prop::collection::btree_map("[A-C]{1,2}", "[a-c]{1,3}", 0..3),
        prop::collection::vec("[D-F]{1,2}", 0..2),
    )
        .prop_map(|(set, remove)| HeaderChanges { set, remove });
    let count = prop::option::of(1..5u32);
    let headers = (changes.clone(), changes);
    (
        redirect,
        headers,
        any_guards(),
        any::<bool>(),
        count.clone(),
        count.clone(),
        count,
    )
        .prop_map(
            |(redirect, (request, response), guards, strip, priority, rate, amount)| RouteSpec {
                strip_prefix: strip && redirect.is_none(),
                redirect,
                headers: Headers { request, response },
                priority,
                allow_ips: amount
                    .map(|bits| format!("10.0.0.0/{bits}"))
                    .into_iter()
                    .collect(),
                rate_limit: rate.map(|per_second| RateLimit {
                    per_second,
                    burst: per_second,
                }),
                in_flight: amount,
                body_limit_bytes: rate.map(u64::from),
                ..guards
            },
        )
}

/// What stands before the service, and what is done to its answers.
fn any_guards() -> impl Strategy<Value = RouteSpec> {
    let names = || prop::collection::vec("X-[A-C]{1,2}", 0..2);
    let cors = (any::<bool>(), any::<bool>(), names(), 1..9u32).prop_map(
        |(any, credentials, headers, max_age_s)| Cors {
            origins: vec![if any { "*" } else { "https://a.example:444" }.into()],
            credentials: credentials && !any,
            expose: headers.clone(),
            methods: headers.iter().map(|_| "PUT".to_owned()).collect(),
            headers,
            max_age_s,
        },
    );
    let asked = (
        "https?://[a-c]{1,3}(:[1-9]{1,4})?(/[a-z]{0,2})?",
        names(),
        names(),
    )
        .prop_map(|(url, request_headers, response_headers)| ForwardAuth {
            url,
            request_headers,
            response_headers,
        });
    let share = || prop::option::of(1..100u32);
    let breaker = (share(), share(), 100..9_999u32).prop_map(
        |(network_error_percent, response_5xx_percent, open_ms)| CircuitBreaker {
            network_error_percent,
            response_5xx_percent,
            open_ms,
        },
    );
    let breaker = prop::option::of(breaker);
    (
        any::<bool>(),
        prop::option::of(cors),
        prop::option::of(asked),
        breaker,
    )
        .prop_map(
            |(compress, cors, forward_auth, circuit_breaker)| RouteSpec {
                compress,
                cors,
                forward_auth,
                circuit_breaker,
                ..RouteSpec::default()
            },
        )
}

fn any_table() -> impl Strategy<Value = Table> {
    let routes = prop::collection::vec(any_route(), 0..8);
    let tcp = prop::collection::vec(any_tcp(), 0..5);
    (any::<u64>(), routes, tcp).prop_map(|(revision, routes, tcp)| Table {
        revision,
        routes,
        tcp,
    })
}

fn any_tcp() -> impl Strategy<Value = TcpRoute> {
    let door = prop_oneof![
        ("(\\*\\.)?[a-c]{1,2}(\\.[a-c]{1,2}){0,1}", any::<bool>()).prop_map(|(host, ends)| {
            let tls = if ends {
                TlsMode::Terminate
            } else {
                TlsMode::Passthrough
            };
            Door::Sni { host, tls }
        }),
        ".{0,6}".prop_map(|host| Door::Sni {
            host,
            tls: TlsMode::Passthrough
        }),
        (1..4u16).prop_map(Door::Entry),
    ];
    let name = prop_oneof!["[a-c]{0,2}", "skep-rev.{0,3}", ".{0,5}"];
    (door, name).prop_map(|(door, name)| TcpRoute {
        door,
        ..by_name(&name, "-", TlsMode::Passthrough)
    })
}

/// Every object in it has a member.
fn has_no_empty_object(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Object(members) => {
            let tls_may_be = |(name, value): (&String, &serde_json::Value)| {
                (name == "tls" && value.as_object().is_some_and(|it| it.is_empty()))
                    || has_no_empty_object(value)
            };
            !members.is_empty() && members.iter().all(tls_may_be)
        }
        serde_json::Value::Array(items) => items.iter().all(has_no_empty_object),
        _ => true,
    }
}

/// Each quoted word stands alone between parentheses: no host or path ends another one's quotes.
fn quotes_pair(rule: &str) -> bool {
    let mut is_open = false;
    let (mut before, mut rest) = (' ', rule.chars());
    while let Some(c) = rest.next() {
        if c == '`' {
            let is_fit = match is_open {
                false => matches!(before, '(' | ' '),
                true => matches!(rest.clone().next(), Some(')' | ',')),
            };
            if !is_fit {
                return false;
            }
            is_open = !is_open;
        }
        before = c;
    }
    !is_open
}

proptest! {
    // A failure is kept as a named test, not as a seed beside the code.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_body_keeps_the_laws(table in any_table(), entries in 0..3usize) {
        let options = options(&["web", "websecure", "x@y"][..entries]);
        let rendered = render_plain(&table, &options);
        let mut shuffled = table.clone();
        shuffled.routes.reverse();
        shuffled.tcp.reverse();
        prop_assert_eq!(&render_plain(&shuffled, &options).body, &rendered.body);

        let body: serde_json::Value = serde_json::from_slice(&rendered.body).expect("JSON");
        prop_assert!(has_no_empty_object(&body), "{}", body);
        let routers = body["http"]["routers"].as_object().expect("routers");
        let services = body["http"]["services"].as_object().expect("services");
        prop_assert!(routers.contains_key(&revision_router(table.revision)));
        let served = table.check().routes.len();
        let of_parts = services.keys().filter(|name| name.contains("//part/")).count();
        // Of what leads to the same place some share one.
        prop_assert!(services.len() - of_parts <= served + 1);
        prop_assert_eq!(routers.len(), served * entries.max(1) + 1);
        let mut used = BTreeSet::new();
        let mut used_middlewares = BTreeSet::new();
        let none = serde_json::Map::new();
        let middlewares = body["http"]["middlewares"].as_object().unwrap_or(&none);
        for (name, router) in routers {
            let service = router["service"].as_str().expect("a service");
            prop_assert!(services.contains_key(service), "{} of {}", service, name);
            used.insert(service.to_owned());
            let shares = services[service]["weighted"]["services"].as_array();
            for share in shares.into_iter().flatten() {
                let name = share["name"].as_str().expect("a name");
                prop_assert!(services.contains_key(name), "{} of {}", name, service);
                used.insert(name.to_owned());
            }
            for middleware in router["middlewares"].as_array().into_iter().flatten() {
                let name = middleware.as_str().expect("a name");
                prop_assert!(middlewares.contains_key(name), "{} dangles", name);
                used_middlewares.insert(name.to_owned());
            }
            prop_assert!(!name.contains('@') && !name.is_empty());
            let rule = router["rule"].as_str().expect("a rule");
            prop_assert!(quotes_pair(rule), "{}", rule);
        }
        prop_assert_eq!(used.len(), services.len());
        prop_assert_eq!(used_middlewares.len(), middlewares.len());
        for middleware in middlewares.values() {
            prop_assert_eq!(middleware.as_object().map(serde_json::Map::len), Some(1));
        }
        let named = table.check().tcp.into_keys().filter(|(host, _)| host.is_some()).count();
        prop_assert_eq!(body.get("tcp").is_some(), named > 0);
        let tcp = |what: &str| body["tcp"][what].as_object().unwrap_or(&none).clone();
        prop_assert_eq!(tcp("services").len(), named);
        prop_assert_eq!(tcp("routers").len(), named * entries.max(1));
        for router in tcp("routers").values() {
            let service = router["service"].as_str().expect("a service");
            prop_assert!(tcp("services").contains_key(service), "{}", service);
            let rule = router["rule"].as_str().expect("a rule");
            prop_assert!(quotes_pair(rule), "{}", rule);
        }
        // No two routes share a middleware: each has as many as its rules make.
        let checked = table.check();
        let made = checked.routes.values().filter_map(|route| route.rules.as_deref());
        let made: usize = made.map(|rules| middleware::of(rules).len()).sum();
        prop_assert_eq!(middlewares.len(), made);
    }

    #[test]
    fn names_do_not_collide(one in ".{0,6}", other in ".{0,6}") {
        prop_assert_eq!(one == other, router_name(&one) == router_name(&other));
    }
}

#[test]
fn a_quote_that_a_path_brings_is_seen() {
    for (rule, is_sound) in [
        ("Host(`a`) && (Path(`/(`) || PathPrefix(`/(/`))", true),
        ("Header(`X`, `b`)", true),
        ("Host(`a`) || Path(`/`x`)", false),
        ("Host(`a`) || Path(`/``)", false),
        ("Host(`a", false),
    ] {
        assert_eq!(quotes_pair(rule), is_sound, "{rule}");
    }
}

#[test]
fn hosts_with_certificates_are_served_twice_and_authorities_led_to_the_ingress() {
    let route = |host: &str| Route {
        sleeps: false,
        rules: None,
        parts: Vec::new(),
        host: host.to_owned(),
        path_prefix: "/".to_owned(),
        service: skep_model::id::ServiceId::from_u128(1),
        name: host.to_owned(),
        backends: Vec::new(),
        tried: Vec::new(),
    };
    let table = Table {
        revision: 7,
        routes: ["a.example", "x.wild.example", "b.example"]
            .map(route)
            .into(),
        ..Table::default()
    };
    let pair = |name: &str| Pair {
        names: vec![name.to_owned()],
        chain: "CHAIN".to_owned(),
        key: "KEY".to_owned(),
    };
    let options = Options {
        certificates: vec![pair("a.example"), pair("*.wild.example")],
        proofs: "127.0.0.1:8080".parse().ok(),
        ..Options::default()
    };
    let body: serde_json::Value =
        serde_json::from_slice(&render_plain(&table, &options).body).expect("JSON");
    let routers = body["http"]["routers"].as_object().expect("routers");
    let encrypted = routers.iter().filter(|(_, it)| it["tls"].is_object());
    let rules: Vec<_> = encrypted.map(|(_, it)| it["rule"].clone()).collect();
    assert_eq!(rules, ["Host(`a.example`)", "Host(`x.wild.example`)"]);
    let highest = routers.values().max_by_key(|it| it["priority"].as_u64());
    let proofs = highest.expect("one");
    assert_eq!(proofs["rule"], "PathPrefix(`/.well-known/acme-challenge/`)");
    let service = proofs["service"].as_str().expect("a name");
    let servers = &body["http"]["services"][service]["loadBalancer"]["servers"];
    assert_eq!(servers[0]["url"], "http://127.0.0.1:8080");
    let files = body["tls"]["certificates"].as_array().expect("a list");
    assert_eq!(files.len(), 2);
    assert_eq!(files[0]["certFile"], "CHAIN");
    let without: serde_json::Value =
        serde_json::from_slice(&render_plain(&table, &Options::default()).body).expect("JSON");
    assert!(
        without.get("tls").is_none(),
        "an empty one would be refused"
    );
}
