//! Pools that make their nodes: how many there should be, of what, and the guests that there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, TokenId};
use crate::name;
use crate::node::{Facts, check_meta};
use crate::pool::{Backups, Guest, MAX_GUESTS, Phase, Recipe};
use crate::problem::Problem;
use crate::provider::Way;
use crate::settings::MAX_POOL_META;

/// Most pools that make nodes.
pub const MAX_GUEST_POOLS: usize = 100;
/// How long a node is not needed before it goes, where nobody says otherwise, ms.
pub const IDLE_MS: u64 = 10 * 60 * 1_000;
/// The shortest, ms: a node that goes sooner is one that comes back.
pub const MIN_IDLE_MS: u64 = 5_000;
/// The longest, ms.
pub const MAX_IDLE_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Longest reason of a decision that is kept, in bytes.
pub const MAX_DECISION: usize = 500;
/// How long a node that is to go may take to become empty, where nobody says otherwise, ms.
pub const DRAIN_MS: u64 = 60 * 60 * 1_000;

/// How many nodes a pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = NodePoolSize))]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Fewest.
    pub min: u32,
    /// Most, those that are being replaced not counted.
    pub max: u32,
    /// How many there should be now.
    pub wanted: u32,
    /// How this number follows what runs and what waits; none: it is said by people.
    #[serde(default)]
    pub auto: Option<Auto>,
}

/// How a pool scales itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = NodePoolAuto))]
#[serde(deny_unknown_fields, default)]
pub struct Auto {
    /// What a node costs, in any unit that all pools share: of those that would do, the cheapest gets one more.
    pub cost: u32,
    /// CPU that is always to be free in the pool, thousandths of a core.
    pub headroom_cpu_millis: u32,
    /// Memory that is always to be free beside it, bytes: in one piece where one node can hold both.
    pub headroom_memory_bytes: u64,
    /// Nodes on which nothing runs that are always to be there.
    pub spare: u32,
    /// For how long a node is not needed before it goes, and for how long none goes after one came, ms.
    pub idle_ms: u64,
}

impl Default for Auto {
    fn default() -> Self {
        Self {
            cost: 1,
            headroom_cpu_millis: 0,
            headroom_memory_bytes: 0,
            spare: 0,
            idle_ms: IDLE_MS,
        }
    }
}

/// What a pool that scales itself decided last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = NodePoolDecision))]
pub struct Decision {
    /// When, ms since the epoch.
    pub at_ms: u64,
    /// What and why, for a person.
    pub reason: String,
}

/// What a node of a pool was like that is there no more: what the next one will be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenNode {
    /// The edition of the recipe that it was made by.
    pub edition: u64,
    /// Its own word, less what was on it alone.
    pub facts: Facts,
}

/// A pool whose nodes a provider makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestPool {
    /// Its name: also what its nodes say as metadata `pool`.
    pub name: String,
    /// The name of the provider.
    pub provider: String,
    /// What each guest is made of.
    pub recipe: Recipe,
    /// Metadata of its nodes, which they cannot change.
    pub meta: BTreeMap<String, String>,
    /// How many.
    pub size: Size,
    /// How its guests are copied; none: they are not.
    pub backups: Option<Backups>,
    /// A node of it that is lost is ended by its provider, where work with shared storage waits for that.
    pub fences: bool,
    /// What it decided last, where it scales itself.
    pub decided: Option<Decision>,
    /// The last of its nodes that went.
    pub seen: Option<SeenNode>,
    /// Raised by each change of the recipe: guests know by which they were made.
    pub edition: u64,
    /// Raised by each change.
    pub generation: u64,
    /// When it was made, ms since the epoch.
    pub made_ms: u64,
}

/// A guest, and what its pool has to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolGuest {
    /// The name of the pool.
    pub pool: String,
    /// What it is, and how far it has come.
    pub guest: Guest,
    /// The edition of the recipe that it was planned by.
    pub edition: u64,
    /// The join token that was made for it, which lets nobody else in.
    pub token: Option<TokenId>,
    /// The node that runs in it, once that has joined.
    pub node: Option<NodeId>,
    /// Another one comes in its place, then it goes.
    pub is_retiring: bool,
    /// When it was planned, ms since the epoch.
    pub planned_ms: u64,
    /// When its node is to be empty at the latest, ms since the epoch: set as it leaves.
    pub drain_deadline_ms: Option<u64>,
}

impl Size {
    /// Checks that the numbers go together.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> Result<(), Problem> {
        if self.max > MAX_GUESTS {
            let text = format!("{} nodes are too many", self.max);
            return Err(Problem::invalid("max", text).hint(format!("at most {MAX_GUESTS}")));
        }
        if self.min > self.max {
            let text = format!("at least {} and at most {} cannot be", self.min, self.max);
            return Err(Problem::invalid("min", text).hint("min is no larger than max"));
        }
        if !(self.min..=self.max).contains(&self.wanted) {
            let text = format!("{} nodes are not wanted", self.wanted);
            let hint = format!(
                "{} to {}; `skep pool change` moves these bounds",
                self.min, self.max
            );
            return Err(Problem::invalid("wanted", text).hint(hint));
        }
        self.auto.map_or(Ok(()), |auto| auto.check(self.max))
    }
}

impl Auto {
    fn check(self, max: u32) -> Result<(), Problem> {
        if !(MIN_IDLE_MS..=MAX_IDLE_MS).contains(&self.idle_ms) {
            let text = format!("nodes cannot go after {} ms", self.idle_ms);
            return Err(Problem::invalid("auto.idle_ms", text).hint("5s to 7d; 10m by default"));
        }
        if self.spare > max {
            let text = format!("{} spare nodes of at most {max} cannot be", self.spare);
            return Err(Problem::invalid("auto.spare", text).hint("spare is no larger than max"));
        }
        Ok(())
    }

    /// Whether room is to be free that nothing asks for.
    pub const fn has_headroom(self) -> bool {
        self.headroom_cpu_millis > 0 || self.headroom_memory_bytes > 0
    }
}

impl GuestPool {
    /// Checks every field, as it is asked of a provider of this way.
    ///
    /// # Errors
    /// The first that is not accepted, and what would be.
    pub fn check(&self, way: &Way) -> Result<(), Problem> {
        name::check("name", &self.name)?;
        name::check("provider", &self.provider)?;
        match way {
            Way::Proxmox(_) => self.recipe.check()?,
            Way::Exec(_) => self.recipe.check_for_program()?,
            Way::Static(_) => self.recipe.check_for_machines()?,
        }
        self.size.check()?;
        if self.size.auto.is_some() && matches!(way, Way::Static(_)) {
            let text = "machines of a list come only where a person tells them to";
            return Err(Problem::invalid("auto", text)
                .hint("say how many nodes there should be: `skep pool scale`"));
        }
        if self.backups.is_some() && !way.is_proxmox() {
            let text = format!("{} makes no copies of guests", way.kind().word());
            return Err(Problem::invalid("backups", text)
                .hint("copy these machines by their own means, and volumes by `skep volume`"));
        }
        self.backups.as_ref().map_or(Ok(()), Backups::check)?;
        if self.meta.len() > MAX_POOL_META {
            let text = format!("{} keys are too many", self.meta.len());
            return Err(Problem::invalid("meta", text).hint(format!("at most {MAX_POOL_META}")));
        }
        for (key, value) in &self.meta {
            check_meta(key, value)?;
            // Both are the cluster's to say.
            if key == "pool" || key == crate::node::HOST {
                let text = format!("`{key}` of a guest is what the cluster knows of it");
                return Err(Problem::invalid(format!("meta.{key}"), text));
            }
        }
        Ok(())
    }

    /// Whether guests that there are can go on under another one of this name.
    ///
    /// # Errors
    /// Names what cannot change while there are guests.
    pub fn check_change(&self, next: &Self) -> Result<(), Problem> {
        let fixed = [
            ("provider", self.provider == next.provider),
            ("kind", self.recipe.kind == next.recipe.kind),
            (
                "resource_pool",
                self.recipe.resource_pool == next.recipe.resource_pool,
            ),
        ];
        match fixed.into_iter().find(|(_, is_same)| !is_same) {
            None => Ok(()),
            Some((field, _)) => {
                let text = format!("`{field}` cannot change while the pool has guests");
                Err(Problem::invalid(field, text)
                    .hint("make another pool, and scale this one to 0"))
            }
        }
    }
}

impl PoolGuest {
    /// Whether it is one of those that are wanted: it comes or is there, and is not to go.
    pub fn counts(&self) -> bool {
        self.guest.phase < Phase::Leaving && !self.is_retiring
    }

    /// Whether a node runs in it.
    pub fn is_ready(&self) -> bool {
        self.guest.phase == Phase::Ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_auto(size: Size, change: fn(&mut Auto)) -> Size {
        let mut auto = Auto::default();
        change(&mut auto);
        Size {
            auto: Some(auto),
            ..size
        }
    }

    #[test]
    fn numbers_of_nodes_go_together() {
        let size = Size {
            min: 1,
            max: 5,
            wanted: 3,
            auto: None,
        };
        size.check().expect("fine");
        let cases = [
            (
                "max",
                Size {
                    max: MAX_GUESTS + 1,
                    ..size
                },
            ),
            ("min", Size { min: 6, ..size }),
            ("wanted", Size { wanted: 0, ..size }),
            ("wanted", Size { wanted: 6, ..size }),
            ("auto.spare", with_auto(size, |auto| auto.spare = 6)),
            ("auto.idle_ms", with_auto(size, |auto| auto.idle_ms = 4_999)),
        ];
        with_auto(size, |auto| auto.spare = 5)
            .check()
            .expect("fine");
        for (field, size) in cases {
            let problem = size.check().expect_err(field);
            assert_eq!(problem.field.as_deref(), Some(field));
        }
    }
}
