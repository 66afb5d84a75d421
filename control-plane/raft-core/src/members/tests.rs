//! The rules as a table, and as laws over whatever may be.

use super::*;
use proptest::prelude::*;

/// `voters 1 2 3; learners 4` and the like.
fn parse(text: &str) -> (Vec<u64>, Vec<u64>) {
    let (voters, learners) = text.split_once('+').unwrap_or((text, ""));
    let ids = |part: &str| {
        part.split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect()
    };
    (ids(voters), ids(learners))
}

fn conf(text: &str) -> ConfState {
    let (voters, learners) = parse(text);
    ConfState {
        voters,
        learners,
        ..ConfState::default()
    }
}

fn show(plan: &Plan) -> String {
    let Plan::Change(change) = plan else {
        return match plan {
            Plan::Wait(_) => "wait".to_owned(),
            Plan::TransferFirst { to } => format!("lead {to}"),
            other => format!("{other:?}"),
        };
    };
    let steps: Vec<String> = change
        .changes
        .iter()
        .map(|single| {
            let sign = match single.get_change_type() {
                ConfChangeType::AddNode => "+",
                ConfChangeType::AddLearnerNode => "~",
                ConfChangeType::RemoveNode => "-",
            };
            format!("{sign}{}", single.node_id)
        })
        .collect();
    steps.join(" ")
}

#[test]
fn one_step_at_a_time() {
    // voters + learners | wanted | leader | caught up | step (+ votes, ~ learns, - goes; or who is to lead)
    let table = "
        1         | 1           | 1 |             | Nothing
        1         | 1 2         | 1 |             | ~2
        1 + 2     | 1 2         | 1 | 1 2         | Nothing
        1 + 2     | 1 2 3       | 1 | 1 2         | ~3
        1 + 2 3   | 1 2 3       | 1 | 1 2         | wait
        1 + 2 3   | 1 2 3       | 1 | 1 2 3       | +2 +3
        1 2 3     | 1 2 3 4     | 1 | 1 2 3       | ~4
        1 2 3 + 4 | 1 2 3 4     | 1 | 1 2 3 4     | Nothing
        1 2 3 + 4 | 1 2 3 4 5   | 1 | 1 2 3 4     | ~5
        1 2 3 + 4 5 | 1 2 3 4 5 | 1 | 1 2 3 4     | wait
        1 2 3 + 4 5 | 1 2 3 4 5 | 1 | 1 2 3 4 5   | +4 +5
        1 + 2 3 4 5 | 1 2 3 4 5 | 1 | 1 2 3       | +2 +3
        1 2 3 4 5 + 6 | 1 2 3 4 5 6 | 1 | 1 2 3 4 5 6 | Nothing
        1 2 3 + 4 | 1 2 4       | 1 | 1 2         | wait
        1 2 3 + 4 | 1 2 4       | 1 | 1 2 4       | +4 -3
        1 2 3 + 4 | 1 2 4       | 1 | 1 4         | +4 -3
        1 2 3 + 4 | 2 3 4       | 1 | 2 3 4       | lead 2
        1 2 3 + 4 | 2 3 4       | 1 | 4           | wait
        1 2 3 + 4 | 2 3 4       | 2 | 2 3 4       | +4 -1
        1 2 3     | 1 2         | 1 | 1 2         | ~2 -3
        1 2 3     | 1 2         | 3 | 1 2         | lead 1
        1 2 3     | 1           | 1 | 1           | -2 -3
        1 + 2     | 1           | 1 | 1           | -2
        1 + 2     | 2           | 1 | 1           | wait
        1 + 2     | 2           | 1 | 1 2         | +2
        1 2       | 2           | 1 | 1 2         | lead 2
        1 2 3 + 4 5 6 | 4 5 6   | 1 | 1 2 3 4 5 6 | +4 +5 -2 -3
        1 4 5 + 6 | 4 5 6       | 1 | 1 4 5 6     | lead 4
        1 2 3 + 4 | 4           | 1 | 1 2 3 4     | -2 -3
        1 + 4     | 4           | 1 | 1 4         | +4
        1 2       | 2           | 2 | 1 2         | -1
        1 2 3 4 5 | 1 2 3 4     | 3 | 1 3 4       | ~2 -5
        1 2 3 4 5 | 1 2 3 4     | 3 | 1 2 3 4     | ~4 -5
        1 2 3 4 5 + 6 | 1 2 3 4 6 | 1 | 1 2 3 4   | wait
        1 2 3 + 4 5 | 1 2 4 5 6 | 1 | 1 2 3 4     | ~6
        1 2 3 + 4 5 6 | 1 2 4 5 6 | 1 | 1 2 4     | +4 -3
        1 2 3 + 4 5 | 1 2 3     | 1 | 1 2 3       | -4
        1 2 3     |             | 1 | 1 2 3       | wait
    ";
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [current, wanted, leader, up, expected] = cells[..] else {
            panic!("{line}");
        };
        let up = parse(up).0.into_iter().collect();
        let found = plan(
            &parse(wanted).0,
            leader.parse().unwrap(),
            &conf(current),
            &up,
        );
        assert_eq!(show(&found), expected, "{line}\n{found:?}");
    }
}

#[test]
fn a_change_under_way_is_waited_for() {
    let mut current = conf("1 2 3");
    current.voters_outgoing = vec![1];
    let all = BTreeSet::from([1, 2, 3]);
    assert_eq!(show(&plan(&[1, 2, 3], 1, &current, &all)), "wait");
}

#[test]
fn waiting_names_who_is_waited_for() {
    let up = BTreeSet::from([1, 2]);
    let Plan::Wait(reason) = plan(&[1, 2, 3], 1, &conf("1 + 2 3"), &up) else {
        panic!("it must wait");
    };
    assert!(reason.contains("member 3 is not caught up"), "{reason}");
}

/// The membership after a step and, if it was joint, after leaving it.
fn after(current: &ConfState, change: &ConfChangeV2) -> ConfState {
    let mut voters: BTreeSet<u64> = current.voters.iter().copied().collect();
    let mut learners: BTreeSet<u64> = current.learners.iter().copied().collect();
    for single in change.changes.iter() {
        voters.remove(&single.node_id);
        learners.remove(&single.node_id);
        match single.get_change_type() {
            ConfChangeType::AddNode => drop(voters.insert(single.node_id)),
            ConfChangeType::AddLearnerNode => drop(learners.insert(single.node_id)),
            ConfChangeType::RemoveNode => {}
        }
    }
    ConfState {
        voters: voters.into_iter().collect(),
        learners: learners.into_iter().collect(),
        ..ConfState::default()
    }
}

#[derive(Debug, Clone)]
struct Case {
    current: ConfState,
    leader: u64,
    wanted: Vec<u64>,
    up: BTreeSet<u64>,
}

fn cases() -> impl Strategy<Value = Case> {
    let some = || prop::collection::btree_set(1_u64..=9, 0..=9);
    (
        1_usize..=3,
        Just((1..=9).collect::<Vec<u64>>()).prop_shuffle(),
        0_usize..=4,
    )
        .prop_flat_map(move |(half, ids, learners)| {
            let count = half * 2 - 1;
            let mut voters = ids[..count].to_vec();
            voters.sort_unstable();
            let current = ConfState {
                voters,
                learners: ids[count..count + learners].to_vec(),
                ..ConfState::default()
            };
            let wanted = prop::collection::btree_set(1_u64..=9, 1..=9);
            (Just(current), 0..count, wanted, some())
        })
        .prop_map(|(current, leader, wanted, up)| Case {
            leader: current.voters[leader],
            current,
            wanted: wanted.into_iter().collect(),
            up,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_step_makes_an_even_group_or_one_without_a_live_majority(case in cases()) {
        let Plan::Change(change) = plan(&case.wanted, case.leader, &case.current, &case.up) else {
            return Ok(());
        };
        let next = after(&case.current, &change);
        prop_assert!(next.voters.contains(&case.leader));
        let replaces_the_only_voter =
            case.current.voters.len() == 1 && !case.wanted.contains(&case.leader);
        prop_assert!(next.voters.len() % 2 == 1 || replaces_the_only_voter, "{next:?}");
        if next.voters != case.current.voters {
            let live = next.voters.iter()
                .filter(|id| case.up.contains(id) || **id == case.leader)
                .count();
            prop_assert!(live > next.voters.len() / 2, "{next:?}");
        }
        for id in &next.voters {
            let voted = case.current.voters.contains(id);
            prop_assert!(voted || case.up.contains(id), "{id} is promoted too early");
        }
        prop_assert!(next.voters.len() <= MAX_VOTERS.max(case.current.voters.len()));
    }

    #[test]
    fn with_all_caught_up_it_converges_to_what_is_wanted(case in cases()) {
        let all: BTreeSet<u64> = (1..=9).collect();
        let (mut current, mut leader) = (case.current, case.leader);
        let wanted: BTreeSet<u64> = case.wanted.iter().copied().collect();
        for _ in 0..40 {
            match plan(&case.wanted, leader, &current, &all) {
                Plan::Nothing => {
                    let voters: BTreeSet<u64> = current.voters.iter().copied().collect();
                    let learners: BTreeSet<u64> = current.learners.iter().copied().collect();
                    prop_assert_eq!(voters.len(), odd_at_most(wanted.len().min(MAX_VOTERS)));
                    prop_assert_eq!(&voters | &learners, wanted);
                    return Ok(());
                }
                Plan::Change(change) => current = after(&current, &change),
                Plan::TransferFirst { to } => {
                    prop_assert!(current.voters.contains(&to) && wanted.contains(&to));
                    leader = to;
                }
                Plan::Wait(reason) => prop_assert!(false, "{}", reason),
            }
        }
        prop_assert!(false, "it never ends: {:?}", current);
    }
}
