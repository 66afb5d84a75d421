//! An address that the ingress and Traefik serve by turns, and no client is refused or finds a Traefik that has no
//! routes yet.
//!
//! Several sockets listen on the address (SO_REUSEPORT, socket(7)). The first is the ingress's own, held for as long as
//! any data plane runs, and handed to successors. Each Traefik gets one of its own, behind it. A program in the kernel
//! says which of the two gets new connections. What waits on the socket of a Traefik that has ended is taken
//! by the ingress.

use std::io;
use std::net::{SocketAddr, TcpListener};

use nix::libc::{BPF_K, BPF_RET, sock_filter, sock_fprog};
use nix::sys::socket::{setsockopt, sockopt::AttachReusePortCbpf};
use rustix::net::{Shutdown, shutdown};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be taken.
const BACKLOG: i32 = 1_024;

/// Who gets new connections: the place of its socket among those of the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Ingress = 0,
    Traefik = 1,
}

/// One address.
#[derive(Debug)]
pub(super) struct Door {
    own: TcpListener,
    address: SocketAddr,
}

impl Door {
    /// Listens on `address`, or with the socket of a predecessor, whose Traefik goes on getting connections.
    pub(super) fn open(address: SocketAddr, given: Option<TcpListener>) -> io::Result<Self> {
        let is_given = given.is_some();
        let own = given.map_or_else(|| listen(address), Ok)?;
        let address = own.local_addr()?;
        let door = Self { own, address };
        if !is_given {
            door.lead_to(Who::Ingress)?;
        }
        Ok(door)
    }

    /// Where it is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The ingress's socket.
    pub(super) fn own(&self) -> io::Result<TcpListener> {
        self.own.try_clone()
    }

    /// A socket for another Traefik, which gets no connection before [`Door::lead_to`]. The one of the Traefik before
    /// has to be shut: two of them have no fixed places.
    pub(super) fn another(&self) -> io::Result<TcpListener> {
        listen(self.address)
    }

    /// Leads new connections to `who`. Where there is no such socket they are spread over those that there are.
    pub(super) fn lead_to(&self, who: Who) -> io::Result<()> {
        let mut code = [sock_filter {
            code: u16::try_from(BPF_RET | BPF_K).expect("an instruction has 16 bits"),
            jt: 0,
            jf: 0,
            k: who as u32,
        }];
        let program = sock_fprog {
            len: 1,
            filter: code.as_mut_ptr(),
        };
        Ok(setsockopt(&self.own, AttachReusePortCbpf, &program)?)
    }
}

/// Takes a Traefik's socket off its address, whoever still holds it: what waits on it is refused.
pub(super) fn shut(socket: &TcpListener) {
    if let Err(error) = shutdown(socket, Shutdown::Both) {
        tracing::warn!(%error, "the socket of a Traefik that has ended cannot be shut");
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    /// Far more than a spread by chance would leave on one side.
    const MANY: usize = 64;

    fn connect(door: &Door) -> Vec<TcpStream> {
        let one = |_| TcpStream::connect(door.address()).expect("nobody is refused");
        (0..MANY).map(one).collect()
    }

    fn waiting(socket: &TcpListener) -> usize {
        std::iter::from_fn(|| socket.accept().ok()).count()
    }

    #[test]
    fn connections_go_where_they_are_led_and_nowhere_else() {
        let door = Door::open("127.0.0.1:0".parse().expect("an address"), None).expect("open");
        let own = door.own().expect("a socket");
        for _ in 0..3 {
            let traefik = door.another().expect("a socket");
            let counts = || (waiting(&own), waiting(&traefik));
            let _first = connect(&door);
            assert_eq!(counts(), (MANY, 0), "a new Traefik gets none");
            door.lead_to(Who::Traefik).expect("led");
            let _second = connect(&door);
            assert_eq!(counts(), (0, MANY));
            door.lead_to(Who::Ingress).expect("led");
            let _third = connect(&door);
            assert_eq!(counts(), (MANY, 0));
            // Shut, not closed: another process may hold it.
            shut(&traefik);
            door.lead_to(Who::Traefik).expect("led");
            let _fourth = connect(&door);
            assert_eq!(waiting(&own), MANY, "nobody waits on what is shut");
            door.lead_to(Who::Ingress).expect("led");
        }
    }

    #[test]
    fn a_door_changes_hands_without_a_change_of_who_gets_connections() {
        let older = Door::open("127.0.0.1:0".parse().expect("an address"), None).expect("open");
        let traefik = older.another().expect("a socket");
        older.lead_to(Who::Traefik).expect("led");
        let given = older.own().expect("a socket");
        let newer = Door::open(older.address(), Some(given)).expect("taken over");
        let _some = connect(&newer);
        assert_eq!(waiting(&traefik), MANY);
        drop(older);
        newer.lead_to(Who::Ingress).expect("led");
        let _more = connect(&newer);
        assert_eq!(waiting(&newer.own().expect("a socket")), MANY);
    }
}
