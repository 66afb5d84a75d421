//! Benchmarks of the scheduler's decisions, without a server or a node: their inputs, peers and
//! figures. Asserts nothing about time, and nothing of it is in the product.

pub mod packing;
