//! Environments that come and go with pull requests: the rules that they are made by, and what is known of each.
//! Owns bounds and the one way from a service's specification to that of its copy; makes nothing.

mod adapt;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::forge::Kept;
use crate::health::check_command;
use crate::id::EnvironmentId;
use crate::name;
use crate::problem::Problem;
use crate::settings::check_base_domain;
use crate::variable::{self, Variable};

pub use adapt::{Copied, adapted};

/// How long a preview lives after the last push where nothing is said, in ms.
pub const DEFAULT_TTL_MS: u64 = 7 * DAY_MS;
/// Shortest life, in ms.
pub const MIN_TTL_MS: u64 = 10_000;
/// Longest life, in ms.
pub const MAX_TTL_MS: u64 = 365 * DAY_MS;
/// Most previews of one environment at once where nothing is said.
pub const DEFAULT_MAX: u32 = 10;
/// Most that can be said.
pub const MAX_PREVIEWS: u32 = 200;
/// How long nothing is asked of a service of a preview until it sleeps, where nothing is said, in ms.
pub const DEFAULT_IDLE_MS: u64 = 30 * 60_000;
/// How long a preview that has ended is remembered, in ms: what a forge sends late must not make it again.
pub const KEEP_ENDED_MS: u64 = 7 * DAY_MS;
/// Most services that the rules name.
const MAX_SERVICES: usize = 200;

const DAY_MS: u64 = 24 * 3_600_000;

/// What fills a preview with data: run in place of the release phase of a service until it is live for the first
/// time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// Name of the service whose image it runs in.
    pub service: String,
    /// What is run.
    pub command: Vec<String>,
}

/// What an environment says of its previews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The environment that is copied.
    pub base: EnvironmentId,
    /// Names of the services that are copied; empty: all.
    pub services: BTreeSet<String>,
    /// Shared variables that previews have beside, or in place of, those of the base.
    pub variables: BTreeMap<String, Variable>,
    /// What their generated names end in; none: the cluster's base domain.
    pub base_domain: Option<String>,
    /// How long one lives after the last push, in ms.
    pub ttl_ms: u64,
    /// Most at once.
    pub max: u32,
    /// Whether pull requests from other repositories get one, without variables of the base.
    pub forks: bool,
    /// How long nothing is asked of a service until it sleeps, in ms; 0: it never does.
    pub idle_ms: u64,
    /// What fills them with data.
    pub seed: Option<Seed>,
}

impl Rules {
    /// What holds where nothing is said.
    pub fn new(base: EnvironmentId) -> Self {
        Self {
            base,
            services: BTreeSet::new(),
            variables: BTreeMap::new(),
            base_domain: None,
            ttl_ms: DEFAULT_TTL_MS,
            max: DEFAULT_MAX,
            forks: false,
            idle_ms: DEFAULT_IDLE_MS,
            seed: None,
        }
    }

    /// Whether a service of the base is copied.
    pub fn takes(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.contains(service)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        check_ttl(self.ttl_ms)?;
        if !(1..=MAX_PREVIEWS).contains(&self.max) {
            return Err(
                Problem::invalid("max", format!("{} is out of range", self.max))
                    .hint(format!("1 to {MAX_PREVIEWS}")),
            );
        }
        if self.idle_ms != 0 && !(MIN_TTL_MS..=MAX_TTL_MS).contains(&self.idle_ms) {
            return Err(
                Problem::invalid("idle", "it is out of range").hint("10s to 365d, or `never`")
            );
        }
        if self.services.len() > MAX_SERVICES {
            let text = format!("more than {MAX_SERVICES}");
            return Err(Problem::invalid("services", text).hint("name none for all"));
        }
        self.services
            .iter()
            .try_for_each(|service| name::check("services", service))?;
        self.variables
            .keys()
            .try_for_each(|name| variable::check_name(name))?;
        if let Some(base) = &self.base_domain {
            check_base_domain(base)?;
        }
        let Some(seed) = &self.seed else {
            return Ok(());
        };
        name::check("seed.service", &seed.service)?;
        check_command("seed.command", &seed.command)?;
        match self.takes(&seed.service) {
            true => Ok(()),
            false => Err(
                Problem::invalid("seed.service", "previews have no such service")
                    .hint("name it among `services`, too"),
            ),
        }
    }
}

/// Checks how long a preview is to live.
///
/// # Errors
/// It is too short or too long.
pub fn check_ttl(ttl_ms: u64) -> Result<(), Problem> {
    match (MIN_TTL_MS..=MAX_TTL_MS).contains(&ttl_ms) {
        true => Ok(()),
        false => Err(Problem::invalid("ttl", "it is out of range").hint("10s to 365d")),
    }
}

/// The pull request that a preview is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where it would be merged, as the service's source names it.
    pub repository: String,
    /// Its number there.
    pub number: u64,
    /// It comes from another repository.
    pub is_fork: bool,
    /// Title, for a person.
    pub title: String,
    /// Where people look at it.
    pub url: Option<String>,
    /// When the newest thing that was heard of it happened at the forge, ms since the epoch; none: it never said.
    pub heard_ms: Option<u64>,
}

impl Request {
    /// Whether something that happened then is older than what was heard. Who does not say is believed.
    pub fn is_stale(&self, at_ms: Option<u64>) -> bool {
        matches!((self.heard_ms, at_ms), (Some(heard), Some(at)) if at < heard)
    }
}

/// Why a preview ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Its pull request was merged or closed.
    Closed,
    /// Nothing was pushed for too long.
    Expired,
    /// Somebody removed it.
    Removed,
}

impl Why {
    /// In the order of the stored format: append only.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Expired, Self::Removed];

    /// As people read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Expired => "expired",
            Self::Removed => "removed",
        }
    }
}

/// The end of a preview.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Cluster time, ms since the epoch.
    pub at_ms: u64,
    /// Why.
    pub why: Why,
}

/// An environment that will go by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Identity: the environment's. It is remembered a while after that is gone.
    pub environment: EnvironmentId,
    /// The environment that it is a copy of.
    pub base: EnvironmentId,
    /// The environment's name.
    pub name: String,
    /// What it is for; none: somebody made it by hand.
    pub request: Option<Request>,
    /// The branch that it deploys; none: as its base.
    pub branch: Option<String>,
    /// The newest commit that it was asked to deploy.
    pub commit: Option<String>,
    /// How long it lives after the last push, in ms.
    pub ttl_ms: u64,
    /// When it ends, cluster time in ms since the epoch.
    pub expires_ms: u64,
    /// Cluster time of creation, ms since the epoch.
    pub created_ms: u64,
    /// How long nothing is asked of a service until it sleeps, in ms; 0: it never does.
    pub idle_ms: u64,
    /// What fills it with data.
    pub seed: Option<Seed>,
    /// Its end; none: it lives.
    pub ended: Option<Ended>,
    /// What its pull request was told of it; none: nothing.
    pub comment: Option<Kept>,
}

impl Preview {
    /// Whether strangers wrote what it deploys.
    pub fn is_fork(&self) -> bool {
        self.request.as_ref().is_some_and(|it| it.is_fork)
    }

    /// What is special about the specifications of its services.
    pub fn copied(&self) -> Copied {
        Copied {
            idle_ms: self.idle_ms,
            is_fork: self.is_fork(),
        }
    }

    /// Whether it is for this pull request.
    pub fn is_for(&self, repository: &str, number: u64) -> bool {
        let request = self.request.as_ref();
        request.is_some_and(|it| it.number == number && it.repository == repository)
    }
}

#[cfg(test)]
mod tests;
