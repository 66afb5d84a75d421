//! From text to [`Project`]. What is wrong is named with its line and its path; a key that does not exist, with
//! the nearest one that does.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{EnvironmentTable, FILE, Given, MAX_BYTES, Project, ServiceTable, Variables};
use crate::manifest::Manifest;
use crate::name;
use crate::problem::Problem;
use crate::variable::reference;
use crate::variable::{self, VariableInput};

/// The keys of the file itself.
const KEYS: [&str; 4] = ["project", "variables", "services", "environments"];
/// The keys of an environment.
const KEYS_OF_ENVIRONMENT: [&str; 2] = ["variables", "services"];
/// Keys of `skep.toml` that this file says in another way, and how.
pub(crate) const ELSEWHERE: [(&str, &str); 3] = [
    ("name", "the name is the table's: [services.NAME]"),
    ("project", "`project` at the top of the file"),
    ("env", "[services.NAME.variables]"),
];
/// How much alike a key must be to be what was meant.
const ALIKE: f64 = 0.75;

pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

impl Project {
    /// Reads and checks the text of a `skep.project.toml`.
    ///
    /// # Errors
    /// Not TOML, an unknown key, or a value that is not accepted; says where.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() as u64 > MAX_BYTES {
            let told = format!("larger than {MAX_BYTES} bytes");
            return Err(Problem::invalid(FILE, told));
        }
        let reader = Reader { text };
        let root = DeTable::parse(text).map_err(|error| reader.refused("", &error))?;
        let project = reader.project(root.into_inner())?;
        project.check()?;
        Ok(project)
    }
}

/// Reads tables of a text, whose lines it names.
pub(crate) struct Reader<'a> {
    pub(crate) text: &'a str,
}

/// A key with where it stands, and its value.
pub(crate) struct Entry<'i> {
    pub(crate) key: String,
    /// Where the key begins.
    pub(crate) at: usize,
    pub(crate) value: Value<'i>,
}

impl<'a> Reader<'a> {
    pub(crate) fn project(&self, root: DeTable<'a>) -> Result<Project, Problem> {
        let mut project = Project::default();
        let mut environments = None;
        for entry in entries(root) {
            match &*entry.key {
                "project" => project.name = self.read("project", entry.value)?,
                "variables" => project.variables = self.variables("variables", entry.value)?,
                "services" => {
                    for one in self.table("services", entry.value)? {
                        self.name("services", &one)?;
                        let path = format!("services.{}", one.key);
                        let table = self.service(&path, one.value, true)?;
                        project.services.insert(one.key, table);
                    }
                }
                "environments" => environments = Some(entry),
                _ => return Err(self.unknown("", &entry, &KEYS)),
            }
        }
        if project.name.is_empty() {
            return Err(Problem::invalid("project", "the file does not name it")
                .hint("project = \"shop\", at its top"));
        }
        name::check("project", &project.name)?;
        // After the services, wherever it stands: it may say only what is different of them.
        if let Some(entry) = environments {
            project.environments = self.environments(&project, entry.value)?;
        }
        Ok(project)
    }

    fn environments(
        &self,
        project: &Project,
        value: Value<'a>,
    ) -> Result<BTreeMap<String, EnvironmentTable>, Problem> {
        let mut environments = BTreeMap::new();
        for one in self.table("environments", value)? {
            self.name("environments", &one)?;
            let path = format!("environments.{}", one.key);
            let mut table = EnvironmentTable::default();
            for entry in self.table(&path, one.value)? {
                let path = format!("{path}.{}", entry.key);
                match &*entry.key {
                    "variables" => table.variables = self.variables(&path, entry.value)?,
                    "services" => table.services = self.overrides(project, &path, entry.value)?,
                    _ => {
                        let parent = format!("environments.{}", one.key);
                        return Err(self.unknown(&parent, &entry, &KEYS_OF_ENVIRONMENT));
                    }
                }
            }
            environments.insert(one.key, table);
        }
        Ok(environments)
    }

    fn overrides(
        &self,
        project: &Project,
        path: &str,
        value: Value<'a>,
    ) -> Result<BTreeMap<String, ServiceTable>, Problem> {
        let known: Vec<&str> = project.services.keys().map(String::as_str).collect();
        let mut services = BTreeMap::new();
        for one in self.table(path, value)? {
            let path = format!("{path}.{}", one.key);
            if !project.services.contains_key(&one.key) {
                let told = format!(
                    "line {}: there is no service `{}` to be different here",
                    self.line(one.at),
                    one.key.escape_debug()
                );
                let add = format!("add [services.{}]", one.key.escape_debug());
                return Err(Problem::invalid(path, told).hint(meant(&one.key, &known, &add)));
            }
            let table = self.service(&path, one.value, false)?;
            services.insert(one.key, table);
        }
        Ok(services)
    }

    /// A service; `is_general`: for all environments, and so it may say which those are.
    fn service(
        &self,
        path: &str,
        value: Value<'a>,
        is_general: bool,
    ) -> Result<ServiceTable, Problem> {
        let span = value.span();
        let mut table = ServiceTable::default();
        let mut rest = DeTable::new();
        for entry in self.table(path, value)? {
            let below = format!("{path}.{}", entry.key);
            match &*entry.key {
                "from" => {
                    let line = self.line(entry.value.span().start);
                    let origin: super::Origin = self.read(&below, entry.value)?;
                    origin.check(&below).map_err(|it| on_line(line, it))?;
                    table.origin = Some(origin);
                }
                "variables" => table.variables = self.variables(&below, entry.value)?,
                "environments" if is_general => {
                    let only: BTreeSet<String> = self.read(&below, entry.value)?;
                    table.environments = Some(only);
                }
                key => {
                    if let Some((_, how)) = ELSEWHERE.iter().find(|(word, _)| *word == key) {
                        let told = format!("line {}: not said here", self.line(entry.at));
                        return Err(Problem::invalid(below, told).hint(*how));
                    }
                    let at = entry.at..entry.at + entry.key.len();
                    rest.insert(Spanned::new(at, entry.key.into()), entry.value);
                }
            }
        }
        table.manifest = self.manifest(path, Spanned::new(span, DeValue::Table(rest)))?;
        Ok(table)
    }

    fn manifest(&self, path: &str, value: Value<'a>) -> Result<Manifest, Problem> {
        let mut also = vec!["from", "variables", "environments"];
        also.retain(|key| *key != "environments" || path.starts_with("services."));
        self.read_beside(path, value, &also)
    }

    fn variables(&self, path: &str, value: Value<'a>) -> Result<Variables, Problem> {
        let mut variables = Variables::new();
        for entry in self.table(path, value)? {
            let below = format!("{path}.{}", entry.key);
            let line = self.line(entry.at);
            let given = self.given(&below, entry.value)?;
            let value = match &given {
                Given::Value(value) => value.clone(),
                Given::Secret | Given::Made => String::new(),
            };
            let input = VariableInput {
                name: entry.key.clone(),
                value,
                secret: false,
            };
            variable::check(&input).map_err(|problem| on_line(line, problem.at(&*below)))?;
            variables.insert(entry.key, given);
        }
        Ok(variables)
    }

    fn given(&self, path: &str, value: Value<'a>) -> Result<Given, Problem> {
        let line = self.line(value.span().start);
        let wrong = |kind: &str| {
            let told = format!("line {line}: a variable is text, not {kind}");
            Problem::invalid(path, told).hint(
                "\"in quotes\"; or { secret = true }, and its value by `skep env set --secret`",
            )
        };
        match value.into_inner() {
            DeValue::String(text) => Ok(Given::Value(text.into_owned())),
            DeValue::Table(table) => {
                let entries: Vec<_> = entries(table).collect();
                match &entries[..] {
                    [one] if one.key == "secret" && is_true(&one.value) => Ok(Given::Secret),
                    _ => Err(wrong("a table")),
                }
            }
            other => Err(wrong(&format!("of the type {}", other.type_str()))),
        }
    }

    pub(crate) fn table(
        &self,
        path: &str,
        value: Value<'a>,
    ) -> Result<impl Iterator<Item = Entry<'a>> + use<'a>, Problem> {
        let line = self.line(value.span().start);
        match value.into_inner() {
            DeValue::Table(table) => Ok(entries(table)),
            other => {
                let told = format!("line {line}: a table is wanted, not {}", other.type_str());
                Err(Problem::invalid(path, told).hint(format!("[{path}], and what it says below")))
            }
        }
    }

    fn name(&self, path: &str, entry: &Entry<'_>) -> Result<(), Problem> {
        let line = self.line(entry.at);
        let field = format!("{path}.{}", entry.key);
        name::check(&field, &entry.key).map_err(|problem| on_line(line, problem))?;
        if path == "services" && entry.key == reference::SHARED {
            let told = format!("line {line}: no service can have that name");
            return Err(Problem::invalid(field, told)
                .hint("in references it stands for the variables of the environment"));
        }
        Ok(())
    }

    pub(crate) fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        value: Value<'a>,
    ) -> Result<T, Problem> {
        self.read_beside(path, value, &[])
    }

    /// Reads a value in the types that there are; `also` are keys that it might have had beside theirs.
    fn read_beside<T: DeserializeOwned>(
        &self,
        path: &str,
        value: Value<'a>,
        also: &[&str],
    ) -> Result<T, Problem> {
        let start = value.span().start;
        let reader = ValueDeserializer::from(value);
        serde_path_to_error::deserialize(reader).map_err(|error| {
            let inside = error.path().to_string();
            let inner = error.inner();
            let at = inner.span().map_or(start, |span| span.start);
            let line = self.line(at);
            let Some((key, mut known)) = unknown_key(inner.message()) else {
                let path = match &*inside {
                    "." => path.to_owned(),
                    inside => format!("{path}.{inside}"),
                };
                let told = format!("line {line}: {}", inner.message());
                return Problem::invalid(path, told);
            };
            // The path ends with the key, or with what it was looked for in.
            let inside = inside.strip_suffix(&key).unwrap_or(&inside);
            let inside = inside.trim_matches('.');
            if inside.is_empty() {
                known.retain(|it| !ELSEWHERE.iter().any(|(word, _)| word == it));
                known.extend(also.iter().map(|it| (*it).to_owned()));
            }
            let parent = match inside {
                "" => path.to_owned(),
                inside => format!("{path}.{inside}"),
            };
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            no_such_key(line, (&parent, &key), &known)
        })
    }

    pub(crate) fn unknown(&self, parent: &str, entry: &Entry<'_>, known: &[&str]) -> Problem {
        no_such_key(self.line(entry.at), (parent, &entry.key), known)
    }

    /// What TOML itself does not accept.
    pub(crate) fn refused(&self, path: &str, error: &toml::de::Error) -> Problem {
        let line = error.span().map_or(1, |span| self.line(span.start));
        let field = if path.is_empty() { FILE } else { path };
        let problem = Problem::invalid(field, format!("line {line}: {}", error.message()));
        match error.message().contains("duplicate key") {
            true => problem.hint("say it once: a table has one heading"),
            false => problem.hint("the file is TOML: https://toml.io"),
        }
    }

    /// The number of the line, from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().iter().take(at);
        before.filter(|byte| **byte == b'\n').count() + 1
    }
}

pub(crate) fn entries(table: DeTable<'_>) -> impl Iterator<Item = Entry<'_>> {
    table.into_iter().map(|(key, value)| Entry {
        at: key.span().start,
        key: key.into_inner().into_owned(),
        value,
    })
}

fn is_true(value: &Value<'_>) -> bool {
    matches!(value.get_ref(), DeValue::Boolean(true))
}

pub(crate) fn on_line(line: usize, mut problem: Problem) -> Problem {
    problem.message.insert_str(0, &format!("line {line}: "));
    problem
}

fn no_such_key(line: usize, (parent, key): (&str, &str), known: &[&str]) -> Problem {
    let shown = key.escape_debug().to_string();
    let field = match parent {
        "" => shown.clone(),
        parent => format!("{parent}.{shown}"),
    };
    let told = format!("line {line}: there is no key `{shown}`");
    let all = format!("there are: {}", known.join(", "));
    Problem::invalid(field, told).hint(meant(key, known, &all))
}

/// The nearest of what is known, else `otherwise`.
pub(crate) fn meant(given: &str, known: &[&str], otherwise: &str) -> String {
    let alike = known.iter().map(|it| (strsim::jaro_winkler(given, it), it));
    let nearest = alike.max_by(|one, other| one.0.total_cmp(&other.0));
    match nearest {
        Some((share, word)) if share >= ALIKE => format!("`{word}` perhaps?"),
        _ => otherwise.to_owned(),
    }
}

/// The key that serde does not know, and those that it does, out of its words: it hands them out in no other
/// way, and what becomes of them is advice only.
fn unknown_key(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field ")?;
    let mut quoted = rest.split('`').skip(1).step_by(2).map(str::to_owned);
    Some((quoted.next()?, quoted.collect()))
}
