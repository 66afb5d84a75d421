//! Failed probes in words: what was tried, what came back, what to do. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use skep_model::health::Check;
use skep_model::problem::{Code, Problem};

use super::checks::Asked;
use super::probe::{Fault, Question};

const DOCKER_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// Why a container never became healthy. `heard`: what it listens on, where that is known.
pub(super) fn never_healthy(
    question: &Question<'_>,
    within: Duration,
    (last, heard): (&Fault, Option<&[SocketAddr]>),
) -> Problem {
    let message = format!(
        "never became healthy within {}: {}",
        seconds(within),
        question.explain(last)
    );
    let problem = Problem::new(Code::NeverHealthy, message);
    match advice(question, last, heard) {
        Some(advice) => problem.hint(advice),
        None => problem,
    }
}

/// Why a container is not healthy any more, or has to begin anew.
pub(super) fn unhealthy(what: &str, asked: &Asked, why: &str) -> Problem {
    let message = format!("{} {what} in a row failed: {why}", asked.failures);
    Problem::new(Code::NeverHealthy, message)
}

impl Question<'_> {
    /// What came of it, in words.
    pub(crate) fn explain(&self, fault: &Fault) -> String {
        let port = self.at.map_or(0, |at| at.port());
        let limit = self.limit.as_millis();
        let asked = match self.check {
            Check::Http(path) => format!("GET {path} on port {port}"),
            Check::Https(path) => format!("GET {path} over TLS on port {port}"),
            Check::Tcp => format!("port {port}"),
            Check::Grpc(service) if service.is_empty() => format!("gRPC health on port {port}"),
            Check::Grpc(service) => format!("gRPC health of {service} on port {port}"),
            Check::Exec(command) => format!("`{}`", command.join(" ")),
            Check::Log(text) => format!("a line with `{text}`"),
        };
        match (fault, self.check) {
            (Fault::Unprobed, Check::Exec(_)) => format!("{asked} was not run yet"),
            (Fault::Unprobed | Fault::NoLine, Check::Log(_)) => {
                format!(
                    "its log has no line with {}",
                    asked.trim_start_matches("a line with ")
                )
            }
            (Fault::Unprobed | Fault::Refused | Fault::NoLine, _) => {
                format!("nothing answers on port {port}")
            }
            (Fault::TimedOut { .. }, Check::Exec(_)) => {
                format!("{asked} had not ended after {limit} ms")
            }
            (Fault::TimedOut { connected: false }, _) => {
                format!("no connection to port {port} within {limit} ms")
            }
            (Fault::TimedOut { connected: true }, _) => {
                format!("{asked} was not answered within {limit} ms")
            }
            (Fault::Status(status), _) => format!("{asked} answers {status}"),
            (Fault::NotHttp, Check::Grpc(_)) => {
                format!("what answers on port {port} does not speak gRPC")
            }
            (Fault::NotHttp, _) => format!("what answers on port {port} does not speak HTTP"),
            (Fault::NotTls, _) => format!("what answers on port {port} does not speak TLS"),
            (Fault::NotServing(status), _) => format!("{asked} says {status}"),
            (Fault::Exit(code, output), _) if output.is_empty() => {
                format!("{asked} exited with code {code}")
            }
            (Fault::Exit(code, output), _) => {
                let first = output.lines().next().unwrap_or_default();
                format!("{asked} exited with code {code}: {first}")
            }
            (Fault::Network(kind), _) => format!("port {port} cannot be reached: {kind}"),
            (Fault::Runtime(why), _) => format!("{asked} could not be carried out: {why}"),
        }
    }
}

fn advice(question: &Question<'_>, fault: &Fault, heard: Option<&[SocketAddr]>) -> Option<String> {
    let text = match (fault, question.check) {
        (Fault::Status(_), _) => {
            "health.path must answer 2xx or 3xx; or leave it out: then a connection is enough"
        }
        (Fault::NotHttp, Check::Grpc(_)) => {
            "the app has to serve grpc.health.v1.Health without TLS on this port"
        }
        (Fault::NotHttp, _) => "leave health.path out: then a connection is enough",
        (Fault::NotTls, _) => "use `http` where the app speaks no TLS",
        (Fault::TimedOut { connected: true }, _) => {
            "raise health.timeout_ms, or make the check cheaper"
        }
        (Fault::NotServing(_), _) => {
            "NOT_FOUND: the app's health service does not know this name; leave it empty to ask for all"
        }
        (Fault::Exit(126 | 127, _), _) => {
            "the command has to be an executable file of the image: without a shell there is none"
        }
        (Fault::NoLine | Fault::Unprobed, Check::Log(_)) => {
            "`skep logs` shows what it writes instead"
        }
        (Fault::Exit(..) | Fault::Runtime(_), _) => return None,
        _ => return listening(question.at?.port(), heard?),
    };
    Some(text.to_owned())
}

/// What to do about a port that does not answer.
fn listening(port: u16, heard: &[SocketAddr]) -> Option<String> {
    // Docker's own name server is in every container of a user's network.
    let own = |at: &&SocketAddr| at.ip() != DOCKER_DNS;
    let heard: Vec<SocketAddr> = heard.iter().filter(own).copied().collect();
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

fn seconds(time: Duration) -> String {
    match time.as_millis() {
        ms if ms % 1_000 == 0 => format!("{} s", ms / 1_000),
        ms => format!("{ms} ms"),
    }
}
