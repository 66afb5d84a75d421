//! `skep.project.toml`: a whole project as one file, its services in the words of `skep.toml`. Owns how it is
//! read ([`Project::parse`]), what it changes ([`plan`]) and how one is made of what there is ([`export`]).
//! Knows no API: what there is comes in as [`Current`].

mod check;
mod export;
mod origin;
mod plan;
pub(crate) mod read;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::manifest::Manifest;
use crate::problem::Problem;
use crate::spec::ServiceSpec;
use crate::tenancy::DEFAULT_ENVIRONMENT;

#[cfg(feature = "openapi")]
pub(crate) use read::ELSEWHERE;

pub use export::export;
pub use origin::Origin;
pub use plan::{
    Change, Deploy, Field, Missing, Plan, ServiceChange, SharedChange, built, plan, released,
};

/// The file's name.
pub const FILE: &str = "skep.project.toml";
/// Largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;

/// What a file says of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// This value.
    Value(String),
    /// There is a secret of this name; its value is in no file.
    Secret,
    /// The same, and whoever carries the plan out makes one where there is none. Only templates say it.
    Made,
}

/// Variables by name.
pub type Variables = BTreeMap<String, Given>;

/// A service in one environment of the project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The environment.
    pub environment: String,
    /// The service.
    pub service: String,
}

impl Place {
    /// By their names.
    pub fn new(environment: &str, service: &str) -> Self {
        Self {
            environment: environment.to_owned(),
            service: service.to_owned(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.environment, self.service)
    }
}

/// What a file says of a service, everywhere or in one environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceTable {
    /// Where it comes from.
    pub origin: Option<Origin>,
    /// The only environments that have it; none: all of the file.
    pub environments: Option<BTreeSet<String>>,
    /// What its `skep.toml` could say as well.
    pub manifest: Manifest,
    /// Its variables.
    pub variables: Variables,
}

/// What a file says of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnvironmentTable {
    /// Shared variables, beside or in place of the project's.
    pub variables: Variables,
    /// What is different there, by service.
    pub services: BTreeMap<String, ServiceTable>,
}

/// The content of the file. What it does not say stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Project {
    /// Name of the project.
    pub name: String,
    /// Variables that every environment shares among its services.
    pub variables: Variables,
    /// Services by name.
    pub services: BTreeMap<String, ServiceTable>,
    /// Environments by name; none: the usual one.
    pub environments: BTreeMap<String, EnvironmentTable>,
}

/// What there is of a project.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Current {
    /// Its services.
    pub services: BTreeMap<Place, Found>,
    /// Shared variables by environment.
    pub shared: BTreeMap<String, Variables>,
}

/// A service that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What was asked for.
    pub spec: ServiceSpec,
    /// Its variables.
    pub variables: Variables,
    /// How what runs compares with that.
    pub running: Running,
}

/// How what runs of a service compares with what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// Nothing of it was ever live, and nothing is on its way.
    Never,
    /// It runs as asked for, or is about to.
    Current,
    /// What runs has another configuration.
    Behind,
    /// The last deployment failed.
    Failed,
    /// Somebody stopped it.
    Stopped,
}

impl Project {
    /// The environments that the file is about.
    pub fn environments(&self) -> BTreeSet<&str> {
        if self.environments.is_empty() {
            return BTreeSet::from([DEFAULT_ENVIRONMENT]);
        }
        self.environments.keys().map(String::as_str).collect()
    }

    /// The services that the file is about.
    pub fn places(&self) -> BTreeSet<Place> {
        let mut places = BTreeSet::new();
        for (service, table) in &self.services {
            let is_there = |environment: &&str| {
                let only = table.environments.as_ref();
                only.is_none_or(|only| only.contains(*environment))
            };
            let there = self.environments().into_iter().filter(is_there);
            places.extend(there.map(|environment| Place::new(environment, service)));
        }
        places
    }

    /// What it says of a service in an environment, the general before the particular.
    fn tables(&self, place: &Place) -> impl Iterator<Item = &ServiceTable> {
        let environment = self.environments.get(&place.environment);
        let there = environment.and_then(|it| it.services.get(&place.service));
        self.services.get(&place.service).into_iter().chain(there)
    }

    /// The specification of a service with what the file says in it.
    ///
    /// # Errors
    /// An amount that cannot be read.
    pub fn spec(&self, place: &Place, base: &ServiceSpec) -> Result<ServiceSpec, Problem> {
        let mut spec = base.clone();
        for table in self.tables(place) {
            spec = table.manifest.apply(&spec)?;
            if let Some(origin) = &table.origin {
                origin.apply(&mut spec);
            }
        }
        Ok(spec)
    }

    /// The variables of a service, as far as the file says.
    pub fn variables(&self, place: &Place) -> Variables {
        let all = self.tables(place).flat_map(|table| &table.variables);
        all.map(|(name, given)| (name.clone(), given.clone()))
            .collect()
    }

    /// The variables that an environment shares, as far as the file says.
    pub fn shared(&self, environment: &str) -> Variables {
        let there = self.environments.get(environment);
        let there = there.into_iter().flat_map(|it| &it.variables);
        let all = self.variables.iter().chain(there);
        all.map(|(name, given)| (name.clone(), given.clone()))
            .collect()
    }
}
