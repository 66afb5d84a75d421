//! Failed probes in words: what was tried, what came back, what to do. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use skep_model::problem::{Code, Problem};

use super::Target;
use super::probe::Fault;

const DOCKER_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// Why a container never became healthy. `heard`: what it listens on, where that is known.
pub(super) fn never_healthy(
    target: &Target,
    last: &Fault,
    heard: Option<&[SocketAddr]>,
) -> Problem {
    let within = seconds(target.health.deadline_ms);
    let message = format!(
        "never became healthy within {within}: {}",
        what(target, last)
    );
    let problem = Problem::new(Code::NeverHealthy, message);
    match advice(target, last, heard) {
        Some(advice) => problem.hint(advice),
        None => problem,
    }
}

/// Why a container is not healthy any more.
pub(super) fn unhealthy(target: &Target, last: &Fault) -> Problem {
    let message = format!(
        "{} checks in a row failed: {}",
        target.health.failures,
        what(target, last)
    );
    Problem::new(Code::NeverHealthy, message)
}

fn what(target: &Target, fault: &Fault) -> String {
    let port = target.port;
    let path = target.health.path.as_deref().unwrap_or_default();
    let limit = target.health.timeout_ms;
    match fault {
        Fault::Unprobed | Fault::Refused => format!("nothing answers on port {port}"),
        Fault::TimedOut { connected: false } => {
            format!("no connection to port {port} within {limit} ms")
        }
        Fault::TimedOut { connected: true } => {
            format!("GET {path} on port {port} was not answered within {limit} ms")
        }
        Fault::Status(status) => format!("GET {path} on port {port} answers {status}"),
        Fault::NotHttp => format!("what answers on port {port} does not speak HTTP"),
        Fault::Network(kind) => format!("port {port} cannot be reached: {kind}"),
    }
}

fn advice(target: &Target, fault: &Fault, heard: Option<&[SocketAddr]>) -> Option<String> {
    match fault {
        Fault::Status(_) => {
            return Some(
                "health.path must answer 2xx or 3xx; or leave it out: then a connection is enough"
                    .into(),
            );
        }
        Fault::NotHttp => {
            return Some("leave health.path out: then a connection is enough".into());
        }
        Fault::TimedOut { connected: true } => {
            return Some("raise health.timeout_ms, or make the check cheaper".into());
        }
        _ => {}
    }
    let port = target.port;
    // Docker's own name server is in every container of a user's network.
    let own = |at: &&SocketAddr| at.ip() != DOCKER_DNS;
    let heard: Vec<SocketAddr> = heard?.iter().filter(own).copied().collect();
    if heard.is_empty() {
        return Some(format!(
            "it listens on no port at all: it should listen on 0.0.0.0:{port} (PORT says so)"
        ));
    }
    let open: BTreeSet<u16> = heard
        .iter()
        .filter(|at| !at.ip().is_loopback())
        .map(SocketAddr::port)
        .collect();
    if open.contains(&port) {
        return None;
    }
    let closed: Vec<&SocketAddr> = heard.iter().filter(|at| at.ip().is_loopback()).collect();
    if open.is_empty() || closed.iter().any(|at| at.port() == port) {
        let listed: Vec<String> = closed.iter().map(ToString::to_string).collect();
        return Some(format!(
            "it listens on {} only: make it listen on 0.0.0.0",
            listed.join(", ")
        ));
    }
    let listed: Vec<String> = open.iter().map(ToString::to_string).collect();
    Some(format!(
        "it listens on port {}: set `port` to that, or make it listen on what PORT says",
        listed.join(", ")
    ))
}

fn seconds(ms: u64) -> String {
    match ms % 1_000 {
        0 => format!("{} s", ms / 1_000),
        _ => format!("{ms} ms"),
    }
}
