//! How a container is confined.

use std::collections::BTreeMap;

use skep_model::container::Ulimit;

use crate::draft::Draft;
use crate::report::At;
use crate::units;
use crate::value::Value;

/// Size of a folder in memory of which none is said.
const TMPFS_BYTES: u64 = 64 << 20;

/// Reads a key, if it is one of a container's.
pub(super) fn read<'a>(draft: &mut Draft<'a>, key: &str, at: &At<'a>) -> bool {
    match key {
        "user" => {
            let user = at.text();
            draft.change(at, |spec| spec.container.user = user);
        }
        "read_only" => {
            let flag = at.flag().unwrap_or_default();
            draft.change(at, |spec| spec.container.read_only = flag);
        }
        "init" => {
            let flag = at.flag().unwrap_or(true);
            draft.change(at, |spec| spec.container.init = flag);
        }
        "stop_signal" => {
            let signal = at.text();
            draft.change(at, |spec| spec.container.stop_signal = signal);
        }
        "stop_grace_period" => {
            if let Some(ms) = at.read_as("a time like 1m30s", units::millis) {
                draft.change(at, |spec| spec.stop_grace_ms = ms);
            }
        }
        "shm_size" => {
            if let Some(bytes) = at.read_as("a size like 64m", units::bytes) {
                draft.change(at, |spec| spec.container.shm_bytes = bytes);
            }
        }
        "pids_limit" => pids(draft, at),
        "cap_add" | "cap_drop" => capabilities(draft, key == "cap_add", at),
        "sysctls" => sysctls(draft, at),
        "ulimits" => ulimits(draft, at),
        "tmpfs" => at.one_or_items().iter().for_each(|at| tmpfs(draft, at)),
        "security_opt" => at.items().iter().for_each(security),
        _ => return false,
    }
    true
}

pub(super) fn pids<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    match at.parsed::<i64>("a number").map(u32::try_from) {
        Some(Ok(pids)) if pids > 0 => draft.change(at, |spec| spec.container.pids = pids),
        Some(_) => at.left(
            "there is always a limit of processes",
            "`pids_limit: 4096`, the default",
        ),
        None => {}
    }
}

fn capabilities<'a>(draft: &mut Draft<'a>, is_added: bool, at: &At<'a>) {
    for at in at.items() {
        let Some(name) = at.text() else { continue };
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name).to_owned();
        draft.change(&at, |spec| {
            let set = match is_added {
                true => &mut spec.container.cap_add,
                false => &mut spec.container.cap_drop,
            };
            set.insert(name);
        });
    }
}

fn sysctls<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    for (key, value, at) in at.pairs() {
        let value = value.unwrap_or_default();
        draft.change(&at, |spec| drop(spec.container.sysctls.insert(key, value)));
    }
}

fn ulimits<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    for (name, at) in at.entries() {
        let limit = match at.value {
            Value::Map(_) => {
                let mut both = BTreeMap::new();
                for (key, at) in at.entries() {
                    match key {
                        "soft" | "hard" => both.insert(key, at.parsed::<u64>("a number")),
                        _ => {
                            at.unknown();
                            None
                        }
                    };
                }
                let of = |key| both.get(key).copied().flatten();
                of("soft").zip(of("hard"))
            }
            _ => at.parsed::<u64>("a number").map(|both| (both, both)),
        };
        if let Some((soft, hard)) = limit {
            let limit = Ulimit { soft, hard };
            draft.change(&at, |spec| {
                spec.container.ulimits.insert(name.to_owned(), limit);
            });
        }
    }
}

/// `/run`, `/run:size=64m,mode=1777`.
fn tmpfs<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    let Some(text) = at.text() else { return };
    let (path, options) = text.split_once(':').unwrap_or((&text, ""));
    let mut bytes = TMPFS_BYTES;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.strip_prefix("size=").and_then(units::bytes) {
            Some(size) => bytes = size,
            None => at.differs(
                format!("the option `{}` has no counterpart", option.escape_debug()),
                "only size=... has one",
            ),
        }
    }
    in_memory(draft, path, Some(bytes), at);
}

/// A folder in memory.
pub(super) fn in_memory<'a>(draft: &mut Draft<'a>, path: &str, bytes: Option<u64>, at: &At<'a>) {
    let bytes = bytes.unwrap_or(TMPFS_BYTES);
    draft.change(at, |spec| {
        spec.container.tmpfs.insert(path.to_owned(), bytes);
    });
}

fn security(at: &At<'_>) {
    match at.text().as_deref() {
        // It is so for every container.
        Some("no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true") => {}
        _ => at.left(
            "it has no counterpart",
            "no container gains privileges; profiles are Docker's own",
        ),
    }
}
