//! How backends are reached: those of this node by TCP, those of others by whoever knows the way.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;

use skep_model::id::{AllocationId, NodeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// A connection to a container.
pub struct Reached {
    /// The connection itself.
    pub stream: Box<dyn Stream>,
    /// Cancelled when whoever carries it asks for its end: what is under way on it is finished, and nothing
    /// else is begun.
    pub leaving: CancellationToken,
}

/// A connection that comes about, or does not.
pub type Reaching = Pin<Box<dyn Future<Output = io::Result<Reached>> + Send>>;

/// A port of an allocation on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Far {
    /// Where it runs.
    pub node: NodeId,
    /// Which.
    pub allocation: AllocationId,
    /// Where it listens.
    pub port: u16,
}

/// Who connects to allocations of other nodes.
pub trait Reach: Debug + Send + Sync + 'static {
    /// A connection to `far`, answered once the container there has taken it. Has no deadline of its
    /// own.
    fn reach(&self, far: Far) -> Reaching;
}

/// For an ingress whose tables name no other node.
#[derive(Debug)]
pub(crate) struct NoWay;

impl Reach for NoWay {
    fn reach(&self, _: Far) -> Reaching {
        Box::pin(std::future::ready(Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "no way to other nodes",
        ))))
    }
}
