//! One version of each direct dependency: members take all of them from the workspace.

use crate::finding::Finding;
use crate::repository::Manifest;

pub(crate) fn check(manifest: &Manifest) -> Vec<Finding> {
    let outside = manifest.dependencies().into_iter().filter(|dependency| {
        dependency
            .value
            .get("workspace")
            .and_then(|value| value.as_bool())
            != Some(true)
    });
    let finding = |name: &str| Finding {
        path: manifest.path.clone(),
        line: manifest.line_of(name),
        rule: "versions",
        message: format!("`{name}`: its version belongs in the root; say `workspace = true` here"),
    };
    outside.map(|dependency| finding(dependency.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_of_ones_own_is_found() {
        let text = "[package]\nname = \"a\"\n[dependencies]\nserde.workspace = true\n\
                    toml = { workspace = true }\nhex = \"0.4\"\n\
                    [dev-dependencies]\ntempfile = { version = \"3\" }\n";
        let manifest = Manifest::parse("a/Cargo.toml".into(), text.into()).unwrap();
        let lines: Vec<_> = check(&manifest)
            .iter()
            .map(|finding| finding.line)
            .collect();
        assert_eq!(lines, [6, 8]);
    }
}
