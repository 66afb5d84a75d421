//! Deliveries: all that one asks for, and each of it once.

use skep_proto::v1::take_delivery::Wanted;

use super::*;
use crate::Taken;

fn id(number: u128) -> DeploymentId {
    DeploymentId::from_u128(number)
}

fn origin(commit: &str, folder: &str) -> Origin {
    Origin::Git {
        repository: "https://forge.test/shop.git".into(),
        branch: "main".into(),
        commit: Some(commit.to_owned()),
        directory: folder.into(),
    }
}

fn wish(number: u128, key: &str, origin: Origin) -> Wanted {
    let kind = create_from(id(number), None, Trigger::Webhook, origin);
    let Kind::CreateDeployment(message) = kind else {
        panic!("it creates");
    };
    Wanted {
        deployment: message.deployment,
        delivery: Some(key.to_owned()),
        once_per_commit: true,
    }
}

fn take(world: &mut World, wanted: Vec<Wanted>) -> Vec<Taken> {
    match world.ok(Kind::TakeDelivery(v1::TakeDelivery { wanted })) {
        Reply::Taken(all) => all,
        other => panic!("{other:?}"),
    }
}

fn one(world: &mut World, number: u128, key: &str, commit: &str) -> Taken {
    take(world, vec![wish(number, key, origin(commit, ""))]).remove(0)
}

#[test]
fn a_delivery_and_a_commit_are_taken_once() {
    let mut world = World::with_service();
    assert_eq!(one(&mut world, 50, "a", "c1"), Taken::Made(id(50)));
    assert_eq!(one(&mut world, 51, "a", "c1"), Taken::Replayed(id(50)));
    assert_eq!(one(&mut world, 52, "b", "c1"), Taken::SameCommit(id(50)));
    // The key of what made nothing is remembered, too.
    assert_eq!(one(&mut world, 53, "b", "c2"), Taken::Replayed(id(50)));
    assert_eq!(one(&mut world, 54, "c", "c2"), Taken::Made(id(54)));
    // Whoever goes back means it.
    assert_eq!(one(&mut world, 55, "d", "c1"), Taken::Made(id(55)));
    // Another folder of the same commit is something else.
    let folder = vec![wish(56, "e", origin("c1", "app"))];
    assert_eq!(take(&mut world, folder), [Taken::Made(id(56))]);
    assert_eq!(world.state.deployments_of(SERVICE).count(), 4);
}

#[test]
fn what_failed_is_tried_again_and_what_is_forced_is_made() {
    let mut world = World::with_service();
    assert_eq!(one(&mut world, 50, "a", "c1"), Taken::Made(id(50)));
    world.ok(finish(&world.state, id(50), Status::Failed));
    assert_eq!(one(&mut world, 51, "b", "c1"), Taken::Made(id(51)));
    let forced = Wanted {
        delivery: None,
        once_per_commit: false,
        ..wish(52, "b", origin("c1", ""))
    };
    assert_eq!(take(&mut world, vec![forced]), [Taken::Made(id(52))]);
    assert_eq!(world.deployment(51).status, Status::Superseded);
}

#[test]
fn a_delivery_is_taken_whole_or_not_at_all() {
    let mut world = World::with_service();
    let good = || wish(50, "a", origin("c1", ""));
    let mut odd = wish(51, "b", origin("c2", ""));
    odd.deployment = None;
    let before = world.state.deployments().count();
    let command = Kind::TakeDelivery(v1::TakeDelivery {
        wanted: vec![good(), odd],
    });
    assert_eq!(world.refused(command), Code::Internal);
    let long = wish(52, &"x".repeat(301), origin("c3", ""));
    let command = Kind::TakeDelivery(v1::TakeDelivery {
        wanted: vec![good(), long],
    });
    assert_eq!(world.refused(command), Code::Invalid);
    assert_eq!(world.state.deployments().count(), before);
    assert!(world.state.delivery("a").is_none());

    // A service that went meanwhile takes nothing from the others.
    let mut gone = wish(53, "c", origin("c1", ""));
    let deployment = gone.deployment.as_mut().expect("one");
    deployment.service = id_bytes(ServiceId::from_u128(99).as_u128());
    let taken = take(&mut world, vec![gone, good()]);
    assert!(matches!(taken[0], Taken::Refused(_)), "{taken:?}");
    assert_eq!(taken[1], Taken::Made(id(50)));
}

#[test]
fn the_answer_survives_the_bytes_and_the_log_is_the_same_twice() {
    let mut world = World::with_service();
    let mut gone = wish(51, "b", origin("c1", ""));
    gone.deployment.as_mut().expect("one").service = id_bytes(9);
    let taken = take(
        &mut world,
        vec![
            wish(50, "a", origin("c1", "")),
            wish(52, "a", origin("c1", "")),
            wish(53, "d", origin("c1", "")),
            gone,
        ],
    );
    let answer = crate::Answer {
        outcome: Ok(Reply::Taken(taken)),
        repeat: crate::Repeat::First,
    };
    assert_eq!(crate::Answer::decode(&answer.encode()), Ok(answer));
    let mut again = State::default();
    for (index, bytes) in world.log.iter().enumerate() {
        again.apply(index as u64 + 1, bytes);
    }
    assert_eq!(again.encode(), world.state.encode());
}

fn polled(commit: &str, wanted: Option<Wanted>) -> Kind {
    let polled = skep_model::polling::Polled {
        service: SERVICE,
        repository: "https://forge.test/shop.git".into(),
        reference: "refs/heads/main".into(),
        tag: None,
        commit: Some(commit.into()),
        problem: None,
        since_ms: 0,
    };
    Kind::TakePolled(v1::TakePolled {
        polled: Some((&polled).into()),
        wanted,
    })
}

fn found(number: u128, commit: &str) -> Option<Wanted> {
    let wanted = wish(number, "-", origin(commit, ""));
    Some(Wanted {
        delivery: None,
        ..wanted
    })
}

#[test]
fn what_was_found_is_remembered_with_its_deployment_and_taken_once() {
    let mut world = World::with_service();
    let answer = world.ok(polled("c1", found(50, "c1")));
    assert_eq!(answer, Reply::Taken(vec![Taken::Made(id(50))]));
    let known = world.state.polled(SERVICE).expect("remembered").clone();
    assert_eq!(known.commit.as_deref(), Some("c1"));
    assert_eq!(known.since_ms, world.state.time_ms());
    // A forge's delivery of the same commit, before and after.
    assert_eq!(one(&mut world, 51, "a", "c1"), Taken::SameCommit(id(50)));
    assert_eq!(one(&mut world, 52, "b", "c2"), Taken::Made(id(52)));
    let answer = world.ok(polled("c2", found(53, "c2")));
    assert_eq!(answer, Reply::Taken(vec![Taken::SameCommit(id(52))]));
    assert_eq!(world.ok(polled("c3", None)), Reply::Taken(Vec::new()));
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);

    // What cannot be made leaves nothing behind.
    let mut odd = found(54, "c4").expect("one");
    odd.deployment = None;
    assert_eq!(world.refused(polled("c4", Some(odd))), Code::Internal);
    let known = world.state.polled(SERVICE).expect("remembered");
    assert_eq!(known.commit.as_deref(), Some("c3"));
}
