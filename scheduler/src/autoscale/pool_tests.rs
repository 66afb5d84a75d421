//! Pools against a small scheduler of one resource: first fit, no rules.

use super::*;

/// Sizes of what runs on each node, of what waits, and of what a node of each pool holds.
struct Toy {
    nodes: Vec<(NodeId, u32, Vec<u32>)>,
    waiting: Vec<u32>,
    headroom: Vec<u32>,
    sizes: BTreeMap<String, u32>,
}

impl Toy {
    fn place(asks: &[u32], mut room: Vec<u32>) -> u32 {
        let mut left = 0;
        for ask in asks {
            match room.iter_mut().find(|room| **room >= *ask) {
                Some(room) => *room -= ask,
                None => left += 1,
            }
        }
        left
    }

    fn room(&self) -> Vec<u32> {
        let free = |(_, size, asks): &(NodeId, u32, Vec<u32>)| size - asks.iter().sum::<u32>();
        self.nodes.iter().map(free).collect()
    }
}

impl Trial for Toy {
    fn unplaced_with(&self, extra: &BTreeMap<String, u32>) -> u32 {
        let mut room = self.room();
        for (pool, count) in extra {
            room.extend((0..*count).map(|_| self.sizes[pool]));
        }
        Self::place(&[self.waiting.as_slice(), &self.headroom].concat(), room)
    }

    fn fits_without(&self, node: NodeId) -> bool {
        let at = self.nodes.iter().position(|(id, _, _)| *id == node);
        let at = at.expect("a node of ours");
        let mut room = self.room();
        room.remove(at);
        let asks = [self.nodes[at].2.as_slice(), &self.headroom].concat();
        Self::place(&asks, room) == 0
    }
}

fn id(number: u64) -> NodeId {
    format!("{number:026}").parse().unwrap()
}

fn pool(name: &str, cost: u64, max: u32, members: &[u64]) -> Pool {
    Pool {
        name: name.into(),
        min: 0,
        max,
        cost,
        members: members
            .iter()
            .map(|number| Member {
                id: id(*number),
                added_ms: 0,
                used_percent: 50,
            })
            .collect(),
        coming: 0,
        stuck: 0,
        is_held: false,
        idle_ms: 600_000,
        ordered_ms: None,
    }
}

fn toy(nodes: &[(u64, u32, &[u32])], waiting: &[u32]) -> Toy {
    Toy {
        nodes: nodes
            .iter()
            .map(|(number, size, asks)| (id(*number), *size, asks.to_vec()))
            .collect(),
        waiting: waiting.to_vec(),
        headroom: Vec::new(),
        sizes: [("large".into(), 8), ("small".into(), 2)].into(),
    }
}

fn said(pools: &[Pool], toy: &Toy) -> String {
    plan_nodes(pools, toy, &mut Unneeded::default(), 3_600_000).to_string()
}

#[test]
fn the_fewest_nodes_of_the_cheapest_pool_that_places_all() {
    let pools = [pool("large", 5, 10, &[]), pool("small", 1, 10, &[])];
    let small = toy(&[], &[2, 2, 2]);
    assert_eq!(
        said(&pools, &small),
        "3 more of pool small: without a place 3, then 0"
    );
    let many = toy(&[], &[2; 6]);
    assert_eq!(
        said(&pools, &many),
        "6 more of pool small: without a place 6, then 0"
    );
    let big = toy(&[], &[6, 2, 2]);
    assert_eq!(
        said(&pools, &big),
        "2 more of pool large: without a place 3, then 0"
    );
    let huge = toy(&[], &[9]);
    assert_eq!(said(&pools, &huge), "as it is: no pool has a place for 1");
    let full = [pool("small", 1, 1, &[1])];
    let wanting = toy(&[(1, 2, &[2])], &[2]);
    assert_eq!(said(&full, &wanting), "as it is: no pool has a place for 1");
}

#[test]
fn what_was_ordered_counts_and_headroom_is_kept() {
    let mut pools = [pool("small", 1, 10, &[])];
    let mut work = toy(&[], &[2, 2]);
    pools[0].coming = 2;
    assert_eq!(said(&pools, &work), "as it is");
    work.headroom = vec![1];
    assert_eq!(
        said(&pools, &work),
        "1 more of pool small: without a place 1, then 0"
    );
    pools[0].coming = 0;
    pools[0].min = 1;
    assert!(said(&pools, &toy(&[], &[])).starts_with("1 more of pool small"));
}

#[test]
fn a_node_goes_only_after_its_time_and_one_at_a_time() {
    let pools = [pool("large", 5, 10, &[1, 2, 3])];
    let work = toy(&[(1, 8, &[3]), (2, 8, &[]), (3, 8, &[2])], &[]);
    let mut unneeded = Unneeded::default();
    let mut at =
        |minute: u64| plan_nodes(&pools, &work, &mut unneeded, minute * 60_000).to_string();
    assert_eq!(at(9), "as it is", "too young");
    assert_eq!(at(11), "as it is");
    assert_eq!(at(20), "as it is");
    let first = at(21);
    assert!(first.ends_with("goes: not needed for 600 s"), "{first}");
    assert_eq!(at(22), "as it is", "the clock begins anew");
}

/// A pool whose orders do not come holds nobody up: another one is asked, and what does not come has its place among the most.
#[test]
fn a_pool_that_does_not_deliver_is_passed_over() {
    let mut pools = [pool("large", 5, 10, &[]), pool("small", 1, 3, &[])];
    let work = toy(&[], &[2, 2]);
    pools[1].stuck = 2;
    assert_eq!(
        said(&pools, &work),
        "1 more of pool large: without a place 2, then 0"
    );
    pools[0].is_held = true;
    assert_eq!(
        said(&pools, &work),
        "1 more of pool small: without a place 2, then 1"
    );
    pools[1].is_held = true;
    assert_eq!(said(&pools, &work), "as it is: no pool has a place for 2");
    pools[1].min = 3;
    assert_eq!(said(&pools, &work), "as it is: no pool has a place for 2");
}

/// autoscaler #4125, #1471, #581, #6130: a node is removed and added again, for ever.
#[test]
fn what_was_removed_is_not_added_again() {
    let mut work = toy(&[(1, 8, &[5]), (2, 8, &[1]), (3, 8, &[1])], &[]);
    work.headroom = vec![2];
    let mut pools = [pool("large", 5, 10, &[1, 2, 3])];
    let mut unneeded = Unneeded::default();
    let (mut added, mut removed) = (0, 0);
    for minute in 0..720 {
        match plan_nodes(&pools, &work, &mut unneeded, minute * 60_000) {
            Change::Add { .. } => added += 1,
            Change::Remove { node, .. } => {
                removed += 1;
                let at = work
                    .nodes
                    .iter()
                    .position(|(id, _, _)| *id == node)
                    .unwrap();
                let (_, _, moved) = work.nodes.remove(at);
                pools[0].members.retain(|member| member.id != node);
                for ask in moved {
                    let fits =
                        |n: &&mut (NodeId, u32, Vec<u32>)| n.1 - n.2.iter().sum::<u32>() >= ask;
                    work.nodes.iter_mut().find(fits).unwrap().2.push(ask);
                }
            }
            Change::Keep { .. } => {}
        }
    }
    assert_eq!((added, removed, work.nodes.len()), (0, 1, 2));
}

#[test]
fn after_an_order_nothing_of_the_pool_goes() {
    let mut pools = [pool("large", 5, 10, &[1, 2])];
    pools[0].ordered_ms = Some(3_000_000);
    let work = toy(&[(1, 8, &[]), (2, 8, &[])], &[]);
    let mut unneeded = Unneeded::default();
    for minute in 40..60 {
        let change = plan_nodes(&pools, &work, &mut unneeded, minute * 60_000);
        assert_eq!(change, Change::Keep { unplaced: 0 }, "{minute}");
    }
    let goes = (60..80).any(|minute| {
        let change = plan_nodes(&pools, &work, &mut unneeded, minute * 60_000);
        matches!(change, Change::Remove { .. })
    });
    assert!(goes);
}
