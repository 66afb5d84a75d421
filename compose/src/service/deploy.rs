//! `deploy` and its older spellings: how many, with what, and how they are replaced.

use skep_model::run::Mode;
use skep_model::spec::{MIN_MEMORY_BYTES, Resources};

use super::{container, labels};
use crate::draft::Draft;
use crate::report::At;
use crate::units;

const CPUS: &str = "an amount of cores like 0.5";
const SIZE: &str = "a size like 512m";

/// Reads `deploy`.
pub(super) fn read<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    for (key, at) in at.entries() {
        match key {
            "replicas" => replicas(draft, &at),
            "mode" => mode(draft, &at),
            "labels" => labels::read(draft, &at),
            "resources" => resources(draft, &at),
            "update_config" => update(draft, &at),
            "restart_policy" => policy(draft, &at),
            "placement" => at.left("nodes have other labels here", "[placement] in skep.toml"),
            "rollback_config" => at.left(
                "a release that fails was never let in: there is nothing to go back from",
                "`skep rollback` goes back by hand, at once",
            ),
            "endpoint_mode" => at.left(
                "names lead to healthy allocations by themselves",
                "leave it out",
            ),
            _ if key.starts_with("x-") => at.take(),
            _ => at.unknown(),
        }
    }
}

/// Reads `replicas` or `scale`.
pub(super) fn replicas<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    if let Some(replicas) = at.parsed("a number") {
        draft.change(at, |spec| spec.replicas = replicas);
    }
}

fn mode<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    let mode = match at.text().as_deref() {
        Some("replicated") | None => return,
        Some("global") => Mode::System,
        Some("replicated-job") => Mode::Batch,
        Some(_) => return at.left("no mode of Skep's", "replicated, global or replicated-job"),
    };
    draft.change(at, |spec| spec.run.mode = mode);
}

fn resources<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    for (key, at) in at.entries() {
        let is_limit = key == "limits";
        if !is_limit && key != "reservations" {
            at.unknown();
            continue;
        }
        for (key, at) in at.entries() {
            match (key, is_limit) {
                ("cpus", true) => amount(draft, "cpus", &at),
                ("cpus", false) => {
                    draft.amounts.cpu = at.read_as(CPUS, units::cpu_millis).zip(Some(at))
                }
                ("memory", true) => amount(draft, "mem_limit", &at),
                ("memory", false) => amount(draft, "mem_reservation", &at),
                ("pids", true) => container::pids(draft, &at),
                ("devices" | "generic_resources", _) => {
                    at.left("devices are not given to containers", "run it beside Skep");
                }
                _ => at.unknown(),
            }
        }
    }
}

/// Reads an amount by its older name.
pub(super) fn amount<'a>(draft: &mut Draft<'a>, key: &str, at: &At<'a>) {
    let amounts = &mut draft.amounts;
    let bytes = |at: &At<'a>| at.read_as(SIZE, units::bytes).zip(Some(at.clone()));
    match key {
        "cpus" => amounts.cpu_limit = at.read_as(CPUS, units::cpu_millis).zip(Some(at.clone())),
        "mem_limit" => amounts.memory_limit = bytes(at),
        "mem_reservation" => amounts.memory = bytes(at),
        // -1 is all the swap there is.
        _ if at.value == &crate::value::Value::Number("-1".to_owned()) => {
            at.left(
                "there is always a limit of swap",
                "as `memswap_limit`, memory and swap together",
            );
        }
        _ => amounts.with_swap = bytes(at),
    }
}

/// What all amounts together mean. A limit alone is also what is asked of a node: it could be used.
pub(crate) fn settle<'a>(draft: &mut Draft<'a>, service: &At<'a>) {
    let amounts = std::mem::take(&mut draft.amounts);
    let usual = Resources::default();
    let cpu_limit = amounts.cpu_limit.as_ref().map_or(0, |it| it.0);
    let cpu = amounts.cpu.as_ref().map(|it| it.0).filter(|it| *it > 0);
    let cpu = cpu.unwrap_or(match cpu_limit {
        0 => usual.cpu_millis,
        limit => usual.cpu_millis.min(limit),
    });
    if let Some((_, at)) = amounts.cpu_limit.or(amounts.cpu) {
        draft.change(&at, |spec| {
            spec.resources.cpu_millis = cpu;
            spec.resources.cpu_limit_millis = cpu_limit;
        });
    }
    let limit = amounts.memory_limit.as_ref().map_or(0, |it| it.0);
    let memory = amounts.memory.as_ref().map(|it| it.0).filter(|it| *it > 0);
    let (memory, ceiling) = match (memory, limit) {
        (None, 0) => (usual.memory_bytes, 0),
        (None, limit) => (limit, 0),
        (Some(memory), 0) => (memory, 0),
        (Some(memory), limit) => (memory, limit),
    };
    let told = "Compose sets no limit on memory; Skep always does";
    let most = memory.max(ceiling).max(MIN_MEMORY_BYTES) >> 20;
    if limit == 0 {
        let hint = format!("deploy.resources.limits.memory, where {most} MiB are not right");
        service.note(told, hint);
    }
    if let Some((_, at)) = amounts.memory_limit.or(amounts.memory) {
        draft.change(&at, |spec| {
            spec.resources.memory_bytes = memory;
            spec.resources.memory_limit_bytes = ceiling;
        });
    }
    if let Some((both, at)) = amounts.with_swap {
        let swap = both.saturating_sub(draft.spec.resources.memory_ceiling_bytes());
        draft.change(&at, |spec| spec.container.swap_bytes = swap);
    }
}

fn update<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    let mut parallelism = 1;
    let mut is_start_first = false;
    for (key, at) in at.entries() {
        match key {
            "parallelism" => parallelism = at.parsed::<u32>("a number").unwrap_or(1),
            "order" => match at.text().as_deref() {
                Some("start-first") => is_start_first = true,
                Some("stop-first") | None => is_start_first = false,
                Some(_) => at.left("no order of Compose's", "start-first or stop-first"),
            },
            "failure_action" => match at.text().as_deref() {
                // The old release goes on: it was never taken away.
                Some("rollback" | "pause") => {}
                _ => at.left(
                    "an update that fails ends",
                    "rollback: the old release goes on serving",
                ),
            },
            "delay" | "monitor" => at.left(
                "an update goes on once what it started is healthy",
                "[rollout] strategy = \"canary\" with pauses in skep.toml",
            ),
            "max_failure_ratio" => at.left("the first failure ends an update", "leave it out"),
            _ if key.starts_with("x-") => at.take(),
            _ => at.unknown(),
        }
    }
    draft.change(at, |spec| {
        // 0: all at once.
        let together = match parallelism {
            0 => spec.replicas.max(1),
            some => some,
        };
        if is_start_first {
            spec.update.max_surge = together;
        } else {
            spec.update.max_surge = 0;
            spec.rollout.max_unavailable = together;
        }
    });
}

fn policy<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    for (key, at) in at.entries() {
        match key {
            "condition" => match at.text().as_deref() {
                Some("any" | "on-failure") | None => {}
                _ => once(&at),
            },
            "max_attempts" => {
                if let Some(attempts) = at.parsed("a number") {
                    draft.change(&at, |spec| spec.restart.attempts = attempts);
                }
            }
            "window" | "delay" => {
                let Some(ms) = at.read_as("a time like 1m30s", units::millis) else {
                    continue;
                };
                draft.change(&at, |spec| match key {
                    "window" => spec.restart.window_ms = ms,
                    _ => {
                        spec.restart.delay_ms = ms;
                        spec.restart.max_delay_ms = spec.restart.max_delay_ms.max(ms);
                    }
                });
            }
            _ => at.unknown(),
        }
    }
}

/// Reads `restart`.
pub(super) fn restart<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    let Some(text) = at.text() else { return };
    match text.split_once(':') {
        None if matches!(&*text, "always" | "unless-stopped" | "on-failure") => {}
        None if matches!(&*text, "no" | "false") => once(at),
        Some(("on-failure", attempts)) => match attempts.parse() {
            Ok(attempts) => draft.change(at, |spec| spec.restart.attempts = attempts),
            Err(_) => at.left("not a number of attempts", "on-failure:5"),
        },
        _ => at.left(
            "no policy of Compose's",
            "always, unless-stopped, on-failure or no",
        ),
    }
}

fn once(at: &At<'_>) {
    at.differs(
        "a container that ends is started again",
        "[run] mode = \"batch\" in skep.toml for what runs once",
    );
}
