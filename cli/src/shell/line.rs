//! One shell's WebSocket. Takes in all that it granted, whoever reads it when, so that the end of the
//! shell is seen at once; sends data only as far as granted; and is heard from, so that the server
//! knows that somebody is there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use skep_control_plane::api::types::shell::{decode, encode};
use skep_model::problem::{Code, Problem};
use skep_model::shell::{DATA_MAX_BYTES, Frame, Opened, Taken, WINDOW_BYTES};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, Socket};
use crate::failure::Failure;

/// Frames between this end and the connection.
const FRAMES: usize = 8;
/// The server hears so often that somebody is there; it waits for three of them.
const PING: Duration = Duration::from_secs(15);
/// Each ping is answered: a server that is silent for so long is gone.
const HEARD_WITHIN: Duration = Duration::from_secs(45);
/// For the server to say what has begun.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// An open shell. Dropping it ends it.
pub(crate) struct Shell {
    /// What was opened.
    pub(crate) opened: Opened,
    /// The way to the container.
    pub(crate) line: Line,
    /// What comes from it: data, the end of data, and `Exit` as the last.
    pub(crate) events: mpsc::UnboundedReceiver<Result<Frame, Problem>>,
    _tasks: JoinSet<()>,
}

/// The way to the container. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Line {
    frames: mpsc::Sender<Frame>,
    credit: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
}

/// The shell is over; why, the events tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over;

/// Opens the shell at this path of the API.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn open(client: &Client, path: &str) -> Result<Shell, Failure> {
    let (sink, source) = client.socket(path).await?.split();
    let (frames, queue) = mpsc::channel(FRAMES);
    let (sender, mut events) = mpsc::unbounded_channel();
    let line = Line {
        frames,
        credit: Arc::new(Semaphore::new(WINDOW_BYTES as usize)),
        taken: Arc::default(),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(talk(sink, queue));
    tasks.spawn(listen(source, line.clone(), sender));
    let opened = match timeout(OPEN_DEADLINE, events.recv()).await {
        Ok(Some(Ok(Frame::Opened(opened)))) => opened,
        Ok(Some(Err(problem) | Ok(Frame::Problem(problem)))) => return Err(problem.into()),
        _ => return Err(lost("the server does not say what it has opened").into()),
    };
    Ok(Shell {
        opened,
        line,
        events,
        _tasks: tasks,
    })
}

fn lost(why: &str) -> Problem {
    let text = format!("the connection to the server broke off: {why}");
    Problem::new(Code::Unavailable, text)
}

impl Line {
    /// Sends data in frames, as far as granted; waits for grants.
    ///
    /// # Errors
    /// The shell is over.
    pub(crate) async fn data(&self, mut data: Bytes) -> Result<(), Over> {
        while !data.is_empty() {
            let part = data.split_to(data.len().min(DATA_MAX_BYTES));
            let bytes = u32::try_from(part.len()).expect("below the limit of a frame");
            let credit = self.credit.acquire_many(bytes).await;
            credit.map_err(|_| Over)?.forget();
            self.send(Frame::Data(part.to_vec())).await?;
        }
        Ok(())
    }

    /// Sends what needs no grant.
    ///
    /// # Errors
    /// The shell is over.
    pub(crate) async fn send(&self, frame: Frame) -> Result<(), Over> {
        self.frames.send(frame).await.map_err(|_| Over)
    }

    /// So much of what came has been used: as much may come again.
    ///
    /// # Errors
    /// The shell is over.
    pub(crate) async fn release(&self, bytes: usize) -> Result<(), Over> {
        let grant = self.taken().release(bytes);
        match grant {
            Some(bytes) => self.send(Frame::Grant(bytes)).await,
            None => Ok(()),
        }
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        // Two numbers, which are never left half changed.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a frame in: what it brings for whoever reads.
    fn hear(&self, frame: Frame) -> Result<Option<Frame>, Problem> {
        let broken = |text| Err(Problem::new(Code::Internal, text));
        match &frame {
            Frame::Data(data) | Frame::Stderr(data) => {
                if !self.taken().receive(data.len()) {
                    return broken("the node sent more than it was granted");
                }
            }
            Frame::Grant(bytes) => {
                let granted = self.credit.available_permits() + *bytes as usize;
                if granted > WINDOW_BYTES as usize {
                    return broken("the node granted more than it had taken");
                }
                self.credit.add_permits(*bytes as usize);
                return Ok(None);
            }
            Frame::Resize(_) => return broken("a node has no terminal of its own"),
            Frame::Eof | Frame::Opened(_) | Frame::Exit(_) | Frame::Problem(_) => {}
        }
        Ok(Some(frame))
    }
}

async fn talk(mut sink: SplitSink<Socket, Message>, mut frames: mpsc::Receiver<Frame>) {
    let mut pings = interval(PING);
    loop {
        let message = tokio::select! {
            frame = frames.recv() => match frame {
                Some(frame) => Message::Binary(encode(&frame).into()),
                None => break,
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        // What went wrong is seen by whoever listens.
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let _ = sink.close().await;
}

async fn listen(
    mut source: SplitStream<Socket>,
    line: Line,
    events: mpsc::UnboundedSender<Result<Frame, Problem>>,
) {
    let credit = line.credit.clone();
    let problem = loop {
        let message = match timeout(HEARD_WITHIN, source.next()).await {
            Err(_) => break lost("it is not heard any more"),
            Ok(None | Some(Ok(Message::Close(_)))) => break lost("the server closed it"),
            Ok(Some(Err(error))) => break lost(&error.to_string()),
            Ok(Some(Ok(Message::Binary(message)))) => message,
            Ok(Some(Ok(_))) => continue,
        };
        let frame = match decode(&message) {
            Ok(frame) => frame,
            Err(error) => break Problem::new(Code::Internal, error.to_string()),
        };
        let is_last = matches!(frame, Frame::Exit(_) | Frame::Problem(_));
        match line.hear(frame) {
            Ok(None) => {}
            Ok(Some(Frame::Problem(problem))) => break problem,
            // A reader who has gone needs nothing any more.
            Ok(Some(frame)) => drop(events.send(Ok(frame))),
            Err(problem) => break problem,
        }
        if is_last {
            credit.close();
            return;
        }
    };
    credit.close();
    let _ = events.send(Err(problem));
}
