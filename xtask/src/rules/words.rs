//! No promises in the sources: what is written is finished, what is not is an issue.

use crate::finding::Finding;
use crate::repository::SourceFile;

use super::has_word;

/// Written in two halves so that this file keeps its own rule. Whole words, as spelled.
const WORDS: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
];
/// In any spelling of its capitals.
const PHRASE: &str = concat!("for", " now");

const KINDS: [&str; 8] = [
    ".rs", ".toml", ".proto", ".sql", ".sh", ".yml", ".yaml", "/run",
];

pub(crate) fn check(file: &SourceFile) -> Vec<Finding> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let is_source = KINDS.iter().any(|end| file.path.ends_with(end))
        || ["Makefile", "Dockerfile"].contains(&name)
        || file.path.starts_with("scripts/");
    if !is_source || super::is_foreign(&file.path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let found = WORDS.iter().find(|word| has_word(line, word));
        let found = found.or_else(|| has_word(&line.to_lowercase(), PHRASE).then_some(&PHRASE));
        if let Some(word) = found {
            findings.push(Finding {
                path: file.path.clone(),
                line: index + 1,
                rule: "words",
                message: format!("`{word}`: finish it or open an issue"),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    #[test]
    fn promises_are_found_where_they_stand() {
        for word in WORDS.iter().chain([&PHRASE, &concat!("For", " Now")]) {
            let text = format!("//! Owns x.\n// {word} (later)\n");
            let findings = check(&source("a/src/x.rs", &text));
            assert_eq!(
                findings.iter().map(|f| f.line).collect::<Vec<_>>(),
                [2],
                "{word}"
            );
        }
    }

    #[test]
    fn parts_of_words_and_other_files_are_left_alone() {
        let inside = format!(
            "{0}X mktemp.{0}{0} {1}S {2}adays\n",
            WORDS[2], WORDS[0], PHRASE
        );
        assert_eq!(check(&source("a.sh", &inside)), []);
        let promise = format!("{}\n", WORDS[0]);
        assert_eq!(check(&source("docs/a.md", &promise)), []);
        assert_eq!(check(&source("tests/fixtures/a.toml", &promise)), []);
        assert_eq!(check(&source("scripts/setup", &promise)).len(), 1);
    }
}
