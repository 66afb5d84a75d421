//! Registers that clients read and write while faults happen, and what they saw, judged by an
//! independent checker. The registers are keys of a node's metadata; values are never written twice,
//! so that each read names the write that it saw.

pub mod chaos;
pub mod check;
pub mod clients;
pub mod recorder;
