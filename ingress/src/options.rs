//! What an operator may tune in the embedded ingress, with the defaults and their reasons.

use std::time::Duration;

use skep_model::routing::Cidr;

use crate::trust::Trusted;

/// Limits and deadlines of the embedded ingress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How long a connection to a backend may take. Backends are one hop away on a private
    /// network: slower than this is as good as dead, and another backend is tried.
    pub dial_timeout: Duration,
    /// How long the last backend that is left may take after that: nothing is gained by giving it up. A
    /// packet that was lost or fell from a full queue comes again after one second, and after three.
    pub last_dial_timeout: Duration,
    /// How long a backend may take to begin its answer, counted from the last byte of the
    /// request that it was sent; also how long a client may pause in the middle of its body.
    pub response_timeout: Duration,
    /// How long a request waits for the first backend of a service that scales to zero: the time
    /// for somebody to notice that it waits, and for an app to start.
    pub wake_timeout: Duration,
    /// Requests that may wait so at the same time; further ones get 503.
    pub max_waiting: usize,
    /// How long a client may take from the first byte of a request's head to its last.
    pub header_read_timeout: Duration,
    /// How long a client's connection may stay without a request. Above the 60 s of common
    /// load balancers, so that they and not we close first.
    pub idle_timeout: Duration,
    /// How long a client may refuse to take what we have for it.
    pub write_stall_timeout: Duration,
    /// How long a connection to a backend is kept for the next request.
    pub backend_idle_timeout: Duration,
    /// How long a backend whose connections fail is passed over if there is another.
    pub failure_pause: Duration,
    /// How long open requests and tunnels may go on after shutdown was asked for.
    pub drain_timeout: Duration,
    /// The size of a request's head, in bytes (431 above it); at least 8 KiB of it are buffered.
    pub max_header_bytes: usize,
    /// The number of a request's headers (431 above it). Up to 100 they cost no allocation.
    pub max_headers: usize,
    /// The size of a request's body, in bytes (413 above it); bodies are streamed, so the
    /// default is no limit.
    pub max_request_body_bytes: Option<u64>,
    /// Clients' connections at the same time, for each listener; further ones wait in the
    /// kernel's queue.
    pub max_connections: usize,
    /// Requests at the same time on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Connections kept idle for each backend.
    pub max_idle_per_backend: usize,
    /// How long a connection of a TCP route may be silent in both directions: longer than the pauses of
    /// pools of connections, and short enough that forgotten ones do not pile up.
    pub tcp_idle_timeout: Duration,
    /// How long a client may take for its TLS handshake, and a load balancer for its header of the PROXY
    /// protocol.
    pub handshake_timeout: Duration,
    /// TLS handshakes at the same time, for each listener; one more pushes out the one that takes longest.
    pub max_handshakes: usize,
    /// Proxies in front whose word about clients is believed. Nobody's: what clients say of themselves
    /// is never passed on.
    pub trusted_proxies: Trusted,
    /// Connections of trusted proxies must begin with a header of the PROXY protocol (1 or 2).
    pub proxy_protocol: bool,
    /// The port of HTTPS that plain requests are sent to, but for those of certificate authorities.
    pub https_redirect: Option<u16>,
    /// Networks of the node itself or its link that routes may ask by `forward_auth` all the same. None by
    /// default: owners of apps say where is asked.
    pub forward_auth_allow: Vec<Cidr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dial_timeout: Duration::from_millis(250),
            last_dial_timeout: Duration::from_secs(4),
            response_timeout: Duration::from_secs(300),
            wake_timeout: Duration::from_secs(60),
            max_waiting: 1024,
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_stall_timeout: Duration::from_secs(60),
            backend_idle_timeout: Duration::from_secs(30),
            failure_pause: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(30),
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            max_request_body_bytes: None,
            max_connections: 8192,
            max_concurrent_streams: 128,
            max_idle_per_backend: 64,
            tcp_idle_timeout: Duration::from_secs(3_600),
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 512,
            trusted_proxies: Trusted::default(),
            proxy_protocol: false,
            https_redirect: None,
            forward_auth_allow: Vec::new(),
        }
    }
}
