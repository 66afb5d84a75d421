//! The ingress between real loopback sockets.

mod access;
mod clients;
mod compress;
mod endpoints;
mod faults;
mod http2;
mod guards;
mod limits;
mod routing;
mod rules;
mod smuggling;
mod support;
mod swap;
mod tls;
