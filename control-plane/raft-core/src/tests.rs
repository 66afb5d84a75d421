//! The step driven by hand: one member with a disk, and three members with a wire.

mod snapshot;

use super::*;
use protobuf::Message as _;
use std::collections::VecDeque;

/// A member and what is on its disk.
struct Member {
    core: Core,
    disk: Disk,
    applied: Vec<(u64, Vec<u8>)>,
    accepted: Vec<Accepted>,
    refused: Vec<Refused>,
    reads: Vec<ReadState>,
    sent: Vec<Outgoing>,
    snapshots: Vec<SnapshotOut>,
    installed: Vec<Taken>,
    wants_snapshot: bool,
    syncs: usize,
}

#[derive(Clone, Default)]
struct Disk {
    entries: Vec<Entry>,
    hard_state: HardState,
    origin: Position,
    applied: Position,
    members: ConfState,
    is_snapshot: bool,
}

fn voters(ids: &[u64]) -> ConfState {
    ConfState {
        voters: ids.to_vec(),
        ..ConfState::default()
    }
}

impl Disk {
    fn new(ids: &[u64]) -> Self {
        let origin = Position { index: 1, term: 1 };
        Self {
            origin,
            applied: origin,
            members: voters(ids),
            ..Self::default()
        }
    }

    fn write(&mut self, output: &Output) {
        if let Some(taken) = &output.snapshot {
            self.entries.clear();
            self.origin = taken.position;
            self.applied = taken.position;
            self.members = taken.members.clone();
        }
        if let Some(first) = output.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend(output.entries.iter().cloned());
        }
        if let Some(hard_state) = &output.hard_state {
            self.hard_state = hard_state.clone();
        }
    }
}

impl Member {
    fn open(id: u64, disk: Disk) -> Self {
        let config = Config {
            id,
            seed: 7,
            election_ticks: 10,
            heartbeat_ticks: 2,
            tail_entries: 5,
            max_append_bytes: crate::MAX_APPEND_BYTES,
        };
        let core = Core::new(
            config,
            Restored {
                origin: disk.origin,
                entries: disk.entries.clone(),
                hard_state: disk.hard_state.clone(),
                applied: disk.applied,
                members: disk.members.clone(),
                is_snapshot: disk.is_snapshot,
            },
        )
        .expect("parts fit");
        Self {
            core,
            disk,
            applied: Vec::new(),
            accepted: Vec::new(),
            refused: Vec::new(),
            reads: Vec::new(),
            sent: Vec::new(),
            snapshots: Vec::new(),
            installed: Vec::new(),
            wants_snapshot: false,
            syncs: 0,
        }
    }

    fn run(&mut self, inputs: Vec<Input>) {
        let mut output = self.core.step(inputs).expect("step");
        loop {
            self.sent.append(&mut output.messages);
            // A commit-only write is lost: exactly what may happen to it on a real disk.
            if output.must_sync {
                self.disk.write(&output);
                self.syncs += 1;
            } else {
                assert!(output.entries.is_empty());
            }
            self.sent.append(&mut output.messages_after_persist);
            self.snapshots.append(&mut output.snapshots_to_send);
            self.installed.extend(output.snapshot.take());
            self.wants_snapshot |= output.wants_snapshot;
            for committed in output.committed {
                if let Body::Command(entry) = committed.body {
                    self.applied.push((committed.index, entry.data.to_vec()));
                }
            }
            assert!(output.bad_messages.is_empty(), "{:?}", output.bad_messages);
            self.accepted.append(&mut output.accepted);
            self.refused.append(&mut output.refused);
            self.reads.append(&mut output.read_states);
            let Some(number) = output.number else { break };
            output = self.core.step([Input::Persisted { number }]).expect("step");
        }
    }

    fn propose(&mut self, id: u64) {
        self.run(vec![Input::Propose {
            id,
            data: id.to_string().into_bytes(),
        }]);
    }

    fn commands(&self) -> Vec<String> {
        self.applied
            .iter()
            .map(|(_, data)| String::from_utf8_lossy(data).into_owned())
            .collect()
    }
}

fn names(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|id| id.to_string()).collect()
}

#[test]
fn one_member_leads_without_a_tick() {
    let mut member = Member::open(1, Disk::new(&[1]));
    assert_eq!(member.core.status().role, Role::Follower);
    member.run(vec![]);
    assert_eq!(
        member.core.status(),
        Status {
            role: Role::Leader,
            leader: Some(1),
            term: 2
        }
    );
    assert!(member.core.is_alone());
}

#[test]
fn proposals_commit_in_order_and_one_batch_is_one_write() {
    let mut member = Member::open(1, Disk::new(&[1]));
    member.run(vec![]);
    let before = member.syncs;
    member.run(
        (1..=100)
            .map(|id| Input::Propose {
                id,
                data: id.to_string().into_bytes(),
            })
            .collect(),
    );
    assert_eq!(member.commands(), names(1..=100));
    assert_eq!(member.syncs - before, 1);
    let places: Vec<u64> = member
        .accepted
        .iter()
        .map(|accepted| accepted.index)
        .collect();
    let applied: Vec<u64> = member.applied.iter().map(|(index, _)| *index).collect();
    assert_eq!(places, applied);
}

#[test]
fn a_restart_loses_nothing_and_repeats_nothing() {
    let mut member = Member::open(1, Disk::new(&[1]));
    member.run(vec![]);
    (1..=20).for_each(|id| member.propose(id));
    for round in 0..3 {
        member = Member::open(1, member.disk);
        member.run(vec![]);
        assert_eq!(member.commands(), names(1..=20 + round));
        member.propose(21 + round);
        assert_eq!(member.commands(), names(1..=21 + round));
    }
}

#[test]
fn compaction_then_restart_continues_behind_the_snapshot() {
    let mut member = Member::open(1, Disk::new(&[1]));
    member.run(vec![]);
    (1..=20).for_each(|id| member.propose(id));
    let snapshot = member.core.position(member.applied[17].0).expect("known");
    let (first, _) = member.core.log_span();
    let tail = member.core.position(first - 1).expect("known");
    assert!(member.core.log_entries() <= 5, "the tail is kept, no more");
    assert_eq!(member.core.position(first - 2), None);
    let mut disk = member.disk;
    disk.origin = tail;
    disk.entries.retain(|entry| entry.index > tail.index);
    disk.applied = snapshot;
    member = Member::open(1, disk);
    member.run(vec![]);
    assert_eq!(member.commands(), names(19..=20));
    member.propose(21);
    assert_eq!(member.commands(), names(19..=21));
}

#[test]
fn parts_that_do_not_fit_are_refused_in_words() {
    let mut member = Member::open(1, Disk::new(&[1]));
    member.run(vec![]);
    (1..=5).for_each(|id| member.propose(id));
    let good = member.disk;
    let last = good.entries.last().expect("entries").index;
    type Damage = Box<dyn Fn(&mut Disk)>;
    let cases: Vec<(&str, Damage, &str)> = vec![
        (
            "hole",
            Box::new(|disk| drop(disk.entries.remove(2))),
            "follows",
        ),
        (
            "short",
            Box::new(|disk| disk.entries.truncate(1)),
            "the log ends at",
        ),
        (
            "ahead",
            Box::new(move |disk| disk.applied.index = last + 1),
            "the state is at",
        ),
        (
            "term",
            Box::new(|disk| disk.applied.term = 9),
            "the state is at",
        ),
    ];
    for (name, damage, expected) in cases {
        let mut disk = good.clone();
        disk.hard_state.commit = last;
        damage(&mut disk);
        let config = Config {
            id: 1,
            seed: 7,
            election_ticks: 10,
            heartbeat_ticks: 2,
            tail_entries: 5,
            max_append_bytes: crate::MAX_APPEND_BYTES,
        };
        let parts = Restored {
            origin: disk.origin,
            entries: disk.entries,
            hard_state: disk.hard_state,
            applied: disk.applied,
            members: disk.members,
            is_snapshot: false,
        };
        let error = Core::new(config, parts)
            .err()
            .unwrap_or_else(|| panic!("{name} accepted"));
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
}

#[test]
fn a_commit_index_behind_the_snapshot_is_raised() {
    let mut member = Member::open(1, Disk::new(&[1]));
    member.run(vec![]);
    (1..=5).for_each(|id| member.propose(id));
    let mut disk = member.disk;
    disk.applied = member.core.position(member.applied[3].0).expect("known");
    disk.hard_state.commit = 2;
    member = Member::open(1, disk);
    member.run(vec![]);
    assert_eq!(member.commands(), names(5..=5));
}

fn add(id: u64, kind: ConfChangeType) -> Input {
    let mut single = ConfChangeSingle {
        node_id: id,
        ..ConfChangeSingle::default()
    };
    single.set_change_type(kind);
    Input::ChangeMembers {
        id,
        change: ConfChangeV2 {
            changes: vec![single].into(),
            ..ConfChangeV2::default()
        },
    }
}

#[test]
fn a_committed_membership_survives_a_restart_before_it_is_acted_under() {
    let mut member = Member::open(1, Disk::new(&[1]));
    member.run(vec![]);
    member.run(vec![add(2, ConfChangeType::AddLearnerNode)]);
    assert_eq!(member.core.members().learners, vec![2]);
    assert!(!member.core.is_alone());
    member.propose(1);
    member.run(vec![add(2, ConfChangeType::AddNode)]);
    assert_eq!(member.core.members().voters, vec![1, 2]);
    member = Member::open(1, member.disk);
    member.run(vec![]);
    member.run(vec![]);
    assert_eq!(member.core.members().voters, vec![1, 2]);
    assert_ne!(
        member.core.status().role,
        Role::Leader,
        "one of two is no quorum"
    );
    assert_eq!(member.commands(), names(1..=1));
}

#[test]
fn reads_name_an_index_that_covers_all_earlier_writes() {
    let mut member = Member::open(1, Disk::new(&[1]));
    member.run(vec![]);
    member.propose(1);
    member.run(vec![Input::Read { ctx: 42 }]);
    assert_eq!(
        member.reads,
        vec![ReadState {
            ctx: 42,
            index: member.applied[0].0
        }]
    );
}

#[test]
fn election_timeouts_are_a_function_of_seed_member_and_term() {
    let ticks = |seed: u64, id: u64| {
        let disk = Disk::new(&[1, 2, 3]);
        let config = Config {
            id,
            seed,
            election_ticks: 10,
            heartbeat_ticks: 2,
            tail_entries: 5,
            max_append_bytes: crate::MAX_APPEND_BYTES,
        };
        let mut core = Core::new(
            config,
            Restored {
                origin: disk.origin,
                applied: disk.applied,
                members: disk.members,
                ..Restored::default()
            },
        )
        .expect("parts fit");
        (1..40)
            .find(|_| {
                let output = core.step([Input::Tick]).expect("step");
                !output.messages_after_persist.is_empty() || !output.messages.is_empty()
            })
            .expect("campaigns")
    };
    let drawn: Vec<i32> = (0..64).map(|seed| ticks(seed, 1)).collect();
    assert_eq!(
        drawn,
        (0..64).map(|seed| ticks(seed, 1)).collect::<Vec<_>>()
    );
    assert!(
        drawn.iter().all(|ticks| (10..20).contains(ticks)),
        "{drawn:?}"
    );
    assert!(drawn.iter().any(|ticks| *ticks != drawn[0]));
    assert!((0..64).any(|seed| ticks(seed, 1) != ticks(seed, 2)));
}

#[test]
fn bad_messages_are_dropped_with_a_reason() {
    let mut core = Member::open(1, Disk::new(&[1, 2, 3])).core;
    let mut message = raft::eraftpb::Message {
        to: 2,
        from: 3,
        ..Default::default()
    };
    let misrouted = message.write_to_bytes().expect("encodes");
    message.to = 1;
    message.set_msg_type(raft::eraftpb::MessageType::MsgSnapshot);
    let snapshot = message.write_to_bytes().expect("encodes");
    let output = core
        .step([
            Input::Message(vec![0xff; 16]),
            Input::Message(vec![0; MAX_MESSAGE_BYTES + 1]),
            Input::Message(misrouted),
            Input::Message(snapshot),
        ])
        .expect("goes on");
    assert!(matches!(
        output.bad_messages[..],
        [
            Error::Decode(_),
            Error::TooLarge { .. },
            Error::Misrouted { to: 2, id: 1 },
            Error::Kind { .. }
        ]
    ));
}

#[test]
fn a_vote_leaves_only_after_it_is_on_disk() {
    let mut candidate = Member::open(1, Disk::new(&[1, 2, 3])).core;
    let mut voter = Member::open(2, Disk::new(&[1, 2, 3])).core;
    let mut asked = Vec::new();
    // The pre-vote binds nobody; the vote that follows it does.
    for _ in 0..60 {
        let output = candidate.step([Input::Tick]).expect("step");
        let number = output.number;
        asked.extend(output.messages_after_persist);
        assert!(
            output.messages.is_empty(),
            "only a leader sends before it writes"
        );
        let persisted = number.map(|number| Input::Persisted { number });
        asked.extend(
            candidate
                .step(persisted)
                .expect("step")
                .messages_after_persist,
        );
        for message in asked
            .drain(..)
            .filter(|message| message.to == 2)
            .collect::<Vec<_>>()
        {
            let output = voter.step([Input::Message(message.bytes)]).expect("step");
            assert!(
                output.messages.is_empty(),
                "only a leader sends before it writes"
            );
            let hard_state = output.hard_state.clone().unwrap_or_default();
            if hard_state.vote == 1 {
                assert!(output.must_sync);
                assert_eq!(output.messages_after_persist.len(), 1);
                return;
            }
            for answer in output.messages_after_persist {
                let output = candidate
                    .step([Input::Message(answer.bytes)])
                    .expect("step");
                asked.extend(output.messages_after_persist);
            }
        }
    }
    panic!("nobody asked for a vote");
}

/// Three members and a wire that loses nothing, except to and from those that are down.
struct Group {
    members: Vec<Member>,
    down: Vec<u64>,
}

impl Group {
    fn new() -> Self {
        let disk = Disk::new(&[1, 2, 3]);
        let members = (1..=3).map(|id| Member::open(id, disk.clone())).collect();
        Self {
            members,
            down: Vec::new(),
        }
    }

    fn member(&mut self, id: u64) -> &mut Member {
        &mut self.members[id as usize - 1]
    }

    fn deliver(&mut self) {
        let mut wire: VecDeque<Outgoing> = VecDeque::new();
        loop {
            for (member, id) in self.members.iter_mut().zip(1..) {
                let sent = std::mem::take(&mut member.sent);
                if !self.down.contains(&id) {
                    wire.extend(sent);
                }
            }
            let Some(message) = wire.pop_front() else {
                break;
            };
            if !self.down.contains(&message.to) {
                self.member(message.to)
                    .run(vec![Input::Message(message.bytes)]);
            }
        }
    }

    fn elect(&mut self) -> u64 {
        for _ in 0..200 {
            for id in (1..=3)
                .filter(|id| !self.down.contains(id))
                .collect::<Vec<_>>()
            {
                self.member(id).run(vec![Input::Tick]);
            }
            self.deliver();
            let down = self.down.clone();
            let leads = |id: &u64| {
                !down.contains(id)
                    && self.members[*id as usize - 1].core.status().role == Role::Leader
            };
            if let Some(id) = (1..=3).find(leads) {
                return id;
            }
        }
        panic!("no leader in 200 ticks");
    }
}

#[test]
fn three_members_elect_commit_and_survive_the_loss_of_their_leader() {
    let mut group = Group::new();
    let first = group.elect();
    group.member(first).propose(1);
    group.deliver();
    let follower = first % 3 + 1;
    group.member(follower).propose(9);
    assert_eq!(
        group.member(follower).refused,
        vec![Refused {
            id: 9,
            reason: Reason::NotLeader {
                leader: Some(first)
            }
        }]
    );
    group.down = vec![first];
    let second = group.elect();
    assert_ne!(first, second);
    group.member(second).propose(2);
    group.deliver();
    assert_eq!(group.member(second).commands(), names(1..=2));
    group.down.clear();
    for _ in 0..10 {
        group.member(second).run(vec![Input::Tick]);
        group.deliver();
    }
    for id in 1..=3 {
        assert_eq!(group.member(id).commands(), names(1..=2), "member {id}");
    }
    assert_ne!(group.member(first).core.status().role, Role::Leader);
}

#[test]
fn a_member_that_lost_what_it_acknowledged_says_so_instead_of_aborting() {
    let mut group = Group::new();
    let leader = group.elect();
    let forgetful = leader % 3 + 1;
    let old = group.member(forgetful).disk.clone();
    for id in 1..=3 {
        group.member(leader).propose(id);
        group.deliver();
    }
    let id = forgetful;
    let mut forgetful = Member::open(id, old);
    let error = loop {
        group.member(leader).run(vec![Input::Tick]);
        let sent = std::mem::take(&mut group.member(leader).sent);
        let failed = sent
            .into_iter()
            .filter(|message| message.to == id)
            .find_map(|message| forgetful.core.step([Input::Message(message.bytes)]).err());
        if let Some(error) = failed {
            break error;
        }
    };
    assert!(error.to_string().contains("skep server rebuild"), "{error}");
}

#[test]
fn a_run_of_proposals_is_one_message_for_each_peer() {
    let mut group = Group::new();
    let leader = group.elect();
    group.deliver();
    let run = (1..=50).map(|id| Input::Propose {
        id,
        data: vec![7; 10],
    });
    let output = group.member(leader).core.step(run).expect("step");
    assert_eq!(output.messages.len(), 2, "{:?}", output.messages);
    let places: Vec<u64> = output.accepted.iter().map(|it| it.index).collect();
    let first = places[0];
    assert_eq!(places, (first..first + 50).collect::<Vec<_>>());
    assert_eq!(output.entries.len(), 50);
}
