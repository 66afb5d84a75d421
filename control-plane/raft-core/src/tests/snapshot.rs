//! A learner that is too far behind for the log.

use super::*;

/// A leader with commands 1 to 20, of which the log still has the last five, and its snapshot.
fn leader_with_snapshot() -> (Member, Taken) {
    let mut leader = Member::open(1, Disk::new(&[1]));
    leader.run(vec![]);
    (1..=20).for_each(|id| leader.propose(id));
    leader.run(vec![add(2, ConfChangeType::AddLearnerNode)]);
    let (_, last) = leader.core.log_span();
    let taken = Taken {
        position: leader.core.position(last).expect("the last is known"),
        members: leader.core.members().clone(),
    };
    (leader, taken)
}

fn empty(id: u64) -> Member {
    Member::open(id, Disk::default())
}

/// Carries messages between two members until they are silent.
fn converse(one: &mut Member, other: &mut Member) {
    loop {
        let (to_other, to_one) = (
            std::mem::take(&mut one.sent),
            std::mem::take(&mut other.sent),
        );
        if to_other.is_empty() && to_one.is_empty() {
            return;
        }
        let inputs = |sent: Vec<Outgoing>| sent.into_iter().map(|it| Input::Message(it.bytes));
        other.run(inputs(to_other).collect());
        one.run(inputs(to_one).collect());
    }
}

#[test]
fn a_peer_behind_the_log_is_offered_a_snapshot_only_if_it_is_a_member_in_it() {
    let (mut leader, taken) = leader_with_snapshot();
    let mut learner = empty(2);
    let stranger = Taken {
        members: voters(&[1]),
        ..taken.clone()
    };
    leader.run(vec![Input::SnapshotTaken(stranger)]);
    converse(&mut leader, &mut learner);
    assert!(leader.wants_snapshot && leader.snapshots.is_empty());
    leader.run(vec![Input::SnapshotTaken(taken.clone())]);
    for _ in 0..4 {
        leader.run(vec![Input::Tick]);
        converse(&mut leader, &mut learner);
    }
    let [snapshot] = &leader.snapshots[..] else {
        panic!("{:?}", leader.snapshots);
    };
    assert_eq!((snapshot.to, snapshot.position), (2, taken.position));
    assert_eq!(snapshot_of(&snapshot.bytes).expect("decodes"), taken);
    assert_eq!(
        leader.core.offered_snapshots(),
        [taken.position.index].into()
    );
    assert_eq!(leader.core.peers()[0].snapshot, Some(taken.position.index));
}

#[test]
fn an_installed_snapshot_replaces_the_log_and_entries_follow_it() {
    let (mut leader, taken) = leader_with_snapshot();
    let mut learner = empty(2);
    leader.run(vec![Input::SnapshotTaken(taken.clone())]);
    for _ in 0..4 {
        leader.run(vec![Input::Tick]);
        converse(&mut leader, &mut learner);
    }
    // While it is under way the log is held for what follows it.
    (21..=60).for_each(|id| leader.propose(id));
    assert_eq!(leader.core.log_span().0, taken.position.index + 1);
    let message = leader.snapshots.pop().expect("offered").bytes;
    learner.run(vec![Input::Snapshot(message.clone())]);
    assert_eq!(learner.installed, std::slice::from_ref(&taken));
    assert_eq!(learner.core.members(), &taken.members);
    leader.run(vec![Input::SnapshotStatus { to: 2, ok: true }]);
    for _ in 0..4 {
        leader.run(vec![Input::Tick]);
        converse(&mut leader, &mut learner);
    }
    assert_eq!(learner.commands(), names(21..=60));
    assert!(leader.core.offered_snapshots().is_empty());
    // A second copy of it changes nothing.
    learner.run(vec![Input::Snapshot(message)]);
    assert_eq!(learner.installed.len(), 1);
    let learner = Member::open(2, learner.disk);
    assert_eq!(learner.core.members(), &taken.members);
}

#[test]
fn a_snapshot_that_cannot_be_sent_is_offered_again_and_in_the_end_replaced() {
    let (mut leader, taken) = leader_with_snapshot();
    let mut learner = empty(2);
    leader.run(vec![Input::SnapshotTaken(taken.clone())]);
    leader.wants_snapshot = false;
    for _ in 0..60 {
        if leader.wants_snapshot {
            break;
        }
        leader.run(vec![Input::Tick]);
        converse(&mut leader, &mut learner);
        if let Some(snapshot) = leader.snapshots.pop() {
            assert_eq!(snapshot.position, taken.position);
            leader.run(vec![Input::SnapshotStatus { to: 2, ok: false }]);
            leader.sent.clear();
        }
    }
    assert!(
        leader.wants_snapshot,
        "a file that never arrives may be bad"
    );
}
