//! The embedded reverse proxy: given a table of routes it serves HTTP traffic and counts
//! requests; and the renderer of the same table for Traefik.
//!
//! Never knows where a table comes from: no Docker, no server, no disk. It applies a table
//! without touching connections that the change does not concern, and tells when requests on
//! removed backends have finished.

mod backend;
mod body;
mod connection;
mod drain;
mod headers;
mod index;
mod ingress;
pub mod metrics;
mod options;
mod pool;
mod proxy;
mod reply;
mod rules;
mod server;
pub mod table;
pub mod traefik;
mod tunnel;

pub use drain::Status;
pub use ingress::Ingress;
pub use options::Options;
pub use server::Closed;
pub use table::{Backend, Route, Table};

#[cfg(test)]
mod tests;
