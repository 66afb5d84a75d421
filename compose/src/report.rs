//! What becomes of each key: taken over, or told. Owns where in the file one is; decides nothing.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::value::Value;

/// What is told of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Of which service, by its name in the file; none: of the file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<String>,
    /// Where: `services.web.ports[0].published`.
    pub path: String,
    /// What stands there: text, number, list, map...
    pub kind: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has no counterpart or is not understood: the services are without it.
    Left,
    /// Taken over, and not quite what Compose does.
    Differs,
}

/// What is known of all keys so far.
#[derive(Debug, Default)]
pub(crate) struct Book {
    reports: RefCell<Vec<Report>>,
    /// Paths of what was taken over.
    taken: RefCell<BTreeSet<String>>,
}

impl Book {
    /// Tells something of a place that nobody stands at.
    pub(crate) fn tell(&self, report: Report) {
        self.reports.borrow_mut().push(report);
    }

    /// All reports, and the paths of what was taken over.
    pub(crate) fn close(self) -> (Vec<Report>, BTreeSet<String>) {
        (self.reports.into_inner(), self.taken.into_inner())
    }
}

/// A key's path.
pub(crate) fn below(path: &str, key: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let key = match !key.is_empty() && key.chars().all(is_plain) {
        true => key.to_owned(),
        false => format!("{key:?}"),
    };
    match path {
        "" => key,
        path => format!("{path}.{key}"),
    }
}

/// An item's path.
pub(crate) fn item(path: &str, number: usize) -> String {
    format!("{path}[{number}]")
}

/// A place in the file. Whoever gets one takes it over or says what becomes of it; whoever asks it for entries or
/// items has to do that for each.
#[derive(Debug, Clone)]
pub(crate) struct At<'a> {
    /// What stands there.
    pub(crate) value: &'a Value,
    /// Where.
    pub(crate) path: String,
    service: Option<&'a str>,
    book: &'a Book,
}

impl<'a> At<'a> {
    /// The whole file.
    pub(crate) fn top(value: &'a Value, book: &'a Book) -> Self {
        Self {
            value,
            path: String::new(),
            service: None,
            book,
        }
    }

    /// The same place, as one of this service.
    pub(crate) fn of_service(mut self, name: &'a str) -> Self {
        self.service = Some(name);
        self
    }

    fn child(&self, value: &'a Value, path: String) -> Self {
        Self {
            value,
            path,
            service: self.service,
            book: self.book,
        }
    }

    /// It is taken over, with all below it.
    pub(crate) fn take(&self) {
        self.book.taken.borrow_mut().insert(self.path.clone());
    }

    /// The services are without it.
    pub(crate) fn left(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.tell(Outcome::Left, message.into(), hint.into());
    }

    /// It is taken over, and works otherwise.
    pub(crate) fn differs(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.take();
        self.tell(Outcome::Differs, message.into(), hint.into());
    }

    /// Something about it as a whole, whatever becomes of what is below it.
    pub(crate) fn note(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.tell(Outcome::Differs, message.into(), hint.into());
    }

    /// Nothing here knows the key.
    pub(crate) fn unknown(&self) {
        self.left(
            "not understood",
            "is it written right? docs/compose.md has the keys that are",
        );
    }

    fn tell(&self, outcome: Outcome, message: String, hint: String) {
        self.book.tell(Report {
            service: self.service.map(str::to_owned),
            path: self.path.clone(),
            kind: self.value.kind().to_owned(),
            outcome,
            message,
            hint,
        });
    }

    fn wrong(&self, wanted: &str) {
        self.left(format!("not {wanted}"), "Compose refuses it as well");
    }

    /// The text of a scalar, taken over. Nothing where nothing is said.
    pub(crate) fn text(&self) -> Option<String> {
        let text = match self.value {
            Value::Text(text) | Value::Number(text) => Some(text.clone()),
            Value::Flag(flag) => Some(flag.to_string()),
            Value::Null => None,
            Value::List(_) | Value::Map(_) => {
                self.wrong("a text");
                return None;
            }
        };
        self.take();
        text
    }

    /// What a scalar's text reads as, taken over.
    pub(crate) fn parsed<T: FromStr>(&self, wanted: &str) -> Option<T> {
        self.read_as(wanted, |text| text.parse().ok())
    }

    /// The same by a function.
    pub(crate) fn read_as<T>(&self, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        match self.value {
            Value::Text(text) | Value::Number(text) => match read(text.trim()) {
                Some(read) => {
                    self.take();
                    Some(read)
                }
                None => {
                    self.wrong(wanted);
                    None
                }
            },
            Value::Null => {
                self.take();
                None
            }
            _ => {
                self.wrong(wanted);
                None
            }
        }
    }

    /// `true` or `false`, taken over.
    pub(crate) fn flag(&self) -> Option<bool> {
        match self.value {
            Value::Flag(flag) => {
                self.take();
                Some(*flag)
            }
            // Texts that YAML once took for them.
            _ => self.read_as("true or false", |text| match text {
                "true" | "yes" | "y" | "on" => Some(true),
                "false" | "no" | "n" | "off" => Some(false),
                _ => None,
            }),
        }
    }

    /// The entries of a map.
    pub(crate) fn entries(&self) -> Vec<(&'a str, Self)> {
        match self.value {
            Value::Map(map) if !map.is_empty() => {
                let entry = |(key, value): &'a (String, Value)| {
                    (key.as_str(), self.child(value, below(&self.path, key)))
                };
                map.iter().map(entry).collect()
            }
            Value::Map(_) | Value::Null => {
                self.take();
                Vec::new()
            }
            _ => {
                self.wrong("a map");
                Vec::new()
            }
        }
    }

    /// The items of a list.
    pub(crate) fn items(&self) -> Vec<Self> {
        match self.value {
            Value::List(list) if !list.is_empty() => {
                let one = |(number, value): (usize, &'a Value)| {
                    self.child(value, item(&self.path, number))
                };
                list.iter().enumerate().map(one).collect()
            }
            Value::List(_) | Value::Null => {
                self.take();
                Vec::new()
            }
            _ => {
                self.wrong("a list");
                Vec::new()
            }
        }
    }

    /// The items of a list, or the one text that stands for it.
    pub(crate) fn one_or_items(&self) -> Vec<Self> {
        match self.value {
            Value::Text(_) => vec![self.clone()],
            _ => self.items(),
        }
    }

    /// `KEY=value` items or a map, with the place of each value; without one where there is just the key.
    pub(crate) fn pairs(&self) -> Vec<(String, Option<String>, Self)> {
        if matches!(self.value, Value::List(_)) {
            let read = |at: Self| {
                let text = at.text()?;
                let (key, value) = match text.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (text, None),
                };
                Some((key, value, at))
            };
            return self.items().into_iter().filter_map(read).collect();
        }
        let entries = self.entries().into_iter();
        entries
            .filter(|(_, at)| at.is_scalar())
            .map(|(key, at)| (key.to_owned(), at.text(), at))
            .collect()
    }

    /// Whether it is no list and no map; what is, is told.
    fn is_scalar(&self) -> bool {
        let is_scalar = !matches!(self.value, Value::List(_) | Value::Map(_));
        if !is_scalar {
            self.wrong("a text");
        }
        is_scalar
    }

    /// Words, taken over: a list as it is, a text as a shell splits it.
    pub(crate) fn words(&self) -> Option<Vec<String>> {
        match self.value {
            Value::Text(text) => {
                let words = shlex::split(text);
                match words {
                    Some(_) => self.take(),
                    None => self.wrong("words: a quote is not closed"),
                }
                words
            }
            Value::Null => {
                self.take();
                None
            }
            _ => Some(self.items().iter().filter_map(Self::text).collect()),
        }
    }
}
