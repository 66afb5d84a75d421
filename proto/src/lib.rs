//! Wire and storage contracts (prost, and tonic with feature `grpc`), and the only conversions
//! between them and `skep-model`. Never decides anything.

/// The generated messages and services.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/skep.v1.rs"));
}

#[cfg(feature = "grpc")]
pub mod codec;
pub mod convert;

/// The level at which servers, keys, CA rotation, metadata and quarantine came to be.
pub const LEVEL_SERVERS: u32 = 2;
/// The header of a refused session that says for which incarnation of its node an agent has to drop everything first, as a
/// decimal number.
pub const INCARNATION: &str = "skep-incarnation";
/// The level at which placement rules, node administration and further resources came to be.
pub const LEVEL_SCHEDULING: u32 = 3;
/// The level at which run modes and jobs came to be: not another one than that of scheduling.
pub const LEVEL_JOBS: u32 = LEVEL_SCHEDULING;
/// Largest command, encoded, in bytes.
pub const MAX_COMMAND_BYTES: usize = 256 << 10;
