//! No `unsafe` but for two calls (docs/adr/0008-idle-code.md). The lint alone would let any module
//! excuse itself; this rule also sees crates that forgot the workspace's lints.

use crate::finding::Finding;
use crate::repository::SourceFile;

use super::has_word;

/// Written in halves so that this file keeps its own rule: the keyword and what excuses it.
const WORDS: [&str; 2] = [concat!("un", "safe"), concat!("un", "safe_code")];
/// The file that may use each of them, and how often.
const EXCUSED: &str = "cli/src/parts/memory.rs";
const CALLS: usize = 2;

pub(crate) fn check(file: &SourceFile) -> Vec<Finding> {
    if !super::is_rust(file) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for word in WORDS {
        let lines = file.text.lines().enumerate();
        let found = lines.filter(|(_, line)| !is_comment(line) && has_word(line, word));
        let allowed = if file.path == EXCUSED { CALLS } else { 0 };
        findings.extend(found.skip(allowed).map(|(index, _)| Finding {
            path: file.path.clone(),
            line: index + 1,
            rule: "safety",
            message: format!(
                "`{word}`: only {EXCUSED} may say so, {CALLS} times; find a safe call"
            ),
        }));
    }
    findings
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let findings = check(&source(path, text));
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn the_calls_are_allowed_where_they_are_and_no_others() {
        let [keyword, lint] = WORDS;
        let call = format!("#[expect({lint}, reason = \"r\")]\nlet x = {keyword} {{ y() }};\n");
        assert_eq!(lines(EXCUSED, &format!("{call}{call}")), [0; 0]);
        assert_eq!(lines(EXCUSED, &format!("{call}{call}{call}")), [6, 5]);
        assert_eq!(lines("cli/src/parts/mod.rs", &call), [2, 1]);
    }

    #[test]
    fn every_form_is_found_and_talk_of_it_is_not() {
        let [keyword, lint] = WORDS;
        for code in [
            format!("pub {keyword} fn f() {{}}"),
            format!("{keyword} impl Send for X {{}}"),
            format!("#[{keyword}(no_mangle)]"),
            format!("#![allow({lint})]"),
        ] {
            assert_eq!(lines("a/src/x.rs", &code), [1], "{code}");
        }
        for talk in [
            format!("    // SAFETY: {keyword} is fine here\n"),
            format!("fn an_{keyword}_request() {{}}\n"),
        ] {
            assert_eq!(lines("a/src/x.rs", &talk), [0; 0], "{talk}");
        }
    }
}
