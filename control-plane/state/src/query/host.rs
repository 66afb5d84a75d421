//! Reading physical hosts under maintenance.

use std::sync::Arc;

use skep_model::maintenance::Maintenance;
use skep_model::node::{Admin, HOST, Node};

use crate::state::State;

impl State {
    /// Every host under maintenance, by name.
    pub fn maintenances(&self) -> impl Iterator<Item = &Arc<Maintenance>> {
        self.maintenances.values()
    }

    /// A host's maintenance, by the host's name.
    pub fn maintenance(&self, host: &str) -> Option<&Arc<Maintenance>> {
        self.maintenances.get(host)
    }

    /// Whether nodes of a host under maintenance are to be drained yet, or are on another host by now: whether
    /// following it would change anything.
    pub fn has_strayed(&self, maintenance: &Maintenance) -> bool {
        let is_on = |node: &Node| node.meta(HOST) == Some(&*maintenance.host);
        let is_new = |node: &Node| !matches!(node.admin, Admin::Draining { .. });
        let mut recorded = maintenance.nodes.keys();
        self.nodes().any(|node| is_on(node) && is_new(node))
            || recorded.any(|id| !self.node(*id).is_some_and(|node| is_on(node)))
    }
}
