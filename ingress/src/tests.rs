//! The ingress between real loopback sockets.

mod access;
mod clients;
mod endpoints;
mod faults;
mod limits;
mod routing;
mod rules;
mod smuggling;
mod support;
mod swap;
mod tcp;
mod tcp_names;
mod tls;
