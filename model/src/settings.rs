//! What operators say of workspaces, environments and pools: quotas, relaxed constraints, policies. Owns
//! their bounds; who counts what is used is not its question.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::gate::Gates;
use crate::id::{EnvironmentId, WorkspaceId};
use crate::name;
use crate::node::check_meta;
use crate::placement::PoolPolicy;
use crate::problem::Problem;

/// The pool whose policy holds for every node whose own pool has none.
pub const DEFAULT_POOL: &str = "default";
/// Most pools with a policy.
pub const MAX_POOLS: usize = 1_000;
/// Longest domain that generated names end in.
pub const MAX_BASE_DOMAIN: usize = 189;
/// Most keys of metadata that a pool gives its nodes.
pub const MAX_POOL_META: usize = 32;

/// Most of each that live allocations may request together; none: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// Requested CPU, in thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Requested memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Requested disk, in bytes.
    pub disk_bytes: Option<u64>,
    /// Live allocations.
    pub allocations: Option<u64>,
}

/// Whose settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// A workspace's.
    Workspace(WorkspaceId),
    /// An environment's.
    Environment(EnvironmentId),
}

/// What is said of a workspace or an environment. The default says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScopeSettings {
    /// What its services may request together.
    pub quota: Quota,
    /// Whether constraints of its services on node metadata are preferences; none: as in what it
    /// belongs to, and in the end they are not.
    pub relaxed: Option<bool>,
    /// What the generated names of an environment's services end in; none: the cluster's base domain.
    pub base_domain: Option<String>,
    /// What deployments have to get through. A workspace's holds for all of its environments, beside their own.
    pub gates: Gates,
}

/// Checks a domain that generated names end in.
///
/// # Errors
/// It is not one.
pub fn check_base_domain(base: &str) -> Result<(), Problem> {
    name::check_host("base_domain", base)?;
    // A generated label of 63 and its dot must still fit a name of 253.
    if base.starts_with("*.") || base.len() > MAX_BASE_DOMAIN {
        return Err(
            Problem::invalid("base_domain", format!("`{base}` is not a base domain")).hint(
                format!("a domain without a wildcard, at most {MAX_BASE_DOMAIN} characters"),
            ),
        );
    }
    Ok(())
}

/// What holds for the nodes of a pool (metadata `pool`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pool {
    /// Its name; `default`: of every node whose pool has no policy of its own.
    pub name: String,
    /// How much of a node may be requested, and how nodes are ranked.
    pub policy: PoolPolicy,
    /// Metadata of its nodes, where a node does not say another value.
    pub meta: BTreeMap<String, String>,
}

impl Pool {
    /// Checks every field.
    ///
    /// # Errors
    /// The first that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        name::check("pool", &self.name)?;
        self.policy.check()?;
        if self.meta.len() > MAX_POOL_META {
            let text = format!("{} keys are too many", self.meta.len());
            let hint = format!("at most {MAX_POOL_META}");
            return Err(Problem::invalid("meta", text).hint(hint));
        }
        for (key, value) in &self.meta {
            let at = format!("meta.{key}");
            check_meta(key, value).map_err(|problem| problem.at(at.clone()))?;
            if key == "pool" {
                let text = "a node says itself which pool it is in";
                return Err(Problem::invalid(at, text).hint("`skep node meta` sets it"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_of_a_pool_is_named() {
        let pool = |name: &str, meta: &[(&str, &str)]| Pool {
            name: name.into(),
            policy: PoolPolicy::default(),
            meta: meta
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        assert_eq!(pool("web", &[("tier", "pro")]).check(), Ok(()));
        let overcommitted = Pool {
            policy: PoolPolicy {
                cpu_percent: 5,
                ..PoolPolicy::default()
            },
            ..pool("web", &[])
        };
        for (pool, field) in [
            (pool("A B", &[]), "pool"),
            (pool("web", &[("pool", "db")]), "meta.pool"),
            (pool("web", &[("tier", "a\nb")]), "meta.tier"),
            (overcommitted, "cpu_percent"),
        ] {
            let problem = pool.check().expect_err(field);
            assert_eq!(problem.field.as_deref(), Some(field));
        }
    }
}
