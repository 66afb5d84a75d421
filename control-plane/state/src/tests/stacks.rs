//! Stacks: read, carried out service by service, and nothing of them by whoever is late.

use skep_model::problem::Problem;
use skep_model::stack::{Change as Becomes, End, Member, Planned, Reading, Settings, Stack};
use skep_proto::v1::step_stack::{Settle, Step, Turn};

use super::*;

const OTHER: ServiceId = ServiceId::from_u128(80);

fn bytes() -> Vec<u8> {
    id_bytes(ENVIRONMENT.as_u128())
}

pub(super) fn put(branch: &str, expected_generation: u64) -> Kind {
    let stack = Stack {
        environment: ENVIRONMENT,
        settings: Settings {
            repository: "https://forge.test/shop.git".into(),
            branch: branch.into(),
            ..Settings::default()
        },
        // What the cluster counts, nobody else says.
        generation: 70,
        created_ms: 70,
        asked: 70,
        answered: 70,
        seen: Some("70".into()),
        reading: None,
        trouble: None,
        members: BTreeMap::new(),
    };
    Kind::PutStack(v1::PutStack {
        stack: Some((&stack).into()),
        expected_generation,
    })
}

fn ask() -> Kind {
    Kind::AskStack(v1::AskStack {
        environment: bytes(),
    })
}

fn reading(services: &[&str]) -> v1::StackReading {
    let planned = |name: &&str| Planned {
        name: (*name).to_owned(),
        change: Becomes::Make,
        fields: Vec::new(),
    };
    let reading = Reading {
        number: 70,
        commit: "c1".into(),
        file: "compose.yaml".into(),
        read_ms: 70,
        services: services.iter().map(planned).collect(),
        reports: Vec::new(),
        more_reports: 0,
        end: Some(End {
            at_ms: 70,
            problem: None,
        }),
    };
    (&reading).into()
}

pub(super) fn take(generation: u64, asked: u64, what: Result<&[&str], Problem>) -> Kind {
    let (reading, trouble) = match what {
        Ok(services) => (Some(reading(services)), None),
        Err(problem) => (None, Some((&problem).into())),
    };
    Kind::TakeReading(v1::TakeReading {
        environment: bytes(),
        generation,
        asked,
        commit: Some("c1".into()),
        reading,
        trouble,
    })
}

fn step(reading: u64, step: Step) -> Kind {
    Kind::StepStack(v1::StepStack {
        environment: bytes(),
        reading,
        step: Some(step),
    })
}

fn named(id: ServiceId, name: &str) -> Service {
    Service {
        id,
        name: name.into(),
        ..service()
    }
}

fn turn(id: ServiceId, name: &str, deployment: u128) -> Turn {
    let member = Member {
        service: id,
        built: Some("t1".into()),
        said: ["replicas".to_owned()].into(),
        deployment: Some(DeploymentId::from_u128(deployment)),
        reading: 1,
    };
    let origin = Origin::Image {
        reference: "a:1".into(),
    };
    let made = create_from(
        DeploymentId::from_u128(deployment),
        None,
        Trigger::Poll,
        origin,
    );
    let Kind::CreateDeployment(made) = made else {
        panic!("it creates");
    };
    Turn {
        put: Some(v1::PutService {
            service: Some((&named(id, name)).into()),
            expected_generation: 0,
        }),
        deployment: made.deployment.map(|it| v1::Deployment {
            service: id_bytes(id.as_u128()),
            ..it
        }),
        name: name.into(),
        member: Some((&member).into()),
    }
}

fn settle(remove: &[ServiceId], keep: &[ServiceId]) -> Step {
    let ids = |all: &[ServiceId]| all.iter().map(|id| id_bytes(id.as_u128())).collect();
    Step::Settle(Settle {
        remove: ids(remove),
        keep: ids(keep),
        end: None,
    })
}

fn stack(world: &World) -> Stack {
    let stack = world.state.stack(ENVIRONMENT);
    (**stack.expect("a stack")).clone()
}

/// A stack whose first reading has two services, both made.
fn world() -> World {
    let mut world = World::with_service();
    world.ok(put("main", 0));
    world.ok(take(1, 1, Ok(&["db", "cache"])));
    world.ok(step(1, Step::Turn(turn(OTHER, "db", 81))));
    let cache = ServiceId::from_u128(90);
    world.ok(step(1, Step::Turn(turn(cache, "cache", 91))));
    world
}

#[test]
fn what_is_counted_the_cluster_counts() {
    let mut world = World::with_service();
    world.ok(put("main", 0));
    let made = stack(&world);
    assert_eq!((made.generation, made.asked, made.answered), (1, 1, 0));
    assert_eq!(world.refused(put("main", 0)), Code::Conflict);
    world.ok(ask());
    // What was read before somebody asked is no answer to that.
    world.ok(take(1, 1, Ok(&["db"])));
    let read = stack(&world);
    assert_eq!((read.asked, read.answered), (2, 1));
    let first = read.reading.expect("read");
    assert_eq!((first.number, first.end), (1, None));
    assert_eq!(first.read_ms, world.state.time_ms());
    world.ok(put("dev", 1));
    assert_eq!(stack(&world).asked, 3);
    // By the settings of before.
    assert_eq!(world.refused(take(1, 3, Ok(&["db"]))), Code::Conflict);
    let snapshot = world.state.encode();
    assert_eq!(State::decode(&snapshot).expect("whole"), world.state);
}

#[test]
fn trouble_leaves_the_last_file_in_force_until_the_next() {
    let mut world = world();
    let before = stack(&world);
    let problem = Problem::invalid("services", "none");
    world.ok(take(1, 1, Err(problem.clone())));
    let after = stack(&world);
    assert_eq!(
        (&after.reading, &after.members),
        (&before.reading, &before.members)
    );
    assert_eq!(after.trouble.map(|it| it.problem), Some(problem));
    world.ok(take(1, 1, Ok(&["db"])));
    let next = stack(&world);
    assert_eq!(
        (next.trouble, next.reading.map(|it| it.number)),
        (None, Some(2))
    );
}

#[test]
fn a_service_is_made_with_its_deployment_or_not_at_all() {
    let mut world = world();
    let db = world.state.service(OTHER).expect("made").clone();
    assert!(world.state.stack_around(&db).is_some());
    assert_eq!(world.state.deployments_of(OTHER).count(), 1);
    let own = world.state.service(SERVICE).expect("there").clone();
    assert!(
        world.state.stack_around(&own).is_none(),
        "nobody's but its own"
    );
    // The deployment is there already: the service is not made either.
    let third = ServiceId::from_u128(95);
    let late = step(1, Step::Turn(turn(third, "third", 81)));
    assert_eq!(world.refused(late), Code::Conflict);
    // Of another name than it has.
    let mut odd = turn(third, "third", 96);
    odd.name = "fourth".into();
    assert_eq!(world.refused(step(1, Step::Turn(odd))), Code::Conflict);
    // Somebody read a newer file meanwhile.
    world.ok(take(1, 1, Ok(&["db", "third"])));
    let late = step(1, Step::Turn(turn(third, "third", 96)));
    assert_eq!(world.refused(late), Code::Conflict);
    world.ok(step(2, Step::Turn(turn(third, "third", 96))));
}

#[test]
fn only_what_the_file_has_no_more_can_be_removed() {
    let mut world = world();
    assert_eq!(
        world.refused(step(1, settle(&[OTHER], &[]))),
        Code::Conflict
    );
    assert_eq!(
        world.refused(step(1, settle(&[SERVICE], &[]))),
        Code::Conflict
    );
    let cache = ServiceId::from_u128(90);
    world.ok(take(1, 1, Ok(&[])));
    // Who said yes saw another file.
    assert_eq!(
        world.refused(step(1, settle(&[OTHER], &[]))),
        Code::Conflict
    );
    world.ok(step(2, settle(&[OTHER], &[cache])));
    assert!(stack(&world).members.is_empty());
    let removing = |id| world.state.service(id).map(|it| it.removing);
    assert_eq!(
        (removing(OTHER), removing(cache)),
        (Some(true), Some(false))
    );
}

#[test]
fn services_outlive_their_stack() {
    let mut world = world();
    world.ok(Kind::DropStack(v1::DropStack {
        environment: bytes(),
    }));
    assert!(world.state.stack(ENVIRONMENT).is_none());
    assert_eq!(
        world.state.service(OTHER).map(|it| it.removing),
        Some(false)
    );
    assert_eq!(world.refused(ask()), Code::NotFound);
    assert_eq!(
        world.refused(step(1, settle(&[OTHER], &[]))),
        Code::NotFound
    );
}
