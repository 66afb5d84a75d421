//! No file of code over 800 lines: past that nobody reads it whole. Tests are not counted.

use crate::finding::Finding;
use crate::repository::SourceFile;

const MAX_LINES: usize = 800;

pub(crate) fn check(file: &SourceFile) -> Option<Finding> {
    if !super::is_rust(file) || super::is_test_file(&file.path) {
        return None;
    }
    let lines = code_lines(&file.text);
    (lines > MAX_LINES).then(|| Finding {
        path: file.path.clone(),
        line: 1,
        rule: "size",
        message: format!("{lines} lines of code without tests; at most {MAX_LINES}: split it"),
    })
}

/// All lines except inline `#[cfg(test)]` modules, whose end rustfmt puts at column 0.
fn code_lines(text: &str) -> usize {
    let mut lines = text.lines();
    let mut count = 0;
    while let Some(line) = lines.next() {
        if line != "#[cfg(test)]" {
            count += 1;
            continue;
        }
        let opens_module = lines
            .by_ref()
            .find(|line| !line.starts_with("#["))
            .is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'));
        if opens_module {
            lines.by_ref().find(|line| *line == "}");
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    #[test]
    fn the_limit_is_exact_and_tests_are_free() {
        let code = "let x = 1;\n".repeat(MAX_LINES);
        let tests = format!("#[cfg(test)]\n#[rustfmt::skip]\nmod tests {{\n{code}}}\n");
        assert_eq!(
            check(&source("a/src/lib.rs", &format!("{code}{tests}"))),
            None
        );
        let finding = check(&source("a/src/lib.rs", &format!("{tests}{code}x\n"))).unwrap();
        assert!(finding.message.starts_with("801 lines"), "{finding}");
        assert_eq!(
            check(&source("tests/tests/big.rs", &format!("{code}{code}"))),
            None
        );
    }

    #[test]
    fn a_test_module_in_its_own_file_hides_nothing() {
        let code = "let x = 1;\n".repeat(MAX_LINES + 1);
        assert!(
            check(&source(
                "a.rs",
                &format!("#[cfg(test)]\nmod tests;\n{code}")
            ))
            .is_some()
        );
    }
}
