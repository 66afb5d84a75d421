//! The repository as tidy sees it: its text files, its members' manifests and what cargo says of
//! their dependencies. The only module here that touches the disk or runs a program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// A text file: one that git tracks, or would.
pub(crate) struct SourceFile {
    /// Relative to the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A member's Cargo.toml.
pub(crate) struct Manifest {
    /// The package's name.
    pub(crate) name: String,
    /// Of the Cargo.toml, relative to the repository.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) table: toml::Table,
}

impl Manifest {
    /// Fails when the text is not TOML or names no package.
    pub(crate) fn parse(path: String, text: String) -> anyhow::Result<Manifest> {
        let table: toml::Table = toml::from_str(&text).with_context(|| path.clone())?;
        let name = table.get("package").and_then(|package| package.get("name"));
        let name = name.and_then(|name| name.as_str());
        let name = name
            .with_context(|| format!("{path}: no package.name"))?
            .to_string();
        Ok(Manifest {
            name,
            path,
            text,
            table,
        })
    }

    /// Every dependency with its table's kind: `dependencies`, `dev-dependencies` or
    /// `build-dependencies`, those of `[target.*]` included.
    pub(crate) fn dependencies(&self) -> Vec<Dependency<'_>> {
        let targets = self
            .table
            .get("target")
            .and_then(|target| target.as_table());
        let targets = targets.into_iter().flat_map(|table| table.values());
        let tables = targets
            .filter_map(|value| value.as_table())
            .chain([&self.table]);
        let mut found = Vec::new();
        for table in tables {
            for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
                let entries = table.get(kind).and_then(|value| value.as_table());
                for (name, value) in entries.into_iter().flatten() {
                    found.push(Dependency { name, kind, value });
                }
            }
        }
        found
    }

    /// The line, from 1, where a dependency is written; 1 when it is not found.
    pub(crate) fn line_of(&self, dependency: &str) -> usize {
        let is_entry = |line: &str| {
            let rest = line.trim_start().strip_prefix(dependency);
            rest.is_some_and(|rest| rest.starts_with([' ', '=', '.']))
        };
        self.text
            .lines()
            .position(is_entry)
            .map_or(1, |index| index + 1)
    }
}

/// One entry of a dependency table.
pub(crate) struct Dependency<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: &'static str,
    pub(crate) value: &'a toml::Value,
}

/// The checkout that this program was built from.
pub(crate) struct Repository {
    root: PathBuf,
}

impl Repository {
    pub(crate) fn open() -> anyhow::Result<Repository> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let root = root
            .context("xtask is a folder of the repository")?
            .to_path_buf();
        ensure!(
            root.join("Cargo.toml").is_file(),
            "{} has no Cargo.toml",
            root.display()
        );
        Ok(Repository { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The text files that git tracks or would track; binary files are left out.
    pub(crate) fn files(&self) -> anyhow::Result<Vec<SourceFile>> {
        // A checkout owned by somebody else (a container's volume) is still only read.
        let listing = [
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
            "--others",
        ];
        let output = self.run("git", &[&listing[..], &["--exclude-standard"]].concat())?;
        let mut files = Vec::new();
        for path in output.split('\0').filter(|path| !path.is_empty()) {
            let on_disk = self.root.join(path);
            // Deleted but not yet staged, or a link to a folder.
            if !on_disk.is_file() {
                continue;
            }
            let bytes = std::fs::read(&on_disk).with_context(|| path.to_string())?;
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(SourceFile {
                    path: path.to_string(),
                    text,
                });
            }
        }
        ensure!(
            !files.is_empty(),
            "git lists no file in {}",
            self.root.display()
        );
        Ok(files)
    }

    pub(crate) fn manifests(&self) -> anyhow::Result<Vec<Manifest>> {
        let text = std::fs::read_to_string(self.root.join("Cargo.toml"))?;
        let table: toml::Table = toml::from_str(&text)?;
        let members = table
            .get("workspace")
            .and_then(|workspace| workspace.get("members"));
        let members = members.and_then(|members| members.as_array());
        let mut manifests = Vec::new();
        for member in members.context("no workspace.members")? {
            let path = format!(
                "{}/Cargo.toml",
                member.as_str().context("a member is a string")?
            );
            let text = std::fs::read_to_string(self.root.join(&path));
            manifests.push(Manifest::parse(
                path.clone(),
                text.with_context(|| path.clone())?,
            )?);
        }
        Ok(manifests)
    }

    /// The names of everything that a package links by default, as cargo resolves it alone.
    pub(crate) fn dependency_tree(&self, package: &str) -> anyhow::Result<String> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let arguments = [
            "tree", "--locked", "-p", package, "-e", "normal", "--prefix", "none", "-f", "{p}",
        ];
        self.run(&cargo, &arguments)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let command = format!("{program} {}", arguments.join(" "));
        let output = Command::new(program)
            .args(arguments)
            .current_dir(&self.root)
            .output();
        let output = output.with_context(|| format!("running {command}"))?;
        if !output.status.success() {
            bail!(
                "{command}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        String::from_utf8(output.stdout).with_context(|| format!("output of {command}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_of_every_kind_are_seen_with_their_line() {
        let text = "[package]\nname = \"a\"\n[dependencies]\nserde = \"1\"\n\
                    [target.'cfg(unix)'.build-dependencies]\nnix = { workspace = true }\n";
        let manifest = Manifest::parse("a/Cargo.toml".into(), text.into()).unwrap();
        let found = manifest.dependencies();
        let seen: Vec<_> = found
            .iter()
            .map(|d| (d.name, d.kind, manifest.line_of(d.name)))
            .collect();
        assert_eq!(
            seen,
            [
                ("nix", "build-dependencies", 6),
                ("serde", "dependencies", 4)
            ]
        );
    }

    #[test]
    fn this_repository_is_read() {
        let repository = Repository::open().unwrap();
        let manifests = repository.manifests().unwrap();
        assert!(manifests.iter().any(|manifest| manifest.name == "xtask"));
        let files = repository.files().unwrap();
        assert!(
            files
                .iter()
                .any(|file| file.path == "xtask/src/repository.rs")
        );
    }
}
