use skep_model::id::{DeploymentId, ServiceId};
use skep_model::route::{Route, RouteTable, Tried};

use super::*;

/// Every field has a value of its own.
pub(in crate::convert) fn route() -> RouteSpec {
    let changes = |name: &str| HeaderChanges {
        set: [(name.to_owned(), "v".to_owned())].into(),
        remove: vec![format!("not-{name}")],
    };
    RouteSpec {
        host: Some("c.d".into()),
        path: "/e".into(),
        strip_prefix: true,
        priority: Some(1),
        redirect: Some(Redirect {
            host: Some("f.g".into()),
            scheme: Some(Scheme::Https),
            path: Some("/h".into()),
            permanent: true,
        }),
        headers: Headers {
            request: changes("i"),
            response: changes("j"),
        },
        allow_ips: vec!["10.0.0.0/8".into()],
        basic_auth: vec!["k:l".into()],
        rate_limit: Some(RateLimit {
            per_second: 2,
            burst: 3,
        }),
        body_limit_bytes: Some(4),
        in_flight: Some(5),
        sticky: true,
        compress: true,
        cors: Some(Cors {
            origins: vec!["https://m".into()],
            methods: vec!["N".into()],
            headers: vec!["o".into()],
            expose: vec!["p".into()],
            credentials: true,
            max_age_s: 6,
        }),
        forward_auth: Some(ForwardAuth {
            url: "http://q/".into(),
            request_headers: vec!["r".into()],
            response_headers: vec!["s".into()],
        }),
        circuit_breaker: Some(CircuitBreaker {
            network_error_percent: Some(7),
            response_5xx_percent: Some(8),
            open_ms: 900,
        }),
        split: vec![Split {
            service: "t".into(),
            weight: 10,
        }],
    }
}

#[test]
fn a_route_that_says_little_survives_and_so_does_a_claim() {
    let silent = RouteSpec::default();
    let message = v1::RouteSpec::from(&silent);
    assert_eq!(
        (&message.redirect, &message.request_headers),
        (&None, &None)
    );
    assert_eq!(RouteSpec::try_from(message), Ok(silent));
    for released_ms in [None, Some(0), Some(7)] {
        let claim = Claim {
            host: "*.a".into(),
            project: ProjectId::from_u128(1),
            since_ms: 2,
            released_ms,
        };
        assert_eq!(Claim::try_from(v1::Claim::from(&claim)), Ok(claim));
    }
}

#[test]
fn who_does_not_know_rules_gets_nothing_of_a_host_that_has_some() {
    let at = |host: &str, path: &str, rules: Option<RouteSpec>| Route {
        host: host.into(),
        path_prefix: path.into(),
        service: ServiceId::from_u128(1),
        name: "n".into(),
        backends: Vec::new(),
        sleeps: false,
        rules: rules.map(Arc::new),
        parts: vec![Part {
            service: ServiceId::from_u128(2),
            name: "other".into(),
            weight: 9,
            allocations: vec![AllocationId::from_u128(3)],
        }],
        tried: vec![Tried {
            service: ServiceId::from_u128(4),
            deployment: DeploymentId::from_u128(5),
            allocations: vec![AllocationId::from_u128(6)],
        }],
    };
    let table = RouteTable {
        tcp: Vec::new(),
        revision: 3,
        peers: Vec::new(),
        names: Vec::new(),
        routes: vec![
            at("a", "/", None),
            at("a", "/admin", Some(route())),
            at("b", "/", None),
        ],
    };
    let message = v1::RouteTable::from(&table);
    let hosts: Vec<&str> = message.routes.iter().map(|route| &*route.host).collect();
    assert_eq!(hosts, ["b"]);
    assert_eq!(RouteTable::try_from(message), Ok(table));
}
