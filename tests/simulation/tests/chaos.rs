//! Many seeds: chaos, then healing. `SKEP_SEED=n` replays one, `SKEP_CHAOS=full` runs them all.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use skep_simulation::{Options, Report, Violation, run};

/// Seeds of an ordinary run, and of a full one.
const SAMPLE: u64 = 200;
const FULL: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The reports of all seeds, or the lowest seed that failed; on every core.
fn run_all(seeds: Range<u64>) -> Result<Vec<Report>, (u64, Violation)> {
    let next = AtomicU64::new(seeds.start);
    let worker = || -> Result<Vec<Report>, (u64, Violation)> {
        let mut reports = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(reports);
            }
            let ended = catch_unwind(|| run(Options::new(seed))).unwrap_or_else(|_| {
                Err(Violation {
                    invariant: "goes-on",
                    what: "a panic, told above".to_owned(),
                })
            });
            reports.push(ended.map_err(|violation| (seed, violation))?);
        }
    };
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let results: Vec<_> = thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let join = |handle: thread::ScopedJoinHandle<'_, _>| handle.join().expect("no panic");
        handles.into_iter().map(join).collect()
    });
    let mut reports = Vec::new();
    let mut failed: Option<(u64, Violation)> = None;
    for result in results {
        match result {
            Ok(some) => reports.extend(some),
            Err(found) if failed.as_ref().is_none_or(|(seed, _)| found.0 < *seed) => {
                failed = Some(found);
            }
            Err(_) => {}
        }
    }
    failed.map_or(Ok(reports), Err)
}

#[test]
fn every_seed_holds_and_heals() {
    let is_full = std::env::var("SKEP_CHAOS").is_ok_and(|value| value == "full");
    let seeds = match number("SKEP_SEED") {
        Some(seed) => seed..seed + 1,
        None if is_full => 0..FULL,
        None => 0..SAMPLE,
    };
    let reports = run_all(seeds).unwrap_or_else(|(seed, violation)| {
        panic!(
            "seed {seed}: {violation}\nreplay: SKEP_SEED={seed} cargo test -p skep-simulation \
             --test chaos"
        )
    });
    let count = reports.len() as u64;
    let sum = |part: fn(&Report) -> u64| reports.iter().map(part).sum::<u64>();
    let (operations, faults) = (sum(|r| r.operations), sum(|r| r.faults));
    let (restarts, installs) = (sum(|r| r.restarts), sum(|r| r.installs));
    println!(
        "{count} seeds: {operations} operations, {faults} faults, {restarts} restarts, {installs} \
         snapshots sent, 0 violations"
    );
    if count >= SAMPLE {
        assert!(operations > count * 20, "the clients got little done");
        assert!(restarts > count, "hardly any restart");
        assert!(installs > count / 4, "hardly any snapshot was sent");
    }
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in 0..5 {
        assert_eq!(run(Options::new(seed)), run(Options::new(seed)));
    }
}
