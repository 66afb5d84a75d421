//! The server's side of its nodes: joining, sessions, uploads and logs passing through.

mod answers;
mod certified;
pub mod desired;
pub mod elsewhere;
mod fenced;
mod fetching;
pub mod fleet;
pub mod network;
pub mod notices;
pub mod probes;
mod pushes;
pub mod registries;
pub mod relay;
mod seat;
pub mod service;
mod session;
pub mod shells;
pub mod sources;
mod told;
pub mod uploads;
mod volumes;

pub(crate) use session::status;
