//! The agent's end of a shell's stream: data goes out as far as it was granted, and all that comes in
//! is taken at once, so that the end of the stream is seen whatever the container does.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use skep_model::problem::{Code, Problem};
use skep_model::shell::{DATA_MAX_BYTES, Frame, Size, Taken, WINDOW_BYTES};
use skep_proto::v1;
use tokio::sync::{Semaphore, mpsc};
use tonic::Streaming;

/// Frames between this end and the connection.
pub(super) const FRAMES: usize = 8;

/// The asker has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody is at the other end any more")]
pub(super) struct Gone;

impl From<Gone> for Problem {
    fn from(gone: Gone) -> Self {
        Self::new(Code::Canceled, gone.to_string())
    }
}

/// What comes from the asker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// To be used, and then granted again.
    Data(Bytes),
    /// No more data.
    Eof,
    /// The terminal's size.
    Resize(Size),
}

/// The way out.
pub(super) struct Wire {
    frames: mpsc::Sender<v1::ShellFrame>,
    /// Bytes that may be sent.
    credit: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
}

impl Wire {
    /// Sends output in frames, as far as granted; waits for grants.
    ///
    /// # Errors
    /// The asker has gone.
    pub(super) async fn data(&self, mut data: Bytes, is_stderr: bool) -> Result<(), Gone> {
        while !data.is_empty() {
            let part = data.split_to(data.len().min(DATA_MAX_BYTES));
            let bytes = u32::try_from(part.len()).expect("below the limit of a frame");
            let credit = self.credit.acquire_many(bytes).await;
            credit.map_err(|_| Gone)?.forget();
            self.send(match is_stderr {
                true => Frame::Stderr(part.to_vec()),
                false => Frame::Data(part.to_vec()),
            })
            .await?;
        }
        Ok(())
    }

    /// Sends what needs no grant.
    ///
    /// # Errors
    /// The asker has gone.
    pub(super) async fn send(&self, frame: Frame) -> Result<(), Gone> {
        self.frames.send(frame.into()).await.map_err(|_| Gone)
    }

    /// Input of this length has been used: as much may be sent again.
    ///
    /// # Errors
    /// The asker has gone.
    pub(super) async fn release(&self, bytes: usize) -> Result<(), Gone> {
        let grant = self.taken.lock().release(bytes);
        match grant {
            Some(bytes) => self.send(Frame::Grant(bytes)).await,
            None => Ok(()),
        }
    }
}

/// What has come. Bounded by the window.
pub(super) struct Inbox {
    inputs: mpsc::UnboundedReceiver<Input>,
}

impl Inbox {
    /// The next input; none: the asker has gone.
    pub(super) async fn next(&mut self) -> Option<Input> {
        self.inputs.recv().await
    }
}

/// Both directions of a stream, and what takes in: it returns when the stream has ended.
pub(super) fn new(
    frames: mpsc::Sender<v1::ShellFrame>,
    inbound: Streaming<v1::ShellFrame>,
) -> (Wire, Inbox, impl Future<Output = ()>) {
    let (ear, wire, inbox) = ends(frames);
    (wire, inbox, listen(inbound, ear))
}

/// Where frames arrive.
struct Ear {
    inputs: mpsc::UnboundedSender<Input>,
    credit: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
}

fn ends(frames: mpsc::Sender<v1::ShellFrame>) -> (Ear, Wire, Inbox) {
    let (sender, inputs) = mpsc::unbounded_channel();
    let wire = Wire {
        frames,
        credit: Arc::new(Semaphore::new(WINDOW_BYTES as usize)),
        taken: Arc::default(),
    };
    let ear = Ear {
        inputs: sender,
        credit: wire.credit.clone(),
        taken: wire.taken.clone(),
    };
    (ear, wire, Inbox { inputs })
}

async fn listen(mut inbound: Streaming<v1::ShellFrame>, ear: Ear) {
    while let Ok(Some(message)) = inbound.message().await {
        if let Err(why) = ear.hear(message) {
            tracing::warn!(why, "a shell's asker does not keep to the rules");
            return;
        }
    }
}

impl Ear {
    /// Takes in a frame.
    ///
    /// # Errors
    /// Says which rule it breaks.
    fn hear(&self, message: v1::ShellFrame) -> Result<(), &'static str> {
        let frame = Frame::try_from(message).map_err(|_| "a frame means nothing")?;
        let input = match frame {
            Frame::Data(data) => {
                if data.is_empty() || data.len() > DATA_MAX_BYTES {
                    return Err("a frame holds no data, or too much");
                }
                if !self.taken.lock().receive(data.len()) {
                    return Err("more was sent than granted");
                }
                Input::Data(data.into())
            }
            Frame::Eof => Input::Eof,
            Frame::Resize(size) => Input::Resize(size),
            Frame::Grant(bytes) => {
                // One alone grants: what is there only gets less meanwhile.
                let granted = self.credit.available_permits() + bytes as usize;
                if granted > WINDOW_BYTES as usize {
                    return Err("more was granted than taken");
                }
                self.credit.add_permits(bytes as usize);
                return Ok(());
            }
            _ => return Err("only a node sends such a frame"),
        };
        // Whoever needs no input has dropped the other end.
        let _ = self.inputs.send(input);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use skep_model::shell::GRANT_BYTES;

    use super::*;

    fn sent(frame: Option<v1::ShellFrame>) -> Frame {
        frame.expect("one").try_into().expect("a frame")
    }

    #[tokio::test]
    async fn output_stops_at_the_window_and_goes_on_with_a_grant() {
        let (frames, mut queue) = mpsc::channel(FRAMES);
        let (ear, wire, _inbox) = ends(frames);
        let all = Bytes::from(vec![7; WINDOW_BYTES as usize + 5]);
        let sending = tokio::spawn(async move { wire.data(all, false).await });
        let mut seen = 0;
        while seen < WINDOW_BYTES as usize {
            match sent(queue.recv().await) {
                Frame::Data(data) => seen += data.len(),
                other => panic!("{other:?}"),
            }
        }
        tokio::task::yield_now().await;
        assert!(queue.try_recv().is_err() && !sending.is_finished());
        ear.hear(Frame::Grant(GRANT_BYTES).into()).expect("taken");
        assert_eq!(sent(queue.recv().await), Frame::Data(vec![7; 5]));
        assert_eq!(sending.await.expect("runs"), Ok(()));
    }

    #[tokio::test]
    async fn input_is_taken_up_to_the_window_and_granted_when_used() {
        let (frames, mut queue) = mpsc::channel(FRAMES);
        let (ear, wire, mut inbox) = ends(frames);
        let full = Frame::Data(vec![1; DATA_MAX_BYTES]);
        for _ in 0..WINDOW_BYTES as usize / DATA_MAX_BYTES {
            ear.hear(full.clone().into()).expect("in the window");
        }
        ear.hear(Frame::Eof.into()).expect("needs no grant");
        assert!(ear.hear(Frame::Data(vec![1]).into()).is_err());
        match inbox.next().await {
            Some(Input::Data(data)) => wire.release(data.len()).await.expect("there"),
            other => panic!("{other:?}"),
        }
        assert_eq!(sent(queue.recv().await), Frame::Grant(GRANT_BYTES));
        ear.hear(full.into()).expect("granted");
    }

    #[tokio::test]
    async fn who_breaks_a_rule_is_told_by_which() {
        let (ear, _wire, _inbox) = ends(mpsc::channel(FRAMES).0);
        for frame in [
            Frame::Data(Vec::new()),
            Frame::Data(vec![0; DATA_MAX_BYTES + 1]),
            Frame::Stderr(vec![1]),
            Frame::Exit(0),
            Frame::Grant(1),
        ] {
            assert!(ear.hear(frame.clone().into()).is_err(), "{frame:?}");
        }
        assert!(ear.hear(v1::ShellFrame { kind: None }).is_err());
    }
}
