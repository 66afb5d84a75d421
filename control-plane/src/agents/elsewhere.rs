//! The other servers, as far as nodes and their streams are concerned: what passes through one
//! server may be wanted at another. Owns the contract only; who dials whom is not known here.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use skep_model::id::{NodeId, ServerId, UploadId};
use skep_model::network_check::{self, Found};
use skep_model::polling;
use skep_model::probe::{Reach, Target};
use skep_model::problem::Problem;
use skep_model::registry;
use skep_proto::v1;
use tokio::sync::mpsc;

use super::relay::Ask;
use super::shells::{self, Shell};

/// The chunks of an upload; an error ends them.
pub type Chunks = mpsc::Receiver<Result<Bytes, Problem>>;

/// Reaches what is connected to the other servers.
pub trait Elsewhere: Send + Sync + 'static {
    /// The lines that `ask` is about, from the node's session at `server`. Never waits: what goes
    /// wrong comes as the problem of a last chunk. Dropping the receiver ends the stream there.
    fn logs(&self, server: ServerId, ask: Ask) -> mpsc::Receiver<v1::LogChunk>;

    /// A shell on a node that is connected to `server`.
    fn shell(&self, server: ServerId, ask: shells::Ask) -> BoxFuture<'_, Result<Shell, Problem>>;

    /// What a node that is connected to `server` finds when it knocks at others; none: no answer.
    fn probe(
        &self,
        server: ServerId,
        node: NodeId,
        targets: Vec<Target>,
    ) -> BoxFuture<'_, Option<Vec<Reach>>>;

    /// What a node that is connected to `server` finds when it dials others; none: no answer.
    fn check_network(
        &self,
        server: ServerId,
        node: NodeId,
        ask: network_check::Ask,
    ) -> BoxFuture<'_, Option<Found>>;

    /// What a node that is connected to `server` finds in a repository; none: no answer.
    fn ask_source(
        &self,
        server: ServerId,
        node: NodeId,
        ask: polling::Ask,
    ) -> BoxFuture<'_, Option<polling::Found>>;

    /// What a node that is connected to `server` does or finds at a registry; none: no answer.
    fn ask_registry(
        &self,
        server: ServerId,
        node: NodeId,
        ask: registry::Ask,
    ) -> BoxFuture<'_, Option<registry::Found>>;

    /// The chunks of `upload`, as soon as its client is at one of the other servers. An error of the
    /// code `SourceFailed` is final; any other says only that it was not found there.
    fn upload(&self, upload: UploadId) -> BoxFuture<'_, Result<Chunks, Problem>>;
}
