use proptest::prelude::*;

use super::*;

fn size(cpu: u64, memory: u64) -> Size {
    Size { cpu, memory }
}

/// Ten nodes of 16 and 64; asks of 1 and 4 on the mean; so many of the nodes are empty.
fn packing(empty: usize) -> Packing {
    let (mut demand, mut supply) = (Demand::default(), Supply::default());
    for ask in [size(1, 1), size(2, 8), size(1, 7), size(1, 4)] {
        demand.put(ask);
    }
    for node in 0..10 {
        supply.put(size(16, 64), node < empty);
    }
    Packing::new(&demand, &supply)
}

fn cost(packing: &Packing, free: Size, ask: Size) -> i64 {
    let is_empty = free == size(16, 64);
    packing.cost(packing.parts(free), is_empty, packing.parts(ask))
}

#[test]
fn the_aim_follows_the_room_on_empty_nodes() {
    for (empty, aim) in [
        (0, Aim::FillAll),
        (1, Aim::KeepHoles),
        (2, Aim::KeepHoles),
        (3, Aim::KeepNodesEmpty),
        (10, Aim::KeepNodesEmpty),
    ] {
        assert_eq!(packing(empty).aim(), aim, "{empty}");
    }
}

/// One choice a line: aim, ask, the node that is to win, the one that is to lose.
#[test]
fn choices() {
    let (few, none) = (packing(1), packing(0));
    let many = packing(8);
    let ask = size(2, 8);
    let cases = [
        ("best fit", &many, ask, size(2, 8), size(10, 40)),
        ("no opening", &many, ask, size(15, 9), size(16, 64)),
        ("shapes match", &none, size(4, 2), size(8, 8), size(8, 32)),
        ("holes stay", &few, ask, size(4, 16), size(16, 64)),
        ("strands less", &few, size(4, 4), size(8, 8), size(4, 16)),
    ];
    for (why, packing, ask, wins, loses) in cases {
        let (won, lost) = (cost(packing, wins, ask), cost(packing, loses, ask));
        assert!(won < lost, "{why}: {wins:?} {won}, {loses:?} {lost}");
    }
}

#[test]
fn of_plenty_of_empty_nodes_the_largest_is_opened_of_fewer_the_smallest() {
    for (empty, is_plenty) in [(4, false), (5, true), (10, true)] {
        let packing = packing(empty);
        let cost = |free| packing.cost(packing.parts(free), true, packing.parts(size(1, 4)));
        assert_eq!(cost(size(16, 64)) < cost(size(8, 64)), is_plenty, "{empty}");
        assert_eq!(cost(size(16, 64)) < cost(size(8, 32)), is_plenty, "{empty}");
    }
}

#[test]
fn what_is_plentiful_need_not_be_used_up() {
    let (mut demand, mut supply) = (Demand::default(), Supply::default());
    demand.put(size(4, 4));
    (0..4).for_each(|_| supply.put(size(16, 64), true));
    let packing = Packing::new(&demand, &supply);
    // CPU is four times as scarce: less of it left decides, against four times the memory.
    let (a, b) = (size(5, 48), size(8, 16));
    assert!(cost(&packing, a, size(4, 4)) < cost(&packing, b, size(4, 4)));
}

#[test]
fn eighths_of_the_logarithm_are_in_order_and_double_by_eight() {
    for value in [1_u64, 3, 8, 1_000, u64::MAX / 2] {
        assert_eq!(eighths(value * 2), eighths(value) + 8, "{value}");
    }
    assert_eq!(eighths(0), 0);
    assert!((1..5_000).all(|value| eighths(value) <= eighths(value + 1)));
}

fn any_size() -> impl Strategy<Value = Size> {
    let part = || prop_oneof![0..=64_u64, any::<u64>()];
    (part(), part()).prop_map(|(cpu, memory)| Size { cpu, memory })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn demand_forgets_what_is_removed(
        asks in prop::collection::vec(any_size(), 0..20),
        more in prop::collection::vec(any_size(), 0..20),
    ) {
        let mut demand = Demand::default();
        asks.iter().for_each(|ask| demand.put(*ask));
        let before = demand.clone();
        more.iter().for_each(|ask| demand.put(*ask));
        more.iter().for_each(|ask| demand.remove(*ask));
        prop_assert_eq!(demand, before);
    }

    /// Whatever the sizes: no overflow, and an empty node never beats one in use where nodes are
    /// to be kept empty.
    #[test]
    fn any_sizes_have_a_cost(
        asks in prop::collection::vec(any_size(), 1..20),
        nodes in prop::collection::vec((any_size(), any::<bool>()), 2..20),
    ) {
        let (mut demand, mut supply) = (Demand::default(), Supply::default());
        asks.iter().for_each(|ask| demand.put(*ask));
        nodes.iter().for_each(|(size, is_empty)| supply.put(*size, *is_empty));
        for aim in [Aim::KeepNodesEmpty, Aim::KeepHoles, Aim::FillAll] {
            let packing = Packing::with_aim(&demand, &supply, aim);
            for ask in &asks {
                for (free, _) in nodes.iter().filter(|(free, _)| free.holds(*ask)) {
                    let cost = |is_empty| {
                        packing.cost(packing.parts(*free), is_empty, packing.parts(*ask))
                    };
                    prop_assert_eq!(cost(true) > cost(false), aim == Aim::KeepNodesEmpty);
                }
            }
        }
    }
}
