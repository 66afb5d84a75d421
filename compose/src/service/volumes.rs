//! `volumes` of a service. Named ones become volumes; what is the node's is never mounted because a file says so.

use skep_model::name;
use skep_model::storage::Volume;

use super::container;
use crate::draft::Draft;
use crate::report::At;
use crate::units;
use crate::value::Value;
use crate::world::World;

/// Reads the key.
pub(super) fn read<'a>(draft: &mut Draft<'a>, at: &At<'a>, world: &World<'_>) {
    for at in at.items() {
        match at.value {
            Value::Map(map) => long(draft, map, &at, world),
            _ => short(draft, &at, world),
        }
    }
}

/// Whether a source is a path of the machine.
fn is_path(source: &str) -> bool {
    source.starts_with(['.', '/', '~', '\\']) || source.get(1..2) == Some(":")
}

/// `[source:]target[:options]`.
fn short<'a>(draft: &mut Draft<'a>, at: &At<'a>, world: &World<'_>) {
    let Some(text) = at.text() else { return };
    let parts: Vec<_> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return at.left("no volume of Compose's", "NAME:/path, or NAME:/path:ro"),
    };
    if let Some(source) = source.filter(|source| is_path(source)) {
        return bind(source, at);
    }
    let mut is_read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => is_read_only = true,
            // Of the machine that Compose runs on: they change nothing here.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            _ => at.differs(
                format!("`{}` has no counterpart", option.escape_debug()),
                "ro has",
            ),
        }
    }
    mount(draft, (source, target, is_read_only), at, world);
}

fn long<'a>(draft: &mut Draft<'a>, map: &[(String, Value)], at: &At<'a>, world: &World<'_>) {
    let said = |key: &str| {
        let found = map.iter().find(|(name, _)| name == key);
        found.and_then(|(_, value)| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    };
    let source = said("source");
    let is_bind = said("type") == Some("bind") || source.is_some_and(is_path);
    if is_bind {
        return bind(source.unwrap_or_default(), at);
    }
    let (mut target, mut is_read_only, mut bytes) = (None, false, None);
    let is_tmpfs = said("type") == Some("tmpfs");
    for (key, at) in at.entries() {
        match key {
            "type" if matches!(said("type"), Some("volume" | "tmpfs")) => at.take(),
            "type" => at.left("no kind of Skep's", "volume or tmpfs"),
            "source" | "consistency" => at.take(),
            "target" => target = at.text(),
            "read_only" => is_read_only = at.flag().unwrap_or_default(),
            "tmpfs" if is_tmpfs => {
                for (key, at) in at.entries() {
                    match key {
                        "size" => bytes = at.read_as("a size like 64m", units::bytes),
                        _ => at.left("it has no counterpart", "only `size` has one"),
                    }
                }
            }
            "volume" => {
                for (key, at) in at.entries() {
                    match key {
                        // New volumes are empty anyway.
                        "nocopy" => at.take(),
                        _ => at.left(
                            "it has no counterpart",
                            "a volume of its own for each folder",
                        ),
                    }
                }
            }
            _ => at.unknown(),
        }
    }
    match (target, is_tmpfs) {
        (None, _) => at.left("it has no target", "`target: /path`"),
        (Some(target), true) => container::in_memory(draft, &target, bytes, at),
        (Some(target), false) => mount(draft, (source, &target, is_read_only), at, world),
    }
}

fn bind(source: &str, at: &At<'_>) {
    let shown = source.escape_debug();
    if source.ends_with("docker.sock") {
        let text = "whoever reaches Docker's socket owns the node: no container gets it";
        return at.left(text, "run it beside Skep");
    }
    let text = format!("`{shown}` is of the machine, and the app may run on any node");
    let hint = match source.starts_with('/') && !source.contains("..") {
        true => {
            "a volume by name; or [[host_paths]] in skep.toml, where the node's operator offers it \
                 (`skep agent --allow-host-path`)"
        }
        false => {
            "a volume by name for what is written; for a file that is read, `configs:` with `file:`, or the image"
        }
    };
    at.left(text, hint);
}

fn mount<'a>(
    draft: &mut Draft<'a>,
    (source, target, read_only): (Option<&str>, &str, bool),
    at: &At<'a>,
    world: &World<'_>,
) {
    let path = match target.trim_end_matches('/') {
        "" => target,
        trimmed => trimmed,
    };
    let said = source.unwrap_or(path);
    let Some(named) = name::suggest(said) else {
        let text = format!("no name can be made of `{}`", said.escape_debug());
        return at.left(text, "a name with letters in it");
    };
    if let Some(source) = source {
        if !world.volumes.contains(source) {
            return at.left(
                "the file declares no volume of that name",
                "declare it under `volumes`",
            );
        }
        let mut owners = world.owners.borrow_mut();
        let owner = owners
            .entry(source.to_owned())
            .or_insert_with(|| draft.name.clone());
        if *owner != draft.name {
            let text =
                format!("the volume belongs to `{owner}`, and a volume belongs to one service");
            return at.left(
                text,
                "one service that owns the data and hands it out to the others",
            );
        }
    }
    if named != said && source.is_some() {
        at.differs(
            format!("the volume is named `{named}`"),
            "nothing is to be done",
        );
    }
    let volume = Volume {
        name: named,
        path: path.to_owned(),
        owner: None,
        size_bytes: 0,
        read_only,
    };
    draft.change(at, |spec| spec.storage.volumes.push(volume));
}
