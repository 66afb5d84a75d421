//! The text tables under `cases-autoscale/`: a service, what happens to it, and the decisions that
//! are expected, with their reasons. To add one, write the first half and copy what the failure
//! prints. The history
//! is also read back from JSON.

#![allow(clippy::disallowed_methods, reason = "tests may read their own tables")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "autoscale/mod.rs"]
mod world;

use std::fmt::Write as _;
use std::path::Path;

use skep_model::autoscale::{Autoscale, ScaleToZero, Window};
use skep_scheduler::autoscale::{Activity, History};
use world::World;

#[test]
fn every_table_gives_its_decisions() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases-autoscale");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    files.sort();
    let (mut count, mut failures) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for block in text.split("\n== ").skip(1) {
            let (name, body) = block.split_once('\n').unwrap();
            let (given, expected) = body.split_once("=>\n").expect("every case has a `=>`");
            let found = run(given);
            count += 1;
            if found.trim() != expected.trim() {
                let file = file.file_name().unwrap().to_string_lossy();
                failures.push(format!("== {name} ({file})\n{given}=>\n{found}"));
            }
        }
    }
    let list = failures.join("\n");
    assert!(
        failures.is_empty(),
        "{} failed, found:\n\n{list}",
        failures.len()
    );
    assert!(count >= 25, "only {count} cases were found");
}

/// Plays a case; returns one line for each change and each `why`.
fn run(given: &str) -> String {
    let mut lines = given.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().expect("a case begins with its specification");
    let mut world = begin(first);
    let mut out = String::new();
    let begin_ms = world.now_ms;
    for line in lines {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        match word {
            "for" => {
                let (seconds, load) = rest.split_once(' ').unwrap_or((rest, ""));
                set(&mut world, load);
                for _ in 0..seconds.trim_end_matches('s').parse::<u64>().unwrap() {
                    let decision = world.step();
                    if decision.is_change() {
                        say(&mut out, &world, begin_ms);
                    }
                }
            }
            "why" => say(&mut out, &world, begin_ms),
            "silent" => {
                world.load.remove(&rest.parse().unwrap());
            }
            "partial" => world.partial = rest != "no",
            "deploying" => world.observed.deploying = rest != "no",
            "unhealthy" => world.observed.unhealthy = rest.parse().unwrap(),
            "activity" => {
                world.observed.activity = match rest {
                    "active" => Activity::Active,
                    "quiet" => Activity::Quiet,
                    _ => Activity::Unknown,
                }
            }
            "new-leader" => world.history = History::default(),
            "max" => world.spec.max = rest.parse().unwrap(),
            "min" => world.spec.min = rest.parse().unwrap(),
            "set" => world.observed.wanted = rest.parse().unwrap(),
            _ => panic!("`{line}` is not understood"),
        }
    }
    out
}

/// Prints the last decision. The history reads back as it was stored.
fn say(out: &mut String, world: &World, begin_ms: u64) {
    let json = serde_json::to_string(&world.history).unwrap();
    let history = serde_json::from_str::<History>(&json).unwrap();
    assert_eq!(history, world.history);
    let seconds = (world.now_ms - begin_ms) / 1_000;
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    writeln!(out, "{minutes:02}:{seconds:02} {}", world.said()).unwrap();
}

/// `replicas=3 max=20 request_rate=100 up=50%/min start=30s`
fn begin(line: &str) -> World {
    let (mut spec, mut replicas, mut start_s) = (Autoscale::default(), 1, 0);
    let mut step_ms = 1_000;
    for word in line.split_whitespace() {
        let (key, value) = word.split_once('=').expect("key=value");
        let number = || value.trim_end_matches('s').parse::<u64>().unwrap();
        match key {
            "replicas" => replicas = number() as u32,
            "min" => spec.min = number() as u32,
            "max" => spec.max = number() as u32,
            "up" => spec.up = value.parse().unwrap(),
            "down" => spec.down = value.parse().unwrap(),
            "idle" => {
                spec.scale_to_zero = Some(ScaleToZero {
                    idle_ms: number() * 1_000,
                });
            }
            "down_window" => spec.down_window_ms = number() * 1_000,
            "start" => start_s = number(),
            "step" => step_ms = number() * 1_000,
            // floor=5@2-5: from minute 2 to minute 5 of every hour.
            "floor" | "ceiling" => {
                let (bound, times) = value.split_once('@').unwrap();
                let (from, to) = times.split_once('-').unwrap();
                let cron = |minute: &str| format!("{} * * * *", minute.parse::<u32>().unwrap());
                let bound = Some(bound.parse().unwrap());
                spec.schedules.push(Window {
                    from: cron(from),
                    to: cron(to),
                    time_zone: "Europe/Berlin".into(),
                    min: bound.filter(|_| key == "floor"),
                    max: bound.filter(|_| key == "ceiling"),
                });
            }
            _ => spec.targets.push(word.parse().unwrap()),
        }
    }
    let mut world = World::of(spec, replicas);
    world.start_ms = start_s * 1_000;
    world.step_ms = step_ms;
    world
}

fn set(world: &mut World, load: &str) {
    for word in load.split_whitespace() {
        let (metric, value) = word.split_once('=').expect("metric=value");
        world.set(metric, value.parse().unwrap());
    }
}
