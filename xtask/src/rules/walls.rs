//! The walls between the crates: who may import whom. Tests of a crate obey its wall too.

use crate::finding::Finding;
use crate::repository::Manifest;

/// Crate and what it may import of ours; ground floor first. The table of ARCHITECTURE.md.
const WALLS: [(&str, &[&str]); 20] = [
    ("skep-model", &[]),
    ("skep-forge", &["skep-model"]),
    ("skep-proxmox", &[]),
    ("skep-pools", &["skep-model", "skep-proxmox"]),
    (
        "skep-proxmox-simulation",
        &["skep-pools", "skep-proxmox", "skep-model"],
    ),
    ("skep-compose", &["skep-model"]),
    ("skep-identity", &["skep-model"]),
    ("skep-proto", &["skep-model"]),
    ("skep-scheduler", &["skep-model"]),
    ("skep-scheduler-bench", &["skep-scheduler", "skep-model"]),
    ("skep-ingress", &["skep-model"]),
    ("skep-state", &["skep-model", "skep-proto"]),
    ("skep-raft-core", &["skep-model"]),
    (
        "skep-control-plane",
        &[
            "skep-state",
            "skep-raft-core",
            "skep-scheduler",
            "skep-forge",
            "skep-compose",
            "skep-pools",
            "skep-proxmox",
            "skep-proto",
            "skep-identity",
            "skep-model",
        ],
    ),
    (
        "skep-node-agent",
        &["skep-proto", "skep-ingress", "skep-identity", "skep-model"],
    ),
    (
        "skep",
        &[
            "skep-compose",
            "skep-control-plane",
            "skep-node-agent",
            "skep-ingress",
            "skep-identity",
            "skep-model",
        ],
    ),
    (
        "skep-tests",
        &[
            "skep-model",
            "skep-scheduler",
            "skep-state",
            "skep-raft-core",
            "skep-proto",
            "skep-proxmox-simulation",
        ],
    ),
    (
        "skep-simulation",
        &["skep-model", "skep-state", "skep-raft-core", "skep-proto"],
    ),
    ("skep-test-app", &[]),
    ("xtask", &[]),
];

pub(crate) fn check(manifest: &Manifest) -> Vec<Finding> {
    let finding = |line, message| Finding {
        path: manifest.path.clone(),
        line,
        rule: "walls",
        message,
    };
    let Some((_, allowed)) = WALLS.iter().find(|(name, _)| *name == manifest.name) else {
        let message = format!(
            "`{}` has no wall: add it to the table of this rule",
            manifest.name
        );
        return vec![finding(1, message)];
    };
    let ours = manifest.dependencies().into_iter().filter(|dependency| {
        dependency.name.starts_with("skep-") && !allowed.contains(&dependency.name)
    });
    let message = |name: &str| {
        let list = if allowed.is_empty() {
            "nothing of ours".into()
        } else {
            allowed.join(", ")
        };
        format!(
            "{} must not import {name}; it may import {list}",
            manifest.name
        )
    };
    ours.map(|d| finding(manifest.line_of(d.name), message(d.name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, rest: &str) -> Manifest {
        let text = format!("[package]\nname = \"{name}\"\n{rest}");
        Manifest::parse("a/Cargo.toml".into(), text).unwrap()
    }

    #[test]
    fn a_breach_is_found_in_every_kind_of_dependency() {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let rest =
                format!("[{kind}]\nskep-model.workspace = true\nskep-state.workspace = true\n");
            let findings = check(&manifest("skep-ingress", &rest));
            assert_eq!(findings.len(), 1, "{kind}");
            assert_eq!(findings[0].line, 5);
        }
    }

    #[test]
    fn the_order_of_the_table_has_no_cycle() {
        for (index, (name, allowed)) in WALLS.iter().enumerate() {
            for below in *allowed {
                let floor = WALLS.iter().position(|(other, _)| other == below).unwrap();
                assert!(floor < index, "{name} imports {below} from above");
            }
        }
    }

    #[test]
    fn a_crate_without_a_wall_is_found() {
        assert_eq!(check(&manifest("skep-new", "")).len(), 1);
        assert_eq!(check(&manifest("skep-model", "")), []);
    }
}
