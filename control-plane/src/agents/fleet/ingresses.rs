//! What the ingresses of all nodes have in common: which tables and challenges every live one of them has.

use skep_model::allocation::Allocation;
use skep_model::id::NodeId;
use skep_model::node::{Node, NodeStatus};
use skep_state::State;

use super::{Fleet, RouteStatus};

impl Fleet {
    /// Whether every live ingress has stopped sending requests to a withdrawn allocation, and those
    /// under way have ended.
    pub fn is_drained(&self, view: &State, allocation: &Allocation) -> bool {
        let service = view.service(allocation.service);
        let callers = service
            .filter(|service| !service.spec.takes_traffic())
            .map(|service| view.callers_in(service.environment));
        let is_without =
            |without: u64| move |status: RouteStatus| status.applied.min(status.drained) >= without;
        let without = allocation.desired_index;
        match callers {
            // It has no routes: only where its environment is, its name leads to it.
            Some(callers) => {
                self.ingresses(view, |node| callers.contains(&node), is_without(without))
            }
            None => {
                let without = without.min(view.routes_revision());
                self.ingresses(view, |_| true, is_without(without))
            }
        }
    }

    /// Whether every live ingress serves a table at least as new as `revision`.
    pub fn is_published(&self, view: &State, revision: u64) -> bool {
        self.ingresses(view, |_| true, |status| status.applied >= revision)
    }

    /// Live ingresses that do not answer the challenges of `revision` yet.
    pub fn without_challenges(&self, view: &State, revision: u64) -> Vec<NodeId> {
        let books = self.inner.books.lock();
        let lacks = |node: &&Node| {
            let best = books.best(node.id);
            best.is_none_or(|(_, presence)| presence.challenges < revision)
        };
        live(view).filter(lacks).map(|node| node.id).collect()
    }

    fn ingresses(
        &self,
        view: &State,
        is_meant: impl Fn(NodeId) -> bool,
        check: impl Fn(RouteStatus) -> bool,
    ) -> bool {
        let books = self.inner.books.lock();
        live(view).filter(|node| is_meant(node.id)).all(|node| {
            let best = books.best(node.id);
            best.is_some_and(|(_, presence)| check(presence.routes))
        })
    }
}

/// Nodes that requests may come to.
fn live(view: &State) -> impl Iterator<Item = &Node> {
    view.nodes()
        .map(|node| &**node)
        .filter(|node| node.facts.ingress_port.is_some() && node.status != NodeStatus::Lost)
}
