//! Laws of the rebalancer on random clusters, and the cases that it exists for. What moves do to
//! a cluster is worked out here, apart from the crate.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use skep_model::id::{AllocationId, NodeId};
use skep_scheduler::packing::Size;
use skep_scheduler::rebalance::{Item, Moves, Place, View, Waiting, plan};

fn item(id: u128, cpu: u64, memory: u64) -> Item {
    Item {
        id: AllocationId::from_u128(id),
        size: Size { cpu, memory },
        is_movable: true,
    }
}

/// A node of 10 and 10.
fn place(id: u128, items: &[Item]) -> Place {
    Place {
        id: NodeId::from_u128(id),
        capacity: Size {
            cpu: 10,
            memory: 10,
        },
        items: items.to_vec(),
        is_open: true,
    }
}

fn view(places: Vec<Place>, budget: usize) -> View {
    View {
        places,
        budget,
        ..View::default()
    }
}

fn anywhere(_: AllocationId, _: &Place) -> bool {
    true
}

fn free(place: &Place) -> Option<Size> {
    let (mut cpu, mut memory) = (place.capacity.cpu, place.capacity.memory);
    for item in &place.items {
        cpu = cpu.checked_sub(item.size.cpu)?;
        memory = memory.checked_sub(item.size.memory)?;
    }
    Some(Size { cpu, memory })
}

fn in_use(view: &View) -> usize {
    view.places
        .iter()
        .filter(|place| !place.items.is_empty())
        .count()
}

/// Does the moves in their order, checking each, then lets the asks that got room have it.
fn carry_out(
    view: &View,
    moves: &Moves,
    may_go: &dyn Fn(AllocationId, &Place) -> bool,
) -> Result<View, TestCaseError> {
    let mut after = view.clone();
    for step in &moves.moves {
        let from = after
            .places
            .iter()
            .position(|place| place.id == step.from)
            .unwrap();
        let to = after
            .places
            .iter()
            .position(|place| place.id == step.to)
            .unwrap();
        prop_assert_ne!(from, to);
        let items = &mut after.places[from].items;
        let at = items.iter().position(|item| item.id == step.allocation);
        let item = items.remove(at.expect("it is where the move says"));
        prop_assert!(item.is_movable && !view.recent.contains(&item.id));
        prop_assert!(after.places[to].is_open && may_go(item.id, &after.places[to]));
        after.places[to].items.push(item);
        prop_assert!(free(&after.places[to]).is_some(), "{step:?} does not fit");
        prop_assert!(after.recent.insert(item.id), "{step:?} moves it twice");
    }
    for (ask, node) in &moves.roomed {
        let waiting = after.waiting.iter().position(|waiting| waiting.id == *ask);
        let ask = after.waiting.remove(waiting.unwrap());
        let place = after
            .places
            .iter_mut()
            .find(|place| place.id == *node)
            .unwrap();
        place.items.push(Item {
            id: ask.id,
            size: ask.size,
            is_movable: false,
        });
        prop_assert!(free(place).is_some(), "{ask:?} has no room");
    }
    Ok(after)
}

/// Up to eight nodes that hold what is on them, asks that wait, some allocations moved lately.
fn any_view() -> impl Strategy<Value = View> {
    let sizes = prop::collection::vec((1..7_u64, 1..7_u64, prop::bool::weighted(0.9)), 0..6);
    let nodes = prop::collection::vec((sizes, prop::bool::weighted(0.9)), 1..8);
    let waiting = prop::collection::vec((1..9_u64, 1..9_u64), 0..3);
    let recent = prop::collection::btree_set(0..40_u128, 0..4);
    (nodes, waiting, recent, 0..14_usize).prop_map(|(nodes, waiting, recent, budget)| {
        let mut id = 0;
        let places = nodes.into_iter().enumerate().map(|(at, (sizes, is_open))| {
            let mut place = place(at as u128, &[]);
            place.is_open = is_open;
            for (cpu, memory, is_movable) in sizes {
                id += 1;
                let item = Item {
                    is_movable,
                    ..item(id, cpu, memory)
                };
                place.items.push(item);
                if free(&place).is_none() {
                    place.items.pop();
                }
            }
            place
        });
        let places: Vec<Place> = places.collect();
        let waiting = waiting
            .iter()
            .enumerate()
            .map(|(at, (cpu, memory))| Waiting {
                id: AllocationId::from_u128(1_000 + at as u128),
                size: Size {
                    cpu: *cpu,
                    memory: *memory,
                },
            });
        View {
            waiting: waiting.collect(),
            places,
            recent: recent.into_iter().map(AllocationId::from_u128).collect(),
            budget,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Each move fits in its turn, keeps the rules and the budget; never more nodes in use than
    /// before but for asks that got room; and planning again changes nothing.
    #[test]
    fn moves_are_lawful(view in any_view(), apart in 2..5_u128) {
        // As with replicas of one service: no two of a kind on a node.
        let may_go = |id: AllocationId, place: &Place| {
            let kind = |id: AllocationId| id.as_u128() % apart;
            apart == 4 || place.items.iter().filter(|item| kind(item.id) == kind(id)).count() < 3
        };
        let moves = plan(&view, &may_go);
        let after = carry_out(&view, &moves, &may_go)?;
        let lately = view.recent.len();
        prop_assert!(moves.moves.is_empty() || lately + moves.moves.len() <= view.budget);
        prop_assert!(in_use(&after) + moves.emptied.len() <= in_use(&view) + moves.roomed.len());
        for node in &moves.emptied {
            let place = after.places.iter().find(|place| place.id == *node).unwrap();
            prop_assert!(place.items.is_empty());
        }
        let gains = moves.emptied.len() + moves.roomed.len();
        prop_assert!(moves.moves.is_empty() || gains > 0);
        let again = plan(&after, &may_go);
        prop_assert_eq!(again.moves, []);
    }

    #[test]
    fn the_order_of_the_view_does_not_matter(view in any_view()) {
        let mut turned = view.clone();
        turned.places.reverse();
        turned.waiting.reverse();
        turned.places.iter_mut().for_each(|place| place.items.reverse());
        prop_assert_eq!(plan(&view, &anywhere), plan(&turned, &anywhere));
    }
}

#[test]
fn a_node_is_emptied_into_the_gaps_of_others() {
    let places = vec![
        place(1, &[item(1, 8, 2), item(2, 1, 1)]),
        place(2, &[item(3, 2, 8)]),
        place(3, &[item(4, 1, 7)]),
    ];
    let moves = plan(&view(places, 2), &anywhere);
    assert_eq!(moves.emptied.len(), 1);
    assert!(moves.moves.len() <= 2);
}

#[test]
fn a_smaller_one_is_pushed_on_where_nothing_fits_directly() {
    // The 6 of node 3 fits nowhere until the 3 of node 1 goes to node 2.
    let places = vec![
        place(1, &[item(1, 4, 4), item(2, 3, 3)]),
        place(2, &[item(3, 7, 7)]),
        place(3, &[item(4, 6, 6)]),
    ];
    let too_few = plan(&view(places.clone(), 1), &anywhere);
    assert_eq!(too_few, Moves::default());
    let moves = plan(&view(places, 2), &anywhere);
    assert_eq!(moves.emptied, [NodeId::from_u128(3)]);
    assert_eq!(moves.moves.len(), 2);
    assert_eq!(moves.moves[0].allocation, AllocationId::from_u128(2));
}

#[test]
fn a_stranded_ask_gets_room_and_nothing_takes_it_away() {
    let mut view = view(
        vec![
            place(1, &[item(1, 5, 5), item(2, 3, 3)]),
            place(2, &[item(3, 6, 6)]),
        ],
        3,
    );
    let ask = Waiting {
        id: AllocationId::from_u128(9),
        size: Size { cpu: 5, memory: 5 },
    };
    view.waiting.push(ask);
    let moves = plan(&view, &anywhere);
    assert_eq!(moves.roomed, [(ask.id, NodeId::from_u128(1))]);
    assert_eq!(moves.moves.len(), 1);
}

#[test]
fn half_a_gain_is_none() {
    // Two of the three could leave, the third could not: none does.
    let stays = Item {
        is_movable: false,
        ..item(3, 1, 1)
    };
    let mut places = vec![
        place(1, &[item(1, 1, 1), item(2, 1, 1), stays]),
        place(2, &[item(4, 7, 7)]),
    ];
    places[1].items[0].is_movable = false;
    assert_eq!(plan(&view(places, 10), &anywhere), Moves::default());
}

#[test]
fn what_was_moved_lately_stays_and_counts() {
    let places = vec![place(1, &[item(1, 2, 2)]), place(2, &[item(2, 2, 2)])];
    let mut view = view(places, 2);
    assert_eq!(plan(&view, &anywhere).moves.len(), 1);
    let both = [1, 2].map(AllocationId::from_u128);
    view.recent = BTreeSet::from(both);
    view.budget = 10;
    assert_eq!(plan(&view, &anywhere), Moves::default());
    view.recent = BTreeSet::from([AllocationId::from_u128(77)]);
    view.budget = 1;
    assert_eq!(plan(&view, &anywhere), Moves::default());
}

#[test]
fn rules_and_closed_nodes_are_kept() {
    let pinned = BTreeMap::from([(1, 1), (2, 2)]);
    let places = vec![place(1, &[item(1, 2, 2)]), place(2, &[item(2, 2, 2)])];
    let home = |id: AllocationId, place: &Place| pinned[&id.as_u128()] == place.id.as_u128();
    assert_eq!(plan(&view(places.clone(), 5), &home), Moves::default());
    let mut closed = places;
    closed.iter_mut().for_each(|place| place.is_open = false);
    assert_eq!(plan(&view(closed, 5), &anywhere), Moves::default());
}
