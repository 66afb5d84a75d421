//! Laws over many seeds, on virtual time: the real decision, the real planner and the real way of guests. What does not
//! change changes nothing; what grows is placed; what shrinks ends in fewer nodes, and none of it twice.

use skep_model::guest_pool::Auto;
use skep_model::placement::MaxPer;

use super::tests::{GIB, World, pool};

const HOUR: u64 = 3_600;

/// Numbers in an order that is the same each time.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn u32(&mut self, end: u32) -> u32 {
        u32::try_from(self.below(end.into())).expect("below")
    }
}

/// Pools and services by chance; how many services.
fn world(random: &mut Lcg) -> (World, Vec<u32>) {
    let (small, large) = (pool("small", (4, 8), 60), pool("large", (8, 16), 30));
    let pools = [small, large].map(|mut pool| {
        pool.size.auto = Some(Auto {
            cost: 1 + random.u32(3),
            headroom_cpu_millis: 250 * random.u32(8),
            headroom_memory_bytes: GIB / 4 * random.below(6),
            spare: random.u32(3) / 2,
            idle_ms: 120_000,
        });
        pool.size.min = random.u32(2);
        pool.size.wanted = pool.size.min;
        pool
    });
    let pools = &pools[..1 + random.below(2) as usize];
    let mut world = World::new(pools);
    let mut replicas = Vec::new();
    for number in 1..=1 + random.u32(5) {
        let count = 1 + random.u32(5);
        let size = (100 + 50 * random.u32(28), GIB / 8 * (1 + random.below(12)));
        let rule = random.below(4);
        world.service(number.into(), size, count, |release| match rule {
            0 => {
                release.placement.max_per = vec![MaxPer {
                    key: "node.name".into(),
                    count: 1,
                }];
            }
            1 => release.placement.pool = Some("small".into()),
            _ => {}
        });
        replicas.push(count);
    }
    (world, replicas)
}

fn scale(world: &mut World, replicas: &[u32], by: impl Fn(u32) -> u32) -> usize {
    for (number, count) in (1..).zip(replicas) {
        world.scale(number, by(*count));
    }
    replicas.iter().map(|count| by(*count) as usize).sum()
}

#[test]
fn a_constant_load_changes_nothing_once_it_has_settled() {
    for seed in 0..8 {
        let mut random = Lcg(seed);
        let (mut world, replicas) = world(&mut random);
        world.run(HOUR);
        let wanted: usize = replicas.iter().map(|count| *count as usize).sum();
        assert_eq!(world.running(), wanted, "seed {seed}: {:#?}", world.said);
        let settled = world.said.len();
        // A new leader in the middle of it knows nothing, and changes nothing.
        world.run(HOUR / 2);
        world.forget();
        world.run(HOUR / 2);
        assert_eq!(world.said.len(), settled, "seed {seed}: {:#?}", world.said);
    }
}

#[test]
fn growth_is_placed_and_what_shrinks_goes_without_coming_back() {
    for seed in 100..105 {
        let mut random = Lcg(seed);
        let (mut world, replicas) = world(&mut random);
        world.run(HOUR);
        let before = world.said.len();
        let wanted = scale(&mut world, &replicas, |count| count * 3);
        world.run(HOUR / 2);
        assert_eq!(world.running(), wanted, "seed {seed}: {:#?}", world.said);
        // What was ordered too much for may go; none is ordered after that.
        let said = &world.said[before..];
        let went = said.iter().position(|it| it.contains("goes"));
        let after = said.iter().skip(went.unwrap_or(said.len()));
        let again = after.filter(|it| it.contains("more node")).count();
        assert_eq!(again, 0, "seed {seed}: {:#?}", world.said);
        let grown = world.said.len();
        let wanted = scale(&mut world, &replicas, |count| count.div_ceil(2));
        world.run(2 * HOUR);
        assert_eq!(world.running(), wanted, "seed {seed}");
        let all_go = world.said[grown..].iter().all(|said| said.contains("goes"));
        assert!(all_go, "seed {seed}: {:#?}", world.said);
        let settled = world.said.len();
        world.run(HOUR);
        assert_eq!(world.said.len(), settled, "seed {seed}: {:#?}", world.said);
        // Nothing runs: the fewest are left, and what is to be kept free.
        scale(&mut world, &replicas, |_| 0);
        world.run(3 * HOUR);
        let emptied = world.said.len();
        world.run(HOUR);
        assert_eq!(world.said.len(), emptied, "seed {seed}: {:#?}", world.said);
        for pool in super::scaling(&world.state) {
            let auto = pool.size.auto.expect("scales itself");
            let is_kept = auto.spare > 0 || auto.has_headroom();
            let most = pool.size.min.max(if is_kept { 2 } else { 0 });
            assert!(pool.size.wanted <= most, "seed {seed}: {pool:#?}");
        }
    }
}
