//! Physical hosts under maintenance: their nodes take nothing new and are drained until it ends. Written by
//! operators, and by the leader for what a provider says of its hosts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::node::MAX_META_VALUE;
use crate::problem::{Code, Problem};

/// Most hosts that are under maintenance at one time.
pub const MAX_MAINTENANCES: usize = 256;

/// Who wants a host empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = MaintenanceCause))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// An operator; it ends when an operator says so.
    Operator,
    /// The provider of its guests says that the host is under maintenance; it ends with that.
    Provider,
}

impl Cause {
    /// Every cause, in the order of the stored format: append only.
    pub const ALL: [Self; 2] = [Self::Operator, Self::Provider];
}

/// A physical host under maintenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// The host, as its nodes say it.
    pub host: String,
    /// Who wants that.
    pub cause: Cause,
    /// Since when, ms since the epoch.
    pub since_ms: u64,
    /// What is left on its nodes by then is stopped, ms since the epoch.
    pub deadline_ms: u64,
    /// Nodes that are drained for it, and whether they were cordoned before: that is what they are again when it ends,
    /// or when they are on another host.
    pub nodes: BTreeMap<NodeId, bool>,
}

/// Whether this can be a host's name, as metadata of nodes say it.
///
/// # Errors
/// `Invalid`, with what is accepted.
pub fn check_host(host: &str) -> Result<(), Problem> {
    if (1..=MAX_META_VALUE).contains(&host.len()) && !host.chars().any(char::is_control) {
        return Ok(());
    }
    let text = format!("`{}` is no host", host.escape_debug());
    Err(Problem::new(Code::Invalid, text)
        .at("host")
        .hint("`skep host ls` lists the hosts"))
}
