//! The rules, one a module: each is a function of a file or a manifest that returns findings.

pub(crate) mod module_doc;
pub(crate) mod paths;
pub(crate) mod purity;
pub(crate) mod safety;
pub(crate) mod size;
pub(crate) mod versions;
pub(crate) mod walls;
pub(crate) mod words;

use crate::repository::SourceFile;

/// Third-party samples and recordings are kept as they came.
fn is_foreign(path: &str) -> bool {
    path.contains("/fixtures/")
}

/// A Rust file that is a test as a whole.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || path
            .split('/')
            .rev()
            .skip(1)
            .any(|folder| folder == "tests")
}

fn is_rust(file: &SourceFile) -> bool {
    file.path.ends_with(".rs") && !is_foreign(&file.path)
}

/// Whether a word stands in a line by itself.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        // A macro's `!` ends the word by itself.
        let after = after.filter(|_| word.ends_with(is_part));
        !before.into_iter().chain(after).any(is_part)
    })
}

#[cfg(test)]
fn source(path: &str, text: &str) -> SourceFile {
    SourceFile {
        path: path.into(),
        text: text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_files_are_told_from_code() {
        for path in [
            "tests/tests/ring.rs",
            "model/src/tests.rs",
            "tests/src/lib.rs",
        ] {
            assert!(is_test_file(path), "{path}");
        }
        for path in ["model/src/lib.rs", "xtask/src/tests_of.rs", "tests.d/a.rs"] {
            assert!(!is_test_file(path), "{path}");
        }
    }
}
