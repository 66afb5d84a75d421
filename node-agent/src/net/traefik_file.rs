//! Traefik's configuration as a file, for its file provider: written whole at every change, and such that the
//! provider, which runs the file's text as a template first, finds nothing to run in what users have said.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skep_identity::secret_file;
use tokio::time::sleep;

use super::table::Tables;
use crate::error_chain;

/// Nothing tells when a disk has room again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The endings of YAML, which JSON is; Traefik reads no `.json`.
const ENDINGS: [&str; 2] = ["yml", "yaml"];

/// A path that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Traefik would not read it.
    #[error("--traefik-file {}: Traefik reads it only as .yml or .yaml: name it so", path.display())]
    Ending {
        /// What was given.
        path: PathBuf,
    },
    /// Nowhere to write.
    #[error("--traefik-file {}: its folder is not there: make it, and give the whole path", path.display())]
    Folder {
        /// What was given.
        path: PathBuf,
    },
}

/// Whether Traefik would read `path`, and it can be there.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let ending = path.extension().and_then(|it| it.to_str());
    if !ending.is_some_and(|it| ENDINGS.contains(&it)) {
        let path = path.to_owned();
        return Err(Error::Ending { path });
    }
    if !path.is_absolute() || !path.parent().is_some_and(Path::is_dir) {
        let path = path.to_owned();
        return Err(Error::Folder { path });
    }
    Ok(())
}

/// Writes each configuration to `path`. What could not be written is tried again: Traefik goes on with what it
/// has, and what that still names is kept until then. Ends with the tables.
pub(super) async fn follow(path: PathBuf, tables: Arc<Tables>) {
    let mut changes = tables.changes();
    let mut has_failed = false;
    loop {
        changes.mark_unchanged();
        let Some((sequence, body)) = tables.render() else {
            match changes.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        let target = path.clone();
        let write = move || secret_file::write_private(&target, literal(&body).as_ref());
        let why = match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error_chain(&error)),
            Err(panicked) => Some(error_chain(&panicked)),
        };
        let Some(why) = why else {
            has_failed = false;
            tables.reached(sequence);
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        };
        if !std::mem::replace(&mut has_failed, true) {
            tracing::error!(path = %path.display(), why, "Traefik's file cannot be written: it keeps older routes, and containers that they name go on, until it can");
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// `json` such that a template engine of Go's finds no `{{` in it: JSON itself never has two in a row, so each pair
/// is within a string, where a number may stand for a character.
fn literal(json: &[u8]) -> Vec<u8> {
    let mut safe = Vec::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"{{") {
        safe.extend_from_slice(&rest[..at]);
        safe.extend_from_slice(br"\u007b\u007b");
        rest = &rest[at + 2..];
    }
    safe.extend_from_slice(rest);
    safe
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn nothing_of_a_template_is_left_and_every_text_is_what_it_was() {
        for text in [
            "{{ env \"HOME\" }}",
            "{{{{{",
            "a{{b}}{{{c",
            "\\{{",
            "\\\\\\{{{\\u007b",
            "{ {",
            "é{{ `x` }}\n",
            "",
        ] {
            let said = json!({ text: { "nested": {}, "text": [text, { "a": text }] } });
            let safe = literal(said.to_string().as_bytes());
            let safe = String::from_utf8(safe).expect("text");
            assert!(!safe.contains("{{"), "{safe}");
            let read: Value = serde_json::from_str(&safe).expect("JSON");
            assert_eq!(read, said);
        }
    }

    #[test]
    fn a_path_that_traefik_would_not_read_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, is_good) in [
            ("routes.yml", true),
            ("routes.yaml", true),
            ("routes.json", false),
            ("routes", false),
            ("none/routes.yml", false),
        ] {
            assert_eq!(check(&dir.path().join(name)).is_ok(), is_good, "{name}");
        }
        assert!(check(Path::new("routes.yml")).is_err());
    }
}
