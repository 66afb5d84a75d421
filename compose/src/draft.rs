//! A service as it comes to be: what its keys have said so far. Every change is tried first: what a service may not
//! be is told of the key that wants it, and the rest stays.

use std::collections::BTreeMap;

use skep_model::spec::{ServiceSpec, ServiceType};
use skep_model::variable::{self, VariableInput, reference};

use crate::report::At;

/// When a service may start, seen from one that it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Once that runs.
    Started,
    /// Once that is healthy.
    Healthy,
    /// Once that has ended well.
    Completed,
}

/// What was said of CPU and memory, with its place.
#[derive(Debug, Default)]
pub(crate) struct Amounts<'a> {
    pub(crate) cpu: Option<(u32, At<'a>)>,
    pub(crate) cpu_limit: Option<(u32, At<'a>)>,
    pub(crate) memory: Option<(u64, At<'a>)>,
    pub(crate) memory_limit: Option<(u64, At<'a>)>,
    /// Memory and swap together, as Docker counts.
    pub(crate) with_swap: Option<(u64, At<'a>)>,
}

/// A service that is being read.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    /// Its name.
    pub(crate) name: String,
    /// Names that Compose would also know it by.
    pub(crate) other_names: Vec<String>,
    /// What has been made of it.
    pub(crate) spec: ServiceSpec,
    /// `image`.
    pub(crate) image: Option<String>,
    /// The folder of `build`.
    pub(crate) context: Option<String>,
    /// By name.
    pub(crate) variables: BTreeMap<String, VariableInput>,
    /// By the names in the file, with the place that says so.
    pub(crate) depends_on: BTreeMap<String, (Condition, At<'a>)>,
    pub(crate) amounts: Amounts<'a>,
}

impl<'a> Draft<'a> {
    /// A service of which nothing is known: one without a port that anybody is to reach.
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            other_names: Vec::new(),
            spec: ServiceSpec {
                kind: ServiceType::Worker,
                ..ServiceSpec::default()
            },
            image: None,
            context: None,
            variables: BTreeMap::new(),
            depends_on: BTreeMap::new(),
            amounts: Amounts::default(),
        }
    }

    /// Changes the specification, unless it would not be accepted then.
    pub(crate) fn change(&mut self, at: &At<'a>, change: impl FnOnce(&mut ServiceSpec)) {
        let mut spec = self.spec.clone();
        change(&mut spec);
        match spec.check_given() {
            Ok(()) => self.spec = spec,
            Err(problem) => {
                let hint = problem.hint.clone().unwrap_or_default();
                at.left(problem.message, hint);
            }
        }
    }

    /// Sets a variable, unless Skep does not take it.
    pub(crate) fn set_variable(&mut self, at: &At<'a>, name: &str, value: &str, secret: bool) {
        let input = VariableInput {
            name: name.to_owned(),
            // What is no reference to Compose is none here.
            value: reference::escape(value),
            secret: secret || is_secret(name) || has_password(value),
        };
        match variable::check(&input) {
            Ok(()) => drop(self.variables.insert(name.to_owned(), input)),
            Err(problem) => at.left(problem.message, problem.hint.unwrap_or_default()),
        }
    }
}

/// Whether a name says that nobody should see the value.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let parts = [
        "PASSWORD",
        "PASSWD",
        "SECRET",
        "TOKEN",
        "API_KEY",
        "PRIVATE_KEY",
        "CREDENTIAL",
    ];
    // `..._FILE` names a file that has it.
    parts.iter().any(|part| name.contains(part)) && !name.ends_with("_FILE")
}

/// Whether a value is a URL that has a password in it: `postgres://user:password@db/shop`.
fn has_password(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    user.is_some_and(|user| user.split_once(':').is_some_and(|(_, it)| !it.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_should_see_is_known_by_its_name_or_by_its_form() {
        for (name, wanted) in [
            ("POSTGRES_PASSWORD", true),
            ("app_secret_key", true),
            ("GITHUB_TOKEN", true),
            ("POSTGRES_PASSWORD_FILE", false),
            ("POSTGRES_USER", false),
        ] {
            assert_eq!(is_secret(name), wanted, "{name}");
        }
        for (value, wanted) in [
            ("postgres://shop:hunter2@db:5432/shop", true),
            ("redis://:hunter2@cache", true),
            ("postgres://shop@db/shop", false),
            ("http://db:5432/a@b", false),
            ("shop:hunter2@db", false),
            ("https://a.example/?x=b:c@d", false),
        ] {
            assert_eq!(has_password(value), wanted, "{value}");
        }
    }
}
