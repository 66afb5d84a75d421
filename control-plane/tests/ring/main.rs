//! The control plane's half of the ring, with a node played by the test over real mTLS gRPC:
//! join, session, build, release, placement, routes, drain, stop; certificates, and another CA.

#![allow(clippy::unwrap_used, reason = "a test")]

mod node;
mod world;

mod certificates;
mod rollout;
mod sessions;
