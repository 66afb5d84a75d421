//! The text tables under `cases/`: a cluster, a service and its allocations, and the plan that is
//! expected, line by line. To add one, write the first half and copy what the failure prints.
//!
//! Each case is also planned with its allocations the other way round, checked by the leader's
//! check, and planned again after it was applied: that must change nothing.

#![allow(clippy::disallowed_methods, reason = "tests may read their own tables")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::{World, allocation, node, resources, service, target};
use skep_model::allocation::{Allocation, Desired, State};
use skep_model::id::{AllocationId, NodeId};
use skep_model::node::{Admin, NodeStatus};
use skep_model::placement::{CutOff, Strategy};
use skep_model::rollout::{self, CanaryStep, Phase, Promote};
use skep_model::service::Target;
use skep_model::spec::ServiceType;
use skep_scheduler::plan::{Plan, fits};

struct Case {
    world: World,
    drained: BTreeSet<AllocationId>,
}

#[test]
fn every_table_gives_its_plan() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "txt"));
    files.sort();
    let (mut count, mut failures) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for block in text.split("\n== ").skip(1) {
            let (name, body) = block.split_once('\n').unwrap();
            let (given, expected) = body.split_once("=>\n").expect("every case has a `=>`");
            let found = run(name, given);
            count += 1;
            if found.trim() != expected.trim() {
                let file = file.file_name().unwrap().to_string_lossy();
                failures.push(format!(
                    "{file}: {name}\nexpected:\n{expected}\nfound:\n{found}"
                ));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} failed:\n\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(count >= 30, "only {count} cases were found");
}

fn run(name: &str, given: &str) -> String {
    let case = parse(given).unwrap_or_else(|line| panic!("{name}: not understood: `{line}`"));
    let mut world = case.world;
    let cluster = world.cluster();
    let drained = |a: &Allocation| case.drained.contains(&a.id);
    let plan = world.plan(&drained);
    assert_eq!(fits(&cluster, &plan), Ok(()), "{name}: the leader's check");
    let reversed = world.allocations.values().rev().collect();
    assert_eq!(
        world.plan_on(&cluster, &drained, reversed),
        plan,
        "{name}: the other way round"
    );
    let text = print(&world, &plan);
    world.apply(&plan);
    let known: BTreeSet<_> = plan.desires.iter().map(|d| d.allocation).collect();
    let again = world.plan(&|a| drained(a) && !known.contains(&a.id));
    assert!(
        again.is_empty() || plan.is_partial,
        "{name}: planned again:\n{}",
        print(&world, &again)
    );
    text
}

fn parse(given: &str) -> Result<Case, String> {
    let mut world = World::new(service(1, 1));
    let mut drained = BTreeSet::new();
    for line in given
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let understood = match words[0] {
            "now" => words
                .get(1)
                .and_then(|w| seconds(w))
                .map(|now| world.now_ms = now),
            "node" => parse_node(&mut world, &words[1..]),
            "service" => parse_service(&mut world, &words[1..]),
            "release" => parse_release(&mut world, &words[1..]),
            "meta" => parse_meta(&mut world, &words[1..]),
            "place" => parse_place(&mut world, &words[1..]),
            "other" => parse_other(&mut world, &words[1..]),
            "move" => parse_move(&mut world, &words[1..]),
            "alloc" => parse_allocation(&mut world, &mut drained, &words[1..]),
            _ => None,
        };
        understood.ok_or(line)?;
    }
    Ok(Case { world, drained })
}

fn parse_node(world: &mut World, words: &[&str]) -> Option<()> {
    let mut node = node(
        node_id(words[0])?.as_u128(),
        millis(words.get(1)?)?,
        mib(words.get(2)?)?,
    );
    node.status = match words.get(3).copied() {
        None => NodeStatus::Ready,
        Some("lost") => NodeStatus::Lost,
        Some("runtime-down") => NodeStatus::RuntimeDown,
        Some("runtime-wedged") => NodeStatus::RuntimeWedged,
        Some("cordoned" | "drain") => NodeStatus::Ready,
        Some(_) => return None,
    };
    match words.get(3).copied() {
        Some("cordoned") => node.admin = Admin::Cordoned,
        Some("drain") => {
            let deadline_ms = seconds(words.get(4)?)?;
            node.admin = Admin::Draining { deadline_ms };
        }
        _ => {}
    }
    world.nodes.insert(node.id, node);
    Some(())
}

/// `move 1 b`
fn parse_move(world: &mut World, words: &[&str]) -> Option<()> {
    let id = AllocationId::from_u128(words.first()?.parse().ok()?);
    world.around.moving.insert(id, node_id(words.get(1)?)?);
    Some(())
}

/// `meta a zone=b tier=pro device.gpu=2`
fn parse_meta(world: &mut World, words: &[&str]) -> Option<()> {
    let node = world.nodes.get_mut(&node_id(words.first()?)?)?;
    for word in &words[1..] {
        let (key, value) = word.split_once('=')?;
        match key.strip_prefix("device.") {
            Some(device) => drop(
                node.facts
                    .devices
                    .insert(device.into(), value.parse().ok()?),
            ),
            None => drop(node.meta.insert(key.into(), value.into())),
        }
    }
    Some(())
}

/// `place constraint zone = b`, and so on: one rule of the service's placement.
fn parse_place(world: &mut World, words: &[&str]) -> Option<()> {
    let placement = &mut world.service.spec.placement;
    let rest = words.get(1..)?.join(" ");
    match *words.first()? {
        "pool" => placement.pool = Some(rest),
        "constraint" => placement.constraints.push(rest.parse().ok()?),
        "relaxed" => placement.relaxed = true,
        "spread" => placement.spread.push(rest.parse().ok()?),
        "max-per" => placement.max_per.push(rest.parse().ok()?),
        "affinity" => placement.affinities.push(rest.parse().ok()?),
        "strategy" => {
            placement.strategy = Some(match &*rest {
                "spread" => Strategy::Spread,
                "balanced" => Strategy::Balanced,
                _ => return None,
            });
        }
        "port" => placement.ports.push(rest.parse().ok()?),
        "device" => {
            let (name, count) = rest.split_once(' ')?;
            placement.devices.insert(name.into(), count.parse().ok()?);
        }
        "priority" => placement.priority = rest.parse().ok()?,
        "stop-after" => {
            let after_ms = seconds(&rest)?;
            placement.cut_off = CutOff::Stop { after_ms };
        }
        _ => return None,
    }
    placement.check("placement").ok()
}

fn parse_service(world: &mut World, words: &[&str]) -> Option<()> {
    let mut words = words.iter();
    let service = &mut world.service;
    while let Some(word) = words.next() {
        match *word {
            "replicas" => service.spec.replicas = words.next()?.parse().ok()?,
            "surge" => service.spec.update.max_surge = words.next()?.parse().ok()?,
            "live" => service.live = Some(parse_target(words.next()?)?),
            "rollout" => service.rollout = Some(parse_target(words.next()?)?),
            "worker" => service.spec.kind = ServiceType::Worker,
            "unavailable" => service.spec.rollout.max_unavailable = words.next()?.parse().ok()?,
            "blue-green" => service.spec.rollout.strategy = rollout::Strategy::BlueGreen,
            "manual" => service.spec.rollout.promote = Promote::Manual,
            "keep" => service.spec.rollout.keep_ms = seconds(words.next()?)?,
            "canary" => {
                service.spec.rollout.strategy = rollout::Strategy::Canary;
                let steps = words.next()?.split(',').map(parse_step);
                service.spec.rollout.steps = steps.collect::<Option<_>>()?;
            }
            "phase" => service.progress.phase = parse_phase(words.next()?)?,
            "since" => service.progress.since_ms = seconds(words.next()?)?,
            "called" => world.around.has_callers = true,
            "prepared" => world.around.prepared = true,
            "paused" => service.progress.paused = true,
            "stopped" => service.stopped = true,
            "removing" => service.removing = true,
            _ => return None,
        }
    }
    Some(())
}

/// `10%`, or `10%/60s` with its pause.
fn parse_step(word: &str) -> Option<CanaryStep> {
    let (percent, pause) = word
        .split_once('/')
        .map_or((word, None), |(p, s)| (p, Some(s)));
    Some(CanaryStep {
        percent: percent.strip_suffix('%')?.parse().ok()?,
        pause_ms: match pause {
            Some(pause) => Some(seconds(pause)?),
            None => None,
        },
    })
}

/// `before`, `step:0`, `trial` or `kept:90s`.
fn parse_phase(word: &str) -> Option<Phase> {
    match word.split_once(':') {
        None if word == "before" => Some(Phase::Before),
        None => (word == "trial").then_some(Phase::Trial),
        Some(("step", step)) => Some(Phase::Canary {
            step: step.parse().ok()?,
        }),
        Some(("kept", until)) => Some(Phase::Kept {
            until_ms: seconds(until)?,
        }),
        Some(_) => None,
    }
}

fn parse_release(world: &mut World, words: &[&str]) -> Option<()> {
    if words == ["gone"] {
        world.has_release = false;
        return Some(());
    }
    world.needs = resources(millis(words[0])?, mib(words.get(1)?)?);
    world.only_on = match words.get(2) {
        Some(&"only-on") => Some(node_id(words.get(3)?)?),
        Some(_) => return None,
        None => None,
    };
    Some(())
}

fn parse_other(world: &mut World, words: &[&str]) -> Option<()> {
    let id = AllocationId::from_u128(500_000 + world.others.len() as u128);
    let needs = resources(millis(words.get(1)?)?, mib(words.get(2)?)?);
    world.others.insert(id, (node_id(words[0])?, needs));
    Some(())
}

fn parse_allocation(
    world: &mut World,
    drained: &mut BTreeSet<AllocationId>,
    words: &[&str],
) -> Option<()> {
    let id: u128 = words[0].parse().ok()?;
    let mut allocation = allocation(id, parse_target(words.get(1)?)?, node_id(words.get(2)?)?);
    allocation.desired = match *words.get(3)? {
        "run" => Desired::Run,
        "drain" => Desired::Drain,
        "stop" => Desired::Stop,
        _ => return None,
    };
    let state = words.get(4)?;
    allocation.observed.state = State::ALL.into_iter().find(|s| s.as_str() == *state)?;
    match words.get(5) {
        None => {}
        Some(&"drained") => drop(drained.insert(allocation.id)),
        Some(&"since") => allocation.observed_ms = seconds(words.get(6)?)?,
        Some(_) => return None,
    }
    world.allocations.insert(allocation.id, allocation);
    Some(())
}

/// `2@7`: release 2, brought by deployment 7.
fn parse_target(word: &str) -> Option<Target> {
    let (release, deployment) = word.split_once('@')?;
    Some(target(release.parse().ok()?, deployment.parse().ok()?))
}

fn node_id(word: &str) -> Option<NodeId> {
    let letter = word.bytes().next().filter(|b| b.is_ascii_lowercase())?;
    Some(NodeId::from_u128(u128::from(letter - b'a') + 1))
}

fn millis(word: &str) -> Option<u32> {
    word.strip_suffix('m')?.parse().ok()
}

fn mib(word: &str) -> Option<u64> {
    word.strip_suffix("MiB")?.parse().ok()
}

fn seconds(word: &str) -> Option<u64> {
    Some(word.strip_suffix('s')?.parse::<u64>().ok()? * 1_000)
}

fn print(world: &World, plan: &Plan) -> String {
    let mut lines = Vec::new();
    for desire in &plan.desires {
        let word = match desire.desired {
            Desired::Run => "run",
            Desired::Drain => "drain",
            Desired::Stop => "stop",
        };
        lines.push(format!(
            "{word} {}: {}",
            desire.allocation.as_u128(),
            desire.reason
        ));
    }
    for desire in &plan.displaced {
        lines.push(format!(
            "displace {}: {}",
            desire.allocation.as_u128(),
            desire.reason
        ));
    }
    for start in &plan.starts {
        lines.push(format!(
            "start on {}: {}",
            world.nodes[&start.node].name, start.reason
        ));
    }
    if let Some(problem) = &plan.refusal {
        lines.push(format!("refused: {}", problem.message));
        lines.extend(problem.hint.iter().map(|hint| format!("hint: {hint}")));
    }
    if !plan.failed_new.is_empty() {
        let ids: Vec<_> = plan
            .failed_new
            .iter()
            .map(|id| id.as_u128().to_string())
            .collect();
        lines.push(format!("failed: {}", ids.join(" ")));
    }
    if let Some(advance) = &plan.advance {
        let phase = match advance.phase {
            Phase::Rolling => "rolling".to_owned(),
            Phase::Canary { step } => format!("step:{step}"),
            Phase::Trial => "trial".to_owned(),
            Phase::Before => "before".to_owned(),
            Phase::Kept { until_ms } => format!("kept:{}s", until_ms / 1_000),
        };
        lines.push(format!("advance to {phase}: {}", advance.reason));
    }
    if let Some(at) = plan.wake_at_ms {
        lines.push(format!("wake at {}s", at / 1_000));
    }
    lines.push(
        match (plan.is_converged, plan.is_healthy) {
            (true, _) => "converged",
            (false, true) => "healthy",
            (false, false) => "under way",
        }
        .to_owned(),
    );
    lines.join("\n") + "\n"
}
