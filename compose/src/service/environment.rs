//! `environment` and `env_file`.

use skep_model::spec::ServiceType;

use crate::Beside;
use crate::draft::Draft;
use crate::env_file;
use crate::report::At;
use crate::value::Value;
use crate::world::World;

/// Reads `environment`.
pub(super) fn read<'a>(draft: &mut Draft<'a>, at: &At<'a>, world: &World<'_>) {
    for (name, value, at) in at.pairs() {
        // A name alone stands for what the shell has, and for nothing where that has none.
        match value.or_else(|| (world.lookup)(&name)) {
            Some(value) => set(draft, &at, &name, &value),
            None => at.differs(
                format!("{} has no value here, and is not set", name.escape_debug()),
                "`skep env set` sets it",
            ),
        }
    }
}

/// Reads `env_file`.
pub(super) fn files<'a>(draft: &mut Draft<'a>, at: &At<'a>, world: &World<'_>) {
    for at in at.one_or_items() {
        let (mut path, mut is_required) = (None, true);
        if let Value::Map(_) = at.value {
            for (key, at) in at.entries() {
                match key {
                    "path" => path = at.text().zip(Some(at)),
                    "required" => is_required = at.flag().unwrap_or(true),
                    "format" => at.left(
                        "files are read in one form",
                        "leave it out: variables are filled in",
                    ),
                    _ => at.unknown(),
                }
            }
        } else {
            path = at.text().zip(Some(at));
        }
        if let Some((path, at)) = path {
            file(draft, (&path, is_required), &at, world);
        }
    }
}

fn file<'a>(
    draft: &mut Draft<'a>,
    (path, is_required): (&str, bool),
    at: &At<'a>,
    world: &World<'_>,
) {
    let text = match (world.read)(path) {
        Ok(Beside::File(text)) => text,
        Ok(Beside::Nothing) if !is_required => return,
        Ok(Beside::Nothing | Beside::Folder) => {
            return at.left(
                "there is no such file",
                "write it, or say `required: false`",
            );
        }
        Err(why) => return at.left(why, "a file in the folder of the Compose file"),
    };
    match env_file::read(&text, world.lookup) {
        Ok(file) => {
            for name in file.unset {
                at.note(
                    format!("the variable {name} in it has no value, and is empty"),
                    "set it in the shell or in .env",
                );
            }
            for (name, value) in file.values {
                set(draft, at, &name, &value);
            }
        }
        Err(why) => at.left(why, "KEY=value by line"),
    }
}

fn set<'a>(draft: &mut Draft<'a>, at: &At<'a>, name: &str, value: &str) {
    if name != "PORT" {
        return draft.set_variable(at, name, value, false);
    }
    // Skep sets it to the service's own port: what the file says is that.
    match value.parse() {
        Ok(port) if port > 0 => {
            let is_other = draft.spec.port.is_some_and(|it| it != port);
            let is_web = draft.spec.kind == ServiceType::Web;
            if is_other || !is_web {
                return at.left(
                    "PORT is the port that Skep sends requests to",
                    "name the variable otherwise, or publish that port under `ports`",
                );
            }
            draft.change(at, |spec| spec.port = Some(port));
        }
        _ => at.left(
            "PORT is set by Skep",
            "a number, the port that the app listens on",
        ),
    }
}
