//! A stack: the services of an environment that a Compose file in a repository speaks of, as what each push of the
//! file says is carried out. Owns the words and their bounds; what is to be done, the control plane decides.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::build::Fetch;
use crate::id::{DeploymentId, EnvironmentId, ServiceId};
use crate::polling::{DEFAULT_POLL_MS, MAX_POLL_MS, MIN_POLL_MS};
use crate::problem::Problem;
use crate::spec::{check_git, inside};

/// Names that Compose looks for, in its order.
pub const FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];
/// Most services of one: as many as a Compose file may have.
pub const MAX_SERVICES: usize = 100;
/// Most profiles that are asked for.
pub const MAX_PROFILES: usize = 32;
/// Most keys that are told of one by one: the rest is a number. With [`MAX_TEXT`] a reading fits one command.
pub const MAX_REPORTS: usize = 100;
/// Longest text of a report, in bytes.
pub const MAX_TEXT: usize = 250;
/// Longest name of a field that changes, in bytes.
pub const MAX_FIELD: usize = 80;
/// Most fields that are named of one change.
pub const MAX_FIELDS: usize = 12;

/// What becomes of services that the file does not have any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Prune {
    /// They run until somebody says yes.
    #[default]
    Ask,
    /// They go once everything else of the file is live.
    Auto,
}

impl Prune {
    /// In the order of the stored format: append only.
    pub const ALL: [Self; 2] = [Self::Ask, Self::Auto];
}

/// Where a stack's file is, and how it is obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Anything `git clone` takes: https, ssh, or a path on nodes that build.
    pub repository: String,
    /// The branch whose newest commit is in force.
    pub branch: String,
    /// The file in the repository, or its folder; empty: the first of Compose's own names at the top.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Services of these profiles, too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub profiles: BTreeSet<String>,
    /// As whom the repository is fetched: names of the environment's shared variables.
    #[serde(default, skip_serializing_if = "Fetch::is_silent")]
    pub fetch: Fetch,
    /// What becomes of services that the file does not have any more.
    #[serde(default)]
    pub prune: Prune,
    /// Services that were there before, by the same name, become the stack's.
    #[serde(default)]
    pub adopt: bool,
    /// How often the repository is asked for what no webhook told of, in ms; 0: never. None: every 5 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_ms: Option<u64>,
}

impl Settings {
    /// Checks every field.
    ///
    /// # Errors
    /// The first that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        check_git("repository", &self.repository)?;
        check_git("branch", &self.branch)?;
        if !self.path.is_empty() {
            inside("path", &self.path)?;
        }
        if self.profiles.len() > MAX_PROFILES || self.profiles.iter().any(|it| it.len() > 100) {
            let text = format!("more than {MAX_PROFILES} profiles, or a longer name than 100");
            return Err(Problem::invalid("profiles", text));
        }
        self.fetch.check()?;
        let is_odd = |ms: &u64| *ms != 0 && !(MIN_POLL_MS..=MAX_POLL_MS).contains(ms);
        match self.poll_ms.filter(is_odd) {
            None => Ok(()),
            Some(ms) => Err(Problem::invalid(
                "poll_ms",
                format!("a repository is not asked every {ms} ms"),
            )
            .hint("from 10 s to a day, or 0 for never")),
        }
    }

    /// The pause between two questions to the repository, in ms; none: only when somebody tells of a push.
    pub fn poll_every_ms(&self) -> Option<u64> {
        Some(self.poll_ms.unwrap_or(DEFAULT_POLL_MS)).filter(|ms| *ms > 0)
    }

    /// Paths in the repository that may be the file, the first that is there is it.
    pub fn candidates(&self) -> Vec<String> {
        let path = self.path.trim_matches('/').trim_start_matches("./");
        if path.ends_with(".yaml") || path.ends_with(".yml") {
            return vec![path.to_owned()];
        }
        let below = |name: &&str| match path {
            "" | "." => (*name).to_owned(),
            folder => format!("{folder}/{name}"),
        };
        FILES.iter().map(below).collect()
    }
}

/// A stack. At most one an environment has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Whose.
    pub environment: EnvironmentId,
    /// Where its file is, and how it is obeyed.
    pub settings: Settings,
    /// Raised by every change of the settings: the base of compare-and-set.
    pub generation: u64,
    /// Cluster time of connection, ms since the epoch.
    pub created_ms: u64,
    /// How often somebody wanted the file read: a push, a person.
    pub asked: u64,
    /// As `asked` was when it was read last.
    pub answered: u64,
    /// The commit that was looked at last, whatever came of it.
    pub seen: Option<String>,
    /// The last file that was understood.
    pub reading: Option<Reading>,
    /// Why the newest commit is not what is in force; none: it is.
    pub trouble: Option<Trouble>,
    /// The services that are the stack's, by name.
    pub members: BTreeMap<String, Member>,
}

impl Stack {
    /// The members that the file in force does not have: they go, or wait for somebody's yes.
    pub fn gone(&self) -> impl Iterator<Item = (&String, &Member)> {
        let reading = self.reading.as_ref();
        let has = move |name: &str| {
            reading.is_none_or(|reading| reading.services.iter().any(|it| it.name == name))
        };
        self.members.iter().filter(move |(name, _)| !has(name))
    }

    /// Whether the service is one of the stack's.
    pub fn has(&self, service: ServiceId) -> bool {
        self.members.values().any(|it| it.service == service)
    }
}

/// A service that is a stack's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub service: ServiceId,
    /// Git's name for the content of the folder that it was built from; none: it comes from an image.
    pub built: Option<String>,
    /// What the file says of it: paths of its specification, and `variables.NAME`.
    pub said: BTreeSet<String>,
    /// The last deployment that a push of the file made.
    pub deployment: Option<DeploymentId>,
    /// The reading that made it.
    pub reading: u64,
}

/// A file that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// 1, 2, 3, ...: set where it is obeyed.
    pub number: u64,
    /// The commit.
    pub commit: String,
    /// The file's path in the repository.
    pub file: String,
    /// When, cluster time in ms since the epoch: set where it is obeyed.
    pub read_ms: u64,
    /// Its services, those that others depend on first.
    pub services: Vec<Planned>,
    /// What was left out of the file, and what works otherwise.
    pub reports: Vec<Report>,
    /// So many more than `reports`.
    pub more_reports: u32,
    /// How carrying it out ended; none: it is under way.
    pub end: Option<End>,
}

/// What a push of the file changes of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub change: Change,
    /// What of it is otherwise than before, as far as it is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// What becomes of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// There is none of that name yet.
    Make,
    /// Its folder has changed, or how it is built, or its image.
    Build,
    /// Its image stays, and runs with another configuration.
    Configure,
    /// It is changed without a deployment.
    Set,
    /// It is as the file says, and is deployed again as its last deployment did not end well.
    Again,
    /// It is as the file says.
    Same,
    /// There is one of that name that is not the stack's.
    Taken,
}

impl Change {
    /// In the order of the stored format: append only.
    pub const ALL: [Self; 7] = [
        Self::Make,
        Self::Build,
        Self::Configure,
        Self::Set,
        Self::Again,
        Self::Same,
        Self::Taken,
    ];

    /// The word, as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Build => "build",
            Self::Configure => "configure",
            Self::Set => "set",
            Self::Again => "again",
            Self::Same => "same",
            Self::Taken => "taken",
        }
    }
}

/// What is told of a key of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Report {
    /// Where: `services.web.ports[0].published`.
    pub path: String,
    /// What stands there: text, number, list, map...
    pub kind: String,
    /// The services are without it; else it is taken over, and works otherwise.
    pub left: bool,
    /// Why.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// How carrying a file out ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// When, cluster time in ms since the epoch: set where it is obeyed.
    pub at_ms: u64,
    /// What of it is not in force; none: all of it is.
    pub problem: Option<Problem>,
}

/// A commit that changed nothing, as its file cannot be carried out or not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Which; none: nobody got that far.
    pub commit: Option<String>,
    /// Why.
    pub problem: Problem,
    /// Since when, cluster time in ms since the epoch: set where it is obeyed.
    pub at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            repository: "https://forge.test/team/shop.git".into(),
            branch: "main".into(),
            ..Settings::default()
        }
    }

    #[test]
    fn a_file_is_named_or_looked_for() {
        for (path, wanted) in [
            (
                "",
                "compose.yaml compose.yml docker-compose.yaml docker-compose.yml",
            ),
            ("deploy/app.yml", "deploy/app.yml"),
            (
                "deploy/",
                "deploy/compose.yaml deploy/compose.yml deploy/docker-compose.yaml deploy/docker-compose.yml",
            ),
        ] {
            let found = Settings {
                path: path.into(),
                ..settings()
            };
            assert_eq!(found.candidates().join(" "), wanted, "{path}");
        }
    }

    #[test]
    fn what_is_no_place_for_a_file_is_refused() {
        assert_eq!(settings().check(), Ok(()));
        let odd: [fn(&mut Settings); 6] = [
            |it| it.path = "../compose.yaml".into(),
            |it| it.path = "/etc/compose.yaml".into(),
            |it| it.repository = String::new(),
            |it| it.branch = "a b".into(),
            |it| it.poll_ms = Some(5),
            |it| it.fetch.token = Some("no name".into()),
        ];
        for (at, change) in odd.iter().enumerate() {
            let mut settings = settings();
            change(&mut settings);
            assert!(settings.check().is_err(), "{at}");
        }
    }
}
