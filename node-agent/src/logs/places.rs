//! Where logs are: which containers an allocation has, as the keeper says it.

use std::collections::BTreeMap;

use skep_model::assignment::Names;
use skep_model::id::AllocationId;

/// The containers of each allocation.
pub(crate) type Places = BTreeMap<AllocationId, Place>;

/// One allocation's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// Whose it is; empty: not assigned here any more.
    pub(crate) names: Names,
    /// Its containers, oldest first.
    pub(crate) containers: Vec<Container>,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    /// Docker's id of it.
    pub(crate) id: String,
    /// It has ended: nothing more is written.
    pub(crate) is_over: bool,
}
