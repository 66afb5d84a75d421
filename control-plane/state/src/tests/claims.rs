//! Whose hosts are.

use skep_model::claim::{Claim, GRACE_MS};
use skep_model::problem::Problem;
use skep_model::routing::RouteSpec;
use skep_model::settings::Scope;

use super::*;

const OTHER_PROJECT: u128 = 71;
pub(super) const OTHER_ENVIRONMENT: u128 = 72;

fn with_routes(hosts: &[(&str, &str)]) -> ServiceSpec {
    let route = |(host, path): &(&str, &str)| RouteSpec {
        host: Some((*host).into()),
        path: (*path).into(),
        ..RouteSpec::default()
    };
    ServiceSpec {
        routes: hosts.iter().map(route).collect(),
        ..ServiceSpec::default()
    }
}

/// Another service of the same environment.
pub(super) fn sibling(id: u128, name: &str, hosts: &[(&str, &str)]) -> Service {
    Service {
        id: ServiceId::from_u128(id),
        name: name.into(),
        spec: with_routes(hosts),
        ..service()
    }
}

/// A service of another project.
fn stranger(id: u128, name: &str, hosts: &[(&str, &str)]) -> Service {
    Service {
        environment: EnvironmentId::from_u128(OTHER_ENVIRONMENT),
        ..sibling(id, name, hosts)
    }
}

/// One of the two.
pub(super) fn service_in(own: bool, id: u128, name: &str, hosts: &[(&str, &str)]) -> Service {
    match own {
        true => sibling(id, name, hosts),
        false => stranger(id, name, hosts),
    }
}

fn drop_service(id: u128) -> Kind {
    Kind::DropService(v1::DropService {
        service: id_bytes(id),
    })
}

pub(super) fn set_base(environment: EnvironmentId, base: Option<&str>) -> Kind {
    Kind::SetBaseDomain(v1::SetBaseDomain {
        environment: id_bytes(environment.as_u128()),
        base_domain: base.map(str::to_owned),
    })
}

impl World {
    /// The service with these routes, and a second project beside it.
    pub(super) fn with_claims(hosts: &[(&str, &str)]) -> Self {
        let mut world = Self::with_service();
        world.ok(Kind::EnsureEnvironment(v1::EnsureEnvironment {
            workspace: id_bytes(WORKSPACE.as_u128()),
            project: Some(
                (&Project {
                    id: skep_model::id::ProjectId::from_u128(OTHER_PROJECT),
                    workspace: WORKSPACE,
                    name: "blog".into(),
                })
                    .into(),
            ),
            environment: Some(
                (&Environment {
                    id: EnvironmentId::from_u128(OTHER_ENVIRONMENT),
                    project: skep_model::id::ProjectId::from_u128(OTHER_PROJECT),
                    name: "production".into(),
                })
                    .into(),
            ),
        }));
        world.give_routes(hosts);
        world
    }

    fn give_routes(&mut self, hosts: &[(&str, &str)]) {
        let generation = self.service().generation;
        let next = Service {
            spec: with_routes(hosts),
            ..self.service().clone()
        };
        self.ok(put_service(&next, generation));
    }

    pub(super) fn why(&mut self, kind: Kind) -> Problem {
        self.apply(kind).outcome.expect_err("refused")
    }

    fn claim(&self, host: &str) -> Option<Claim> {
        self.state
            .claims()
            .find(|claim| claim.host == host)
            .map(|claim| (**claim).clone())
    }

    /// Time goes on by itself: a command that says no more than that.
    fn later(&mut self, ms: u64) {
        let now = self.state.time_ms();
        let tick = command(now + ms, Kind::PruneClaims(v1::PruneClaims {}));
        self.raw(tick).outcome.expect("accepted");
    }
}

#[test]
fn a_project_shares_its_host_by_path_and_nobody_else_gets_in() {
    let mut world = World::with_claims(&[("a.com", "/"), ("*.a.com", "/")]);
    world.ok(put_service(&sibling(60, "api", &[("a.com", "/api")]), 0));
    let taken = world.why(put_service(&sibling(61, "x", &[("a.com", "/api/")]), 0));
    assert_eq!(taken.field.as_deref(), Some("routes[0].host"));
    assert!(
        taken
            .message
            .contains("`a.com/api` leads to service default/shop/production/api"),
        "{taken}"
    );
    for host in ["a.com", "*.a.com"] {
        let foreign = world.why(put_service(&stranger(62, "y", &[(host, "/blog")]), 0));
        assert!(
            foreign.message.contains("default/shop/production/"),
            "{foreign}"
        );
        assert!(foreign.hint.is_some());
    }
    // A wildcard is a host of its own: what is below it is whoever comes first's.
    world.ok(put_service(&stranger(63, "z", &[("b.a.com", "/")]), 0));
    let hosts: Vec<&str> = world.state.claims().map(|claim| &*claim.host).collect();
    assert_eq!(hosts, ["*.a.com", "a.com", "b.a.com"]);
    // Whoever was refused is not there with half of it.
    assert!(world.state.service(ServiceId::from_u128(62)).is_none());
}

#[test]
fn a_host_that_was_given_up_waits_for_its_project() {
    let mut world = World::with_claims(&[("a.com", "/")]);
    let since = world.claim("a.com").expect("claimed").since_ms;
    world.give_routes(&[]);
    let released = world
        .claim("a.com")
        .expect("kept")
        .released_ms
        .expect("released");
    assert_eq!(released, world.state.time_ms());
    let foreign = world.why(put_service(&stranger(62, "y", &[("a.com", "/")]), 0));
    assert!(
        foreign.message.contains("project default/shop"),
        "{foreign}"
    );
    assert!(foreign.message.contains("24 h more"), "{foreign}");
    // Its own project takes it again, and it is as old as it was.
    world.ok(put_service(&sibling(60, "new", &[("a.com", "/")]), 0));
    let again = world.claim("a.com").expect("claimed");
    assert_eq!((again.since_ms, again.released_ms), (since, None));
    // Given up again, by removal: others get it when its time is over, pruned or not.
    let id = ServiceId::from_u128(60);
    let removing = Service {
        removing: true,
        ..(**world.state.service(id).expect("there")).clone()
    };
    world.ok(put_service(&removing, 1));
    world.ok(drop_service(60));
    world.later(GRACE_MS - 10_000);
    assert!(world.claim("a.com").is_some());
    world.later(10_000);
    assert_eq!(world.claim("a.com"), None);
    world.ok(put_service(&stranger(62, "y", &[("a.com", "/")]), 0));
    assert_eq!(world.claim("a.com").expect("claimed").released_ms, None);
}

#[test]
fn a_free_host_is_had_before_anybody_prunes() {
    let mut world = World::with_claims(&[("a.com", "/")]);
    world.give_routes(&[]);
    let now = world.state.time_ms();
    let take = put_service(&stranger(62, "y", &[("a.com", "/")]), 0);
    assert!(!world.state.has_free_claims(now + GRACE_MS - 1));
    assert!(world.state.has_free_claims(now + GRACE_MS));
    let late = command(now + GRACE_MS, take);
    world.raw(late).outcome.expect("free");
    let claim = world.claim("a.com").expect("claimed");
    assert_eq!(claim.project.as_u128(), OTHER_PROJECT);
}

#[test]
fn under_the_base_domain_one_free_label_that_is_no_generated_name() {
    let mut world = World::with_claims(&[("cool.localhost", "/")]);
    for host in [
        "www.localhost",
        "*.localhost",
        "a.b.localhost",
        "cool.localhost",
        "web-production-shop.localhost",
    ] {
        let problem = world.why(put_service(&stranger(62, "y", &[(host, "/")]), 0));
        assert_eq!(problem.code, Code::Conflict, "{host}: {problem}");
        assert!(problem.hint.is_some(), "{host}");
    }
    // The other way round: a name that would be generated is taken.
    world.ok(put_service(
        &stranger(62, "y", &[("new-production-shop.localhost", "/")]),
        0,
    ));
    let problem = world.why(put_service(&sibling(60, "new", &[]), 0));
    assert_eq!(problem.field.as_deref(), Some("service"));
    assert!(
        problem.message.contains("default/blog/production/y"),
        "{problem}"
    );
}

#[test]
fn names_that_would_be_generated_alike_are_refused() {
    let mut world = World::with_claims(&[]);
    world.ok(Kind::EnsureEnvironment(v1::EnsureEnvironment {
        workspace: id_bytes(WORKSPACE.as_u128()),
        project: Some(
            (&Project {
                id: skep_model::id::ProjectId::from_u128(81),
                workspace: WORKSPACE,
                name: "production-shop".into(),
            })
                .into(),
        ),
        environment: Some(
            (&Environment {
                id: EnvironmentId::from_u128(82),
                project: skep_model::id::ProjectId::from_u128(81),
                name: "b".into(),
            })
                .into(),
        ),
    }));
    // `web-b` in shop/production and `web` in production-shop/b are both web-b-production-shop.
    world.ok(put_service(&sibling(60, "web-b", &[]), 0));
    let twin = Service {
        environment: EnvironmentId::from_u128(82),
        ..sibling(61, "web", &[])
    };
    let problem = world.why(put_service(&twin, 0));
    assert!(
        problem.message.contains("default/shop/production/web-b"),
        "{problem}"
    );
}

#[test]
fn what_a_service_has_it_keeps_however_rules_are_by_now() {
    // `localhost` becomes the base domain's parent of what is claimed: nothing is asked again.
    let mut world = World::with_claims(&[("www.apps.test", "/")]);
    world.ok(set_base(
        EnvironmentId::from_u128(OTHER_ENVIRONMENT),
        Some("apps.test"),
    ));
    world.give_routes(&[("www.apps.test", "/"), ("www.apps.test", "/more")]);
    let problem = world.why(put_service(
        &stranger(62, "y", &[("api.apps.test", "/")]),
        0,
    ));
    assert!(
        problem.message.contains("kept for the platform"),
        "{problem}"
    );
}

#[test]
fn an_environment_has_names_of_its_own_where_all_of_them_are_free() {
    let mut world = World::with_claims(&[("web.apps.test", "/")]);
    world.deploy(DeploymentId::from_u128(50), 1, AllocationId::from_u128(100));
    let hosts = |world: &World| {
        let table = world.state.route_table();
        let hosts: Vec<String> = table
            .routes
            .iter()
            .map(|route| route.host.clone())
            .collect();
        hosts
    };
    let revision = world.state.routes_revision();
    world.ok(set_base(ENVIRONMENT, Some("apps.test")));
    assert!(world.state.routes_revision() > revision);
    assert_eq!(
        hosts(&world),
        ["web-production-shop.apps.test", "web.apps.test"]
    );
    // A stranger took what would be generated: the old name stays.
    world.ok(put_service(
        &stranger(62, "y", &[("web-production-shop.b.test", "/")]),
        0,
    ));
    let problem = world.why(set_base(ENVIRONMENT, Some("b.test")));
    assert_eq!(problem.field.as_deref(), Some("base_domain"));
    assert!(
        problem.message.contains("default/blog/production/y"),
        "{problem}"
    );
    assert_eq!(hosts(&world)[0], "web-production-shop.apps.test");
    world.ok(set_base(ENVIRONMENT, None));
    assert_eq!(hosts(&world)[0], "web-production-shop.localhost");
    assert_eq!(
        world.state.settings_of(Scope::Environment(ENVIRONMENT)),
        Default::default()
    );
    for wrong in ["*.a.test", "A", ""] {
        assert_eq!(
            world.refused(set_base(ENVIRONMENT, Some(wrong))),
            Code::Invalid
        );
    }
}

#[test]
fn a_release_never_brings_a_host_of_somebody_else() {
    let mut world = World::with_claims(&[]);
    world.ok(put_service(&stranger(62, "y", &[("a.com", "/")]), 0));
    let id = DeploymentId::from_u128(50);
    world.ok(create(id, None));
    let with = |hosts: &[(&str, &str)], world: &World| {
        let Kind::StartRollout(mut message) = start_rollout(&world.state, id, 1) else {
            unreachable!("that is what it makes")
        };
        message.spec = Some((&with_routes(hosts)).into());
        Kind::StartRollout(message)
    };
    let foreign = with(&[("a.com", "/")], &world);
    assert_eq!(world.refused(foreign), Code::Conflict);
    let free = with(&[("b.com", "/")], &world);
    world.ok(free);
    assert_eq!(world.claim("b.com").expect("claimed").released_ms, None);
}

#[test]
fn the_table_has_every_place_with_its_rules() {
    let mut world = World::with_claims(&[]);
    let mut spec = with_routes(&[("a.com", "/api/"), ("b.com", "/")]);
    spec.domains = vec!["a.com".into()];
    spec.routes[0].strip_prefix = true;
    spec.routes.push(RouteSpec {
        priority: Some(3),
        ..RouteSpec::default()
    });
    let next = Service {
        spec,
        ..world.service().clone()
    };
    world.ok(put_service(&next, next.generation));
    world.deploy(DeploymentId::from_u128(50), 1, AllocationId::from_u128(100));
    let table = world.state.route_table();
    let places: Vec<(&str, &str, bool)> = table
        .routes
        .iter()
        .map(|route| (&*route.host, &*route.path_prefix, route.rules.is_some()))
        .collect();
    assert_eq!(
        places,
        [
            ("a.com", "/", false),
            ("a.com", "/api", true),
            ("b.com", "/", false),
            ("web-production-shop.localhost", "/", true),
        ]
    );
    assert!(table.routes.iter().all(|route| route.backends.len() == 1));
}

#[test]
fn claims_are_in_the_snapshot_and_an_older_one_gets_them_from_its_services() {
    let mut world = World::with_claims(&[("a.com", "/"), ("b.com", "/")]);
    world.give_routes(&[("a.com", "/")]);
    let bytes = world.state.encode();
    assert_eq!(State::decode(&bytes).expect("decodes"), world.state);
    let mut old: v1::Snapshot = prost::Message::decode(&*bytes).expect("a snapshot");
    assert_eq!(old.claims.len(), 2);
    old.claims.clear();
    let read = State::decode(&prost::Message::encode_to_vec(&old)).expect("decodes");
    let hosts: Vec<&str> = read.claims().map(|claim| &*claim.host).collect();
    assert_eq!(hosts, ["a.com"]);
}

#[test]
fn below_the_level_routes_are_refused_and_claims_begin_with_it() {
    let mut world = super::levels::version_1();
    let spec = ServiceSpec {
        domains: vec!["www.localhost".into(), "a.com".into()],
        ..ServiceSpec::default()
    };
    let generation = world.service().generation;
    let next = Service {
        spec,
        ..world.service().clone()
    };
    world.ok(put_service(&next, generation));
    assert_eq!(world.state.claims().count(), 0);
    let ruled = put_service(&sibling(60, "api", &[("b.com", "/")]), 0);
    assert_eq!(world.refused(ruled), Code::Conflict);
    world.ok(Kind::SetFeatureLevel(v1::SetFeatureLevel { level: 3 }));
    let hosts: Vec<&str> = world.state.claims().map(|claim| &*claim.host).collect();
    assert_eq!(hosts, ["a.com", "www.localhost"]);
    let bytes = world.state.encode();
    assert_eq!(State::decode(&bytes).expect("decodes"), world.state);
}

#[test]
fn what_a_project_has_or_the_cluster_gives_needs_no_proof() {
    let mut world = World::with_claims(&[]);
    let project = |environment| world.state.environment(environment).map(|it| it.project);
    let own = project(ENVIRONMENT);
    let other = project(EnvironmentId::from_u128(OTHER_ENVIRONMENT));
    let hosts = [
        ("mine.test", "/a"),
        ("mine.test", "/b"),
        ("*.mine.test", "/"),
        ("free.localhost", "/"),
    ];
    let wanted = sibling(90, "next", &hosts);
    let unproved = |world: &World, project| -> Vec<String> {
        let all = world.state.unproved_hosts(project, &wanted);
        let each = all.iter();
        each.map(|(host, field)| format!("{field} {host}"))
            .collect()
    };
    let all = ["routes[2].host *.mine.test", "routes[0].host mine.test"];
    assert_eq!(unproved(&world, own), all);
    world.give_routes(&[("mine.test", "/c")]);
    assert_eq!(unproved(&world, own), all[..1], "it has it");
    assert_eq!(unproved(&world, other), all, "another one has not");
    assert!(!world.state.needs_domain_proof());
    for required in [true, true, false] {
        world.ok(Kind::SetDomainProof(v1::SetDomainProof { required }));
        assert_eq!(world.state.needs_domain_proof(), required);
        assert_eq!(
            State::decode(&world.state.encode())
                .map(|it| it.needs_domain_proof())
                .ok(),
            Some(required)
        );
    }
}
