//! The ingress between real loopback sockets.

mod faults;
mod limits;
mod routing;
mod rules;
mod support;
mod swap;
