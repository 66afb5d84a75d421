//! What the agent must remember over its own death: the desired set, the last route table, and
//! what it alone knows of each allocation. Decides nothing.
//!
//! Every value is sealed under the node's key: variables are secret, and a damaged value does not
//! open. A ledger that cannot be read is moved aside and begun anew: containers carry labels, and
//! a server has the desired set.

mod record;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::path::PathBuf;

use skep_identity::seal::{self, SealingKey};
use skep_identity::{random, secret_file};
use skep_model::assignment::{Assignment, BuildOrder, Generation};
use skep_model::deployment::BuildOutcome;
use skep_model::id::{AllocationId, DeploymentId};
use skep_model::route::RouteTable;

use crate::logs::files::Position;
use crate::plan::Local;
use crate::routes::Version;

pub(crate) use store::SledLedger;
pub(crate) use writer::Writer;

/// The ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error("the ledger's database")]
    Sled(#[from] sled::Error),
    /// Its file.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The node's key file.
    #[error("the node's key file")]
    Key(#[from] secret_file::Error),
    /// A value does not open.
    #[error("the ledger's entry {entry} does not open")]
    Sealed {
        /// Which.
        entry: String,
        /// Why not.
        source: seal::Error,
    },
    /// A value means nothing.
    #[error("the ledger's entry {entry} is not readable")]
    Malformed {
        /// Which.
        entry: String,
    },
    /// Written by a newer agent.
    #[error("the ledger has format {found}; this agent knows {known}: update it")]
    Format {
        /// What it says.
        found: u32,
        /// What this build writes.
        known: u32,
    },
    /// The writing thread is gone.
    #[error("the ledger is closed")]
    Closed,
}

/// The last route table, and the incarnation of the cluster that it came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Routes {
    /// Of the cluster.
    pub(crate) incarnation: u64,
    /// The table.
    pub(crate) table: RouteTable,
}

impl Routes {
    /// Which table that is.
    pub(crate) fn version(&self) -> Version {
        Version {
            incarnation: self.incarnation,
            revision: self.table.revision,
        }
    }
}

/// Everything that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Contents {
    /// Generation of the desired set; none: no full set has ever been here.
    pub(crate) generation: Option<Generation>,
    /// What is assigned.
    pub(crate) assignments: BTreeMap<AllocationId, Assignment>,
    /// What ran when a new incarnation did not name it: kept as it was until somebody decides.
    pub(crate) quarantine: BTreeMap<AllocationId, Assignment>,
    /// What is to be built.
    pub(crate) builds: BTreeMap<DeploymentId, BuildOrder>,
    /// Local facts.
    pub(crate) locals: BTreeMap<AllocationId, Local>,
    /// Builds that ended and are still ordered.
    pub(crate) outcomes: BTreeMap<DeploymentId, BuildOutcome>,
    /// The last route table.
    pub(crate) routes: Option<Routes>,
    /// How far logs were shipped: by destination and container.
    pub(crate) shipped: BTreeMap<String, Position>,
}

/// One change.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// The desired set is now of this generation.
    Generation(Generation),
    /// An assignment, new or changed.
    Assign(Box<Assignment>),
    /// An assignment is no more.
    Unassign(AllocationId),
    /// An assignment of an older incarnation goes into quarantine, or is changed there.
    Quarantine(Box<Assignment>),
    /// An allocation is in quarantine no more.
    Unquarantine(AllocationId),
    /// A build is ordered.
    Order(Box<BuildOrder>),
    /// A build is not ordered any more; its outcome goes with it.
    Unorder(DeploymentId),
    /// Local facts of an allocation.
    Local(AllocationId, Local),
    /// An allocation is forgotten.
    Forget(AllocationId),
    /// How a build ended.
    Outcome(DeploymentId, Box<BuildOutcome>),
    /// The newest route table.
    Routes(Box<Routes>),
    /// How far a container's log was shipped to a destination; none: forgotten.
    Shipped(String, Option<Position>),
}

/// Where contents are kept. Blocks on the disk: never called on an async worker.
pub(crate) trait Ledger: Send + 'static {
    /// Everything in it.
    ///
    /// # Errors
    /// The database, or an entry that does not open.
    fn load(&self) -> Result<Contents, Error>;

    /// All of `changes` or, after a crash, none of them; durable on return.
    ///
    /// # Errors
    /// The database or the disk.
    fn apply(&mut self, changes: &[Change]) -> Result<(), Error>;
}

/// The node's key, made on first use: 0600, and of use on this node alone.
///
/// # Errors
/// The file cannot be made or read, or others may read it.
pub(crate) fn load_or_create_key(path: &std::path::Path) -> Result<SealingKey, Error> {
    let fresh = random::bytes::<{ seal::KEY_LEN }>();
    secret_file::create_private(path, &fresh)?;
    let bytes = secret_file::read_private(path)?;
    SealingKey::from_bytes(&bytes).map_err(|source| Error::Sealed {
        entry: path.display().to_string(),
        source,
    })
}
