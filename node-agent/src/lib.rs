//! The agent of a node, and the node's data plane.
//!
//! The agent makes Docker run what is assigned to its node, watches it, and tells the server what
//! it sees; it keeps doing so with no server in sight. It never decides placement. The data plane
//! ([`net`]) is a process of its own and serves what it was last told, whatever becomes of the
//! agent.

mod age;
pub mod agent;
mod backoff;
pub mod build;
mod builds;
mod bundles;
mod clock;
pub mod credentials;
pub mod doctor;
mod executor;
mod facts;
mod health;
mod images;
mod keeper;
pub mod ledger;
mod logins;
mod logs;
mod metrics;
pub mod net;
mod network;
mod options;
mod plan;
mod registries;
mod routes;
mod runtime;
mod samples;
mod seat;
mod servers;
mod session;
mod shell;
mod sources;
mod storage;
#[cfg(test)]
mod testing;
mod witness;

pub use agent::{Agent, Error, run};
pub use images::{Budget, LowWater, Options as ImageOptions};
pub use logs::ship::Destination as LogDestination;
pub use options::Options;
pub use plan::Devices;

/// An error with everything that caused it, on one line.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        // Some errors repeat their cause in their own words.
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = next.source();
    }
    text
}
