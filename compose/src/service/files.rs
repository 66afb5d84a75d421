//! `secrets` and `configs`: variables that arrive as files.

use std::collections::BTreeMap;

use skep_model::storage::{FileMode, Owner, SecretFile};
use skep_model::variable;

use crate::draft::Draft;
use crate::report::At;
use crate::value::Value;
use crate::world::World;
use crate::{Beside, Reader};

/// What the file declares for all its services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Material {
    /// What is in it; none: the file does not say, or it cannot be had.
    pub(crate) content: Option<String>,
    /// Never shown again.
    pub(crate) is_secret: bool,
}

/// Reads one entry of the file's `secrets` or `configs`.
pub(crate) fn material(at: &At<'_>, is_secret: bool, world: &World<'_>) -> Material {
    let mut content = None;
    for (key, at) in at.entries() {
        match key {
            "file" => content = file(&at, world.read),
            "environment" => {
                let Some(name) = at.text() else { continue };
                content = (world.lookup)(&name);
                if content.is_none() {
                    at.left(
                        format!("{} has no value here", name.escape_debug()),
                        "set it",
                    );
                }
            }
            "content" if !is_secret => content = at.text(),
            "external" | "name" | "driver" | "driver_opts" | "template_driver" | "labels" => {
                at.left(
                    "Skep keeps it as a variable of each service",
                    "`skep env set --secret NAME=VALUE`, and [[secrets]] in skep.toml",
                );
            }
            _ if key.starts_with("x-") => at.take(),
            _ => at.unknown(),
        }
    }
    Material { content, is_secret }
}

fn file(at: &At<'_>, read: &Reader<'_>) -> Option<String> {
    let path = at.text()?;
    match read(&path) {
        Ok(Beside::File(text)) if text.len() <= variable::MAX_VALUE => return Some(text),
        Ok(Beside::File(_)) => at.left(
            format!("larger than {} bytes", variable::MAX_VALUE),
            "put it into the image",
        ),
        Ok(Beside::Nothing | Beside::Folder) => {
            at.left("there is no such file", "write it beside the Compose file");
        }
        Err(why) => at.left(why, "a file in the folder of the Compose file"),
    }
    None
}

/// Reads a service's list of them; `folder`: where they arrive unless they say.
pub(super) fn read<'a>(
    draft: &mut Draft<'a>,
    at: &At<'a>,
    known: &BTreeMap<String, Material>,
    folder: &str,
) {
    for at in at.items() {
        let mut wish = Wish::default();
        if let Value::Map(_) = at.value {
            wish.read(&at);
        } else {
            wish.source = at.text();
        }
        let Some(source) = wish.source.clone() else {
            at.left("it names nothing", "`source: NAME`");
            continue;
        };
        match known
            .get(&source)
            .map(|it| (it.content.clone(), it.is_secret))
        {
            Some((Some(content), is_secret)) => {
                wish.apply(draft, &at, (&source, folder), (&content, is_secret));
            }
            Some((None, _)) => at.left(
                "the file does not say what is in it",
                "`skep env set --secret NAME=VALUE`, and [[secrets]] in skep.toml",
            ),
            None => at.left(
                "the file declares none of that name",
                "declare it at the top",
            ),
        }
    }
}

#[derive(Default)]
struct Wish {
    source: Option<String>,
    target: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    mode: FileMode,
}

impl Wish {
    fn read(&mut self, at: &At<'_>) {
        for (key, at) in at.entries() {
            match key {
                "source" => self.source = at.text(),
                "target" => self.target = at.text(),
                "uid" => self.uid = at.parsed("a number"),
                "gid" => self.gid = at.parsed("a number"),
                "mode" => self.mode = mode(&at).unwrap_or_default(),
                _ => at.unknown(),
            }
        }
    }

    fn apply<'a>(
        self,
        draft: &mut Draft<'a>,
        at: &At<'a>,
        (source, folder): (&str, &str),
        (content, is_secret): (&str, bool),
    ) {
        let target = self.target.unwrap_or_else(|| source.to_owned());
        let path = match target.starts_with('/') {
            true => target,
            false => format!("{folder}{target}"),
        };
        let owner = match (self.uid, self.gid) {
            (None, None) => None,
            (uid, gid) => Some(Owner {
                uid: uid.unwrap_or_default(),
                gid: gid.unwrap_or_default(),
            }),
        };
        let file = SecretFile {
            variable: variable_of(draft, source),
            path,
            mode: self.mode,
            owner,
        };
        add(draft, at, file, (content, is_secret));
    }
}

/// A file that arrives with this text.
pub(super) fn plain<'a>(draft: &mut Draft<'a>, at: &At<'a>, path: (&str, &str), text: &str) {
    let (source, target) = path;
    let file = SecretFile {
        variable: variable_of(draft, source),
        path: target.to_owned(),
        mode: FileMode::default(),
        owner: None,
    };
    add(draft, at, file, (text, false));
}

fn add<'a>(
    draft: &mut Draft<'a>,
    at: &At<'a>,
    file: SecretFile,
    (content, is_secret): (&str, bool),
) {
    let name = file.variable.clone();
    draft.set_variable(at, &name, content, is_secret);
    if draft.variables.contains_key(&name) {
        draft.change(at, |spec| spec.storage.secrets.push(file));
    }
}

/// The name of the variable that a file is kept as.
fn variable_of(draft: &Draft<'_>, source: &str) -> String {
    let part = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_uppercase(),
        false => '_',
    };
    let name: String = source.chars().map(part).collect();
    match draft.variables.contains_key(&name) || !starts_well(&name) {
        true => format!("FILE_{name}"),
        false => name,
    }
}

/// A number has been read by then, 0440 as octal; a text is octal.
fn mode(at: &At<'_>) -> Option<FileMode> {
    let is_number = matches!(at.value, Value::Number(_));
    at.read_as("a mode like 0440, readable by somebody", |text| {
        let text = match is_number {
            true => format!("{:04o}", text.parse::<u32>().ok()?),
            false => text.to_owned(),
        };
        text.parse().ok()
    })
}

fn starts_well(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit()) && variable::check_name(name).is_ok()
}
