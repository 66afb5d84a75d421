//! What a client asks for in its TLS handshake, before anybody has answered. Its bytes are looked at and stay
//! where they are: whoever serves the connection reads them as if nobody had. rustls reads the message.

use std::io;

use rustix::net::{RecvFlags, recv};
use rustls::server::Acceptor;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::acme;

/// A first message that is longer is led nowhere by its name.
const MAX_BYTES: usize = 16 << 10;

/// What of the first message decides where the connection goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The host that is asked for, in lower case.
    pub(crate) name: String,
    /// A certificate authority wants a proof, and nothing else.
    pub(crate) is_proof: bool,
}

/// Waits for the whole of the message. None: it names nobody, or is none; the handshake itself will tell.
/// Has no deadline of its own.
///
/// # Errors
/// The connection broke.
pub(crate) async fn peek(stream: &TcpStream) -> io::Result<Option<Hello>> {
    let mut acceptor = Acceptor::default();
    let mut bytes = vec![0; MAX_BYTES];
    let mut seen = 0;
    loop {
        // What was there before is still there: only more is news. The kernel wakes for each arrival.
        let count = stream
            .async_io(Interest::READABLE, || {
                let count = peek_now(stream, &mut bytes)?;
                match count > seen || count == 0 {
                    true => Ok(count),
                    false => Err(io::ErrorKind::WouldBlock.into()),
                }
            })
            .await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut new = &bytes[seen..count];
        while !new.is_empty() {
            if acceptor.read_tls(&mut new).is_err() {
                return Ok(None);
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Ok(of(&accepted.client_hello())),
                Err(_) => return Ok(None),
            }
        }
        seen = count;
        if seen == MAX_BYTES {
            return Ok(None);
        }
    }
}

fn peek_now(stream: &TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    let (count, _) = recv(stream, bytes, RecvFlags::PEEK)?;
    Ok(count)
}

fn of(hello: &rustls::server::ClientHello<'_>) -> Option<Hello> {
    let name = hello.server_name()?.to_ascii_lowercase();
    let mut protocols = hello.alpn().into_iter().flatten();
    Some(Hello {
        name,
        is_proof: protocols.any(|protocol| protocol == acme::PROTOCOL),
    })
}
