//! The checks of a commit: what is asked for them, what the answers say, and whether they are green. What Skep itself wrote
//! there is nobody's check.

use std::collections::BTreeMap;

use globset::Glob;
use http::Method;
use serde_json::Value;
use skep_model::forge::Kind;

use super::{Request, Site};
use crate::event::clean;

/// Statuses under this name are our own.
const OWN: &str = "skep/";
/// How many a forge tells in one answer.
const PAGE: &str = "100";

/// What is asked of a forge about a commit, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Which checks the branch asks for.
    Required,
    /// What apps report (GitHub's check runs).
    Runs,
    /// What anybody reports, by name.
    Statuses,
}

/// How one check stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It has not ended.
    Pending,
    /// It has ended well.
    Green,
    /// It has not.
    Red,
}

/// What a forge knows of a commit's checks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checks {
    /// Names that the branch asks for; empty: it asks for none, or the token may not see that.
    pub required: Vec<String>,
    /// They are patterns (`ci/*`), of which one name at least has to be there.
    pub are_patterns: bool,
    /// How each stands, by name.
    pub outcomes: BTreeMap<String, Outcome>,
}

/// Whether a commit may be deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Colour {
    /// All that count have ended well.
    Green,
    /// One has not: its name.
    Red(String),
    /// What has not ended.
    Pending(String),
}

impl Part {
    /// What is asked of a forge of this kind.
    pub const fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::GitHub => &[Self::Required, Self::Runs, Self::Statuses],
            Kind::Gitea | Kind::Forgejo => &[Self::Required, Self::Statuses],
            Kind::GitLab | Kind::Bitbucket => &[Self::Statuses],
        }
    }
}

impl Site<'_> {
    /// The request for one part. None: the API's address is none, or the forge has no such part.
    pub fn checks(
        &self,
        part: Part,
        repository: &str,
        (commit, branch): (&str, &str),
    ) -> Option<Request> {
        let (owner, name) = repository.split_once('/')?;
        let (path, page): (Vec<&str>, _) = match (self.kind, part) {
            (Kind::GitHub, Part::Required) => {
                (vec!["repos", owner, name, "branches", branch], None)
            }
            (Kind::Gitea | Kind::Forgejo, Part::Required) => {
                (vec!["repos", owner, name, "branches", branch], None)
            }
            (Kind::GitHub, Part::Runs) => (
                vec!["repos", owner, name, "commits", commit, "check-runs"],
                Some("per_page"),
            ),
            (Kind::GitHub, Part::Statuses) => (
                vec!["repos", owner, name, "commits", commit, "status"],
                Some("per_page"),
            ),
            (Kind::Gitea | Kind::Forgejo, Part::Statuses) => (
                vec!["repos", owner, name, "commits", commit, "status"],
                Some("limit"),
            ),
            (Kind::GitLab, Part::Statuses) => (
                vec![
                    "projects",
                    repository,
                    "repository",
                    "commits",
                    commit,
                    "statuses",
                ],
                Some("per_page"),
            ),
            (Kind::Bitbucket, Part::Statuses) => (
                vec!["repositories", owner, name, "commit", commit, "statuses"],
                Some("pagelen"),
            ),
            _ => return None,
        };
        let mut request = self.request(Method::GET, &path, None)?;
        if let Some(page) = page {
            let mut url = url::Url::parse(&request.url).ok()?;
            url.query_pairs_mut().append_pair(page, PAGE);
            request.url = url.into();
        }
        Some(request)
    }
}

impl Checks {
    /// Adds what an answer says. None: it is not what the forge's manual promises.
    pub fn add(&mut self, kind: Kind, part: Part, body: &[u8]) -> Option<()> {
        let body: Value = serde_json::from_slice(body).ok()?;
        match part {
            Part::Required => {
                let names = match kind {
                    Kind::GitHub => &body["protection"]["required_status_checks"]["contexts"],
                    _ if body["enable_status_check"] != true => &Value::Null,
                    _ => &body["status_check_contexts"],
                };
                self.are_patterns = kind != Kind::GitHub;
                let names = names.as_array().into_iter().flatten();
                let names = names.filter_map(Value::as_str);
                let others = names.filter(|name| !name.starts_with(OWN));
                self.required.extend(others.map(str::to_owned));
            }
            Part::Runs => {
                for run in body["check_runs"].as_array()? {
                    let outcome = match (run["status"].as_str()?, run["conclusion"].as_str()) {
                        ("completed", Some("success" | "neutral" | "skipped")) => Outcome::Green,
                        ("completed", _) => Outcome::Red,
                        _ => Outcome::Pending,
                    };
                    self.see(run["name"].as_str()?, outcome);
                }
            }
            Part::Statuses => {
                let all = match kind {
                    Kind::GitHub | Kind::Gitea | Kind::Forgejo => &body["statuses"],
                    Kind::GitLab => &body,
                    Kind::Bitbucket => &body["values"],
                };
                let none = Vec::new();
                // Gitea says null where there is none.
                let all = match all.is_null() && body.is_object() {
                    true => &none,
                    false => all.as_array()?,
                };
                for one in all {
                    let (name, outcome) = status(kind, one)?;
                    self.see(name, outcome);
                }
            }
        }
        Some(())
    }

    /// Of two of one name the worse counts: two workflows may have a job of one name.
    fn see(&mut self, name: &str, outcome: Outcome) {
        let is_green = |it: &Outcome| *it == Outcome::Green;
        let known = self.outcomes.get(name);
        if !name.starts_with(OWN) && known.is_none_or(is_green) {
            self.outcomes.insert(name.to_owned(), outcome);
        }
    }

    /// Whether the commit may be deployed. What the branch asks for counts alone where it asks for something.
    pub fn colour(&self) -> Colour {
        let all = || {
            self.outcomes
                .iter()
                .map(|(name, it)| (name.as_str(), Some(*it)))
        };
        let counted: Vec<(&str, Option<Outcome>)> = match self.required.is_empty() {
            true => all().collect(),
            false => {
                let all = self.required.iter();
                all.flat_map(|name| self.named(name)).collect()
            }
        };
        let first = |wanted: &[Option<Outcome>]| {
            let found = counted.iter().find(|(_, it)| wanted.contains(it));
            found.map(|(name, _)| clean(name))
        };
        if counted.is_empty() {
            return Colour::Pending("no check has reported".to_owned());
        }
        if let Some(name) = first(&[Some(Outcome::Red)]) {
            return Colour::Red(name);
        }
        match first(&[Some(Outcome::Pending)]) {
            Some(name) => Colour::Pending(format!("`{name}` has not ended")),
            None => match first(&[None]) {
                Some(name) => Colour::Pending(format!("`{name}` has not reported")),
                None => Colour::Green,
            },
        }
    }
}

impl Checks {
    /// What there is of a name that the branch asks for; that there is nothing, where there is nothing.
    fn named<'a>(&'a self, wanted: &'a str) -> Vec<(&'a str, Option<Outcome>)> {
        let pattern = Glob::new(wanted).ok().filter(|_| self.are_patterns);
        let pattern = pattern.map(|it| it.compile_matcher());
        let is_it = |name: &str| {
            let matches = pattern.as_ref().is_some_and(|it| it.is_match(name));
            name == wanted || matches
        };
        let all = self.outcomes.iter().filter(|(name, _)| is_it(name));
        let found: Vec<_> = all.map(|(name, it)| (name.as_str(), Some(*it))).collect();
        match found.is_empty() {
            true => vec![(wanted, None)],
            false => found,
        }
    }
}

fn status(kind: Kind, one: &Value) -> Option<(&str, Outcome)> {
    let outcome = |word: &str| match word {
        "success" | "SUCCESSFUL" | "skipped" | "warning" => Outcome::Green,
        "pending"
        | "running"
        | "created"
        | "preparing"
        | "scheduled"
        | "waiting_for_resource"
        | "waiting_for_callback"
        | "INPROGRESS" => Outcome::Pending,
        _ => Outcome::Red,
    };
    match kind {
        Kind::GitHub => Some((one["context"].as_str()?, outcome(one["state"].as_str()?))),
        Kind::Gitea | Kind::Forgejo => {
            Some((one["context"].as_str()?, outcome(one["status"].as_str()?)))
        }
        Kind::GitLab => {
            let word = one["status"].as_str()?;
            // Nobody has begun it, and nothing waits for it.
            let may_fail = one["allow_failure"] == true;
            let outcome = match word {
                "manual" if may_fail => Outcome::Green,
                "manual" => Outcome::Pending,
                word if may_fail && outcome(word) == Outcome::Red => Outcome::Green,
                word => outcome(word),
            };
            Some((one["name"].as_str()?, outcome))
        }
        Kind::Bitbucket => {
            let name = one["name"].as_str().or(one["key"].as_str())?;
            Some((name, outcome(one["state"].as_str()?)))
        }
    }
}

#[cfg(test)]
mod tests;
