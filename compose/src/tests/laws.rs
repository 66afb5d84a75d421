//! Whatever a file says, nothing panics, and each leaf of it is taken over or told.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use super::golden::{beside, files};
use crate::report::{Book, below, item};
use crate::value::{self, Value};
use crate::{Beside, Input, Outcome, read_into};

/// Files that are made up.
const CASES: u32 = 1_000;

/// Paths of scalars, and of lists and maps with nothing in them.
fn leaves(value: &Value, path: &str, all: &mut Vec<String>) {
    match value {
        Value::List(items) if !items.is_empty() => {
            for (number, value) in items.iter().enumerate() {
                leaves(value, &item(path, number), all);
            }
        }
        Value::Map(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                leaves(value, &below(path, key), all);
            }
        }
        _ => all.push(path.to_owned()),
    }
}

/// Whether `path` is that place or below it.
fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Leaves of the file that are neither taken over nor told; none: it is refused as a whole.
fn passed_over(input: &Input<'_>) -> Option<Vec<String>> {
    let book = Book::default();
    read_into(input, &book).ok()?;
    let (reports, taken) = book.close();
    // What differs is taken, too: a remark on a service as a whole must not stand for all below it.
    let left = reports
        .into_iter()
        .filter(|it| it.outcome == Outcome::Left && it.kind != "variable");
    let known: BTreeSet<String> = left.map(|it| it.path).chain(taken).collect();
    let mut all = Vec::new();
    leaves(&value::read(input.text).expect("read before"), "", &mut all);
    all.retain(|leaf| !known.iter().any(|place| is_within(leaf, place)));
    Some(all)
}

fn passed_over_in(text: &str) -> Option<Vec<String>> {
    let profiles = BTreeSet::from(["p".to_owned()]);
    passed_over(&Input {
        text,
        variables: &BTreeMap::new(),
        profiles: &profiles,
        read: &|path| match path {
            "a" => Ok(Beside::File("A=1\nPORT=80\n".to_owned())),
            "b" => Err("not below the folder".to_owned()),
            "80" => Ok(Beside::Folder),
            _ => Ok(Beside::Nothing),
        },
    })
}

#[test]
fn files_of_well_known_apps_lose_nothing() {
    for (folder, text) in files() {
        let variables = BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]);
        let input = Input {
            text: &text,
            variables: &variables,
            profiles: &BTreeSet::new(),
            read: &|path| beside(&folder, path),
        };
        if !folder.ends_with("odd") {
            let lost = passed_over(&input);
            assert_eq!(lost, Some(Vec::new()), "{}", folder.display());
        }
    }
}

#[test]
fn a_key_that_nobody_takes_is_seen() {
    // The law can fail: an entry that is asked for and left alone is found.
    let book = Book::default();
    let value = value::read("a: {b: 1, c: [2]}").expect("read");
    let top = crate::report::At::top(&value, &book);
    for (key, at) in top.entries().into_iter().flat_map(|(_, at)| at.entries()) {
        if key == "b" {
            at.take();
        }
    }
    let (_, taken) = book.close();
    let mut all = Vec::new();
    leaves(&value, "", &mut all);
    all.retain(|leaf| !taken.iter().any(|place| is_within(leaf, place)));
    assert_eq!(all, ["a.c[0]"]);
}

const TOP: &[&str] = &[
    "services", "volumes", "networks", "secrets", "configs", "name", "version", "include", "x-a",
    "odd",
];

/// Keys of Compose, of every level.
const KEYS: &[&str] = &[
    "image",
    "build",
    "context",
    "dockerfile",
    "args",
    "target",
    "command",
    "entrypoint",
    "ports",
    "published",
    "protocol",
    "expose",
    "networks",
    "hostname",
    "container_name",
    "labels",
    "environment",
    "env_file",
    "path",
    "required",
    "format",
    "secrets",
    "configs",
    "source",
    "uid",
    "mode",
    "volumes",
    "type",
    "read_only",
    "tmpfs",
    "size",
    "volume",
    "nocopy",
    "healthcheck",
    "test",
    "interval",
    "timeout",
    "retries",
    "start_period",
    "disable",
    "start_interval",
    "depends_on",
    "condition",
    "restart",
    "deploy",
    "replicas",
    "resources",
    "limits",
    "reservations",
    "cpus",
    "memory",
    "pids",
    "update_config",
    "parallelism",
    "order",
    "failure_action",
    "delay",
    "restart_policy",
    "max_attempts",
    "window",
    "scale",
    "mem_limit",
    "memswap_limit",
    "cap_add",
    "cap_drop",
    "user",
    "init",
    "ulimits",
    "nofile",
    "soft",
    "hard",
    "sysctls",
    "security_opt",
    "stop_signal",
    "stop_grace_period",
    "shm_size",
    "pids_limit",
    "privileged",
    "extends",
    "profiles",
    "pull_policy",
    "logging",
    "driver",
    "external",
    "name",
    "file",
    "content",
    "traefik.enable",
    "traefik.http.routers.a.rule",
    "x-odd",
    "odd.key",
    "A",
    "PORT",
    "data",
];

const TEXTS: &[&str] = &[
    "",
    "a",
    "b",
    "db",
    "data",
    "80",
    "8080:80",
    "5432",
    "443",
    "53/udp",
    "1-2",
    "/a",
    "./a",
    "../a",
    "data:/a",
    "data:/a:ro",
    "/a:/a",
    "A=1",
    "PORT=80",
    "A",
    "true",
    "10s",
    "1m30s",
    "512m",
    "0.5",
    "NAME=x y",
    "CMD",
    "CMD-SHELL",
    "NONE",
    "bind",
    "tmpfs",
    "start-first",
    "service_healthy",
    "service_completed_successfully",
    "always",
    "on-failure:3",
    "no",
    "p",
    "traefik.enable=true",
    "traefik.http.routers.a.rule=Host(`a.b`)",
    "root",
    "ALL",
    "${A:-b}",
    "${A}",
    "$$",
    "a 'b",
    "ä\n\u{0}",
];

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => select(TEXTS).prop_map(|text| serde_json::to_string(text).expect("text")),
        2 => select(&["0", "1", "80", "8080", "0440", "-1", "1.5", "99999999999"][..]).prop_map(str::to_owned),
        1 => select(&["true", "false", "null", "[]", "{}"][..]).prop_map(str::to_owned),
    ]
}

fn map(entries: &BTreeMap<&str, String>) -> String {
    let lines = entries.iter().map(|(key, value)| {
        let key = serde_json::to_string(key).expect("text");
        format!("{key}: {value}")
    });
    format!("{{{}}}", lines.collect::<Vec<_>>().join(", "))
}

/// YAML of Compose's words in any order.
fn node() -> impl Strategy<Value = String> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::btree_map(select(KEYS), inner, 0..6)
                .prop_map(|entries| map(&entries)),
        ]
    })
}

/// A service that is accepted unless its keys are wrong as a whole.
fn service() -> impl Strategy<Value = String> {
    prop::collection::btree_map(select(KEYS), node(), 0..8).prop_map(|mut entries| {
        entries.insert("image", "\"a\"".to_owned());
        map(&entries)
    })
}

fn file() -> impl Strategy<Value = String> {
    let others = prop::collection::btree_map(select(&TOP[1..]), node(), 0..4);
    (service(), service(), others).prop_map(|(one, two, mut entries)| {
        entries.insert("services", format!("{{\"db\": {one}, \"a_b\": {two}}}"));
        map(&entries)
    })
}

#[test]
fn each_leaf_is_taken_over_or_told() {
    let accepted = Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(CASES));
    let outcome = runner.run(&file(), |text| {
        if let Some(lost) = passed_over_in(&text) {
            accepted.set(accepted.get() + 1);
            prop_assert!(lost.is_empty(), "{lost:?} of {text}");
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    // Of files that are refused as a whole nothing is learned.
    assert!(
        accepted.get() > CASES / 2,
        "only {} of {CASES} were accepted",
        accepted.get()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn nothing_panics(text in "(services|volumes|a|:|-|\\{|\\}|\\[|\\]|,|&a|\\*a|<<|image|build|\\$|\"|'|#|!!|\\||>|\n| |  |ä){0,60}") {
        let _ = passed_over_in(&text);
    }
}

#[test]
fn files_with_anything_cut_out_or_doubled_do_not_panic() {
    for (_, text) in files() {
        let lines: Vec<_> = text.lines().collect();
        for number in 0..lines.len() {
            let without = [&lines[..number], &lines[number + 1..]].concat().join("\n");
            let doubled = [&lines[..=number], &lines[number..]].concat().join("\n");
            for text in [without, doubled] {
                if let Some(lost) = passed_over_in(&text) {
                    assert!(lost.is_empty(), "{lost:?} of {text}");
                }
            }
        }
    }
}
