//! Pushes to the cluster itself: all of one or nothing of it, each on what was there before.

use skep_model::pushed::Update;
use skep_model::spec::Source;

use super::*;
use crate::Taken;

const MAIN: &str = "refs/heads/main";

pub(super) fn commit(letter: char) -> String {
    letter.to_string().repeat(40)
}

fn update(name: &str, old: Option<char>, new: Option<char>) -> Update {
    Update {
        name: name.to_owned(),
        old: old.map(commit),
        new: new.map(commit),
    }
}

/// A deployment of a branch.
fn wanted(number: u128, branch: &str, at: char) -> v1::Deployment {
    let origin = Origin::Pushed {
        branch: branch.to_owned(),
        commit: commit(at),
        directory: String::new(),
    };
    let kind = create_from(DeploymentId::from_u128(number), None, Trigger::Api, origin);
    let Kind::CreateDeployment(v1::CreateDeployment {
        deployment: Some(deployment),
        ..
    }) = kind
    else {
        panic!("it creates");
    };
    let source = Source::Pushed {
        branch: branch.to_owned(),
        directory: String::new(),
    };
    v1::Deployment {
        source: Some((&source).into()),
        ..deployment
    }
}

pub(super) fn push(
    updates: &[Update],
    holders: &[NodeId],
    deployment: Option<v1::Deployment>,
) -> Kind {
    Kind::PushReferences(v1::PushReferences {
        service: id_bytes(SERVICE.as_u128()),
        updates: updates.iter().map(Into::into).collect(),
        holders: holders.iter().map(|it| id_bytes(it.as_u128())).collect(),
        deployment,
    })
}

pub(super) fn first() -> Kind {
    push(&[update(MAIN, None, Some('a'))], &[NODE], None)
}

fn at(world: &World, name: &str) -> Option<(String, usize)> {
    let pushed = world.state.pushed(SERVICE)?;
    let of = pushed.references.get(name)?;
    Some((of.commit.clone(), of.holders.len()))
}

#[test]
fn references_move_from_where_they_are_and_with_them_the_deployment_is_made() {
    let mut world = World::with_service();
    let deploys = |number, at| Some(wanted(number, "main", at));
    let made = world.ok(push(
        &[update(MAIN, None, Some('a'))],
        &[NODE],
        deploys(50, 'a'),
    ));
    let first = DeploymentId::from_u128(50);
    assert_eq!(made, Reply::Taken(vec![Taken::Made(first)]));
    assert_eq!(at(&world, MAIN), Some((commit('a'), 1)));
    assert_eq!(world.deployment(50).commit(), Some(commit('a').as_str()));
    let source = world
        .state
        .service(SERVICE)
        .expect("there")
        .spec
        .source
        .clone();
    assert_eq!(source.as_ref().and_then(Source::branch), Some("main"));
    // Two at once: one is first, and nothing of the other is there.
    world.ok(push(&[update(MAIN, Some('a'), Some('b'))], &[NODE], None));
    let late = [
        update("refs/tags/v1", None, Some('c')),
        update(MAIN, Some('a'), Some('c')),
    ];
    let refused = world.refused(push(&late, &[NODE], deploys(51, 'c')));
    assert_eq!(refused, Code::Conflict);
    assert_eq!(at(&world, MAIN), Some((commit('b'), 1)));
    // Whoever removes the last leaves nothing.
    world.ok(push(&[update(MAIN, Some('b'), None)], &[], None));
    assert_eq!(world.state.pushed(SERVICE), None);
}

#[test]
fn another_branch_is_kept_and_not_deployed() {
    let mut world = World::with_service();
    world.ok(push(
        &[update(MAIN, None, Some('a'))],
        &[NODE],
        Some(wanted(50, "main", 'a')),
    ));
    let dev = [update("refs/heads/dev", None, Some('b'))];
    let made = world.ok(push(&dev, &[NODE], Some(wanted(51, "dev", 'b'))));
    assert_eq!(made, Reply::Taken(Vec::new()));
    assert_eq!(at(&world, "refs/heads/dev"), Some((commit('b'), 1)));
    assert!(
        world
            .state
            .deployment(DeploymentId::from_u128(51))
            .is_none()
    );
}

#[test]
fn what_nobody_holds_or_is_no_push_is_refused() {
    let mut world = World::with_service();
    let main = || update(MAIN, None, Some('a'));
    let many: Vec<Update> = (0..257)
        .map(|number| update(&format!("refs/tags/{number}"), None, Some('a')))
        .collect();
    for (kind, code) in [
        (push(&[main()], &[], None), Code::Invalid),
        (push(&[], &[NODE], None), Code::Invalid),
        (push(&many, &[NODE], None), Code::Invalid),
        (
            push(&[update("HEAD", None, Some('a'))], &[NODE], None),
            Code::Invalid,
        ),
        (
            push(&[update(MAIN, None, Some('z'))], &[NODE], None),
            Code::Invalid,
        ),
        (
            push(&[update(MAIN, None, None), main(), main()], &[NODE], None),
            Code::Conflict,
        ),
    ] {
        assert_eq!(world.refused(kind), code);
    }
    for part in many.chunks(64).take(4) {
        world.ok(push(part, &[NODE], None));
    }
    assert_eq!(
        world.refused(push(&many[256..], &[NODE], None)),
        Code::TooLarge
    );
}

#[test]
fn a_node_without_it_is_no_holder_and_a_service_that_goes_takes_it_along() {
    let mut world = World::with_service();
    let other = NodeId::from_u128(77);
    world.join(other, "two");
    world.ok(push(&[update(MAIN, None, Some('a'))], &[NODE, other], None));
    world.ok(Kind::ForgetHolder(v1::ForgetHolder {
        service: id_bytes(SERVICE.as_u128()),
        node: id_bytes(NODE.as_u128()),
    }));
    assert_eq!(at(&world, MAIN), Some((commit('a'), 1)));
    world.ok(Kind::SetNodeStatus(v1::SetNodeStatus {
        node: id_bytes(other.as_u128()),
        status: enum_number(&NodeStatus::ALL, &NodeStatus::Lost),
        ..Default::default()
    }));
    world.ok(Kind::RemoveNode(v1::RemoveNode {
        node: id_bytes(other.as_u128()),
    }));
    assert_eq!(at(&world, MAIN), Some((commit('a'), 0)));
    let removing = Service {
        removing: true,
        generation: 1,
        ..service()
    };
    world.ok(put_service(&removing, 1));
    assert_eq!(world.refused(first()), Code::NotFound);
    world.ok(Kind::DropService(v1::DropService {
        service: id_bytes(SERVICE.as_u128()),
    }));
    assert_eq!(world.state.pushed(SERVICE), None);
}
