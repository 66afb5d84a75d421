//! Shells on their way between whoever asked and a node: the node is told on its session, dials a
//! stream for the shell alone, and meets the asker here. A node that is connected to another server
//! is reached through that one. Frames pass through; what they mean is known to both ends.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use skep_model::id::{AllocationId, NodeId};
use skep_model::problem::{Code, Problem};
use skep_model::shell::{Frame, Opened, Wish};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::relay::{Relay, away};
use super::session::status;

/// Frames under way in one direction: both ends take what they granted, so this bridges only the
/// network.
pub(crate) const FRAMES: usize = 16;
/// A node that has not dialed by then does not, or has an agent that knows no shells.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// For Docker to begin what was asked for, after that.
pub(crate) const BEGIN_DEADLINE: Duration = Duration::from_secs(15);

/// What somebody wants, and where.
#[derive(Debug, Clone)]
pub struct Ask {
    /// In whose container.
    pub allocation: AllocationId,
    /// Where it runs.
    pub node: NodeId,
    /// What.
    pub wish: Wish,
}

/// Both directions of a shell. Dropping it ends the shell at the node.
pub struct Line {
    /// To the node.
    pub up: mpsc::Sender<Frame>,
    /// From the node; ends without `Exit` or `Problem` where the node went away.
    pub down: mpsc::Receiver<Frame>,
}

/// A shell that the node has opened.
pub struct Shell {
    /// What the node says of it.
    pub opened: Opened,
    /// What passes from now on.
    pub line: Line,
}

/// Those who wait for a node to dial; no more than shells that may be open.
#[derive(Default)]
pub(super) struct Waiting {
    askers: Mutex<BTreeMap<u64, (NodeId, oneshot::Sender<Line>)>>,
}

impl Waiting {
    /// The node's session ended: it will not hear what it was to dial for.
    pub(super) fn leave(&self, node: NodeId) {
        self.askers.lock().retain(|_, (of, _)| *of != node);
    }

    fn take(&self, node: NodeId, request: u64) -> Option<oneshot::Sender<Line>> {
        let mut askers = self.askers.lock();
        askers.get(&request).filter(|(of, _)| *of == node)?;
        askers.remove(&request).map(|(_, asker)| asker)
    }
}

/// A place among those who wait; takes itself back.
struct Place<'a> {
    waiting: &'a Waiting,
    request: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.askers.lock().remove(&self.request);
    }
}

impl Relay {
    /// A node's end of a shell, as `meet` makes it.
    #[cfg(test)]
    pub(crate) fn dial(&self, node: NodeId, request: u64) -> Option<Line> {
        let asker = self.shells().take(node, request)?;
        let (up, to_node) = mpsc::channel(FRAMES);
        let (from_node, down) = mpsc::channel(FRAMES);
        asker.send(Line { up, down }).ok()?;
        Some(Line {
            up: from_node,
            down: to_node,
        })
    }

    /// Opens a shell on a node, wherever it is connected. Dropping the future gives it up.
    ///
    /// # Errors
    /// The node is not connected or does not answer, or what it says.
    pub async fn open_shell(&self, ask: Ask) -> Result<Shell, Problem> {
        match self.elsewhere(ask.node) {
            Some((server, elsewhere)) => elsewhere.shell(server, ask).await,
            None => self.open_shell_here(ask).await,
        }
    }

    /// Opens a shell on a node that is connected to this server.
    ///
    /// # Errors
    /// As [`Relay::open_shell`].
    pub async fn open_shell_here(&self, ask: Ask) -> Result<Shell, Problem> {
        let (request, waiting) = (self.number(), self.shells());
        let (asker, dialed) = oneshot::channel();
        waiting.askers.lock().insert(request, (ask.node, asker));
        let place = Place { waiting, request };
        let message = v1::to_agent::Kind::OpenShell(v1::OpenShell {
            request,
            allocation: id_bytes(ask.allocation.as_u128()),
            wish: Some((&ask.wish).into()),
        });
        self.tell(ask.node, message).map_err(|busy| match busy {
            true => Problem::new(Code::Busy, "the node is busy").hint("try again in a moment"),
            false => away("nothing can be done on it just now"),
        })?;
        let line = match timeout(DIAL_DEADLINE, dialed).await {
            Ok(Ok(line)) => line,
            Ok(Err(_)) => return Err(away("its session has just ended")),
            Err(_) => {
                let text = format!(
                    "the node did not open the shell within {} s",
                    DIAL_DEADLINE.as_secs()
                );
                let hint = "is its agent as new as this server? `skep node ls` tells";
                return Err(Problem::new(Code::Timeout, text).hint(hint));
            }
        };
        drop(place);
        begin(line).await
    }
}

/// Waits for the node's word that what was asked for has begun.
///
/// # Errors
/// It says that it has not, or nothing in time.
pub(crate) async fn begin(mut line: Line) -> Result<Shell, Problem> {
    match timeout(BEGIN_DEADLINE, line.down.recv()).await {
        Ok(Some(Frame::Opened(opened))) => Ok(Shell { opened, line }),
        Ok(Some(Frame::Problem(problem))) => Err(problem),
        Ok(Some(_)) => Err(Problem::new(
            Code::Internal,
            "the node opened the shell out of turn",
        )),
        Ok(None) => Err(Problem::new(
            Code::Unavailable,
            "the node went away before it opened the shell",
        )),
        Err(_) => {
            let text = format!(
                "the node did not begin within {} s",
                BEGIN_DEADLINE.as_secs()
            );
            Err(Problem::new(Code::Timeout, text).hint("does Docker answer there? `skep node ls`"))
        }
    }
}

/// A node has dialed: finds who waits, and passes frames until either goes away or `over` says why
/// it ends.
///
/// # Errors
/// Nobody waits any more, or the first frame names no request.
pub(super) async fn meet(
    relay: &Relay,
    node: NodeId,
    mut frames: Streaming<v1::ShellFrame>,
    over: impl Future<Output = Problem> + Send + 'static,
) -> Result<ReceiverStream<Frame>, Status> {
    let first = timeout(DIAL_DEADLINE, frames.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no first frame"))??;
    let Some(v1::shell_frame::Kind::Request(request)) = first.and_then(|frame| frame.kind) else {
        return Err(Status::invalid_argument("a shell begins with its request"));
    };
    let gone = || {
        status(Problem::new(
            Code::Canceled,
            "nobody waits for this shell any more",
        ))
    };
    let asker = relay.shells().take(node, request).ok_or_else(gone)?;
    let (up, to_node) = mpsc::channel(FRAMES);
    let (from_node, down) = mpsc::channel(FRAMES);
    asker.send(Line { up, down }).map_err(|_| gone())?;
    tokio::spawn(async move {
        tokio::select! {
            () = pass(frames, &from_node) => {}
            () = from_node.closed() => {}
            problem = over => {
                // An asker who has gone needs no reason.
                let _ = from_node.try_send(Frame::Problem(problem));
            }
        }
    });
    Ok(ReceiverStream::new(to_node))
}

/// Passes frames on until their stream or their reader ends. Says why where it is not the partner who
/// ended it.
pub(crate) async fn pass(mut frames: Streaming<v1::ShellFrame>, to: &mpsc::Sender<Frame>) {
    loop {
        let frame = match frames.message().await {
            Ok(Some(message)) => Frame::try_from(message).unwrap_or_else(|error| {
                Frame::Problem(Problem::new(Code::Internal, error.to_string()))
            }),
            Ok(None) => return,
            Err(status) => Frame::Problem(broken(status.message())),
        };
        let is_last = matches!(frame, Frame::Exit(_) | Frame::Problem(_));
        if to.send(frame).await.is_err() || is_last {
            return;
        }
    }
}

/// The way to the container broke in the middle.
pub(crate) fn broken(why: &str) -> Problem {
    let text = format!("the connection to the node broke off: {why}");
    Problem::new(Code::Unavailable, text)
        .hint("a command may go on in its container: `skep exec` again and look")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(node: NodeId) -> Ask {
        Ask {
            allocation: AllocationId::from_u128(1),
            node,
            wish: Wish::Attach,
        }
    }

    fn dial(relay: &Relay, node: NodeId, request: u64) -> Option<Line> {
        relay.dial(node, request)
    }

    fn request(kind: Option<v1::to_agent::Kind>) -> u64 {
        match kind {
            Some(v1::to_agent::Kind::OpenShell(open)) => open.request,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_node_meets_who_asked_and_nobody_else_can() {
        let (relay, node) = (Relay::default(), NodeId::from_u128(7));
        let (_session, mut told) = relay.connect(node);
        let opening = tokio::spawn({
            let relay = relay.clone();
            async move { relay.open_shell(ask(node)).await }
        });
        let number = request(told.recv().await);
        assert!(dial(&relay, NodeId::from_u128(8), number).is_none());
        assert!(dial(&relay, node, number + 1).is_none());
        let ours = dial(&relay, node, number).expect("somebody waits");
        let opened = Opened {
            allocation: AllocationId::from_u128(0),
            node: String::new(),
            name: None,
        };
        ours.up.send(Frame::Opened(opened)).await.expect("read");
        let mut shell = opening.await.expect("runs").expect("opened");
        assert!(dial(&relay, node, number).is_none(), "once");
        drop(ours);
        assert_eq!(shell.line.down.recv().await, None);
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_a_node_that_is_away_goes_away_or_refuses() {
        let (relay, node) = (Relay::default(), NodeId::from_u128(7));
        let opened = |relay: &Relay| {
            let relay = relay.clone();
            tokio::spawn(async move { relay.open_shell(ask(node)).await })
        };
        let problem = |done: Result<Result<Shell, Problem>, _>| {
            let done: Result<Shell, Problem> =
                done.unwrap_or_else(|_: tokio::task::JoinError| panic!());
            done.err().expect("refused")
        };
        let away = problem(opened(&relay).await);
        assert_eq!(away.code, Code::Unavailable);

        let (session, mut told) = relay.connect(node);
        let opening = opened(&relay);
        let number = request(told.recv().await);
        relay.disconnect(node, session);
        assert!(problem(opening.await).message.contains("ended"));
        assert!(dial(&relay, node, number).is_none());

        let (_session, mut told) = relay.connect(node);
        let opening = opened(&relay);
        let ours = dial(&relay, node, request(told.recv().await)).expect("waits");
        let refusal = Problem::new(Code::NotFound, "no container");
        ours.up
            .send(Frame::Problem(refusal.clone()))
            .await
            .expect("read");
        assert_eq!(problem(opening.await), refusal);

        // Given up: what the node then dials for finds nobody.
        let opening = opened(&relay);
        let number = request(told.recv().await);
        opening.abort();
        assert!(opening.await.is_err());
        assert!(dial(&relay, node, number).is_none());
    }
}
