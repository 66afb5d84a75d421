//! Every module opens with `//!`: what it owns and what it never does. A sibling `tests.rs` is
//! spoken for by its module.

use crate::finding::Finding;
use crate::repository::SourceFile;

pub(crate) fn check(file: &SourceFile) -> Option<Finding> {
    if !super::is_rust(file) || file.path.ends_with("tests.rs") {
        return None;
    }
    let mut lines = file.text.lines().enumerate();
    let first = lines.find(|(_, line)| !line.trim().is_empty() && !line.starts_with("#!"));
    let (line, text) = first.unwrap_or((0, ""));
    let says_something = text
        .strip_prefix("//!")
        .is_some_and(|rest| !rest.trim().is_empty());
    (!says_something).then(|| Finding {
        path: file.path.clone(),
        line: line + 1,
        rule: "module-doc",
        message: "open with `//!`: what the module owns, what it never does".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    #[test]
    fn a_module_says_what_it_is() {
        for good in [
            "//! Owns x.\nuse y;\n",
            "#![allow(dead_code)]\n\n//! Owns x.\n",
        ] {
            assert_eq!(check(&source("a/src/x.rs", good)), None, "{good}");
        }
        for (bad, line) in [
            ("use y;\n", 1),
            ("\n// Owns x.\n", 2),
            ("//!\nuse y;\n", 1),
            ("", 1),
        ] {
            assert_eq!(
                check(&source("a/src/x.rs", bad)).unwrap().line,
                line,
                "{bad}"
            );
        }
        assert_eq!(check(&source("a/src/tests.rs", "use super::*;\n")), None);
    }
}
