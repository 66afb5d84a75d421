//! Shells on nodes that are connected to another server than the asker.

use futures_util::StreamExt as _;
use skep_model::id::{AllocationId, NodeId, ServerId};
use skep_model::problem::{Code, Problem};
use skep_model::shell::{Frame, Wish};
use skep_proto::convert::{id_bits, id_bytes};
use skep_proto::v1;
use skep_proto::v1::peer_shell::Kind;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::links::{Lane, Links};
use super::transport::reason;
use crate::agents::relay::Relay;
use crate::agents::shells::{Ask, BEGIN_DEADLINE, FRAMES, Line, Shell, begin, broken, pass};

/// Frames that wait for the calling server.
pub(super) const REPLIES: usize = FRAMES;

/// Opens a shell through `server`.
pub(super) async fn open(links: &Links, server: ServerId, ask: Ask) -> Result<Shell, Problem> {
    let away = |why: &str| {
        let text = format!("the server that the node is connected to cannot be reached: {why}");
        Problem::new(Code::Unavailable, text).hint("try again in a moment")
    };
    let contact = links.directory().of_server(server);
    let contact = contact.ok_or_else(|| away("it was removed"))?;
    let client = links.shared(&contact, Lane::Bulk);
    let mut client = client.map_err(|status| away(&reason(&status)))?;
    let first = v1::PeerShell {
        kind: Some(Kind::Open(v1::FetchShell {
            node: id_bytes(ask.node.as_u128()),
            shell: Some(v1::OpenShell {
                request: 0,
                allocation: id_bytes(ask.allocation.as_u128()),
                wish: Some((&ask.wish).into()),
            }),
        })),
    };
    let (up, frames) = mpsc::channel::<Frame>(FRAMES);
    let frames = ReceiverStream::new(frames).map(|frame| v1::PeerShell {
        kind: Some(Kind::Frame(frame.into())),
    });
    let request = futures_util::stream::iter([first]).chain(frames);
    let answered = match timeout(BEGIN_DEADLINE, client.shell(request)).await {
        Ok(Ok(answered)) => answered.into_inner(),
        Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => {
            return Err(away("it has an older version, which knows no shells"));
        }
        Ok(Err(status)) => return Err(away(&reason(&status))),
        Err(_) => return Err(away("no answer")),
    };
    let (from_there, down) = mpsc::channel(FRAMES);
    tokio::spawn(async move {
        tokio::select! {
            () = pass(answered, &from_there) => {}
            () = from_there.closed() => {}
        }
    });
    begin(Line { up, down }).await
}

/// Serves another server: opens the shell here, and passes its frames until either goes away.
pub(super) async fn serve(
    relay: &Relay,
    mut messages: Streaming<v1::PeerShell>,
    replies: &mpsc::Sender<Result<v1::ShellFrame, Status>>,
) -> Result<(), Status> {
    let ask = match messages.message().await?.and_then(|message| message.kind) {
        Some(Kind::Open(open)) => asked(open),
        _ => {
            return Err(Status::invalid_argument(
                "a shell begins with what it is for",
            ));
        }
    };
    let ask = ask.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let say = |frame: Frame| replies.send(Ok(frame.into()));
    let opened = tokio::select! {
        opened = relay.open_shell_here(ask) => opened,
        () = replies.closed() => return Ok(()),
    };
    let Shell { opened, mut line } = match opened {
        Ok(shell) => shell,
        Err(problem) => {
            let _ = say(Frame::Problem(problem)).await;
            return Ok(());
        }
    };
    if say(Frame::Opened(opened)).await.is_err() {
        return Ok(());
    }
    let up = async {
        while let Some(message) = messages.message().await? {
            let Some(Kind::Frame(frame)) = message.kind else {
                return Err(Status::invalid_argument("a frame is expected"));
            };
            let frame = Frame::try_from(frame);
            let frame = frame.map_err(|error| Status::invalid_argument(error.to_string()))?;
            if line.up.send(frame).await.is_err() {
                // What the node said last is still to be passed on.
                return std::future::pending().await;
            }
        }
        Ok(())
    };
    let down = async {
        while let Some(frame) = line.down.recv().await {
            let is_last = matches!(frame, Frame::Exit(_) | Frame::Problem(_));
            if say(frame).await.is_err() || is_last {
                return;
            }
        }
        let _ = say(Frame::Problem(broken("it went away"))).await;
    };
    tokio::select! {
        ended = up => ended,
        () = down => Ok(()),
    }
}

fn asked(open: v1::FetchShell) -> Result<Ask, skep_proto::convert::Error> {
    let missing = |field| skep_proto::convert::Error { field };
    let shell = open.shell.ok_or(missing("shell"))?;
    Ok(Ask {
        node: NodeId::from_u128(id_bits("node", &open.node)?),
        allocation: AllocationId::from_u128(id_bits("allocation", &shell.allocation)?),
        wish: Wish::try_from(shell.wish.ok_or(missing("wish"))?)?,
    })
}
