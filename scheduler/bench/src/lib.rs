//! What the scheduler's benchmarks share: clusters and asks of published benchmarks, and the
//! figures they print and write. Measures from outside: it decides nothing.

pub mod figures;
pub mod load;
pub mod nomad;
//! What the scheduler's benchmarks share. Measures from outside: it decides nothing.

pub mod autoscale;
