//! The embedded reverse proxy: given a table of routes and certificates it serves HTTP traffic, counts
//! and logs requests; and the renderer of the same table for Traefik.
//!
//! Never knows where a table or a certificate comes from: no Docker, no server, no disk but the log's and the folders
//! of static sites, whose files it hands out itself. It applies a table without touching connections that the change does not concern, and tells when requests on
//! removed backends have finished.

pub mod access;
mod acme;
mod arrival;
mod asker;
mod backend;
mod body;
pub mod certificates;
mod compress;
mod connection;
mod crew;
mod drain;
mod edge;
mod endpoint;
pub mod files;
mod headers;
mod index;
mod ingress;
mod link;
pub mod metrics;
mod options;
mod origin;
mod parts;
mod pool;
mod proxy;
mod proxy_protocol;
mod reach;
mod ready;
mod redirect;
mod reply;
mod request_id;
mod rules;
mod server;
mod sticky;
pub mod table;
mod tcp;
mod tls;
pub mod traefik;
pub mod trust;
mod tunnel;

pub use certificates::Certificate;
pub use crew::Crew;
pub use drain::Status;
pub use endpoint::{Addresses, listen_on_endpoints};
pub use ingress::Ingress;
pub use options::Options;
pub use reach::{Far, Reach, Reached, Reaching, Stream};
pub use server::Closed;
pub use table::{Backend, Place, Route, Table, TcpRoute};
pub use tls::TlsError;

#[cfg(test)]
mod tests;
