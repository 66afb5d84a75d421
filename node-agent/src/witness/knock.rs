//! Knocking: does the kernel of that host answer? Whether the port is open does not matter, and nothing
//! is said when it is: what a dead process leaves behind, its kernel's refusal, is a sign of life too.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use skep_model::probe::Reach;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// For a name to become an address; what is written as an address needs none of it.
const LOOKUP: Duration = Duration::from_millis(400);
/// When each door is knocked at: a packet may be lost, and the kernel's own second try comes after a
/// second only.
const KNOCKS_MS: [u64; 3] = [0, 250, 500];
/// How long an answer may take, from the first knock on: beyond any round trip there is.
const PATIENCE: Duration = Duration::from_millis(850);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Knocks at `host:port`, and at another port of the same host.
pub(super) async fn at(address: &str, also_port: Option<u16>) -> Reach {
    let found = match timeout(LOOKUP, lookup_host(address)).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) | Err(_) => return Reach::Unknown,
    };
    let mut doors: Vec<SocketAddr> = Vec::new();
    for door in found.take(ADDRESSES_MAX) {
        doors.push(door);
        doors.extend(also_port.map(|port| SocketAddr::new(door.ip(), port)));
    }
    if doors.is_empty() {
        return Reach::Unknown;
    }
    knock(&doors).await
}

async fn knock(doors: &[SocketAddr]) -> Reach {
    let begun = Instant::now();
    let mut knocks: FuturesUnordered<_> = doors
        .iter()
        .flat_map(|door| KNOCKS_MS.map(|at_ms| (*door, begun + Duration::from_millis(at_ms))))
        .map(|(door, at)| async move {
            sleep_until(at).await;
            TcpStream::connect(door).await
        })
        .collect();
    let mut worst = Reach::Silent;
    while let Ok(Some(heard)) = timeout_at(begun + PATIENCE, knocks.next()).await {
        match heard.map_or_else(|error| told(&error), |_| Reach::Answered) {
            Reach::Unknown => worst = Reach::Unknown,
            Reach::Silent => {}
            heard => return heard,
        }
    }
    worst
}

/// What an error says of the host. Whatever may be the fault of this node says nothing.
fn told(error: &io::Error) -> Reach {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused | Kind::ConnectionReset | Kind::ConnectionAborted => {
            Reach::Answered
        }
        Kind::HostUnreachable | Kind::TimedOut => Reach::Silent,
        _ => Reach::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn an_open_door_and_a_closed_one_are_signs_of_life() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let open = listener.local_addr().expect("an address").to_string();
        assert_eq!(at(&open, None).await, Reach::Answered);
        drop(listener);
        assert_eq!(at(&open, None).await, Reach::Answered, "its kernel refuses");
    }

    #[tokio::test]
    async fn what_this_node_cannot_try_says_nothing_of_the_other() {
        for odd in ["", "nowhere", "host.invalid:1", "127.0.0.1:x"] {
            assert_eq!(at(odd, None).await, Reach::Unknown, "{odd}");
        }
        // Port 0 cannot be dialed; the second door answers.
        assert_eq!(at("127.0.0.1:0", Some(1)).await, Reach::Answered);
    }

    #[test]
    fn only_the_network_speaks_of_the_host() {
        use io::ErrorKind as Kind;
        let cases = [
            (Kind::ConnectionRefused, Reach::Answered),
            (Kind::HostUnreachable, Reach::Silent),
            (Kind::TimedOut, Reach::Silent),
            (Kind::NetworkUnreachable, Reach::Unknown),
            (Kind::AddrNotAvailable, Reach::Unknown),
            (Kind::PermissionDenied, Reach::Unknown),
            (Kind::Other, Reach::Unknown),
        ];
        for (kind, reach) in cases {
            assert_eq!(told(&kind.into()), reach, "{kind}");
        }
    }
}
