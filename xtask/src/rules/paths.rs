//! No path of the machine that somebody happened to work on.

use std::path::Path;

use crate::finding::Finding;
use crate::repository::SourceFile;

/// Where checkouts and personal files live; halves, so that this file keeps its own rule.
const PERSONAL: [&str; 4] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
];

pub(crate) fn check(file: &SourceFile, root: &Path) -> Vec<Finding> {
    // What Ansible sets up has its own folders: they are inputs of nobody's.
    let is_of_others = file.path.starts_with("ansible/") || file.path.ends_with("Cargo.lock");
    if super::is_foreign(&file.path) || is_of_others {
        return Vec::new();
    }
    let root = root.to_string_lossy();
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        // A checkout at a short path such as /src would be found everywhere.
        let is_root = root.matches('/').count() > 1 && starts_a_path(line, &root);
        let personal = PERSONAL.iter().find(|folder| starts_a_path(line, folder));
        if let Some(found) = personal.copied().or(is_root.then_some(root.as_ref())) {
            findings.push(Finding {
                path: file.path.clone(),
                line: index + 1,
                rule: "paths",
                message: format!(
                    "`{found}` is a path of one machine: make it relative or an input"
                ),
            });
        }
    }
    findings
}

/// Whether an absolute path beginning with `folder` stands in the line: not a part of a longer
/// path or of a URL.
fn starts_a_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/}~".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    #[test]
    fn personal_paths_and_the_checkout_are_found() {
        let root = Path::new("/srv/code/skep");
        for bad in [PERSONAL[0], PERSONAL[1], "/srv/code/skep/target"] {
            let found = check(&source("a.md", &format!("fine\nlook in `{bad}x`\n")), root);
            assert_eq!(found.len(), 1, "{bad}");
            assert_eq!(found[0].line, 2);
        }
    }

    #[test]
    fn relative_paths_and_urls_are_not() {
        let root = Path::new("/src");
        let text = format!(
            "target{}x https://a.b{1}c ${{DIR}}{1} /src/lib.rs\n",
            PERSONAL[3], PERSONAL[0]
        );
        assert_eq!(check(&source("a.md", &text), root), []);
    }
}
