//! This process' own input and output as a shell's ends, byte by byte. Both block, so each has a
//! thread; neither ever holds up what else passes on the shell.

use std::io::{self, Read as _};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Most that is read at a time.
const READ_BYTES: usize = 32 << 10;
/// Reads that wait for the connection.
const READS: usize = 2;

/// What is typed or piped in. Ends with the input.
pub(crate) fn input() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(READS);
    // Never joined: it ends with the process, in the middle of a read.
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => {
                    let bytes = Bytes::copy_from_slice(&buffer[..read]);
                    if sender.blocking_send(bytes).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

/// Where output is written.
pub(crate) struct Output {
    parts: Option<std::sync::mpsc::Sender<(bool, Vec<u8>)>>,
    /// How much of each part was written, or why it could not be.
    written: mpsc::UnboundedReceiver<io::Result<usize>>,
}

impl Output {
    /// To this process' stdout and stderr.
    pub(crate) fn new() -> Self {
        let (parts, queue) = std::sync::mpsc::channel::<(bool, Vec<u8>)>();
        let (sender, written) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for (is_stderr, bytes) in queue {
                let done = match is_stderr {
                    true => put(&mut io::stderr().lock(), &bytes),
                    false => put(&mut io::stdout().lock(), &bytes),
                };
                if sender.send(done.map(|()| bytes.len())).is_err() {
                    return;
                }
            }
        });
        Self {
            parts: Some(parts),
            written,
        }
    }

    /// Writes a part after those before it. Bounded by the shell's window.
    pub(crate) fn put(&self, is_stderr: bool, bytes: Vec<u8>) {
        if let Some(parts) = &self.parts {
            // A writer that has ended has said why.
            let _ = parts.send((is_stderr, bytes));
        }
    }

    /// How much the next part was that is written; none: all is, and nothing more will come.
    ///
    /// # Errors
    /// It cannot be written: nobody reads it any more, as a rule.
    pub(crate) async fn written(&mut self) -> io::Result<Option<usize>> {
        self.written.recv().await.transpose()
    }

    /// Nothing more will come.
    pub(crate) fn finish(&mut self) {
        self.parts = None;
    }
}

fn put(target: &mut impl io::Write, bytes: &[u8]) -> io::Result<()> {
    target.write_all(bytes)?;
    target.flush()
}
