//! `volumes` of a service. Named ones become volumes, files beside arrive as they are; what is the node's is never
//! mounted because a file says so.

use skep_model::name;
use skep_model::spec::inside;
use skep_model::storage::Volume;
use skep_model::variable::MAX_VALUE;

use super::{container, files};
use crate::Beside;
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

/// What is mounted: its source, where the app finds it, and whether that is only read.
type Wish<'s> = (Option<&'s str>, &'s str, bool);

fn long<'a>(draft: &mut Draft<'a>, map: &[(String, Value)], at: &At<'a>, world: &World<'_>) {
    let said = |key: &str| {
        let found = map.iter().find(|(name, _)| name == key);
        found.and_then(|(_, value)| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    };
    let source = said("source");
    let is_bind = said("type") == Some("bind");
    let (mut target, mut is_read_only, mut bytes) = (None, false, None);
    let is_tmpfs = said("type") == Some("tmpfs");
    for (key, at) in at.entries() {
        match key {
            "type" if matches!(said("type"), Some("volume" | "bind" | "tmpfs")) => at.take(),
            "type" => at.left("no kind of Skep's", "volume or tmpfs"),
            "bind" if is_bind => bind_options(&at),
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
        (Some(_), false) if is_bind && !source.is_some_and(is_path) => {
            at.left("it binds no path", "`source: ./path`, or `type: volume`");
        }
        (Some(target), false) => mount(draft, (source, &target, is_read_only), at, world),
    }
}

fn bind_options(at: &At<'_>) {
    for (key, at) in at.entries() {
        match key {
            // Made where it is missing, and labelled for SELinux: of the machine.
            "create_host_path" | "selinux" => at.take(),
            _ => at.left("it has no counterpart", "leave it out"),
        }
    }
}

fn mount<'a>(draft: &mut Draft<'a>, wish: Wish<'_>, at: &At<'a>, world: &World<'_>) {
    match wish.0 {
        Some(source) if !is_path(source) => {
            if world.volumes.contains(source) {
                volume(draft, wish, at, world);
            } else {
                at.left(
                    "the file declares no volume of that name",
                    "declare it under `volumes`",
                );
            }
        }
        Some(source) if source.starts_with('.') && inside("source", short_path(source)).is_ok() => {
            beside(draft, (source, wish.1, wish.2), at, world);
        }
        Some(source) => outside(source, at),
        None => {
            volume(draft, wish, at, world);
        }
    }
}

/// `./a/` without what says nothing.
fn short_path(source: &str) -> &str {
    source.trim_start_matches("./").trim_end_matches('/')
}

/// What is in the folder of the file: a file arrives as it is now, a folder's place becomes a volume.
fn beside<'a>(
    draft: &mut Draft<'a>,
    (source, target, read_only): (&str, &str, bool),
    at: &At<'a>,
    world: &World<'_>,
) {
    let source = short_path(source);
    if matches!(source, "" | ".") {
        return at.left(
            "the file's own folder is not mounted",
            "what an app is made of belongs into its image: `build:`",
        );
    }
    // No named volume begins like this: whose is whose stays clear.
    let place = format!("./{source}");
    let wish = (Some(&*place), target, read_only);
    match (world.read)(source) {
        Ok(Beside::File(text)) if text.len() <= MAX_VALUE => {
            files::plain(draft, at, (source, target), &text);
            at.note(
                "the file arrives as it is now, and is only read",
                "import again with --replace when it changes",
            );
        }
        Ok(Beside::File(_)) => at.left(
            format!("a file of more than {MAX_VALUE} bytes"),
            "put it into the image",
        ),
        Ok(Beside::Nothing) => {
            if volume(draft, wish, at, world) {
                at.note(
                    "a new volume is made in its place, kept by its service",
                    "`skep cp` brings files into it; `skep volume ls` shows it",
                );
            }
        }
        Ok(Beside::Folder) => {
            if volume(draft, wish, at, world) {
                at.left(
                    "a new volume is made in its place, and what is in the folder does not come along",
                    "`skep cp` brings it into the running container; what never changes belongs into the image",
                );
            }
        }
        Err(why) => at.left(why, "put it into the image"),
    }
}

/// What is the machine's.
fn outside(source: &str, at: &At<'_>) {
    let shown = source.escape_debug();
    let (text, hint) = match source {
        _ if source.ends_with("docker.sock") => (
            "whoever reaches Docker's socket owns the node: no container gets it".to_owned(),
            "run it beside Skep",
        ),
        "/etc/localtime" | "/etc/timezone" => (
            format!("`{shown}` is of the machine, and nodes may differ"),
            "`TZ: Europe/Berlin` under `environment` is understood by most images",
        ),
        _ if source.starts_with('/') && !source.contains("..") => (
            format!("`{shown}` is of the machine, and the app may run on any node"),
            "a volume by name; or [[host_paths]] in skep.toml, where the node's operator offers it \
             (`skep agent --allow-host-path`)",
        ),
        _ => (
            format!("`{shown}` is outside of the file's folder"),
            "a volume by name; or move it beside the file",
        ),
    };
    at.left(text, hint);
}

/// Whether there is one then.
fn volume<'a>(
    draft: &mut Draft<'a>,
    (source, target, read_only): Wish<'_>,
    at: &At<'a>,
    world: &World<'_>,
) -> bool {
    let path = match target.trim_end_matches('/') {
        "" => target,
        trimmed => trimmed,
    };
    let said = source.unwrap_or(path);
    let Some(named) = name::suggest(said) else {
        let text = format!("no name can be made of `{}`", said.escape_debug());
        at.left(text, "a name with letters in it");
        return false;
    };
    if let Some(source) = source {
        let mut owners = world.owners.borrow_mut();
        let owner = owners
            .entry(source.to_owned())
            .or_insert_with(|| draft.name.clone());
        if *owner != draft.name {
            let text =
                format!("the volume belongs to `{owner}`, and a volume belongs to one service");
            at.left(
                text,
                "one service that owns the data and hands it out to the others",
            );
            return false;
        }
    }
    if named != said && source.is_some_and(|source| world.volumes.contains(source)) {
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
        storage: None,
    };
    let before = draft.spec.storage.volumes.len();
    draft.change(at, |spec| spec.storage.volumes.push(volume));
    draft.spec.storage.volumes.len() > before
}
