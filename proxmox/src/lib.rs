//! A typed client of Proxmox VE (8.4 and 9): the calls that it takes to run guests as machines of a cluster, with what they
//! need and what they answer. It knows nothing of whoever uses it.
//!
//! A call is a value ([`Call`]): a request, and how its answer is read. It is made without any IO, so that each can be
//! looked at, and tested, without a Proxmox host. [`Client`] sends calls through a [`Transport`]; [`Https`] is the one to
//! real hosts. What Proxmox is known for is dealt with once, here: numbers that come as text, errors whose text is the
//! reason phrase, tasks that fail after the call has succeeded, outcomes that nobody knows.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use skep_proxmox::{Client, Credentials, Https, Trust, calls};
//!
//! let hosts = ["https://pve1.example.com:8006", "https://pve2.example.com:8006"];
//! let trust = Trust::pins(["AA:BB:..."])?;
//! let client = Client::new(
//!     Https::new(&hosts, &trust)?,
//!     Credentials::token("skep@pve!cluster=0f1e2d3c-...")?,
//! );
//! for guest in client.send(&calls::cluster::guests()).await?.rows {
//!     println!("{} on {:?}", guest.id, guest.node);
//! }
//! # Ok(())
//! # }
//! ```

mod answer;
pub mod calls;
mod client;
pub mod cloud_init;
mod config;
mod credentials;
mod error;
mod https;
mod ids;
mod lenient;
mod nic;
mod request;
mod rows;
mod task;
mod transport;
mod upid;

pub use client::Client;
pub use config::Config;
pub use credentials::{Credentials, Secret};
pub use error::{Error, Kind, Permission};
pub use https::{Https, Trust};
pub use ids::{At, GuestKind, Vmid};
pub use nic::Nic;
pub use request::{Call, File, Method, Request};
pub use rows::{Odd, Rows};
pub use task::{Outcome, Patience};
pub use transport::{Failure, Reply, Transport};
pub use upid::Upid;
