//! A pack on its way to all nodes that are to keep it, at once: the slowest sets the pace, and one that fails fails
//! the push. No more of it is here than is under way.

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use futures_util::{Stream, StreamExt as _};
use skep_model::id::{AllocationId, NodeId};
use skep_model::problem::{Code, Problem};
use skep_model::pushed::{MAX_PACK_BYTES, Order};
use skep_model::shell::{DATA_MAX_BYTES, Frame, WINDOW_BYTES, Wish};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::agents::relay::Relay;
use crate::agents::shells::{Ask, Line, broken};
use crate::agents::uploads::STALL_DEADLINE;

/// Parts of a pack that wait for one node.
const PARTS: usize = 4;
/// For a node to look through what has come, and to put it on its disk.
const SETTLE_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// What goes to a node.
#[derive(Clone)]
enum Part {
    Data(Bytes),
    /// That was all of it.
    End,
}

/// A node that could not take a push, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Which; none: it was not a node.
    pub(crate) node: Option<NodeId>,
    /// Why.
    pub(crate) problem: Problem,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self {
            node: None,
            problem,
        }
    }
}

/// Streams a pack to these nodes; returns when each has all of it on its disk.
///
/// # Errors
/// The first node that has not, or the client broke off.
pub(crate) async fn carry<S, E>(
    relay: &Relay,
    (nodes, order): (&[NodeId], &Order),
    pack: S,
) -> Result<(), Refused>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::fmt::Display,
{
    let opened = nodes.iter().map(|node| open(relay, *node, order.clone()));
    let mut pack = std::pin::pin!(pack);
    let carried = match try_join_all(opened).await {
        Ok(lines) => {
            let carried = tee(lines, &mut pack).await;
            carried.map_err(|(at, problem)| Refused {
                node: at.and_then(|at| nodes.get(at).copied()),
                problem,
            })
        }
        Err(refused) => Err(refused),
    };
    if carried.is_err() {
        // A client that is still sending hears the answer only then.
        let drained = async { while let Some(Ok(_)) = pack.next().await {} };
        let _ = timeout(STALL_DEADLINE, drained).await;
    }
    carried
}

async fn open(relay: &Relay, node: NodeId, order: Order) -> Result<Line, Refused> {
    let ask = Ask {
        // It is about the node itself.
        allocation: AllocationId::from_u128(0),
        node,
        wish: Wish::Push(order),
    };
    match relay.open_shell(ask).await {
        Ok(shell) => Ok(shell.line),
        Err(problem) => Err(Refused {
            node: Some(node),
            problem,
        }),
    }
}

/// Which line failed, and why; none: none of them.
type Failed = (Option<usize>, Problem);

async fn tee<S, E>(lines: Vec<Line>, pack: &mut std::pin::Pin<&mut S>) -> Result<(), Failed>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::fmt::Display,
{
    let (senders, fed): (Vec<_>, Vec<_>) = lines
        .into_iter()
        .map(|line| {
            let (sender, parts) = mpsc::channel(PARTS);
            (sender, feed(line, parts))
        })
        .unzip();
    let all = join_all(fed);
    let (sent, fed) = tokio::join!(hand_out(senders, pack), all);
    // What a node says tells more than that it stopped reading.
    let failed = fed.into_iter().enumerate();
    let mut failed = failed.filter_map(|(at, done)| Some((at, done.err()??)));
    match (sent, failed.next()) {
        (Err(Stopped::Client(problem)), _) => Err((None, problem)),
        (_, Some((at, problem))) => Err((Some(at), problem)),
        (Err(Stopped::Node), None) => Err((None, broken("it stopped reading"))),
        (Ok(()), None) => Ok(()),
    }
}

enum Stopped {
    Client(Problem),
    Node,
}

/// Each part to each node. Dropping the senders before the end tells them that it broke off.
async fn hand_out<S, E>(
    senders: Vec<mpsc::Sender<Part>>,
    pack: &mut std::pin::Pin<&mut S>,
) -> Result<(), Stopped>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::fmt::Display,
{
    let mut total = 0;
    loop {
        let part = match timeout(STALL_DEADLINE, pack.next()).await {
            Ok(Some(Ok(part))) => part,
            Ok(Some(Err(error))) => {
                return Err(Stopped::Client(cut(&format!("it broke off: {error}"))));
            }
            Ok(None) => break,
            Err(_) => return Err(Stopped::Client(cut("nothing came any more"))),
        };
        total += part.len() as u64;
        if total > MAX_PACK_BYTES {
            let text = format!("the push is larger than {MAX_PACK_BYTES} bytes");
            return Err(Stopped::Client(Problem::new(Code::TooLarge, text).hint(
                "push an older commit first, or keep large files out of the repository",
            )));
        }
        if !to_all(&senders, Part::Data(part)).await {
            return Err(Stopped::Node);
        }
    }
    match to_all(&senders, Part::End).await {
        true => Ok(()),
        false => Err(Stopped::Node),
    }
}

/// False: one takes nothing any more, or takes too long.
async fn to_all(senders: &[mpsc::Sender<Part>], part: Part) -> bool {
    let sends = senders.iter().map(|sender| sender.send(part.clone()));
    let sent = timeout(STALL_DEADLINE, try_join_all(sends)).await;
    matches!(sent, Ok(Ok(_)))
}

fn cut(why: &str) -> Problem {
    Problem::new(
        Code::SourceFailed,
        format!("the push did not come whole: {why}"),
    )
    .hint("push again: nothing of it was kept")
}

/// One node's share, as far as it grants; returns when it says that it has all of it. No problem of its own: the
/// parts ended too early.
async fn feed(line: Line, mut parts: mpsc::Receiver<Part>) -> Result<(), Option<Problem>> {
    let broken = |why: &str| Some(broken(why));
    let Line { up, mut down } = line;
    let (mut left, mut credit, mut has_ended) = (Bytes::new(), WINDOW_BYTES as usize, false);
    // What it says tells more than that it hears nothing any more.
    let mut is_deaf = false;
    let settled = tokio::time::sleep(Duration::MAX);
    let mut settled = std::pin::pin!(settled);
    loop {
        tokio::select! {
            frame = down.recv() => match frame {
                Some(Frame::Grant(bytes)) => {
                    credit = (credit + bytes as usize).min(WINDOW_BYTES as usize);
                }
                Some(Frame::Exit(_)) if has_ended => return Ok(()),
                Some(Frame::Problem(problem)) => return Err(Some(problem)),
                Some(Frame::Exit(_)) => return Err(broken("it ended too early")),
                Some(_) => {}
                None => return Err(broken("it went away")),
            },
            part = parts.recv(), if left.is_empty() && !has_ended => match part {
                Some(Part::Data(data)) => left = data,
                Some(Part::End) => {
                    has_ended = true;
                    settled.as_mut().reset(tokio::time::Instant::now() + SETTLE_DEADLINE);
                    // Where it has gone, that is seen next.
                    let _ = up.send(Frame::Eof).await;
                }
                None => return Err(None),
            },
            place = up.reserve(), if !left.is_empty() && credit > 0 && !is_deaf => {
                let Ok(place) = place else {
                    is_deaf = true;
                    continue;
                };
                let bytes = left.len().min(DATA_MAX_BYTES).min(credit);
                credit -= bytes;
                place.send(Frame::Data(left.split_to(bytes).to_vec()));
            }
            () = &mut settled, if has_ended => {
                let text = "the node has not put the push on its disk in time";
                return Err(Some(Problem::new(Code::Timeout, text).hint("is its disk slow? push again")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::shell::GRANT_BYTES;

    /// A node that takes everything, or says no after some bytes; what it has got.
    fn node(refuses_after: Option<usize>) -> (Line, tokio::task::JoinHandle<(Vec<u8>, bool)>) {
        let (up, mut from_server) = mpsc::channel(4);
        let (to_server, down) = mpsc::channel(4);
        let task = tokio::spawn(async move {
            let (mut got, mut ungranted) = (Vec::new(), 0);
            loop {
                match from_server.recv().await {
                    Some(Frame::Data(data)) => {
                        ungranted += u32::try_from(data.len()).expect("small");
                        got.extend(data);
                        if refuses_after.is_some_and(|after| got.len() >= after) {
                            let no = Problem::new(Code::SourceFailed, "git finds fault");
                            let _ = to_server.send(Frame::Problem(no)).await;
                            return (got, false);
                        }
                        if ungranted >= GRANT_BYTES {
                            let _ = to_server.send(Frame::Grant(ungranted)).await;
                            ungranted = 0;
                        }
                    }
                    Some(Frame::Eof) => {
                        let _ = to_server.send(Frame::Exit(0)).await;
                        return (got, true);
                    }
                    _ => return (got, false),
                }
            }
        });
        (Line { up, down }, task)
    }

    async fn sent(
        lines: Vec<Line>,
        parts: Vec<Result<Bytes, std::io::Error>>,
    ) -> Result<(), Failed> {
        let mut pack = std::pin::pin!(futures_util::stream::iter(parts));
        tee(lines, &mut pack).await
    }

    fn parts(count: usize) -> Vec<Result<Bytes, std::io::Error>> {
        (0..count)
            .map(|number| {
                Ok(Bytes::from(vec![
                    u8::try_from(number % 251).expect("small");
                    100_000
                ]))
            })
            .collect()
    }

    #[tokio::test]
    async fn all_nodes_have_all_of_it_before_it_is_done() {
        let ((a, first), (b, second)) = (node(None), node(None));
        let all: Vec<u8> = parts(20)
            .into_iter()
            .flat_map(|it| it.expect("whole"))
            .collect();
        sent(vec![a, b], parts(20)).await.expect("carried");
        for task in [first, second] {
            assert_eq!(task.await.expect("runs"), (all.clone(), true));
        }
    }

    #[tokio::test]
    async fn one_that_fails_fails_it_and_says_why_and_the_other_never_sees_an_end() {
        let ((a, first), (b, second)) = (node(None), node(Some(300_000)));
        let (at, problem) = sent(vec![a, b], parts(40)).await.expect_err("fails");
        assert_eq!((at, problem.message.as_str()), (Some(1), "git finds fault"));
        assert!(!first.await.expect("runs").1, "an end was told");
        second.await.expect("runs");
    }

    #[tokio::test]
    async fn a_client_that_breaks_off_is_no_end() {
        let (a, first) = node(None);
        let mut broken = parts(3);
        broken.push(Err(std::io::Error::other("reset")));
        let (at, problem) = sent(vec![a], broken).await.expect_err("fails");
        assert!(
            at.is_none() && problem.message.contains("reset"),
            "{problem}"
        );
        assert!(!first.await.expect("runs").1, "an end was told");
    }
}
