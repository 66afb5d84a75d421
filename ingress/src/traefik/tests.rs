//! Golden bodies, and the laws that every body keeps.

use std::collections::BTreeSet;

use proptest::prelude::*;
use skep_model::id::{AllocationId, ServiceId};

use super::*;
use crate::table::{Backend, Fault};

fn route(name: &str, host: &str, path_prefix: &str, ports: &[u16]) -> Route {
    let backend = |port: &u16| Backend {
        allocation: AllocationId::from_u128(u128::from(*port)),
        place: Place::Here(([127, 0, 0, 1], *port).into()),
    };
    Route {
        sleeps: false,
        host: host.to_owned(),
        path_prefix: path_prefix.to_owned(),
        service: ServiceId::from_u128(1),
        name: name.to_owned(),
        backends: ports.iter().map(backend).collect(),
    }
}

fn options(entry_points: &[&str]) -> Options {
    Options {
        entry_points: entry_points
            .iter()
            .map(|entry| (*entry).to_owned())
            .collect(),
    }
}

fn text(rendered: &Rendered) -> &str {
    std::str::from_utf8(&rendered.body).expect("JSON is UTF-8")
}

#[test]
fn an_empty_table_is_not_an_empty_body() {
    let rendered = render(&Table::default(), &options(&["web"]));
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
    };
    let rendered = render(&table, &options(&["web", "websecure"]));
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
        text(&render(&table, &options(&["web", "websecure"]))),
        golden.trim_end()
    );
}

fn any_route() -> impl Strategy<Value = Route> {
    let host = prop_oneof![
        "[a-c]{1,2}(\\.[a-c]{1,2}){0,2}",
        "\\*\\.[a-c]{1,2}",
        ".{0,6}",
    ];
    let name = prop_oneof!["[a-c]{0,2}", "skep-rev.{0,3}", ".{0,5}"];
    let path = prop_oneof![Just("/".to_owned()), "(/[a-b]{0,2}){1,3}", ".{0,5}"];
    (name, host, path, prop::collection::vec(1..4u16, 0..3))
        .prop_map(|(name, host, path, ports)| route(&name, &host, &path, &ports))
}

fn any_table() -> impl Strategy<Value = Table> {
    (any::<u64>(), prop::collection::vec(any_route(), 0..8))
        .prop_map(|(revision, routes)| Table { revision, routes })
}

/// Every object in it has a member.
fn has_no_empty_object(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Object(members) => {
            !members.is_empty() && members.values().all(has_no_empty_object)
        }
        serde_json::Value::Array(items) => items.iter().all(has_no_empty_object),
        _ => true,
    }
}

proptest! {
    // A failure is kept as a named test, not as a seed beside the code.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_body_keeps_the_laws(table in any_table(), entries in 0..3usize) {
        let options = options(&["web", "websecure", "x@y"][..entries]);
        let rendered = render(&table, &options);
        let mut shuffled = table.clone();
        shuffled.routes.reverse();
        prop_assert_eq!(&render(&shuffled, &options).body, &rendered.body);

        let body: serde_json::Value = serde_json::from_slice(&rendered.body).expect("JSON");
        prop_assert!(has_no_empty_object(&body), "{}", body);
        let routers = body["http"]["routers"].as_object().expect("routers");
        let services = body["http"]["services"].as_object().expect("services");
        prop_assert!(routers.contains_key(&revision_router(table.revision)));
        let served = table.routes.len() - rendered.left_out.len();
        prop_assert_eq!(services.len(), served + 1);
        prop_assert_eq!(routers.len(), served * entries.max(1) + 1);
        let mut used = BTreeSet::new();
        for (name, router) in routers {
            let service = router["service"].as_str().expect("a service");
            prop_assert!(services.contains_key(service), "{} of {}", service, name);
            used.insert(service.to_owned());
            prop_assert!(!name.contains('@') && !name.is_empty());
            let rule = router["rule"].as_str().expect("a rule");
            prop_assert_eq!(rule.matches('`').count(), 2 * rule.matches("(`").count(), "{}", rule);
        }
        prop_assert_eq!(used.len(), services.len());
    }

    #[test]
    fn names_do_not_collide(one in ".{0,6}", other in ".{0,6}") {
        prop_assert_eq!(one == other, router_name(&one) == router_name(&other));
    }
}
