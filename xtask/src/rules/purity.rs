//! The pure crates decide and never do: nothing that they link may bring IO, a runtime, a clock
//! or randomness of its own. Calls into `std` are watched by clippy (each crate's clippy.toml).

use crate::finding::Finding;
use crate::repository::Manifest;

const PURE: [&str; 7] = [
    "skep-model",
    "skep-forge",
    "skep-compose",
    "skep-proto",
    "skep-scheduler",
    "skep-state",
    "skep-raft-core",
];

/// Must not be in a pure crate's tree at all.
const IO: [&str; 17] = [
    "async-std",
    "axum",
    "bollard",
    "hyper",
    "hyper-util",
    "mio",
    "procfs",
    "raft-engine",
    "reqwest",
    "rustls",
    "sled",
    "smol",
    "socket2",
    "sqlx",
    "sysinfo",
    "tokio",
    "tonic",
];

/// Must not be asked for directly: time and chance are inputs. (`raft` links a generator of its
/// own; whoever uses it takes the choice away from it.)
const CHANCE: [&str; 6] = [
    "chrono",
    "fastrand",
    "getrandom",
    "rand",
    "ring",
    "tempfile",
];

pub(crate) fn is_pure(name: &str) -> bool {
    PURE.contains(&name)
}

/// What the manifest itself asks for. Optional dependencies are allowed: `check_tree` sees that
/// no default brings them in. A pure crate that switches on another's gRPC is found here.
pub(crate) fn check(manifest: &Manifest) -> Vec<Finding> {
    if !is_pure(&manifest.name) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for dependency in manifest.dependencies() {
        if dependency.kind != "dependencies" {
            continue;
        }
        let name = dependency.name;
        let is_optional = dependency.value.get("optional").and_then(|v| v.as_bool()) == Some(true);
        let features = dependency
            .value
            .get("features")
            .and_then(|value| value.as_array());
        let mut features = features
            .into_iter()
            .flatten()
            .filter_map(|value| value.as_str());
        let message = if (IO.contains(&name) || CHANCE.contains(&name)) && !is_optional {
            format!("`{name}` in a pure crate: make it an input")
        } else if features.any(|feature| feature == "grpc") {
            format!("`{name}` with the feature `grpc` brings tokio into a pure crate")
        } else {
            continue;
        };
        let line = manifest.line_of(name);
        findings.push(Finding {
            path: manifest.path.clone(),
            line,
            rule: "purity",
            message,
        });
    }
    findings
}

/// What cargo would link: `tree` is one `name version` a line.
pub(crate) fn check_tree(manifest: &Manifest, tree: &str) -> Vec<Finding> {
    let mut linked: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| IO.contains(name))
        .collect();
    linked.sort_unstable();
    linked.dedup();
    let finding = |name: &&str| Finding {
        path: manifest.path.clone(),
        line: manifest.line_of(name),
        rule: "purity",
        message: format!(
            "a pure crate links `{name}`: see `cargo tree -p {} -i {name}`",
            manifest.name
        ),
    };
    linked.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, dependencies: &str) -> Manifest {
        let text = format!("[package]\nname = \"{name}\"\n[dependencies]\n{dependencies}");
        Manifest::parse("a/Cargo.toml".into(), text).unwrap()
    }

    #[test]
    fn io_chance_and_grpc_are_refused_in_pure_crates_only() {
        let asks = "tokio.workspace = true\nrand.workspace = true\n\
                    skep-proto = { workspace = true, features = [\"grpc\"] }\n";
        let mut findings = check(&manifest("skep-state", asks));
        findings.sort();
        assert_eq!(
            findings
                .iter()
                .map(|finding| finding.line)
                .collect::<Vec<_>>(),
            [4, 5, 6]
        );
        assert_eq!(check(&manifest("skep-control-plane", asks)), []);
    }

    #[test]
    fn an_optional_dependency_is_judged_by_the_tree() {
        let proto = manifest(
            "skep-proto",
            "tonic = { workspace = true, optional = true }\n",
        );
        assert_eq!(check(&proto), []);
        assert_eq!(check_tree(&proto, "skep-proto v0.1.0\nprost v0.14.4\n"), []);
        let found = check_tree(
            &proto,
            "skep-proto v0.1.0\ntonic v0.14.9\ntonic v0.14.9 (*)\n",
        );
        assert_eq!(
            found.iter().map(|finding| finding.line).collect::<Vec<_>>(),
            [4]
        );
    }
}
