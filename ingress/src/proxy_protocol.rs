//! The PROXY protocol (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>): what a load balancer
//! that passes bytes on says first about whose they are. Reads exactly the header, and what comes after it
//! is the client's.

use std::io;
use std::net::SocketAddr;

use ppp::v1::Addresses as TextAddresses;
use ppp::v2::{Addresses, Command};
use ppp::{v1, v2};
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::TcpStream;

/// The shortest header there is: `PROXY UNKNOWN` and the end of the line.
const SHORTEST_BYTES: usize = 15;
/// The fixed part of version 2, whose last two bytes are the length of the rest.
const FIXED_BYTES: usize = 16;
/// The longest line of version 1, its end included (section 2.1).
const MAX_LINE_BYTES: usize = 107;
/// The rest of a header of version 2: addresses, and some facts about the connection that are not used.
const MAX_REST_BYTES: usize = 2048;

/// Why a connection has no header that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the connection ended in the header")]
    Read(#[from] io::Error),
    #[error("no header of the PROXY protocol: does the load balancer send one?")]
    Missing,
    #[error("a header of {bytes} bytes is longer than {MAX_REST_BYTES}")]
    TooLong { bytes: usize },
    #[error("a line of version 1 that does not end")]
    Endless,
    #[error("a header of version 1 that cannot be read")]
    Text(#[from] v1::BinaryParseError),
    #[error("a header of version 2 that cannot be read")]
    Binary(#[from] v2::ParseError),
}

/// Where the connection comes from by the header's word. None: the load balancer speaks for itself.
pub(crate) async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, Error> {
    let mut header = Vec::with_capacity(MAX_LINE_BYTES);
    header.resize(SHORTEST_BYTES, 0);
    stream.read_exact(&mut header).await?;
    if header.starts_with(v2::PROTOCOL_PREFIX) {
        read_rest(stream, &mut header).await?;
        binary(&header)
    } else if header.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        read_line(stream, &mut header).await?;
        text(&header)
    } else {
        Err(Error::Missing)
    }
}

async fn read_rest(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), Error> {
    header.resize(FIXED_BYTES, 0);
    stream.read_exact(&mut header[SHORTEST_BYTES..]).await?;
    let bytes = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if bytes > MAX_REST_BYTES {
        return Err(Error::TooLong { bytes });
    }
    header.resize(FIXED_BYTES + bytes, 0);
    stream.read_exact(&mut header[FIXED_BYTES..]).await?;
    Ok(())
}

/// To the end of the line and no byte further: what is there is looked at before it is taken.
async fn read_line(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), Error> {
    while header.last() != Some(&b'\n') {
        let mut seen = [0; MAX_LINE_BYTES];
        let room = MAX_LINE_BYTES - header.len();
        if room == 0 {
            return Err(Error::Endless);
        }
        stream.ready(Interest::READABLE).await?;
        let count = stream.peek(&mut seen[..room]).await?;
        if count == 0 {
            return Err(Error::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        let end = seen[..count].iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(count, |place| place + 1);
        stream.read_exact(&mut seen[..taken]).await?;
        header.extend_from_slice(&seen[..taken]);
    }
    Ok(())
}

fn text(header: &[u8]) -> Result<Option<SocketAddr>, Error> {
    Ok(match v1::Header::try_from(header)?.addresses {
        TextAddresses::Tcp4(it) => Some((it.source_address, it.source_port).into()),
        TextAddresses::Tcp6(it) => Some((it.source_address, it.source_port).into()),
        TextAddresses::Unknown => None,
    })
}

fn binary(header: &[u8]) -> Result<Option<SocketAddr>, Error> {
    let header = v2::Header::try_from(header)?;
    if header.command == Command::Local {
        return Ok(None);
    }
    Ok(match header.addresses {
        Addresses::IPv4(it) => Some((it.source_address, it.source_port).into()),
        Addresses::IPv6(it) => Some((it.source_address, it.source_port).into()),
        Addresses::Unix(_) | Addresses::Unspecified => None,
    })
}
