//! A deterministic simulation of a control plane: the pure consensus step, the replicated state,
//! and models of disks, network, clients and agents, under a virtual clock.
//!
//! Owns the schedule of faults and the invariants; a run is a function of its [`Options`]. Never
//! touches a real clock, disk, socket or thread.
//!
//! ```text
//! clients ──► server ──► Core::step ──► disk (model) ──► network (model) ──► other servers
//!    ▲                                      │
//!    └──────── replies ◄── State::apply ◄───┘          every step may be the last of a server
//! ```

mod breakage;
mod client;
mod disk;
mod event;
mod fault;
mod invariants;
mod member;
mod network;
mod workload;
mod world;

pub use breakage::Breakage;
pub use invariants::Violation;
pub use world::{Options, Report, run};
