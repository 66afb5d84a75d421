//! References in the values of variables: `${{db.USER}}`, `${{shared.REGION}}`, `${{NAME}}`. Reads them, and
//! resolves them against whoever knows the variables. Opens nothing and seals nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{MAX_NAME, MAX_VALUE};
use crate::name;
use crate::problem::{Code, Problem};

/// Begins a reference.
const OPEN: &str = "${{";
/// Ends one.
const CLOSE: &str = "}}";
/// Stands for [`OPEN`] as it is.
const ESCAPED: &str = "$${{";
/// The word for the variables of the environment: no service may have it as its name.
pub const SHARED: &str = "shared";
/// Most references one after the other, from a value to what it is made of.
pub const MAX_CHAIN: usize = 32;

/// Whose a variable is, within one environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The environment's own.
    Shared,
    /// A service's, by its name.
    Service(String),
}

/// One variable of an environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whose.
    pub owner: Owner,
    /// Its name.
    pub name: String,
}

impl Place {
    /// A service's variable.
    pub fn of_service(service: &str, name: &str) -> Self {
        Self {
            owner: Owner::Service(service.to_owned()),
            name: name.to_owned(),
        }
    }

    /// A variable of the environment.
    pub fn shared(name: &str) -> Self {
        Self {
            owner: Owner::Shared,
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Owner::Shared => write!(f, "{SHARED}.{}", self.name),
            Owner::Service(service) => write!(f, "{service}.{}", self.name),
        }
    }
}

/// A piece of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it is.
    Text(String),
    /// The value of another variable.
    Reference(Place),
}

/// The pieces of a value that is `owner`'s.
///
/// # Errors
/// A reference that is not one, and what is accepted.
pub fn read(owner: &Owner, value: &str) -> Result<Vec<Part>, Problem> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = value;
    while let Some(at) = rest.find(OPEN) {
        let (before, from) = rest.split_at(at);
        let inner = &from[OPEN.len()..];
        if let Some(kept) = before.strip_suffix('$') {
            text.push_str(kept);
            text.push_str(OPEN);
            rest = inner;
            continue;
        }
        text.push_str(before);
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        let end = inner.find(CLOSE).ok_or_else(|| unclosed(from))?;
        parts.push(Part::Reference(place(owner, inner[..end].trim())?));
        rest = &inner[end + CLOSE.len()..];
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

/// A text as a value that means just this text.
pub fn escape(text: &str) -> String {
    text.replace(OPEN, ESCAPED)
}

/// Whether a value is more than its text.
pub fn is_plain(value: &str) -> bool {
    !value.contains(OPEN)
}

fn unclosed(from: &str) -> Problem {
    let text = format!("`{}` has no `{CLOSE}`", shown(from));
    Problem::invalid("value", text).hint(format!(
        "${{{{service.NAME}}}}; where `{OPEN}` itself is meant, write `{ESCAPED}`"
    ))
}

fn shown(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    cut.escape_debug().to_string()
}

fn place(owner: &Owner, text: &str) -> Result<Place, Problem> {
    let bad = |why: &str| {
        let text = format!("`${{{{{}}}}}` {why}", shown(text));
        Problem::invalid("value", text).hint(
            "${{NAME}}, ${{service.NAME}} of the same environment, or ${{shared.NAME}}; $${{ is the text ${{",
        )
    };
    if text.contains(['/', ':']) {
        return Err(bad(
            "leads out of the environment: no value of another one is read",
        ));
    }
    let (whose, name) = match text.split_once('.') {
        None => (None, text),
        Some((whose, name)) => (Some(whose.trim()), name.trim()),
    };
    let is_start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let starts_ok = name.bytes().next().is_some_and(is_start);
    let is_in = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !starts_ok || !name.bytes().all(is_in) || name.len() > MAX_NAME {
        return Err(bad("names no variable"));
    }
    let owner = match whose {
        None => owner.clone(),
        Some(SHARED) => Owner::Shared,
        Some(service) => {
            name::check("service", service).map_err(|_| bad("names no service"))?;
            Owner::Service(service.to_owned())
        }
    };
    Ok(Place {
        owner,
        name: name.to_owned(),
    })
}

/// What a variable is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// What was set: it may refer to others.
    Said(Value),
    /// What it is, to the letter.
    Fixed(Value),
    /// It does not exist; why, for a person.
    Missing(String),
}

/// A value, and whether it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The value.
    pub text: String,
    /// It is a secret, or something in it is.
    pub secret: bool,
}

/// Says what a variable is.
pub type Find<'a> = dyn Fn(&Place) -> Result<Found, Problem> + 'a;

/// Resolves variables of one environment, each once.
pub struct Resolver<'a> {
    find: &'a Find<'a>,
    known: BTreeMap<Place, Value>,
    chain: Vec<Place>,
    /// What is referred to and does not exist, with the way that leads there. It counts as empty.
    pub missing: Vec<Problem>,
}

impl<'a> Resolver<'a> {
    /// Asks `find`.
    pub fn new(find: &'a Find<'a>) -> Self {
        Self {
            find,
            known: BTreeMap::new(),
            chain: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// The value of a variable with everything in it that it refers to.
    ///
    /// # Errors
    /// A circle, a chain or a value that is too long, a reference that is none; or what `find` says.
    pub fn resolve(&mut self, place: &Place) -> Result<Value, Problem> {
        if let Some(value) = self.known.get(place) {
            return Ok(value.clone());
        }
        self.enter(place)?;
        let value = match (self.find)(place)? {
            Found::Fixed(value) => value,
            Found::Said(said) => self.join(place, said)?,
            Found::Missing(why) => {
                let text = format!("{why}: {}", self.way());
                let problem = Problem::new(Code::NotFound, text).at("value");
                self.missing
                    .push(problem.hint("set it, or correct the reference"));
                Value {
                    text: String::new(),
                    secret: false,
                }
            }
        };
        self.chain.pop();
        self.known.insert(place.clone(), value.clone());
        Ok(value)
    }

    fn enter(&mut self, place: &Place) -> Result<(), Problem> {
        let is_circle = self.chain.contains(place);
        self.chain.push(place.clone());
        let text = if is_circle {
            format!("the variable refers to itself: {}", self.way())
        } else if self.chain.len() > MAX_CHAIN {
            format!("more than {MAX_CHAIN} references follow each other")
        } else {
            return Ok(());
        };
        Err(Problem::invalid("value", text).hint("give one of them a value of its own"))
    }

    fn join(&mut self, place: &Place, said: Value) -> Result<Value, Problem> {
        let parts = read(&place.owner, &said.text)
            .map_err(|problem| prefixed(problem, &format!("{place}: ")))?;
        let mut joined = Value {
            text: String::new(),
            secret: said.secret,
        };
        for part in parts {
            match part {
                Part::Text(text) => joined.text.push_str(&text),
                Part::Reference(other) => {
                    let value = self.resolve(&other)?;
                    joined.text.push_str(&value.text);
                    joined.secret |= value.secret;
                }
            }
            if joined.text.len() > MAX_VALUE {
                let text = format!("{}: together more than {MAX_VALUE} bytes", self.way());
                return Err(Problem::invalid("value", text).hint("refer to less"));
            }
        }
        Ok(joined)
    }

    /// `web.URL -> db.URL -> db.HOST`.
    fn way(&self) -> String {
        let names: Vec<String> = self.chain.iter().map(ToString::to_string).collect();
        names.join(" -> ")
    }
}

fn prefixed(mut problem: Problem, prefix: &str) -> Problem {
    problem.message.insert_str(0, prefix);
    problem
}

/// What refers to any of `changed`, directly or through others; `graph` says what each refers to.
pub fn dependents(
    graph: &BTreeMap<Place, Vec<Place>>,
    changed: &BTreeSet<Place>,
) -> BTreeSet<Place> {
    let mut backwards: BTreeMap<&Place, Vec<&Place>> = BTreeMap::new();
    for (place, others) in graph {
        for other in others {
            backwards.entry(other).or_default().push(place);
        }
    }
    let mut found = BTreeSet::new();
    let mut open: Vec<&Place> = changed.iter().collect();
    while let Some(place) = open.pop() {
        for next in backwards.get(place).into_iter().flatten() {
            if !changed.contains(*next) && found.insert((*next).clone()) {
                open.push(next);
            }
        }
    }
    found
}

/// What a value of `owner` refers to; nothing where it cannot be read.
pub fn targets(owner: &Owner, value: &str) -> Vec<Place> {
    let parts = read(owner, value).unwrap_or_default();
    let places = parts.into_iter().filter_map(|part| match part {
        Part::Reference(place) => Some(place),
        Part::Text(_) => None,
    });
    places.collect()
}

#[cfg(test)]
mod tests;
