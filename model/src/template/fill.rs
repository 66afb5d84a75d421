//! `{{ question }}` in texts. Knows no tables but to walk them: keys, numbers and truths stay as they are.

use std::collections::BTreeMap;

use toml::de::{DeArray, DeValue};

use crate::problem::Problem;
use crate::project::read::{Reader, Value, meant, on_line};

/// What begins a question's name. After a `$` it is a reference to a variable, which is not ours.
const OPEN: &str = "{{";
/// What ends it.
const CLOSE: &str = "}}";

/// What may be named, with what stands for it.
#[derive(Debug)]
pub(super) struct Words<'a> {
    values: BTreeMap<&'a str, String>,
    /// Questions whose answers are secret: never in a text.
    secret: Vec<&'a str>,
}

/// A text that cannot be filled.
#[derive(Debug)]
pub(super) struct Unfilled {
    told: String,
    hint: String,
}

impl Unfilled {
    /// Where it stands.
    pub(super) fn on(self, path: &str, line: usize) -> Problem {
        on_line(line, Problem::invalid(path, self.told).hint(self.hint))
    }
}

impl<'a> Words<'a> {
    pub(super) fn new(values: BTreeMap<&'a str, String>, secret: Vec<&'a str>) -> Self {
        Self { values, secret }
    }

    /// The text with what its words stand for. What comes of a word is not read again.
    pub(super) fn fill(&self, text: &str) -> Result<String, Unfilled> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(OPEN) {
            let (before, from) = rest.split_at(at);
            let inner = &from[OPEN.len()..];
            filled.push_str(before);
            if before.ends_with('$') {
                filled.push_str(OPEN);
                rest = inner;
                continue;
            }
            let Some(end) = inner.find(CLOSE) else {
                return Err(Unfilled {
                    told: format!("a `{OPEN}` has no `{CLOSE}`"),
                    hint: "{{ question }}; ${{service.NAME}} refers to a variable".to_owned(),
                });
            };
            filled.push_str(self.value(inner[..end].trim())?);
            rest = &inner[end + CLOSE.len()..];
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn value(&self, word: &str) -> Result<&str, Unfilled> {
        if let Some(value) = self.values.get(word) {
            return Ok(value);
        }
        let shown: String = word.chars().take(60).collect();
        let shown = shown.escape_debug();
        if self.secret.contains(&word) {
            return Err(Unfilled {
                told: format!("the answer to `{shown}` is a secret, and this is none"),
                hint: format!("[secrets.SERVICE] NAME = {{ question = \"{shown}\" }}"),
            });
        }
        let known: Vec<&str> = self.values.keys().copied().collect();
        let all = format!("there are: {}", known.join(", "));
        Err(Unfilled {
            told: format!("there is no question `{shown}`"),
            hint: meant(word, &known, &all),
        })
    }

    /// Fills each text of a value. A text of a list that comes to nothing is left out of it.
    pub(super) fn fill_all(
        &self,
        reader: &Reader<'_>,
        path: &str,
        value: &mut Value<'_>,
    ) -> Result<(), Problem> {
        let line = reader.line(value.span().start);
        match value.get_mut() {
            DeValue::String(text) => {
                let filled = self.fill(text).map_err(|it| it.on(path, line))?;
                *text = filled.into();
            }
            DeValue::Table(table) => {
                for (key, value) in table.iter_mut() {
                    let path = format!("{path}.{}", key.get_ref());
                    self.fill_all(reader, &path, value)?;
                }
            }
            DeValue::Array(items) => {
                let mut kept = Vec::new();
                for mut item in std::mem::replace(items, DeArray::from_iter([])) {
                    let was_empty = item.get_ref().as_str() == Some("");
                    self.fill_all(reader, path, &mut item)?;
                    if was_empty || item.get_ref().as_str() != Some("") {
                        kept.push(item);
                    }
                }
                *items = kept.into_iter().collect();
            }
            _ => {}
        }
        Ok(())
    }
}
