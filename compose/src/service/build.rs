//! `build`: the folder that is sent, and what its build is given.

use skep_model::spec::{Builder, inside};

use crate::draft::Draft;
use crate::report::At;
use crate::value::Value;
use crate::world::World;

/// Reads the key.
pub(super) fn read<'a>(draft: &mut Draft<'a>, at: &At<'a>, world: &World<'_>) {
    draft.change(at, |spec| spec.builder = Some(Builder::Dockerfile));
    if let Value::Text(_) = at.value {
        return context(draft, at);
    }
    let entries = at.entries();
    if !entries.iter().any(|(key, _)| *key == "context") {
        draft.context = Some(".".to_owned());
    }
    for (key, at) in entries {
        match key {
            "context" => context(draft, &at),
            "dockerfile" => {
                let path = at.text().map(|path| short(&path));
                draft.change(&at, |spec| spec.dockerfile = path);
            }
            "target" => {
                let target = at.text();
                draft.change(&at, |spec| spec.build.target = target);
            }
            "args" => args(draft, &at, world),
            // Where the image is kept and whether it is built again is decided here otherwise.
            "tags" | "pull" | "no_cache" | "cache_from" | "cache_to" => at.differs(
                "builds are named and kept by Skep",
                "`skep up --no-cache` builds anew",
            ),
            "secrets" => at.left(
                "secrets of a build are variables of the service",
                "[build] secrets in skep.toml, `skep env set --secret`",
            ),
            "dockerfile_inline" => at.left("a Dockerfile is a file", "write it beside the app"),
            _ if key.starts_with("x-") => at.take(),
            "additional_contexts"
            | "ssh"
            | "network"
            | "extra_hosts"
            | "platforms"
            | "privileged"
            | "shm_size"
            | "ulimits"
            | "isolation"
            | "labels"
            | "entitlements"
            | "provenance"
            | "sbom" => at.left(
                "it has no counterpart",
                "docs/skep-toml.md has what builds are given",
            ),
            _ => at.unknown(),
        }
    }
}

fn context<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    let Some(text) = at.text() else { return };
    if text.contains("://") || text.starts_with("git@") {
        let hint = "`skep deploy --repo URL --branch NAME` deploys it from there";
        return at.left("a repository is no folder to send", hint);
    }
    let path = short(&text);
    match inside("context", &path) {
        Ok(()) => draft.context = Some(path),
        Err(_) => at.left(
            format!("`{}` leaves the folder of the file", text.escape_debug()),
            "put the file where all folders are below it, or `skep up DIR` by itself",
        ),
    }
}

/// `./a/` without what says nothing.
fn short(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    let trimmed = trimmed.strip_prefix("./").unwrap_or(trimmed);
    match trimmed.is_empty() && !path.starts_with('/') {
        true => ".".to_owned(),
        false => trimmed.to_owned(),
    }
}

fn args<'a>(draft: &mut Draft<'a>, at: &At<'a>, world: &World<'_>) {
    for (name, value, at) in at.pairs() {
        let Some(value) = value.or_else(|| (world.lookup)(&name)) else {
            at.differs(
                "it has no value here, and is not given",
                "set it, or leave it out",
            );
            continue;
        };
        draft.change(&at, |spec| drop(spec.build.args.insert(name, value)));
    }
}
