//! The text tables under `cases-jobs/`: a service with its jobs, and the plan that is expected.

#![allow(clippy::disallowed_methods, reason = "tests may read their own tables")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fmt::Write as _;
use std::path::Path;

use common::jobs::{Jobs, job_id};
use common::{allocation, node, target};
use skep_model::allocation::{Allocation, Desired, State};
use skep_model::id::{AllocationId, DeploymentId, NodeId};
use skep_model::job::{Cause, Job, Status};
use skep_model::node::{Admin, NodeStatus};
use skep_model::rollout::Phase;
use skep_model::run::{Mode, Overlap};
use skep_scheduler::jobs::Plan;

#[test]
fn every_table_gives_its_plan() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases-jobs");
    let (mut count, mut failures) = (0, Vec::new());
    for file in std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
    {
        if file.extension().is_none_or(|end| end != "txt") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for block in text.split("\n== ").skip(1) {
            let (name, body) = block.split_once('\n').unwrap();
            let (given, expected) = body.split_once("=>\n").expect("every case has a `=>`");
            let found = run(name, given);
            count += 1;
            if found.trim() != expected.trim() {
                failures.push(format!("{name}\nexpected:\n{expected}\nfound:\n{found}"));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} failed:\n\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(count >= 25, "only {count} cases were found");
}

fn run(name: &str, given: &str) -> String {
    let mut world = parse(given);
    let plan = world.plan();
    let mut turned = world.clone();
    turned.is_turned = true;
    assert_eq!(
        turned.plan(),
        plan,
        "{name}: order of input does not matter"
    );
    let text = describe(&plan);
    world.settle();
    assert!(
        world.plan().is_empty(),
        "{name}: planned again\n{}",
        describe(&world.plan())
    );
    text
}

fn parse(given: &str) -> Jobs {
    let mut world = Jobs::new();
    let mut until = 0;
    let mut is_other = false;
    for line in given.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let value = |name: &str| {
            let found = words
                .iter()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.map(|text| text.parse::<u64>().unwrap())
        };
        let has = |name: &str| words.contains(&name);
        match word {
            "now" => world.now_ms = rest.parse::<u64>().unwrap() * 1_000,
            "service" => {
                let run = &mut world.service.spec.run;
                run.mode = *Mode::ALL
                    .iter()
                    .find(|mode| mode.as_str() == words[0])
                    .unwrap();
                run.retries = value("retries").unwrap_or(0) as u32;
                run.deadline_ms = value("deadline").unwrap_or(0) * 1_000;
                run.backoff_ms = value("backoff").unwrap_or(5) * 1_000;
                run.catch_up_ms = value("catch_up").unwrap_or(600) * 1_000;
                run.paused = has("paused");
                run.overlap = match words.iter().find_map(|word| word.strip_prefix("overlap=")) {
                    Some("allow") => Overlap::Allow,
                    Some("replace") => Overlap::Replace,
                    _ => Overlap::Forbid,
                };
                if let Some(limit) = value("before") {
                    world.service.progress.phase = Phase::Before;
                    world.service.spec.hooks.release_timeout_ms = limit * 1_000;
                }
                world.service.stopped = has("stopped");
                world.service.removing = has("removing");
            }
            "schedule" => world.service.spec.run.schedule = Some(rest.to_owned()),
            "zone" => world.service.spec.run.time_zone = rest.to_owned(),
            "live" => world.service.live = Some(of_release(words[0])),
            "rollout" => world.service.rollout = Some(of_release(words[0])),
            "book" => {
                until = value("until").unwrap_or(0) * 1_000;
                is_other = has("other");
                world.book.deployment =
                    value("deployment").map(|id| DeploymentId::from_u128(id.into()));
            }
            "node" => {
                let at = u128::from(words[0].as_bytes()[0] - b'a') + 1;
                let mut made = node(at, 4_000, words[1].parse().unwrap());
                if let Some(lost) = value("lost") {
                    made.status = NodeStatus::Lost;
                    made.status_ms = lost * 1_000;
                }
                if let Some(drain) = value("drain") {
                    let deadline_ms = drain * 1_000;
                    made.admin = Admin::Draining { deadline_ms };
                }
                world.nodes.insert(made.id, made);
            }
            "job" => {
                let made = job(&words, &value, &has);
                world.jobs.insert(made.id, made);
            }
            "attempt" => {
                let made = attempt(&words, &value, &has);
                world.attempts.insert(made.id, made);
            }
            other => panic!("{other}?"),
        }
    }
    if until > 0 {
        let run = &world.service.spec.run;
        let name = format!(
            "{} ({})",
            run.schedule.clone().unwrap_or_default(),
            run.time_zone
        );
        world.book.following = if is_other { "other".into() } else { name };
        world.book.until_ms = until;
    }
    world
}

fn of_release(text: &str) -> skep_model::service::Target {
    let number: u64 = text.parse().unwrap();
    target(number, number.into())
}

fn job(words: &[&str], value: &dyn Fn(&str) -> Option<u64>, has: &dyn Fn(&str) -> bool) -> Job {
    let cause = match words[1] {
        "deploy" => Cause::Deployment(DeploymentId::from_u128(1)),
        "before" => Cause::Release(DeploymentId::from_u128(1)),
        "asked" | "aside" => Cause::Request {
            by: "admin".into(),
            command: if words[1] == "aside" {
                vec!["x".into()]
            } else {
                Vec::new()
            },
            variables: Default::default(),
        },
        due => Cause::Schedule {
            at_ms: due.strip_prefix("due@").unwrap().parse::<u64>().unwrap() * 1_000,
        },
    };
    let status = Status::ALL
        .iter()
        .find(|status| status.as_str() == words[2]);
    let node = words.iter().find_map(|word| word.strip_prefix("on="));
    let mut made = Job::new(
        job_id(words[0].parse().unwrap()),
        common::jobs::SERVICE,
        target(1, 1),
        cause,
    );
    made.status = *status.unwrap();
    made.created_ms = value("made").unwrap_or(0) * 1_000;
    made.attempts = value("attempts").unwrap_or(0) as u32;
    made.failed_here = value("failed_here").unwrap_or(0) as u32;
    made.allocation = value("at").map(|id| AllocationId::from_u128(id.into()));
    made.node = node.map(node_id);
    made.not_before_ms = value("not_before").unwrap_or(0) * 1_000;
    made.cancel = has("cancel");
    made.limits.retries = value("retries").unwrap_or(0) as u32;
    made.limits.deadline_ms = value("deadline").unwrap_or(0) * 1_000;
    made.limits.backoff_ms = 5_000;
    made.limits.max_backoff_ms = 300_000;
    made
}

fn attempt(
    words: &[&str],
    value: &dyn Fn(&str) -> Option<u64>,
    has: &dyn Fn(&str) -> bool,
) -> Allocation {
    let id: u128 = words[0].parse().unwrap();
    let mut made = allocation(id, target(1, 1), node_id(words[2]));
    made.job = Some(job_id(words[1].parse().unwrap()));
    made.observed.state = *State::ALL
        .iter()
        .find(|state| state.as_str() == words[3])
        .unwrap();
    made.observed.exit_code = value("exit").map(|code| code as i32);
    made.observed_ms = value("seen").unwrap_or(0) * 1_000;
    if has("desired=drain") {
        made.desired = Desired::Drain;
        made.reason = "makes way for `web`".to_owned();
    }
    if has("desired=stop") {
        made.desired = Desired::Stop;
    }
    made
}

fn node_id(name: &str) -> NodeId {
    NodeId::from_u128(u128::from(name.as_bytes()[0] - b'a') + 1)
}

fn letter(node: NodeId) -> char {
    char::from(b'a' + u8::try_from(node.as_u128() - 1).unwrap())
}

fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    for job in &plan.jobs {
        let cause = match &job.cause {
            Cause::Deployment(id) => format!("deployment {}", id.as_u128()),
            Cause::Schedule { at_ms } => format!("due@{}", at_ms / 1_000),
            Cause::Request { .. } => "asked".to_owned(),
            Cause::Release(id) => format!("release phase {}", id.as_u128()),
        };
        let id = job.id.as_u128();
        let id = if id < 1_000 {
            id.to_string()
        } else {
            "new".to_owned()
        };
        write!(text, "job {id} {cause}: {}", job.status.as_str()).unwrap();
        if let Some(code) = job.exit_code {
            write!(text, ", exited {code}").unwrap();
        }
        if job.status == Status::Pending && job.not_before_ms > 0 {
            write!(text, ", not before {}", job.not_before_ms / 1_000).unwrap();
        }
        if let Some(problem) = &job.problem {
            write!(text, ", {}", problem.message).unwrap();
        }
        text.push('\n');
    }
    for start in &plan.starts {
        writeln!(
            text,
            "start on {}: {}",
            letter(start.node),
            start
                .reason
                .split(':')
                .next()
                .unwrap()
                .split(" of")
                .next()
                .unwrap()
        )
        .unwrap();
    }
    for desire in &plan.desires {
        writeln!(
            text,
            "stop {}: {}",
            desire.allocation.as_u128(),
            desire.reason
        )
        .unwrap();
    }
    if let Some(deployment) = plan.deployment {
        writeln!(text, "made for deployment {}", deployment.as_u128()).unwrap();
    }
    if let Some(following) = &plan.following {
        let schedule = if following.schedule.is_empty() {
            "nothing"
        } else {
            &following.schedule
        };
        writeln!(
            text,
            "follow {schedule} until {}",
            following.until_ms / 1_000
        )
        .unwrap();
    }
    if let Some(problem) = &plan.refusal {
        writeln!(text, "refused: {}", problem.message).unwrap();
    }
    if let Some(at) = plan.wake_at_ms {
        writeln!(text, "wake {}", at / 1_000).unwrap();
    }
    text
}

#[test]
fn a_quota_holds_for_jobs_too_and_is_named() {
    let mut world = parse("now 100\nservice batch\nrollout 1\nnode a 4096");
    let full = |used| skep_scheduler::quota::Allowance {
        scope: "workspace `acme`".into(),
        quota: skep_model::settings::Quota {
            allocations: Some(3),
            ..Default::default()
        },
        used: Default::default(),
        allocations: used,
    };
    world.quotas = vec![full(3)];
    let plan = world.plan();
    assert!(plan.starts.is_empty());
    let problem = plan.refusal.expect("refused");
    assert!(
        problem
            .message
            .contains("workspace `acme`: allocations needs 1, 0 left of 3"),
        "{problem}"
    );
    world.quotas = vec![full(2)];
    assert_eq!(world.plan().starts.len(), 1);
}
