//! The ingress between real loopback sockets.

mod access;
mod clients;
mod compress;
mod endpoints;
mod faults;
mod files;
mod guards;
mod http2;
mod limits;
mod routing;
mod rules;
mod smuggling;
mod split;
mod support;
mod swap;
mod tcp;
mod tcp_names;
mod tls;
mod tried;
