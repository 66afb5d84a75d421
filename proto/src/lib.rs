//! Wire and storage contracts (prost, and tonic with feature `grpc`), and the only conversions
//! between them and `skep-model`. Never decides anything.

/// The generated messages and services.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/skep.v1.rs"));
}

pub mod convert;

/// Newest format of commands and snapshots that this build writes and reads.
pub const FORMAT: u32 = 3;
/// Newest feature level that this build understands: the level of a cluster that it founds. One number
/// with [`FORMAT`], since a level is what adds commands and fields to the formats.
pub const FEATURE_LEVEL: u32 = FORMAT;
/// The level at which servers, keys, CA rotation, metadata and quarantine came to be.
pub const LEVEL_SERVERS: u32 = 2;
/// The level at which run modes and jobs came to be.
pub const LEVEL_JOBS: u32 = 3;
/// Largest command, encoded, in bytes.
pub const MAX_COMMAND_BYTES: usize = 256 << 10;
