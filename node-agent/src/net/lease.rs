//! How long the servers count on this data plane. They hear of it through its agent, and wait for it before they
//! stop what an older table names; from the moment its lease has run out they do not. Such a node may send
//! requests to what is gone, so it says that it is not ready, for load balancers to leave it; and goes on serving.
//!
//! Where no other node has a lease either, it is the servers that are away. Nobody stops anything then, and no
//! node is any worse than another: all stay ready.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::mesh::Mesh;

/// Until the agent has to be heard after the start: as long as servers wait for a node that is silent.
const AT_START: Duration = Duration::from_secs(8);
/// Between two questions to others, as often as agents are heard.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Longest lease that is believed.
const MAX: Duration = Duration::from_secs(60);

/// The lease of this node.
#[derive(Debug)]
pub(super) struct Lease {
    until: watch::Sender<Instant>,
    is_behind: watch::Sender<bool>,
    ask_every: Duration,
}

impl Lease {
    /// As if it was heard just now.
    pub(super) fn new() -> Self {
        Self::lasting(AT_START, ASK_EVERY)
    }

    fn lasting(at_start: Duration, ask_every: Duration) -> Self {
        Self {
            until: watch::Sender::new(Instant::now() + at_start),
            is_behind: watch::Sender::new(false),
            ask_every,
        }
    }

    /// The servers count on this node for so long.
    pub(super) fn renew(&self, remaining: Duration) {
        self.until.send_replace(Instant::now() + remaining.min(MAX));
    }

    /// Whether they do now.
    pub(super) fn is_held(&self) -> bool {
        Instant::now() < *self.until.borrow()
    }

    /// Whether others are counted on and this node is not; changes wake the receiver.
    pub(super) fn is_behind(&self) -> watch::Receiver<bool> {
        self.is_behind.subscribe()
    }

    /// Follows the lease for ever: once it has run out `others` are asked whether one of them has one.
    async fn follow<F: Future<Output = bool>>(&self, others: impl Fn() -> F) {
        let mut until = self.until.subscribe();
        loop {
            let over = *until.borrow_and_update();
            let next = if Instant::now() < over {
                self.say(false);
                over
            } else {
                self.say(others().await);
                Instant::now() + self.ask_every
            };
            tokio::select! {
                () = sleep_until(next) => {}
                // Its sender is this lease's own.
                _ = until.changed() => {}
            }
        }
    }

    fn say(&self, is_behind: bool) {
        let changed = self
            .is_behind
            .send_if_modified(|it| std::mem::replace(it, is_behind) != is_behind);
        match (changed, is_behind) {
            (false, _) => {}
            (true, true) => tracing::warn!(
                "no server hears of this node, and other nodes are heard: its routes may be old, so it is not ready; it goes on serving"
            ),
            (true, false) => tracing::info!("this node is as ready as the others again"),
        }
    }
}

/// Follows the node's lease for ever, asking the nodes that `mesh` knows.
pub(super) async fn follow(mesh: Arc<Mesh>) {
    let others = || Arc::clone(&mesh).is_another_counted_on();
    mesh.lease().follow(others).await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_node_is_behind_only_while_others_are_counted_on_and_it_is_not() {
        let soon = Duration::from_millis(20);
        let lease = Lease::lasting(soon, soon);
        let others = AtomicBool::new(true);
        let mut behind = lease.is_behind();
        let work = async {
            behind.wait_for(|it| *it).await.expect("open");
            assert!(!lease.is_held());
            others.store(false, Ordering::Relaxed);
            behind.wait_for(|it| !*it).await.expect("open");
            assert!(!lease.is_held(), "the servers are away: none is worse");
            others.store(true, Ordering::Relaxed);
            behind.wait_for(|it| *it).await.expect("open");
            lease.renew(MAX);
            behind.wait_for(|it| !*it).await.expect("open");
            assert!(lease.is_held());
            lease.renew(soon);
            behind.wait_for(|it| *it).await.expect("open");
            assert!(!lease.is_held());
        };
        tokio::select! {
            () = lease.follow(async || others.load(Ordering::Relaxed)) => {}
            () = work => {}
        }
    }
}
