//! The way to containers of other nodes, and from there to ours: one connection between each two data planes
//! that have something to say to each other, mTLS under the node's own certificate; on it HTTP/2, where each
//! `CONNECT ALLOCATION:PORT` is a stream of bytes to a container with flow control of its own. Where an allocation
//! is files of a static site there is no container: this process answers on the stream itself.
//!
//! A node is asked only for what is fit for traffic there as its own agent says: that a table of another
//! node still names it is not enough.

mod links;
mod listen;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use skep_identity::keypair::Credentials;
use skep_identity::tls::{LoadError, Reloadable};
use skep_ingress::files::Bundle;
use skep_ingress::{Far, Reach, Reaching};
use skep_model::id::{AllocationId, NodeId};
use tokio::sync::watch;

use super::lease::Lease;
use links::Links;
pub(super) use listen::serve;

/// What data planes say to each other: not gRPC, and not HTTP for people.
pub(crate) const ALPN: &[&[u8]] = &[b"skep-mesh/1"];

/// Asked for by each connection at its beginning, and answered at its end.
const LEAVING_PATH: &str = "/v1/leaving";
/// Answered with 200 where the servers count on the node.
const LEASE_PATH: &str = "/v1/lease";
/// What may be on its way in one stream: 100 ms at 80 Mbit/s; and in all streams of a connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// What is buffered of one stream that its connection has no room for.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// How often something happened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Streams to other nodes that are open.
    pub(super) out: AtomicU64,
    /// Streams from other nodes that are open.
    pub(super) within: AtomicU64,
    /// Streams to other nodes that did not come about.
    pub(super) failed: AtomicU64,
}

/// Counts a stream as open for as long as it lives.
#[derive(Debug)]
struct Open(Arc<Counters>, fn(&Counters) -> &AtomicU64);

impl Open {
    fn new(counters: &Arc<Counters>, which: fn(&Counters) -> &AtomicU64) -> Self {
        which(counters).fetch_add(1, Ordering::Relaxed);
        Self(counters.clone(), which)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where an allocation of this node answers.
#[derive(Debug, Clone)]
pub(super) enum Local {
    /// Its container, without a port.
    At(IpAddr),
    /// Nowhere: this process hands out its files.
    Files(Bundle),
}

/// The node among others.
#[derive(Debug)]
pub(super) struct Mesh {
    /// None: the agent has not said yet who this node is.
    own: watch::Sender<Option<Arc<Reloadable>>>,
    links: Links,
    /// What of this node is fit for traffic.
    local: RwLock<HashMap<AllocationId, Local>>,
    counters: Arc<Counters>,
    lease: Lease,
}

impl Mesh {
    pub(super) fn new() -> Arc<Self> {
        let own = watch::Sender::new(None);
        let counters = Arc::<Counters>::default();
        Arc::new(Self {
            links: Links::new(own.subscribe(), counters.clone()),
            own,
            local: RwLock::default(),
            counters,
            lease: Lease::new(),
        })
    }

    /// Is this node from now on: handshakes to come use it.
    ///
    /// # Errors
    /// The credentials are of no use; what was used before stays.
    pub(super) fn identify(&self, credentials: &Credentials) -> Result<(), LoadError> {
        let held = self.own.borrow().clone();
        if let Some(held) = held {
            match held.replace(credentials) {
                // A node that has joined anew is another one.
                Err(LoadError::OtherIdentity { .. }) => {}
                other => return other,
            }
        }
        let own = Reloadable::new(credentials)?;
        self.own.send_replace(Some(own));
        Ok(())
    }

    /// Where the other nodes are, and what of this one others may reach.
    pub(super) fn publish(
        &self,
        peers: HashMap<NodeId, String>,
        local: HashMap<AllocationId, Local>,
    ) {
        self.links.publish(peers);
        *self.local.write() = local;
    }

    /// Who this node is; changes wake the receiver.
    pub(super) fn own(&self) -> watch::Receiver<Option<Arc<Reloadable>>> {
        self.own.subscribe()
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How long the servers count on this node.
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Whether some other node says that the servers count on it.
    pub(super) async fn is_another_counted_on(self: Arc<Self>) -> bool {
        self.links.any_answers(LEASE_PATH).await
    }

    fn local(&self, allocation: AllocationId) -> Option<Local> {
        self.local.read().get(&allocation).cloned()
    }
}

impl Reach for Mesh {
    fn reach(&self, far: Far) -> Reaching {
        self.links.reach(far)
    }
}
