//! Servers with servers: writes through any of them, presence across them, who is refused, snapshots
//! over a connection that breaks, histories copied.

#![allow(clippy::unwrap_used, reason = "a test")]

mod node;
mod proxy;
mod world;

mod histories;
mod passing;
mod presence;
mod refusals;
mod samples;
mod snapshots;
mod witnesses;
mod writes;
