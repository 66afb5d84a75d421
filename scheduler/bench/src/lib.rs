//! What the scheduler's benchmarks share: clusters and asks of published benchmarks, the autoscaler's
//! simulation beside its peers, packing beside classic heuristics, and the figures they print and
//! write. Measures from outside: it decides nothing.

pub mod autoscale;
pub mod figures;
pub mod load;
pub mod nomad;
pub mod packing;
