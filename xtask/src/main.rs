//! Chores of the repository that need more than a shell line. `tidy` is the house style as a
//! test: it reads, reports and never changes anything.

mod finding;
mod repository;
mod rules;

use std::process::ExitCode;

use anyhow::Context;

use finding::Finding;
use repository::Repository;

const USAGE: &str = "usage: cargo run -p xtask -- tidy";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let outcome = match (arguments.next().as_deref(), arguments.next()) {
        (Some("tidy"), None) => tidy(),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match outcome {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in &findings {
                eprintln!("{finding}");
            }
            eprintln!("tidy: {} findings", findings.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tidy() -> anyhow::Result<Vec<Finding>> {
    let repository = Repository::open()?;
    let files = repository.files().context("reading the sources")?;
    let manifests = repository
        .manifests()
        .context("reading the members' Cargo.toml")?;
    let mut findings = Vec::new();
    for file in &files {
        findings.extend(rules::safety::check(file));
        findings.extend(rules::size::check(file));
        findings.extend(rules::module_doc::check(file));
        findings.extend(rules::words::check(file));
        findings.extend(rules::paths::check(file, repository.root()));
    }
    for manifest in &manifests {
        findings.extend(rules::walls::check(manifest));
        findings.extend(rules::versions::check(manifest));
        findings.extend(rules::purity::check(manifest));
        if rules::purity::is_pure(&manifest.name) {
            let tree = repository.dependency_tree(&manifest.name)?;
            findings.extend(rules::purity::check_tree(manifest, &tree));
        }
    }
    findings.sort();
    println!("tidy: {} files, {} crates", files.len(), manifests.len());
    Ok(findings)
}
