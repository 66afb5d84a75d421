//! Between a caller's WebSocket and a node: frames pass both ways until either side ends it, goes away
//! or falls silent.

use std::fmt;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use skep_model::problem::{Code, Problem};
use skep_model::shell::{Frame, Opened};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::types::shell::{decode, encode};
use crate::agents::shells::{Line, broken};

/// A caller sends something, a ping at least, so often: three of the command line's pings.
const HEARD_WITHIN: Duration = Duration::from_secs(45);
/// A caller takes in what it granted: one that does not is gone.
const SEND_DEADLINE: Duration = Duration::from_secs(45);

/// How a shell ended, for the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself, with this code.
    Exit(i32),
    /// The caller closed it.
    Left,
    /// The caller was not heard any more.
    Silent,
    /// With this problem.
    Problem(Problem),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit {code}"),
            Self::Left => f.write_str("closed by the caller"),
            Self::Silent => f.write_str("the caller fell silent"),
            Self::Problem(problem) => f.write_str(&problem.message),
        }
    }
}

/// Passes frames until the end. Dropping it ends the shell at the node.
pub(super) async fn run(
    socket: WebSocket,
    opened: Opened,
    line: Line,
    shutdown: CancellationToken,
) -> Ending {
    let (mut sink, mut source) = socket.split();
    let Line { up, mut down } = line;
    if send(&mut sink, &Frame::Opened(opened)).await.is_err() {
        return Ending::Left;
    }
    let ending = tokio::select! {
        ending = to_caller(&mut down, &mut sink) => return ending,
        ending = to_node(&mut source, &up) => ending,
        () = shutdown.cancelled() => {
            let problem = Problem::new(Code::Unavailable, "the server is stopping");
            Ending::Problem(problem.hint("the shell is over; open it again"))
        }
    };
    if let Ending::Problem(problem) = &ending {
        // A caller who has gone needs no reason.
        let _ = send(&mut sink, &Frame::Problem(problem.clone())).await;
        let _ = timeout(SEND_DEADLINE, sink.close()).await;
    }
    ending
}

type Sink = SplitSink<WebSocket, Message>;

async fn send(sink: &mut Sink, frame: &Frame) -> Result<(), ()> {
    let message = Message::Binary(encode(frame).into());
    match timeout(SEND_DEADLINE, sink.send(message)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(()),
    }
}

async fn to_caller(down: &mut mpsc::Receiver<Frame>, sink: &mut Sink) -> Ending {
    loop {
        let frame = down.recv().await;
        let frame = frame.unwrap_or_else(|| Frame::Problem(broken("it went away")));
        if send(sink, &frame).await.is_err() {
            return Ending::Left;
        }
        let ending = match frame {
            Frame::Exit(code) => Ending::Exit(code),
            Frame::Problem(problem) => Ending::Problem(problem),
            _ => continue,
        };
        let _ = timeout(SEND_DEADLINE, sink.close()).await;
        return ending;
    }
}

async fn to_node(source: &mut SplitStream<WebSocket>, up: &mpsc::Sender<Frame>) -> Ending {
    let refused = |text: String| Ending::Problem(Problem::new(Code::Invalid, text));
    loop {
        let message = match timeout(HEARD_WITHIN, source.next()).await {
            Err(_) => return Ending::Silent,
            Ok(None | Some(Err(_) | Ok(Message::Close(_)))) => return Ending::Left,
            Ok(Some(Ok(message))) => message,
        };
        let frame = match message {
            Message::Binary(bytes) => decode(&bytes),
            Message::Text(_) => return refused("frames are binary messages".to_owned()),
            // Answered by the socket itself.
            _ => continue,
        };
        match frame {
            Ok(frame @ (Frame::Data(_) | Frame::Eof | Frame::Resize(_) | Frame::Grant(_))) => {
                if up.send(frame).await.is_err() {
                    // The node has ended it: what it said last is on its way to the caller.
                    return std::future::pending().await;
                }
            }
            Ok(_) => return refused("only a node sends such a frame".to_owned()),
            Err(error) => return refused(error.to_string()),
        }
    }
}
