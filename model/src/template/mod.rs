//! `skep.template.toml`: a project's file with questions in it, which somebody else has written. Owns how one is
//! read ([`Template::parse`]), what it asks and which secrets it makes, and the [`Project`] that comes of the
//! answers ([`Template::project`]): from there on it is a project like any other. Draws no secret itself.

mod fill;
mod head;
mod rename;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeTable;

use crate::name;
use crate::problem::Problem;
use crate::project::read::{Reader, entries};
use crate::project::{EnvironmentTable, Given, Place, Project};
use crate::tenancy::DEFAULT_ENVIRONMENT;
use fill::Words;

pub use head::{Alphabet, Made, Question};

/// The file's name.
pub const FILE: &str = "skep.template.toml";
/// Largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;
/// Words that every template has beside its questions.
const WORDS: [&str; 3] = ["project", "environment", "prefix"];

/// A template that is good in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// Its version, as semantic versioning has it.
    pub version: String,
    /// What it is, in a sentence.
    pub description: String,
    /// What it asks, in the order of the file.
    pub questions: Vec<Question>,
    /// The secrets that it makes, by service and name.
    secrets: BTreeMap<String, BTreeMap<String, Made>>,
    after: String,
    text: String,
}

/// What a template is to become.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// The project.
    pub project: &'a str,
    /// Its environment.
    pub environment: &'a str,
    /// What the names of its services begin with, before a `-`; empty: nothing.
    pub prefix: &'a str,
    /// An answer to each question.
    pub answers: &'a BTreeMap<String, String>,
}

impl Setting<'_> {
    /// What stands before each name.
    fn before(&self) -> String {
        match self.prefix {
            "" => String::new(),
            prefix => format!("{prefix}-"),
        }
    }
}

impl Template {
    /// Reads the text of a `skep.template.toml`, and checks it with an answer to each question.
    ///
    /// # Errors
    /// Not TOML, an unknown key or question, or what no project would accept; says where.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() as u64 > MAX_BYTES {
            return Err(Problem::invalid(
                FILE,
                format!("larger than {MAX_BYTES} bytes"),
            ));
        }
        let reader = Reader { text };
        let root = DeTable::parse(text).map_err(|error| reader.refused(FILE, &error))?;
        let template = head::read(&reader, root.into_inner())?;
        let samples = template.samples();
        template.project(Setting {
            project: "sample",
            environment: DEFAULT_ENVIRONMENT,
            prefix: "",
            answers: &samples,
        })?;
        Ok(template)
    }

    /// An answer to each question that the template itself has.
    pub fn samples(&self) -> BTreeMap<String, String> {
        let sample = |it: &Question| (it.name.clone(), it.sample().to_owned());
        self.questions.iter().map(sample).collect()
    }

    /// The project that comes of the answers. Each error names the line.
    ///
    /// # Errors
    /// An answer is missing or not accepted, or what comes of it is not.
    pub fn project(&self, setting: Setting<'_>) -> Result<Project, Problem> {
        self.check(&setting)?;
        let reader = Reader { text: &self.text };
        let root = DeTable::parse(&self.text).map_err(|error| reader.refused(FILE, &error))?;
        let words = self.words(&setting);
        let mut kept = DeTable::new();
        for entry in entries(root.into_inner()) {
            if head::KEYS.contains(&&*entry.key) {
                if entry.key == "after" {
                    let line = reader.line(entry.value.span().start);
                    words.fill(&self.after).map_err(|it| it.on("after", line))?;
                }
                continue;
            }
            let path = entry.key.clone();
            let mut value = entry.value;
            words.fill_all(&reader, &path, &mut value)?;
            kept.insert(
                toml::Spanned::new(entry.at..entry.at, entry.key.into()),
                value,
            );
        }
        let name = setting.project.to_owned();
        kept.insert(
            toml::Spanned::new(0..0, "project".into()),
            toml::Spanned::new(0..0, toml::de::DeValue::String(name.into())),
        );
        let mut project = reader.project(kept)?;
        self.own_secrets(&mut project)?;
        let before = setting.before();
        if !before.is_empty() {
            rename::services(&mut project, &before)?;
        }
        let environment = setting.environment.to_owned();
        project.environments = [(environment, EnvironmentTable::default())].into();
        project.check()?;
        Ok(project)
    }

    /// What to do next, as far as the template says.
    pub fn after(&self, setting: &Setting<'_>) -> String {
        let filled = self.words(setting).fill(&self.after);
        filled.unwrap_or_default().trim().to_owned()
    }

    /// How the secret of a service is made; `service` with what stands before its name.
    pub fn made(&self, setting: &Setting<'_>, place: &Place, name: &str) -> Option<&Made> {
        let service = place.service.strip_prefix(&*setting.before())?;
        self.secrets.get(service)?.get(name)
    }

    /// All secrets, by service and name.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &str, &Made)> {
        self.secrets.iter().flat_map(|(service, all)| {
            all.iter()
                .map(move |(name, made)| (&**service, &**name, made))
        })
    }

    fn words<'a>(&'a self, setting: &Setting<'a>) -> Words<'a> {
        let is_open = |it: &&Question| !it.secret;
        let open = self.questions.iter().filter(is_open);
        let answer = |it: &'a Question| {
            let answer = setting.answers.get(&it.name).map_or("", String::as_str);
            (&*it.name, answer.to_owned())
        };
        let mut values: BTreeMap<&str, String> = open.map(answer).collect();
        values.insert("project", setting.project.to_owned());
        values.insert("environment", setting.environment.to_owned());
        values.insert("prefix", setting.before());
        let secret = self.questions.iter().filter(|it| it.secret);
        Words::new(values, secret.map(|it| &*it.name).collect())
    }

    fn check(&self, setting: &Setting<'_>) -> Result<(), Problem> {
        name::check("project", setting.project)?;
        name::check("environment", setting.environment)?;
        if !setting.prefix.is_empty() {
            name::check("name", setting.prefix)?;
        }
        for question in self.questions.iter().filter(|it| !it.secret) {
            let answer = setting.answers.get(&question.name);
            question.check(answer.ok_or_else(|| question.unanswered())?)?;
        }
        Ok(())
    }

    /// Secrets of services are those that the template makes, one for one.
    fn own_secrets(&self, project: &mut Project) -> Result<(), Problem> {
        if let Some((name, _)) = project.variables.iter().find(|it| *it.1 == Given::Secret) {
            let field = format!("variables.{name}");
            return Err(Problem::invalid(field, "what all share is no secret here")
                .hint("give it to a service, and refer to that: ${{service.NAME}}"));
        }
        let mut left: BTreeSet<(&str, &str)> = self.secrets().map(|it| (it.0, it.1)).collect();
        for (service, table) in &mut project.services {
            for (name, given) in &mut table.variables {
                if *given != Given::Secret {
                    continue;
                }
                if !left.remove(&(&**service, &**name)) {
                    let field = format!("services.{service}.variables.{name}");
                    let how = format!("[secrets.{service}] {name} = {{ length = 32 }}");
                    let told = "nothing says how this secret is made";
                    return Err(Problem::invalid(field, told).hint(how));
                }
                *given = Given::Made;
            }
        }
        let Some((service, name)) = left.first() else {
            return Ok(());
        };
        let field = format!("secrets.{service}.{name}");
        let how = format!("[services.{service}.variables] {name} = {{ secret = true }}");
        Err(Problem::invalid(field, "no service has this secret").hint(how))
    }
}
