//! Notifications: made in the change that they tell of, told once, bounded.

use skep_model::id::ReceiverId;
use skep_model::notify::{
    Attempt, Event, KEEP_ENDED, MAX_OF_PROJECT, MAX_PENDING, Notification, Receiver, Standing,
};
use skep_model::problem::Problem;
use skep_model::variable::Sealed;
use skep_proto::v1::ask_notification::What;
use skep_proto::v1::settle_notification::Then;

use super::*;
use crate::Change;

pub(super) const RECEIVER: ReceiverId = ReceiverId::from_u128(80);

fn receiver(id: u128, name: &str) -> Receiver {
    Receiver {
        id: ReceiverId::from_u128(id),
        project: PROJECT,
        name: name.into(),
        url: "https://ci.example.com/skep".into(),
        events: Event::CHOICES.to_vec(),
        secret: Sealed(vec![1]),
        is_off: false,
        problem: None,
        told: 0,
        dropped: 0,
        changed_ms: 0,
        services: Vec::new(),
        own: None,
    }
}

fn put(receiver: &Receiver) -> Kind {
    Kind::PutReceiver(v1::PutReceiver {
        receiver: Some(receiver.into()),
        keeps_own: false,
    })
}

pub(super) fn ask(what: What) -> Kind {
    Kind::AskNotification(v1::AskNotification {
        receiver: id_bytes(RECEIVER.as_u128()),
        what: Some(what),
    })
}

pub(super) fn settle(number: u64, expected_attempts: u32, then: Then) -> Kind {
    let attempt = Attempt {
        at_ms: 7,
        status: Some(500),
        problem: Some("500".into()),
    };
    Kind::SettleNotification(v1::SettleNotification {
        receiver: id_bytes(RECEIVER.as_u128()),
        number,
        expected_attempts,
        attempt: Some((&attempt).into()),
        then: Some(then),
        is_gone: false,
    })
}

/// A cluster whose project tells one receiver of everything.
pub(super) fn told() -> World {
    let mut world = World::with_service();
    world.ok(put(&receiver(RECEIVER.as_u128(), "ci")));
    world
}

impl World {
    fn ids(&self) -> Vec<String> {
        let all = self.state.notifications_of(RECEIVER);
        all.map(|it| it.id.clone()).collect()
    }

    fn notification(&self, number: u64) -> Notification {
        let found = self.state.notification(RECEIVER, number);
        (**found.expect("kept")).clone()
    }

    /// A snapshot has what the state has, its indexes included.
    #[track_caller]
    fn is_kept(&self) {
        let read = State::decode(&self.state.encode()).expect("decodes");
        assert_eq!(read, self.state);
    }
}

fn deployment(number: u128) -> DeploymentId {
    DeploymentId::from_u128(number)
}

fn id(number: u128, event: Event) -> String {
    Notification::id_of(deployment(number), event)
}

#[test]
fn an_outcome_and_its_notification_are_one_change() {
    let mut world = told();
    world.deploy(deployment(50), 1, AllocationId::from_u128(100));
    assert_eq!(world.ids(), [id(50, Event::Queued), id(50, Event::Live)]);
    world.ok(create(deployment(51), None));
    world.ok(start_rollout(&world.state, deployment(51), 2));
    let problem = Problem::new(Code::Crashed, "it exited with 1");
    let Kind::FinishDeployment(failed) = finish(&world.state, deployment(51), Status::Failed)
    else {
        unreachable!("as it is made")
    };
    let applied = world.apply(Kind::FinishDeployment(v1::FinishDeployment {
        problem: Some((&problem).into()),
        ..failed
    }));
    assert_eq!(world.deployment(51).status, Status::Failed);
    assert!(applied.changes.contains(&Change::Notifications));
    let told = world.notification(4);
    assert_eq!(
        (&told.id, told.at_ms),
        (&id(51, Event::Failed), world.state.time_ms())
    );
    let subject = told.subject.expect("a deployment");
    assert_eq!(subject.reason.as_deref(), Some("it exited with 1"));
    assert_eq!((subject.release, subject.status), (Some(2), Status::Failed));
    assert_eq!(
        (&*told.project, &*subject.environment, &*subject.service),
        ("shop", "production", "web")
    );
    world.is_kept();
}

#[test]
fn every_end_of_a_deployment_is_told_once() {
    let mut world = told();
    world.deploy(deployment(50), 1, AllocationId::from_u128(100));
    world.deploy(deployment(51), 2, AllocationId::from_u128(101));
    world.ok(create_from(
        deployment(52),
        None,
        Trigger::Rollback,
        Origin::Release { number: 1 },
    ));
    world.ok(start_rollout(&world.state, deployment(52), 1));
    world.ok(finish(&world.state, deployment(52), Status::Live));
    // A newer one takes the place of one on its way; then somebody ends that.
    world.ok(create(deployment(53), Some("delivery")));
    world.ok(create(deployment(54), None));
    world.ok(finish(&world.state, deployment(54), Status::Canceled));
    // What a delivery has asked for already makes nothing, and tells nothing.
    world.ok(create(deployment(55), Some("delivery")));
    assert_eq!(
        world.refused(finish(&world.state, deployment(54), Status::Failed)),
        Code::Conflict
    );
    let mut ids = world.ids();
    let expected = [
        id(50, Event::Queued),
        id(50, Event::Live),
        id(51, Event::Queued),
        id(50, Event::Superseded),
        id(51, Event::Live),
        id(52, Event::Queued),
        id(51, Event::RolledBack),
        id(52, Event::Live),
        id(53, Event::Queued),
        id(53, Event::Superseded),
        id(54, Event::Queued),
        id(54, Event::Canceled),
    ];
    assert_eq!(ids, expected);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), expected.len());
}

#[test]
fn only_whoever_wants_it_is_told() {
    let mut world = told();
    let failed = Receiver {
        events: vec![Event::Failed],
        ..receiver(81, "failures")
    };
    let off = Receiver {
        is_off: true,
        ..receiver(82, "off")
    };
    world.ok(put(&failed));
    world.ok(put(&off));
    world.ok(create(deployment(50), None));
    world.ok(finish(&world.state, deployment(50), Status::Failed));
    let count = |id: u128| {
        world
            .state
            .notifications_of(ReceiverId::from_u128(id))
            .count()
    };
    assert_eq!((count(80), count(81), count(82)), (2, 1, 0));
}

#[test]
fn too_many_drop_the_oldest_and_say_so() {
    let mut world = told();
    for number in 0..MAX_PENDING as u128 + 3 {
        world.ok(ask(What::Test(format!("t{number}"))));
    }
    assert_eq!(world.state.pending_of(RECEIVER), MAX_PENDING);
    assert_eq!(world.ids()[0], "t3");
    let receiver = world.state.receiver(RECEIVER).expect("there");
    assert_eq!(
        (receiver.dropped, receiver.told),
        (3, MAX_PENDING as u64 + 3)
    );
    world.is_kept();
    // What was dropped while it was on its way cannot be settled.
    assert_eq!(
        world.refused(settle(1, 0, Then::Delivered(true))),
        Code::NotFound
    );
}

#[test]
fn an_attempt_is_settled_once() {
    let mut world = told();
    world.ok(ask(What::Test("t".into())));
    world.ok(settle(1, 0, Then::NextMs(9_000)));
    let waiting = world.notification(1);
    assert_eq!(
        (waiting.standing, waiting.attempts),
        (Standing::Pending { next_ms: 9_000 }, 1)
    );
    assert_eq!(waiting.last.expect("an attempt").status, Some(500));
    // An older leader that has not heard of it.
    assert_eq!(
        world.refused(settle(1, 0, Then::Delivered(true))),
        Code::Conflict
    );
    world.ok(settle(1, 1, Then::GivenUp(true)));
    assert_eq!(world.state.pending_of(RECEIVER), 0);
    assert_eq!(
        world.refused(settle(1, 2, Then::Delivered(true))),
        Code::Conflict
    );
    world.is_kept();
    // Somebody wants it again.
    world.ok(ask(What::All(true)));
    let again = world.notification(1);
    assert_eq!(
        (again.standing, again.since_ms),
        (Standing::Pending { next_ms: 0 }, world.state.time_ms())
    );
    world.ok(settle(1, 2, Then::Delivered(true)));
    world.ok(ask(What::All(true)));
    assert_eq!(world.notification(1).standing, Standing::Delivered);
    world.ok(ask(What::Again(1)));
    assert_eq!(world.state.pending_of(RECEIVER), 1);
    assert_eq!(world.refused(ask(What::Again(2))), Code::NotFound);
}

#[test]
fn what_has_ended_is_forgotten_and_what_waits_is_not() {
    let mut world = told();
    for number in 0..=KEEP_ENDED as u64 + 1 {
        world.ok(ask(What::Test(format!("t{number}"))));
        if number > 0 {
            world.ok(settle(number + 1, 0, Then::Delivered(true)));
        }
    }
    let ids = world.ids();
    assert_eq!(ids.len(), KEEP_ENDED + 1);
    assert_eq!((&*ids[0], &*ids[1]), ("t0", "t2"));
}

#[test]
fn a_receiver_that_is_gone_is_switched_off_until_somebody_changes_it() {
    let mut world = told();
    world.ok(ask(What::Test("t".into())));
    let Kind::SettleNotification(gone) = settle(1, 0, Then::GivenUp(true)) else {
        unreachable!("as it is made")
    };
    world.ok(Kind::SettleNotification(v1::SettleNotification {
        is_gone: true,
        ..gone
    }));
    let off = world.state.receiver(RECEIVER).expect("there").clone();
    assert_eq!((off.is_off, off.problem.as_deref()), (true, Some("500")));
    // Changing it keeps its id, its secret and what it was told.
    let changed = Receiver {
        secret: Sealed(Vec::new()),
        url: "http://10.0.0.7/".into(),
        ..receiver(99, "ci")
    };
    world.ok(put(&changed));
    let on = world.state.receiver(RECEIVER).expect("there");
    assert_eq!((on.is_off, &on.problem, on.told), (false, &None, 1));
    assert_eq!((&on.secret.0, &*on.url), (&vec![1], "http://10.0.0.7/"));
    assert_eq!(world.state.receivers().count(), 1);
}

#[test]
fn what_it_is_sent_of_its_own_stays_until_somebody_says_otherwise() {
    let mut world = told();
    let put = |own: Option<Vec<u8>>, keeps_own| {
        let receiver = Receiver {
            own: own.map(Sealed),
            ..receiver(99, "ci")
        };
        Kind::PutReceiver(v1::PutReceiver {
            receiver: Some((&receiver).into()),
            keeps_own,
        })
    };
    for (own, keeps, is) in [
        (Some(vec![7]), false, Some(vec![7])),
        (None, true, Some(vec![7])),
        (Some(vec![8]), true, Some(vec![7])),
        (None, false, None),
    ] {
        world.ok(put(own, keeps));
        let known = world.state.receiver(RECEIVER).expect("there");
        assert_eq!(known.own.clone().map(|own| own.0), is);
    }
}

#[test]
fn only_services_that_it_names_are_told_of() {
    let all = receiver(1, "all");
    let one = Receiver {
        services: vec!["web".to_owned()],
        ..receiver(2, "one")
    };
    for (receiver, service, is) in [
        (&all, "web", true),
        (&all, "api", true),
        (&one, "web", true),
        (&one, "api", false),
    ] {
        assert_eq!(receiver.wants(Event::Live, service), is, "{service}");
    }
}

#[test]
fn receivers_are_checked_and_bounded() {
    let mut world = told();
    let other = || receiver(90, "other");
    for (bad, code) in [
        (
            Receiver {
                name: "Not a name".into(),
                ..other()
            },
            Code::Invalid,
        ),
        (
            Receiver {
                url: "ftp://x/".into(),
                ..other()
            },
            Code::Invalid,
        ),
        (
            Receiver {
                events: vec![Event::Test],
                ..other()
            },
            Code::Invalid,
        ),
        (
            Receiver {
                secret: Sealed(Vec::new()),
                ..other()
            },
            Code::Internal,
        ),
        (
            Receiver {
                project: ProjectId::from_u128(99),
                ..other()
            },
            Code::NotFound,
        ),
        (
            Receiver {
                services: vec!["no name".to_owned()],
                ..other()
            },
            Code::Invalid,
        ),
        (receiver(80, "other"), Code::Conflict),
    ] {
        assert_eq!(world.refused(put(&bad)), code, "{bad:?}");
    }
    for number in 1..MAX_OF_PROJECT {
        world.ok(put(&receiver(100 + number as u128, &format!("r{number}"))));
    }
    assert_eq!(world.refused(put(&other())), Code::TooLarge);
    let remove = Kind::RemoveReceiver(v1::RemoveReceiver {
        id: id_bytes(RECEIVER.as_u128()),
    });
    world.ok(ask(What::Test("t".into())));
    world.ok(remove.clone());
    assert_eq!(world.state.notifications_of(RECEIVER).count(), 0);
    assert_eq!(world.state.pending_of(RECEIVER), 0);
    assert_eq!(world.refused(remove), Code::NotFound);
    world.ok(put(&other()));
}
