//! The simulation catches known classes of bugs: each deliberate mistake fails some seed soon.

use skep_simulation::{Breakage, Options, run};

/// Seeds tried for each mistake.
const SEEDS: u64 = 200;

#[test]
fn every_mistake_is_caught() {
    let mut missed = Vec::new();
    for breakage in Breakage::ALL {
        let caught = (0..SEEDS).find_map(|seed| {
            let options = Options {
                breakage: Some(breakage),
                // A vote is lost only by dying between sending and syncing it.
                mortality: (breakage == Breakage::VoteBeforeFlush).then_some(20_000),
                // And an older term's entry by leaders that fall one after another.
                falling_leaders: Some(breakage == Breakage::CountOlderTerms),
                chaos_ms: 60_000,
                ..Options::new(seed)
            };
            Some((seed, run(options).err()?))
        });
        match caught {
            Some((seed, violation)) => println!("{breakage:?}: seed {seed}: {violation}"),
            None => missed.push(breakage),
        }
    }
    assert!(missed.is_empty(), "{SEEDS} seeds did not catch {missed:?}");
}
