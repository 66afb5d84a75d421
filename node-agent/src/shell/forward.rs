//! One connection to a port of a container, over its bridge.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use skep_model::problem::{Code, Problem};
use skep_model::shell::{DATA_MAX_BYTES, Frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::begun;
use super::wire::{Gone, Inbox, Input, Wire};

/// A container on this machine answers at once, or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Passes bytes both ways until both sides have ended, each in its own time.
pub(super) async fn run(
    (address, port): (Option<IpAddr>, u16),
    wire: &Wire,
    inbox: Inbox,
) -> Result<(), Problem> {
    let address = address.ok_or_else(|| {
        let text = "the container has no network, hence no port that could be reached";
        Problem::new(Code::Conflict, text)
    })?;
    let to = SocketAddr::new(address, port);
    let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(port, &error.to_string())),
        Err(_) => return Err(unreachable(port, "no answer")),
    };
    let _ = stream.set_nodelay(true);
    begun(wire, None).await?;
    let (from, to) = stream.into_split();
    let both = async { tokio::try_join!(down(from, wire), up(to, wire, inbox)) };
    both.await.map(drop)
}

fn unreachable(port: u16, why: &str) -> Problem {
    let text = format!("nothing answers on port {port} of the container: {why}");
    Problem::new(Code::Unavailable, text)
        .hint("the app has to listen on 0.0.0.0 (or ::), not on its own loopback alone")
}

async fn down(mut from: OwnedReadHalf, wire: &Wire) -> Result<(), Problem> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(DATA_MAX_BYTES);
        match from.read_buf(&mut buffer).await {
            Ok(0) => return wire.send(Frame::Eof).await.map_err(Problem::from),
            Ok(_) => wire.data(buffer.split().freeze(), false).await?,
            Err(error) => return Err(reset(&error)),
        }
    }
}

async fn up(mut to: OwnedWriteHalf, wire: &Wire, mut inbox: Inbox) -> Result<(), Problem> {
    loop {
        match inbox.next().await.ok_or(Gone)? {
            Input::Data(data) => {
                to.write_all(&data).await.map_err(|error| reset(&error))?;
                wire.release(data.len()).await?;
            }
            Input::Eof => {
                // Fails only where the other side is gone already, which the reader sees.
                let _ = to.shutdown().await;
                return Ok(());
            }
            Input::Resize(_) => {}
        }
    }
}

fn reset(error: &std::io::Error) -> Problem {
    let text = format!("the app broke off the connection: {error}");
    Problem::new(Code::Unavailable, text)
}
