//! Connections for tonic: accepting and dialing, over mTLS between machines and over a private Unix
//! socket between the processes of one machine. Owns handshakes, deadlines and their limits; never
//! looks into what is said.

mod channel;
mod conn;
mod incoming;
#[cfg(test)]
mod tests;
mod uds;

pub use channel::{ChannelError, channel, dial, secure};
pub use conn::{Conn, Peer};
pub use incoming::{Incoming, incoming};
pub use uds::{BoundUds, UdsError, bind_uds, channel_uds, incoming_uds};
