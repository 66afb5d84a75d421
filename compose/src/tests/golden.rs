//! Files shaped like those of well-known apps, and what becomes of them: `SKEP_BLESS=1` writes it anew, read the
//! difference. What a specification does not say is as `skep.toml` has it.

#![allow(
    clippy::disallowed_methods,
    reason = "tests may read their own samples and write what a person then reads"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use skep_model::spec::ServiceSpec;

use crate::{Beside, Import, Input, Origin, Service, import};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The folders with a file in them, by name, and the file.
pub(super) fn files() -> Vec<(PathBuf, String)> {
    let folders = fs::read_dir(fixtures())
        .expect("there")
        .map(|entry| entry.expect("listed").path());
    let mut all: Vec<_> = folders
        .filter_map(|folder| {
            let text = fs::read_to_string(folder.join("compose.yaml")).ok()?;
            Some((folder, text))
        })
        .collect();
    all.sort();
    assert!(all.len() >= 8, "only {} files", all.len());
    all
}

/// A file of the folder, as a caller reads it.
pub(super) fn beside(folder: &Path, path: &str) -> Result<Beside, String> {
    if path.starts_with('/') || path.contains("..") {
        return Err(format!("`{path}` leaves the folder"));
    }
    let path = folder.join(path);
    if path.is_dir() {
        return Ok(Beside::Folder);
    }
    Ok(fs::read_to_string(path).map_or(Beside::Nothing, Beside::File))
}

/// What a value says beyond what is usual.
fn beyond(value: Value, usual: &Value) -> Option<Value> {
    match (value, usual) {
        (value, usual) if value == *usual => None,
        (Value::Object(map), Value::Object(usual)) => {
            let null = Value::Null;
            let entries = map.into_iter().filter_map(|(key, value)| {
                let value = beyond(value, usual.get(&key).unwrap_or(&null))?;
                Some((key, value))
            });
            Some(Value::Object(entries.collect()))
        }
        (value, _) => Some(value),
    }
}

fn shown(service: &Service) -> Value {
    let plain = |spec: &ServiceSpec| serde_json::to_value(spec).expect("plain");
    let spec = beyond(plain(&service.spec), &plain(&ServiceSpec::default()));
    let variables = service.variables.iter().map(|it| {
        let value = if it.secret { "(secret) " } else { "" };
        (it.name.clone(), json!(format!("{value}{}", it.value)))
    });
    let origin = match &service.origin {
        Origin::Image(image) => json!({ "image": image }),
        Origin::Folder(folder) => json!({ "folder": folder }),
    };
    json!({
        "name": service.name,
        "origin": origin,
        "spec": spec,
        "variables": variables.collect::<Map<_, _>>(),
        "depends_on": service.depends_on,
    })
}

fn text(import: &Import) -> String {
    let reports = import.reports.iter().map(|it| {
        let outcome = format!("{:?}", it.outcome).to_lowercase();
        format!(
            "{outcome}: {} ({}): {}. {}",
            it.path, it.kind, it.message, it.hint
        )
    });
    let all = json!({
        "project": import.project,
        "services": import.services.iter().map(shown).collect::<Vec<_>>(),
        "reports": reports.collect::<Vec<_>>(),
        "taken": import.taken,
    });
    serde_json::to_string_pretty(&all).expect("plain") + "\n"
}

#[test]
fn files_of_well_known_apps_say_what_is_expected_of_them() {
    let is_blessed = std::env::var_os("SKEP_BLESS").is_some();
    let mut differ = Vec::new();
    for (folder, file) in files() {
        let input = Input {
            text: &file,
            variables: &BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]),
            profiles: &BTreeSet::new(),
            read: &|path| beside(&folder, path),
        };
        let name = folder
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        let found = import(&input).map(|import| text(&import));
        let found = found.unwrap_or_else(|problem| format!("{problem:#?}\n"));
        let path = fixtures().join(format!("golden/{name}.json"));
        if is_blessed {
            fs::write(&path, &found).expect("writable");
        } else if fs::read_to_string(&path).ok().as_deref() != Some(&found) {
            differ.push(format!("{name}: {found}"));
        }
    }
    assert!(
        differ.is_empty(),
        "SKEP_BLESS=1 rewrites, read it: {}",
        differ.concat()
    );
}
