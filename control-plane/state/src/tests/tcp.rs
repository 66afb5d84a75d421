//! Routes of connections: whose hosts and ports are, and what gets into the table.

use skep_model::tcp::{Door, Ports, TcpSpec, TlsMode};

use super::certificates::{issuer, set};
use super::claims::{OTHER_ENVIRONMENT, sibling};
use super::*;

fn by_port(entry: u16) -> TcpSpec {
    TcpSpec {
        port: 5432,
        entry: Some(entry),
        ..TcpSpec::default()
    }
}

fn by_name(host: &str, tls: TlsMode) -> TcpSpec {
    TcpSpec {
        port: 5432,
        sni: Some(host.into()),
        tls,
        ..TcpSpec::default()
    }
}

/// A worker of the same environment, or of another project's.
fn worker(id: u128, own: bool, tcp: Vec<TcpSpec>) -> Service {
    let name = format!("w{id}");
    let environment = match own {
        true => ENVIRONMENT,
        false => EnvironmentId::from_u128(OTHER_ENVIRONMENT),
    };
    Service {
        environment,
        spec: ServiceSpec {
            kind: skep_model::spec::ServiceType::Worker,
            tcp,
            ..ServiceSpec::default()
        },
        ..sibling(id, &name, &[])
    }
}

fn offer(range: Option<(u16, u16)>) -> Kind {
    let ports = range.map(|(first, last)| Ports { first, last }.into());
    Kind::SetTcpPorts(v1::SetTcpPorts { ports })
}

fn drop_it(world: &mut World, id: u128) {
    let id = ServiceId::from_u128(id);
    let service = (**world.state.service(id).expect("there")).clone();
    let removing = Service {
        removing: true,
        ..service
    };
    world.ok(put_service(&removing, removing.generation));
    world.ok(Kind::DropService(v1::DropService {
        service: id_bytes(id.as_u128()),
    }));
}

#[test]
fn a_port_is_one_services_out_of_those_that_are_offered() {
    let mut world = World::with_claims(&[]);
    let mine = worker(50, true, vec![by_port(15_000)]);
    let theirs = worker(51, false, vec![by_port(15_000)]);
    assert_eq!(
        world.refused(put_service(&mine, 0)),
        Code::Conflict,
        "none are offered"
    );
    assert_eq!(world.refused(offer(Some((2, 1)))), Code::Invalid);
    world.ok(offer(Some((15_000, 15_009))));
    let outside = worker(50, true, vec![by_port(15_010)]);
    assert_eq!(world.refused(put_service(&outside, 0)), Code::Conflict);
    world.ok(put_service(&mine, 0));
    let why = world.why(put_service(&theirs, 0));
    assert_eq!(why.field.as_deref(), Some("tcp[0].entry"));
    assert!(why.message.contains("w50"), "{why}");
    // What is taken stays within what is offered.
    assert_eq!(world.refused(offer(None)), Code::Conflict);
    assert_eq!(world.refused(offer(Some((15_001, 15_009)))), Code::Conflict);
    world.ok(offer(Some((15_000, 15_001))));
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
    // It is free with its route, and with its service.
    world.ok(put_service(&worker(50, true, vec![by_port(15_001)]), 1));
    world.ok(put_service(&theirs, 0));
    drop_it(&mut world, 51);
    world.ok(put_service(&worker(52, false, vec![by_port(15_000)]), 0));
    let held: Vec<_> = world
        .state
        .entries()
        .map(|(port, it)| (port, it.name.clone()))
        .collect();
    assert_eq!(
        held,
        [(15_000, "w52".to_owned()), (15_001, "w50".to_owned())]
    );
}

#[test]
fn a_host_is_claimed_and_is_for_connections_or_for_http() {
    let mut world = World::with_claims(&[("www.a.com", "/")]);
    let named = |host: &str| vec![by_name(host, TlsMode::Passthrough)];
    for (service, field) in [
        // HTTP of its own project, and of another one.
        (worker(50, true, named("www.a.com")), "tcp[0].sni"),
        (worker(50, false, named("www.a.com")), "tcp[0].sni"),
    ] {
        let why = world.why(put_service(&service, 0));
        assert_eq!(
            (why.code, why.field.as_deref()),
            (Code::Conflict, Some(field))
        );
        assert!(why.message.contains("web"), "{why}");
    }
    world.ok(put_service(&worker(50, true, named("db.a.com")), 0));
    assert_eq!(
        world.refused(put_service(&worker(51, false, named("db.a.com")), 0)),
        Code::Conflict
    );
    assert_eq!(
        world.refused(put_service(&worker(51, true, named("db.a.com")), 0)),
        Code::Conflict
    );
    for path in ["/", "/api"] {
        let http = sibling(52, "http", &[("db.a.com", path)]);
        assert_eq!(
            world.refused(put_service(&http, 0)),
            Code::Conflict,
            "{path}"
        );
    }
    let shown: Vec<_> = world
        .state
        .served_at("db.a.com")
        .map(|(at, _)| at)
        .collect();
    assert_eq!(shown, ["TLS"]);
    // A wildcard owns nothing below it, and its own generated name is HTTP's.
    world.ok(put_service(&worker(53, false, named("*.a.com")), 0));
    let mut own = sibling(54, "http", &[]);
    own.spec.tcp = named(&world.state.host_of(&own));
    assert_eq!(world.refused(put_service(&own, 0)), Code::Invalid);
    own.spec.kind = skep_model::spec::ServiceType::Worker;
    world.ok(put_service(&own, 0));
    // A day after its route is gone it is anybody's, and no sooner.
    drop_it(&mut world, 50);
    assert_eq!(
        world.refused(put_service(&worker(51, false, named("db.a.com")), 0)),
        Code::Conflict
    );
}

#[test]
fn only_hosts_whose_tls_is_ended_here_want_certificates() {
    let mut world = World::with_claims(&[]);
    let both = vec![
        by_name("db.a.com", TlsMode::Passthrough),
        by_name("mq.a.com", TlsMode::Terminate),
    ];
    let spec = worker(50, true, both).spec;
    let hosts: Vec<_> = spec.shown_hosts().into_iter().collect();
    assert_eq!(hosts, ["mq.a.com"]);
    let generation = world.service().generation;
    let next = Service {
        spec,
        ..world.service().clone()
    };
    world.ok(put_service(&next, generation));
    world.ok(offer(Some((1, 9))));
    assert_eq!(world.state.route_table().tcp, [], "nothing is deployed");
    assert!(world.state.certifiable_hosts().is_empty());
}

#[test]
fn a_workers_healthy_allocations_are_where_its_connections_go() {
    let (mut world, allocation) = World::with_live_release();
    world.ok(offer(Some((15_000, 15_009))));
    let generation = world.service().generation;
    let tcp = vec![
        by_name("db.a.com", TlsMode::Terminate),
        TcpSpec {
            proxy_protocol: true,
            ..by_port(15_000)
        },
    ];
    let next = Service {
        spec: worker(1, true, tcp).spec,
        ..world.service().clone()
    };
    world.ok(put_service(&next, generation));
    let table = world.state.route_table();
    assert_eq!(table.routes, [], "a worker answers no requests");
    let doors: Vec<_> = table.tcp.iter().map(|route| route.door.clone()).collect();
    let named = Door::Sni {
        host: "db.a.com".into(),
        tls: TlsMode::Terminate,
    };
    assert_eq!(doors, [named, Door::Entry(15_000)]);
    assert!(table.tcp[1].proxy_protocol);
    for route in &table.tcp {
        let ports: Vec<_> = route.backends.iter().map(|backend| backend.port).collect();
        assert_eq!(ports, [5432], "its own port, not the release's");
    }
    let issuer = issuer("https://ca.example/dir");
    world.ok(set(Some(&issuer)));
    assert!(world.state.certifiable_hosts().contains_key("db.a.com"));
    let revision = world.state.routes_revision();
    world.observe(allocation, Seen::Unhealthy);
    assert!(world.state.routes_revision() > revision);
    assert_eq!(world.state.route_table().tcp[0].backends, []);
}
