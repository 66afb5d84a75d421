//! The control plane: consensus over the replicated state, the API, the agents' sessions, the
//! reconcilers, history. It never touches Docker and never checks out a repository.

pub mod acme;
pub mod agents;
pub mod api;
pub mod backup;
pub mod checks;
pub mod consensus;
pub mod deploy;
pub mod forges;
mod guests;
pub mod history;
mod hooks;
pub mod hosts;
mod image_push;
pub mod local;
mod logins;
pub mod machine;
mod networking;
mod notify;
mod outgoing;
pub mod peers;
pub mod pki;
pub mod placement;
pub mod polling;
mod previews;
mod pushing;
pub mod rebalancing;
pub mod reconcile;
pub mod samples;
pub mod scaling;
pub mod secrets;
pub mod server;
mod stacks;
pub mod store;
mod urls;
mod variables;
pub mod witness;

/// This server's version, as it tells it to others.
#[must_use]
pub fn version() -> &'static str {
    if skep_state::is_next() {
        concat!(env!("CARGO_PKG_VERSION"), "+next")
    } else {
        env!("CARGO_PKG_VERSION")
    }
}

pub use skep_state::stand_for_next;
