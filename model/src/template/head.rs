//! What a template says of itself: its name and version, what it asks, which secrets it makes.

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use super::{Template, WORDS};
use crate::name;
use crate::problem::Problem;
use crate::project::read::{Reader, Value, entries, meant, on_line};
use crate::variable;

/// The keys of a template that a project's file does not have.
pub(super) const KEYS: [&str; 6] = [
    "name",
    "version",
    "description",
    "after",
    "questions",
    "secrets",
];
/// All keys of a template.
const ALL: [&str; 8] = [
    "name",
    "version",
    "description",
    "after",
    "questions",
    "secrets",
    "variables",
    "services",
];
/// Shortest and longest secret that is made, in letters: 16 of hex are 64 bits.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;
/// The usual one: 190 bits and more.
const LENGTH: usize = 32;
/// Longest answer, in bytes: what fits into a line.
const MAX_ANSWER: usize = 4 << 10;

/// Something that whoever adds the template is asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The name of the answer.
    #[serde(skip_deserializing)]
    pub name: String,
    /// The question itself.
    pub text: String,
    /// The answer where nobody gives one.
    #[serde(default)]
    pub default: Option<String>,
    /// An answer that would do, shown to people; also what the template is checked with.
    #[serde(default)]
    pub example: Option<String>,
    /// What all of an answer has to match.
    #[serde(default)]
    pub pattern: Option<String>,
    /// The only answers that there are.
    #[serde(default)]
    pub choices: Vec<String>,
    /// The answer is a secret: it is not shown, and is in `[secrets]` alone.
    #[serde(default)]
    pub secret: bool,
}

/// Of which letters a secret is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Alphabet {
    /// Letters and digits: at home in every URL, shell and file.
    #[default]
    Alnum,
    /// `0-9a-f`.
    Hex,
    /// Base64 as URLs have it: letters, digits, `-` and `_`.
    Base64,
}

impl Alphabet {
    /// Its letters.
    pub const fn letters(self) -> &'static [u8] {
        let all = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
        match self {
            Self::Alnum => all.split_at(62).0,
            Self::Hex => all.split_at(16).0,
            Self::Base64 => all,
        }
    }
}

/// How a secret is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    /// By chance.
    Random {
        /// So many letters.
        length: usize,
        /// Of these.
        alphabet: Alphabet,
    },
    /// The answer to this question.
    Answer(String),
}

/// The same as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MadeTable {
    length: Option<usize>,
    alphabet: Option<Alphabet>,
    question: Option<String>,
}

impl Question {
    /// An answer that does.
    pub(super) fn sample(&self) -> &str {
        let first = self.choices.first();
        let any = self.default.as_ref().or(self.example.as_ref()).or(first);
        any.map_or("", String::as_str)
    }

    /// Whether this is an answer.
    ///
    /// # Errors
    /// It is none; says what is accepted, and never a secret.
    pub fn check(&self, answer: &str) -> Result<(), Problem> {
        let refused = |why: &str| {
            let shown: String = answer.chars().take(60).collect();
            let told = match self.secret {
                true => format!("the answer {why}"),
                false => format!("`{}` {why}", shown.escape_debug()),
            };
            Problem::invalid(&self.name, told).hint(self.accepted())
        };
        if answer.len() > MAX_ANSWER || answer.chars().any(char::is_control) {
            return Err(refused("is not one line of up to 4 KiB"));
        }
        if self.secret && answer.is_empty() {
            return Err(refused("is empty"));
        }
        if !self.choices.is_empty() && !self.choices.iter().any(|it| it == answer) {
            return Err(refused("is none of the answers"));
        }
        match &self.pattern {
            Some(pattern) if !whole(pattern).is_ok_and(|it| it.is_match(answer)) => {
                Err(refused("does not match"))
            }
            _ => Ok(()),
        }
    }

    /// What is accepted, for people.
    pub fn accepted(&self) -> String {
        let mut parts = Vec::new();
        if !self.choices.is_empty() {
            parts.push(format!("one of: {}", self.choices.join(", ")));
        }
        if let Some(pattern) = &self.pattern {
            parts.push(format!("matching {pattern}"));
        }
        if let Some(example) = &self.example {
            parts.push(format!("for example {example}"));
        }
        match parts.is_empty() {
            true => "a line of text".to_owned(),
            false => parts.join("; "),
        }
    }

    /// That nobody has said it.
    pub fn unanswered(&self) -> Problem {
        let told = format!("no answer to: {}", self.text);
        let hint = format!("--set {}=ANSWER; {}", self.name, self.accepted());
        Problem::invalid(&self.name, told).hint(hint)
    }

    fn check_itself(&self) -> Result<(), Problem> {
        let field = |key: &str| format!("questions.{}.{key}", self.name);
        if self.text.trim().is_empty() {
            return Err(Problem::invalid(field("text"), "it asks nothing"));
        }
        if let Some(Err(error)) = self.pattern.as_deref().map(whole) {
            let told = format!("not a regular expression: {error}");
            return Err(Problem::invalid(field("pattern"), told));
        }
        if self.secret {
            let Some(_) = self.default.as_ref().or(self.example.as_ref()) else {
                return Ok(());
            };
            return Err(
                Problem::invalid(field("secret"), "everybody can read its answer")
                    .hint("no `default` and no `example`; leave it to [secrets] to make one"),
            );
        }
        if self.default.is_none() && self.example.is_none() && self.choices.is_empty() {
            return Err(
                Problem::invalid(field("example"), "it has no answer that would do")
                    .hint("a `default`, `choices`, or an `example` for people to see"),
            );
        }
        for (key, answer) in [("default", &self.default), ("example", &self.example)] {
            if let Some(answer) = answer {
                self.check(answer).map_err(|it| it.at(field(key)))?;
            }
        }
        Ok(())
    }
}

/// A pattern that all of a text has to match.
fn whole(pattern: &str) -> Result<Regex, regex_lite::Error> {
    Regex::new(&format!("^(?:{pattern})$"))
}

/// Reads what a template says of itself.
pub(super) fn read<'a>(reader: &Reader<'a>, root: DeTable<'a>) -> Result<Template, Problem> {
    let mut template = Template {
        name: String::new(),
        version: String::new(),
        description: String::new(),
        questions: Vec::new(),
        secrets: BTreeMap::new(),
        after: String::new(),
        text: reader.text.to_owned(),
    };
    let mut secrets = None;
    for entry in entries(root) {
        let line = reader.line(entry.at);
        match &*entry.key {
            "name" => template.name = reader.read("name", entry.value)?,
            "version" => {
                template.version = reader.read("version", entry.value)?;
                check_version(&template.version).map_err(|it| on_line(line, it))?;
            }
            "description" => template.description = reader.read("description", entry.value)?,
            "after" => template.after = reader.read("after", entry.value)?,
            "questions" => template.questions = questions(reader, entry.value)?,
            "secrets" => secrets = Some(entry.value),
            "variables" | "services" => {}
            _ => return Err(reader.unknown("", &entry, &ALL)),
        }
    }
    for (key, said) in [
        ("name", &template.name),
        ("version", &template.version),
        ("description", &template.description),
    ] {
        if said.trim().is_empty() {
            let told = format!("the template does not say its {key}");
            return Err(Problem::invalid(key, told).hint(format!("{key} = \"...\", at its top")));
        }
    }
    name::check("name", &template.name)?;
    // After the questions, wherever it stands: it may name some of them.
    if let Some(value) = secrets {
        template.secrets = self::secrets(reader, value, &template.questions)?;
    }
    Ok(template)
}

fn check_version(version: &str) -> Result<(), Problem> {
    semver::Version::parse(version).map(drop).map_err(|error| {
        let told = format!("`{}` is no version: {error}", version.escape_debug());
        Problem::invalid("version", told).hint("three numbers, as in 1.0.0")
    })
}

fn questions<'a>(reader: &Reader<'a>, value: Value<'a>) -> Result<Vec<Question>, Problem> {
    let mut found = Vec::new();
    for entry in reader.table("questions", value)? {
        let path = format!("questions.{}", entry.key.escape_debug());
        let line = reader.line(entry.at);
        let refused =
            |told: &str, hint: &str| Err(on_line(line, Problem::invalid(&*path, told).hint(hint)));
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !entry.key.bytes().all(is_word) || entry.key.len() > 40 {
            return refused("no name of a question", "1 to 40 of a-z, 0-9 and _");
        }
        if WORDS.contains(&&*entry.key) {
            return refused("that is known already", "give the question another name");
        }
        let mut question: Question = reader.read(&path, entry.value)?;
        question.name = entry.key;
        question.check_itself().map_err(|it| on_line(line, it))?;
        found.push((entry.at, question));
    }
    found.sort_by_key(|(at, _)| *at);
    Ok(found.into_iter().map(|(_, question)| question).collect())
}

fn secrets<'a>(
    reader: &Reader<'a>,
    value: Value<'a>,
    questions: &[Question],
) -> Result<BTreeMap<String, BTreeMap<String, Made>>, Problem> {
    let mut found = BTreeMap::new();
    for service in reader.table("secrets", value)? {
        let path = format!("secrets.{}", service.key.escape_debug());
        let mut made = BTreeMap::new();
        for entry in reader.table(&path, service.value)? {
            let path = format!("{path}.{}", entry.key.escape_debug());
            let line = reader.line(entry.at);
            variable::check_name(&entry.key).map_err(|it| on_line(line, it.at(&*path)))?;
            let table: MadeTable = reader.read(&path, entry.value)?;
            let one = table.check(&path, questions);
            made.insert(entry.key, one.map_err(|it| on_line(line, it))?);
        }
        found.insert(service.key, made);
    }
    Ok(found)
}

impl MadeTable {
    fn check(self, path: &str, questions: &[Question]) -> Result<Made, Problem> {
        let Some(asked) = self.question else {
            let length = self.length.unwrap_or(LENGTH);
            if !LENGTHS.contains(&length) {
                let told = format!("{length} letters are not accepted");
                let range = format!("{} to {}", LENGTHS.start(), LENGTHS.end());
                return Err(Problem::invalid(format!("{path}.length"), told).hint(range));
            }
            let alphabet = self.alphabet.unwrap_or_default();
            return Ok(Made::Random { length, alphabet });
        };
        let field = format!("{path}.question");
        if self.length.is_some() || self.alphabet.is_some() {
            return Err(
                Problem::invalid(field, "it is asked for, not made by chance")
                    .hint("leave out `length` and `alphabet`, or `question`"),
            );
        }
        let secret: Vec<&str> = (questions.iter().filter(|it| it.secret))
            .map(|it| &*it.name)
            .collect();
        if secret.contains(&&*asked) {
            return Ok(Made::Answer(asked));
        }
        let told = format!("no question `{}` has a secret answer", asked.escape_debug());
        let otherwise = "[questions.NAME] with `secret = true`";
        Err(Problem::invalid(field, told).hint(meant(&asked, &secret, otherwise)))
    }
}
