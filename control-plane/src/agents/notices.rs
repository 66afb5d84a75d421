//! Wakes the sessions that a change concerns, and no others. One task follows the feed for all of
//! them: with ten thousand nodes a change of one wakes one session. Never says what changed for
//! whom beyond [`Concern`]; each session reads that from a view.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use skep_model::id::{AllocationId, EnvironmentId, NodeId};
use skep_proto::v1;
use skep_state::{Change, State};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::consensus::Batch;
use crate::store::Store;

/// Allocations that a session keeps apart; with more it looks at all that the node has.
const TOUCHED_MAX: usize = 64;

/// Allocations that may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Touched {
    /// Any that the node has, or had.
    All,
    /// These alone.
    These(BTreeSet<AllocationId>),
}

impl Touched {
    const NONE: Self = Self::These(BTreeSet::new());

    fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::These(these), Self::These(those)) => {
                these.extend(those);
                if these.len() > TOUCHED_MAX {
                    *self = Self::All;
                }
            }
            _ => *self = Self::All,
        }
    }
}

/// What of a node's picture may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Concern {
    /// Its builds, and what it is to end of what it has in quarantine.
    pub(super) work: bool,
    /// Its allocations.
    pub(super) allocations: Touched,
    /// The route table.
    pub(super) routes: bool,
    /// What is known by name in the environments of which it has containers.
    pub(super) names: bool,
    /// The servers and the CAs.
    pub(super) servers: bool,
    /// The logins at registries.
    pub(super) registries: bool,
    /// Certificates, or what proves hosts to their issuer.
    pub(super) certificates: bool,
}

impl Concern {
    /// Everything.
    pub(super) const ALL: Self = Self {
        work: true,
        allocations: Touched::All,
        routes: true,
        names: true,
        servers: true,
        registries: true,
        certificates: true,
    };
    /// Nothing.
    pub(super) const NONE: Self = Self {
        work: false,
        allocations: Touched::NONE,
        routes: false,
        names: false,
        servers: false,
        registries: false,
        certificates: false,
    };

    /// What the node itself is to do: this allocation, or what is not an allocation.
    fn work(allocation: Option<AllocationId>) -> Self {
        Self {
            work: true,
            allocations: Touched::These(allocation.into_iter().collect()),
            ..Self::NONE
        }
    }

    fn add(&mut self, other: Self) {
        self.work |= other.work;
        self.allocations.add(other.allocations);
        self.routes |= other.routes;
        self.names |= other.names;
        self.servers |= other.servers;
        self.registries |= other.registries;
        self.certificates |= other.certificates;
    }
}

/// What one session has not looked at yet.
struct Slot {
    /// The node has an ingress; else the table is nothing to it.
    has_routes: bool,
    /// Of which it has containers.
    environments: Mutex<BTreeSet<EnvironmentId>>,
    concern: Mutex<Concern>,
    wake: Notify,
}

/// A node, and the number of its session: while one session ends the next may have begun.
type Key = (NodeId, u64);

#[derive(Default)]
struct Inner {
    slots: Mutex<BTreeMap<Key, Arc<Slot>>>,
    /// The newest route table that was asked for, in the form in which it is sent.
    routes: Mutex<Option<Arc<v1::RouteTable>>>,
}

/// Who is to be woken. Cheap to clone.
#[derive(Clone, Default)]
pub struct Notices {
    inner: Arc<Inner>,
}

impl Notices {
    /// Follows the feed from now on, until shutdown or until the log ends. Called before the first
    /// session begins, else that one could miss what changes before the future is first polled.
    pub fn follow(
        &self,
        store: &Store,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = store.consensus().changes();
        let notices = self.clone();
        async move {
            let following = async {
                loop {
                    match changes.recv().await {
                        Ok(batch) => notices.pass_on(&batch),
                        Err(RecvError::Lagged(_)) => notices.wake_all(Concern::ALL),
                        Err(RecvError::Closed) => return,
                    }
                }
            };
            shutdown.run_until_cancelled(following).await;
        }
    }

    /// A session's place in the list. Everything concerns it at first; it leaves with what it holds.
    /// `has_routes`: the route table, too.
    pub(super) fn listen(&self, node: NodeId, session: u64, has_routes: bool) -> Listener {
        let slot = Arc::new(Slot {
            has_routes,
            environments: Mutex::default(),
            concern: Mutex::new(Concern::ALL),
            wake: Notify::new(),
        });
        slot.wake.notify_one();
        let key = (node, session);
        self.inner.slots.lock().insert(key, Arc::clone(&slot));
        Listener {
            notices: self.clone(),
            key,
            slot,
        }
    }

    /// The route table of a view. Sessions that ask for the same revision share one.
    pub(super) fn routes(&self, view: &State, incarnation: u64) -> Arc<v1::RouteTable> {
        let mut kept = self.inner.routes.lock();
        let revision = view.routes_revision();
        if let Some(table) = kept.as_ref()
            && (table.incarnation, table.revision) == (incarnation, revision)
        {
            return Arc::clone(table);
        }
        let table = Arc::new(v1::RouteTable {
            incarnation,
            ..(&view.route_table()).into()
        });
        *kept = Some(Arc::clone(&table));
        table
    }

    /// A node's work is looked at again, though nothing of it changed in the state.
    pub(super) fn look(&self, node: NodeId) {
        wake(&self.inner.slots.lock(), node, None);
    }

    fn pass_on(&self, batch: &Batch<Change>) {
        if batch.is_reset {
            return self.wake_all(Concern::ALL);
        }
        let mut for_all = Concern::NONE;
        {
            let slots = self.inner.slots.lock();
            for change in &batch.changes {
                match change {
                    Change::Allocation {
                        node, allocation, ..
                    } => wake(&slots, *node, Some(*allocation)),
                    Change::Build(node) | Change::Node(node) | Change::Quarantine(node) => {
                        wake(&slots, *node, None);
                    }
                    Change::Routes => for_all.routes = true,
                    Change::Names(environment) => wake_in(&slots, environment),
                    Change::Server(_) => for_all.servers = true,
                    Change::Registries | Change::PushRegistries => for_all.registries = true,
                    Change::Certificates | Change::Challenges => for_all.certificates = true,
                    Change::Cluster => for_all = Concern::ALL,
                    _ => {}
                }
            }
        }
        if for_all != Concern::NONE {
            self.wake_all(for_all);
        }
    }

    fn wake_all(&self, concern: Concern) {
        let slots = self.inner.slots.lock();
        slots.values().for_each(|slot| slot.wake(concern.clone()));
    }
}

/// Wakes the sessions of one node for its work.
fn wake(slots: &BTreeMap<Key, Arc<Slot>>, node: NodeId, allocation: Option<AllocationId>) {
    let sessions = slots.range((node, 0)..=(node, u64::MAX));
    sessions.for_each(|(_, slot)| slot.wake(Concern::work(allocation)));
}

/// Wakes the sessions of nodes with containers of an environment, for its names.
fn wake_in(slots: &BTreeMap<Key, Arc<Slot>>, environment: &EnvironmentId) {
    for slot in slots.values() {
        if slot.has_routes && slot.environments.lock().contains(environment) {
            slot.wake(Concern {
                names: true,
                ..Concern::NONE
            });
        }
    }
}

impl Slot {
    fn wake(&self, concern: Concern) {
        let concern = Concern {
            routes: concern.routes && self.has_routes,
            certificates: concern.certificates && self.has_routes,
            names: concern.names && self.has_routes,
            ..concern
        };
        if concern == Concern::NONE {
            return;
        }
        self.concern.lock().add(concern);
        self.wake.notify_one();
    }
}

/// One session's ear.
pub(super) struct Listener {
    notices: Notices,
    key: Key,
    slot: Arc<Slot>,
}

impl Listener {
    /// The node has containers of these from now on. What changed in a new one between the view that showed
    /// it and this is looked at once more.
    pub(super) fn follow_names(&self, environments: BTreeSet<EnvironmentId>) {
        let mut followed = self.slot.environments.lock();
        let is_more = !environments.is_subset(&followed);
        *followed = environments;
        drop(followed);
        if is_more {
            self.slot.wake(Concern {
                names: true,
                ..Concern::NONE
            });
        }
    }

    /// What has come to concern the session since it was last asked; waits until something does.
    pub(super) async fn next(&self) -> Concern {
        loop {
            self.slot.wake.notified().await;
            let concern = std::mem::replace(&mut *self.slot.concern.lock(), Concern::NONE);
            if concern != Concern::NONE {
                return concern;
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.notices.inner.slots.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use skep_model::id::ServiceId;

    use super::*;

    fn batch(changes: Vec<Change>) -> Batch<Change> {
        Batch {
            index: 1,
            changes,
            is_reset: false,
        }
    }

    fn on(node: u128) -> Change {
        Change::Allocation {
            allocation: AllocationId::from_u128(1),
            node: NodeId::from_u128(node),
            service: ServiceId::from_u128(1),
        }
    }

    fn work() -> Concern {
        Concern::work(Some(AllocationId::from_u128(1)))
    }

    #[test]
    fn a_session_that_sleeps_long_looks_at_everything() {
        let mut touched = Touched::NONE;
        for number in 0..TOUCHED_MAX {
            touched.add(Touched::These(
                [AllocationId::from_u128(number as u128)].into(),
            ));
        }
        assert!(matches!(&touched, Touched::These(ids) if ids.len() == TOUCHED_MAX));
        touched.add(Touched::These([AllocationId::from_u128(u128::MAX)].into()));
        assert_eq!(touched, Touched::All);
        touched.add(Touched::NONE);
        assert_eq!(touched, Touched::All);
    }

    #[test]
    fn a_change_wakes_whom_it_concerns_once_and_nobody_else() {
        let notices = Notices::default();
        let [one, two] = [1, 2].map(|id| notices.listen(NodeId::from_u128(id), 7, true));
        assert_eq!(one.next().now_or_never(), Some(Concern::ALL));
        assert_eq!(two.next().now_or_never(), Some(Concern::ALL));

        notices.pass_on(&batch(vec![on(1), on(1), on(3)]));
        assert_eq!(one.next().now_or_never(), Some(work()));
        assert_eq!(one.next().now_or_never(), None);
        assert_eq!(two.next().now_or_never(), None);

        notices.pass_on(&batch(vec![on(2), Change::Routes]));
        notices.pass_on(&batch(vec![Change::Routes]));
        let routes = Concern {
            routes: true,
            ..Concern::NONE
        };
        assert_eq!(one.next().now_or_never(), Some(routes));
        let both = Concern {
            routes: true,
            ..work()
        };
        assert_eq!(two.next().now_or_never(), Some(both));
        assert_eq!(two.next().now_or_never(), None);
    }

    #[test]
    fn names_wake_the_sessions_that_have_their_environment() {
        let notices = Notices::default();
        let [one, two] = [1, 2].map(|id| notices.listen(NodeId::from_u128(id), 7, true));
        let [ours, other] = [8, 9].map(EnvironmentId::from_u128);
        let names = Concern {
            names: true,
            ..Concern::NONE
        };
        assert_eq!(one.next().now_or_never(), Some(Concern::ALL));
        assert_eq!(two.next().now_or_never(), Some(Concern::ALL));
        // What changed before it was followed is looked at.
        one.follow_names([ours].into());
        assert_eq!(one.next().now_or_never(), Some(names.clone()));
        one.follow_names([ours].into());
        notices.pass_on(&batch(vec![Change::Names(other)]));
        assert_eq!(one.next().now_or_never(), None);
        notices.pass_on(&batch(vec![Change::Names(ours)]));
        assert_eq!(one.next().now_or_never(), Some(names));
        assert_eq!(two.next().now_or_never(), None);
    }

    #[test]
    fn a_node_without_an_ingress_sleeps_through_the_tables() {
        let notices = Notices::default();
        let one = notices.listen(NodeId::from_u128(1), 7, false);
        assert_eq!(one.next().now_or_never(), Some(Concern::ALL));
        notices.pass_on(&batch(vec![Change::Routes]));
        assert_eq!(one.next().now_or_never(), None);
        notices.pass_on(&batch(vec![Change::Routes, on(1)]));
        assert_eq!(one.next().now_or_never(), Some(work()));
    }

    #[test]
    fn the_next_session_of_a_node_hears_beside_the_one_that_ends() {
        let notices = Notices::default();
        let node = NodeId::from_u128(1);
        let old = notices.listen(node, 1, true);
        let new = notices.listen(node, 2, true);
        drop(old);
        assert_eq!(new.next().now_or_never(), Some(Concern::ALL));
        notices.pass_on(&batch(vec![on(1)]));
        assert_eq!(new.next().now_or_never(), Some(work()));
        drop(new);
        assert!(notices.inner.slots.lock().is_empty());
    }

    #[test]
    fn a_replaced_state_concerns_everybody() {
        let notices = Notices::default();
        let one = notices.listen(NodeId::from_u128(1), 1, true);
        one.next().now_or_never();
        notices.pass_on(&Batch {
            is_reset: true,
            ..batch(vec![])
        });
        assert_eq!(one.next().now_or_never(), Some(Concern::ALL));
    }
}
