//! One rule about one attribute of a node. Owns its text form and whether a value fulfils it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{as_text, check_key, check_value, values};
use crate::problem::Problem;

/// What is asked of the attribute's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// `=`: it is this.
    Is(String),
    /// `!=`: it is not this; a node without the attribute fulfils it.
    IsNot(String),
    /// `in`: it is one of these.
    In(Vec<String>),
    /// `not in`: it is none of these; a node without the attribute fulfils it.
    NotIn(Vec<String>),
    /// `<`: a number below this.
    Below(String),
    /// `>`: a number above this.
    Above(String),
    /// `version`: a version that meets a requirement such as `>=1.8.0, <2`. Of the value, the
    /// leading numbers count: `5.10.0-28-amd64` is 5.10.0.
    Version(String),
    /// `regex`: the expression is found in it.
    Regex(String),
    /// `set`: it is a list with commas that has all of these.
    Set(Vec<String>),
    /// `exists`: the node has it, whatever it is.
    Exists,
    /// `not exists`: the node does not have it.
    NotExists,
}

/// One rule about one attribute of a node: `KEY OPERATOR VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Constraint {
    /// The attribute: a key of metadata (`zone`, `host`, `tier`, ...) or a built-in (`node.arch`).
    pub key: String,
    /// What is asked of it.
    pub operator: Operator,
}

as_text!(Constraint);

/// A constraint made ready to judge many values.
#[derive(Debug)]
pub struct Judge<'a> {
    operator: &'a Operator,
    number: Option<f64>,
    version: Option<semver::VersionReq>,
    regex: Option<regex_lite::Regex>,
}

impl Constraint {
    /// Checks key and value.
    ///
    /// # Errors
    /// Says what is accepted.
    pub fn check(&self) -> Result<(), Problem> {
        check_key(&self.key)?;
        match &self.operator {
            Operator::Is(value) | Operator::IsNot(value) => check_value(value),
            Operator::In(list) | Operator::NotIn(list) | Operator::Set(list) => {
                list.iter().try_for_each(|value| check_value(value))
            }
            Operator::Below(value) | Operator::Above(value) => match number(value) {
                Some(_) => Ok(()),
                None => Err(refused(value, "a number", "for example `cores > 8`")),
            },
            Operator::Version(text) => match semver::VersionReq::parse(text) {
                Ok(_) => Ok(()),
                Err(_) => Err(refused(text, "a requirement", "for example `>=1.8.0, <2`")),
            },
            Operator::Regex(text) => match regex_lite::Regex::new(text) {
                Ok(_) if !text.contains('\n') && text.trim() == text && !text.is_empty() => Ok(()),
                _ => Err(refused(
                    text,
                    "a regular expression",
                    "for example `^web-[0-9]+$`",
                )),
            },
            Operator::Exists | Operator::NotExists => Ok(()),
        }
    }

    /// Ready to judge values.
    pub fn judge(&self) -> Judge<'_> {
        let mut judge = Judge {
            operator: &self.operator,
            number: None,
            version: None,
            regex: None,
        };
        match &self.operator {
            Operator::Below(text) | Operator::Above(text) => judge.number = number(text),
            Operator::Version(text) => judge.version = semver::VersionReq::parse(text).ok(),
            Operator::Regex(text) => judge.regex = regex_lite::Regex::new(text).ok(),
            _ => {}
        }
        judge
    }
}

impl Judge<'_> {
    /// Whether a node with this value (none: without the attribute) fulfils the constraint. One
    /// that cannot be read is fulfilled by nothing.
    pub fn holds(&self, value: Option<&str>) -> bool {
        let Some(value) = value else {
            return matches!(
                self.operator,
                Operator::IsNot(_) | Operator::NotIn(_) | Operator::NotExists
            );
        };
        let compares = |holds: fn(f64, f64) -> bool| match (number(value), self.number) {
            (Some(value), Some(bound)) => holds(value, bound),
            _ => false,
        };
        match self.operator {
            Operator::Is(wanted) => value == wanted,
            Operator::IsNot(unwanted) => value != unwanted,
            Operator::In(list) => list.iter().any(|one| one == value),
            Operator::NotIn(list) => list.iter().all(|one| one != value),
            Operator::Below(_) => compares(|value, bound| value < bound),
            Operator::Above(_) => compares(|value, bound| value > bound),
            Operator::Version(_) => {
                let wanted = self.version.as_ref();
                wanted.is_some_and(|wanted| version(value).is_some_and(|v| wanted.matches(&v)))
            }
            Operator::Regex(_) => self
                .regex
                .as_ref()
                .is_some_and(|regex| regex.is_match(value)),
            Operator::Set(list) => list
                .iter()
                .all(|one| value.split(',').any(|part| part.trim() == one)),
            Operator::Exists => true,
            Operator::NotExists => false,
        }
    }
}

/// A finite number.
fn number(text: &str) -> Option<f64> {
    text.trim()
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
}

/// Up to three leading numbers; what is missing is 0, a leading `v` is fine.
fn version(text: &str) -> Option<semver::Version> {
    let text = text.trim().trim_start_matches('v');
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let mut parts = text[..end.unwrap_or(text.len())]
        .split('.')
        .map(str::parse::<u64>);
    let major = parts.next()?.ok()?;
    let mut next = || parts.next().and_then(Result::ok).unwrap_or(0);
    Some(semver::Version::new(major, next(), next()))
}

fn refused(text: &str, what: &str, hint: &str) -> Problem {
    Problem::invalid("value", format!("`{}` is not {what}", text.escape_debug())).hint(hint)
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.operator {
            Operator::Is(value) => write!(f, "{key} = {value}"),
            Operator::IsNot(value) => write!(f, "{key} != {value}"),
            Operator::In(list) => write!(f, "{key} in {}", list.join(",")),
            Operator::NotIn(list) => write!(f, "{key} not in {}", list.join(",")),
            Operator::Below(value) => write!(f, "{key} < {value}"),
            Operator::Above(value) => write!(f, "{key} > {value}"),
            Operator::Version(value) => write!(f, "{key} version {value}"),
            Operator::Regex(value) => write!(f, "{key} regex {value}"),
            Operator::Set(list) => write!(f, "{key} set {}", list.join(",")),
            Operator::Exists => write!(f, "{key} exists"),
            Operator::NotExists => write!(f, "{key} not exists"),
        }
    }
}

impl FromStr for Constraint {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let bad = || {
            let text = format!("`{}` is not a constraint", text.escape_debug());
            Problem::invalid("constraint", text).hint(
                "KEY, one of = != in `not in` < > version regex set exists `not exists`, and a \
                 value: `tier = pro`, `zone in a,b`, `kernel version >=5.10`",
            )
        };
        let text = text.trim();
        // Also `tier=pro`: people leave the spaces out.
        let end = text.find(|c: char| c.is_whitespace() || "=!<>".contains(c));
        let (key, rest) = text.split_at(end.ok_or_else(bad)?);
        let rest = rest.trim();
        let words = [
            "not exists",
            "exists",
            "not in",
            "in",
            "!=",
            "=",
            "<",
            ">",
            "version",
            "regex",
            "set",
        ];
        let is_word = |word: &str| word.ends_with(|c: char| c.is_ascii_alphabetic());
        let found = words.into_iter().find_map(|word| {
            let value = rest.strip_prefix(word)?;
            let is_apart = value.is_empty() || value.starts_with(char::is_whitespace);
            (is_apart || !is_word(word)).then(|| (word, value.trim().to_owned()))
        });
        let (word, value) = found.ok_or_else(bad)?;
        let operator = match word {
            "=" => Operator::Is(value),
            "!=" => Operator::IsNot(value),
            "in" => Operator::In(values(&value)),
            "not in" => Operator::NotIn(values(&value)),
            "<" => Operator::Below(value),
            ">" => Operator::Above(value),
            "version" => Operator::Version(value),
            "regex" => Operator::Regex(value),
            "set" => Operator::Set(values(&value)),
            _ if !value.is_empty() => return Err(bad()),
            "exists" => Operator::Exists,
            _ => Operator::NotExists,
        };
        let constraint = Self {
            key: key.to_owned(),
            operator,
        };
        constraint.check()?;
        Ok(constraint)
    }
}
