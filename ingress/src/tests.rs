//! The ingress between real loopback sockets.

mod faults;
mod limits;
mod routing;
mod support;
mod swap;
