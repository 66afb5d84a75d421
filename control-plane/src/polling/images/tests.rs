//! When a tag is asked for, and what each answer means.

use skep_model::deployment::{Built, Status, Trigger};
use skep_model::id::{DeploymentId, NodeId, TokenId};
use skep_model::node::{Facts, Node, NodeStatus};
use skep_model::problem::Code;
use skep_model::server::{JoinToken, Role};
use skep_model::service::Image;
use skep_model::spec::ServiceSpec;
use skep_proto::convert::{enum_number, id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;

use super::super::Asked;
use super::super::tests::{SERVICE, World};
use super::*;
use crate::api::queued;

const IMAGE: &str = "r.example:5000/team/app:1";
const NODE: NodeId = NodeId::from_u128(4);

/// A service of an image that is asked every minute; the digest that its one deployment found.
fn world(image: &str, poll_ms: Option<u64>, deployed: Option<&str>) -> World {
    let mut world = World::new(None, &[]);
    let mut service = (**world.state.service(SERVICE).expect("there")).clone();
    service.spec = ServiceSpec {
        source: Some(Source::Image {
            reference: image.into(),
        }),
        ..ServiceSpec::default()
    };
    service.spec.pushes.poll_ms = poll_ms;
    world.put(&service);
    if let Some(digest) = deployed {
        deploy(&mut world, (1, image), Some(digest));
    }
    world
}

/// A deployment of an image by hand, and what it found.
fn deploy(world: &mut World, (number, image): (u128, &str), digest: Option<&str>) {
    let id = DeploymentId::from_u128(number);
    let origin = Origin::Image {
        reference: image.into(),
    };
    let deployment = queued(id, SERVICE, (Trigger::Api, origin));
    world.apply(Kind::CreateDeployment(v1::CreateDeployment {
        deployment: Some((&deployment).into()),
        delivery: None,
    }));
    let Some(digest) = digest else { return };
    join(world);
    let generation = |world: &World| world.state.deployment(id).expect("there").generation;
    world.apply(Kind::AssignBuild(v1::AssignBuild {
        deployment: id_bytes(number),
        expected_generation: generation(world),
        node: id_bytes(NODE.as_u128()),
        step: String::new(),
    }));
    let image = Image {
        reference: image.into(),
        digest: digest.into(),
        node: None,
        shared: false,
        bundle: false,
        pushed: None,
    };
    let built = BuildOutcome::Built(Built {
        image,
        exposed: Vec::new(),
        commit: None,
        manifest: None,
    });
    world.apply(Kind::Observe(v1::Observe {
        node: id_bytes(NODE.as_u128()),
        builds: vec![v1::BuildObservation {
            deployment: id_bytes(number),
            outcome: Some((&built).into()),
        }],
        ..Default::default()
    }));
    world.apply(Kind::FinishDeployment(v1::FinishDeployment {
        deployment: id_bytes(number),
        expected_generation: generation(world),
        status: enum_number(&Status::ALL, &Status::Failed),
        problem: None,
        step: String::new(),
    }));
}

/// The node that looks images up, once.
fn join(world: &mut World) {
    if world.state.node(NODE).is_some() {
        return;
    }
    let token = JoinToken {
        id: TokenId::from_u128(1),
        secret_hash: vec![1],
        expires_ms: u64::MAX,
        uses_left: 1,
        role: Role::Node,
        note: String::new(),
        created_ms: 0,
    };
    world.apply(Kind::PutToken(v1::PutToken {
        token: Some((&token).into()),
    }));
    let node = Node {
        id: NODE,
        name: "node".into(),
        facts: Facts::default(),
        status: NodeStatus::Ready,
        status_ms: 0,
        generation: 0,
        joined_ms: 0,
        meta: Default::default(),
        admin: Default::default(),
        seat: 0,
        witnesses: Vec::new(),
        fencing: Default::default(),
    };
    world.apply(Kind::JoinNode(v1::JoinNode {
        token: id_bytes(1),
        secret_hash: vec![1],
        node: Some((&node).into()),
    }));
}

fn asked(world: &World) -> Option<Look> {
    let mut book = Book::new(world.now_ms, Asked::default());
    let (mut due, _) = book.due_images(&world.state, world.now_ms + 600_000);
    due.pop()
}

/// Takes an answer; what it deploys.
fn take(world: &mut World, found: &Found) -> Option<Option<Origin>> {
    let look = asked(world)?;
    let step = meaning(&world.state, &look, found)?;
    world.apply(Kind::TakePolled(v1::TakePolled {
        polled: Some((&step.polled).into()),
        wanted: None,
    }));
    Some(step.deploy.map(|(origin, _)| origin))
}

fn found(digest: &str) -> Found {
    Ok(digest.to_owned())
}

fn away() -> Problem {
    Problem::new(Code::Unavailable, "it is away")
}

#[test]
fn only_tags_are_asked_and_only_where_that_is_said() {
    for (image, poll_ms, expected) in [
        (
            IMAGE,
            Some(60_000),
            Some(("r.example:5000", "team/app", "1")),
        ),
        (
            "nginx",
            Some(60_000),
            Some(("docker.io", "nginx", "latest")),
        ),
        (
            "ghcr.io/a/b",
            Some(60_000),
            Some(("ghcr.io", "a/b", "latest")),
        ),
        (IMAGE, None, None),
        (IMAGE, Some(0), None),
        ("r.example:5000/app:1@sha256:00", Some(60_000), None),
    ] {
        let look = asked(&world(image, poll_ms, None));
        let parts = look
            .as_ref()
            .map(|it| (&*it.host, &*it.repository, &*it.tag));
        assert_eq!(parts, expected, "{image} {poll_ms:?}");
    }
    let world = world(IMAGE, Some(60_000), Some("sha256:1"));
    let mut book = Book::new(world.now_ms, Asked::default());
    let (due, _) = book.due_images(&world.state, world.now_ms);
    assert_eq!(due.len(), 1, "nothing is known yet");
    book.ask(SERVICE, world.now_ms);
    let (due, next_ms) = book.due_images(&world.state, world.now_ms);
    let pause = next_ms.expect("later") - world.now_ms;
    assert!(
        due.is_empty() && (54_000..=66_000).contains(&pause),
        "{pause}"
    );
}

#[test]
fn a_tag_that_moved_is_deployed_once_by_its_digest() {
    let mut world = world(IMAGE, Some(60_000), Some("sha256:1"));
    assert_eq!(
        take(&mut world, &found("sha256:1")),
        Some(None),
        "as deployed"
    );
    assert_eq!(take(&mut world, &found("sha256:1")), None, "known");
    let origin = Origin::Image {
        reference: format!("{IMAGE}@sha256:2"),
    };
    let moved = take(&mut world, &found("sha256:2"));
    assert_eq!(moved, Some(Some(origin.clone())));
    assert_eq!(take(&mut world, &found("sha256:2")), None, "decided on");
    // Back to an older one by hand, or in vain: it is not moved on.
    deploy(&mut world, (2, IMAGE), Some("sha256:1"));
    assert_eq!(take(&mut world, &found("sha256:2")), None);
    // Somebody has deployed what is found now.
    deploy(&mut world, (3, &format!("{IMAGE}@sha256:3")), None);
    assert_eq!(take(&mut world, &found("sha256:3")), Some(None));
}

#[test]
fn what_is_deployed_just_now_may_find_it_itself_and_nothing_deploys_by_itself_first() {
    let mut never = world(IMAGE, Some(60_000), None);
    assert_eq!(
        take(&mut never, &found("sha256:1")),
        Some(None),
        "never deployed"
    );
    let mut running = world(IMAGE, Some(60_000), None);
    deploy(&mut running, (1, IMAGE), None);
    assert_eq!(take(&mut running, &found("sha256:1")), None);
    let other = format!("{}:other", "r.example:5000/team/app");
    let look = asked(&running).expect("asked");
    let changed = world(&other, Some(60_000), None);
    assert_eq!(
        meaning(&changed.state, &look, &found("sha256:1")),
        None,
        "another image by now"
    );
}

#[test]
fn trouble_is_remembered_once_and_over_with_the_next_answer() {
    let mut world = world(IMAGE, Some(60_000), Some("sha256:1"));
    take(&mut world, &found("sha256:1"));
    assert_eq!(take(&mut world, &Err(away())), Some(None));
    assert_eq!(take(&mut world, &Err(away())), None, "said already");
    let polled = world.state.polled(SERVICE).expect("kept");
    assert_eq!(polled.problem, Some(away()));
    assert_eq!(polled.commit.as_deref(), Some("sha256:1"), "still known");
    assert_eq!(take(&mut world, &found("sha256:1")), Some(None));
    let polled = world.state.polled(SERVICE).expect("kept");
    assert_eq!(polled.problem, None);
}
