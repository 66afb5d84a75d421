//! A socket in front of a Docker daemon that passes everything on, until it is told to misbehave: to
//! answer pings alone, as a wedged daemon does; to be slow; or to hold the n-th change, before or after
//! the daemon has made it, so that a client can be killed at exactly that step.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, oneshot, watch};

/// Longest head of a request that is looked at: the first line is all that is needed.
const HEAD_MAX: usize = 16 << 10;

/// What the daemon seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Itself.
    Well,
    /// Wedged: it answers pings and its version, and hangs with the rest.
    Wedged,
    /// Slow: each request waits so long before it is passed on.
    Slow(Duration),
}

/// Where a change is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The daemon never hears of it.
    Before,
    /// The daemon has made it, and its answer reaches nobody.
    After,
}

struct Trap {
    left: u32,
    hold: Hold,
    sprung: oneshot::Sender<String>,
}

struct Shared {
    upstream: PathBuf,
    mood: watch::Sender<Mood>,
    trap: Mutex<Option<Trap>>,
    /// Held requests go when there is a new mood or trap.
    released: Notify,
}

/// The socket.
pub struct DockerProxy {
    shared: Arc<Shared>,
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Drop for DockerProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl DockerProxy {
    /// In front of the daemon behind `upstream`.
    ///
    /// # Errors
    /// No socket can be made.
    pub fn start(upstream: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("skepp-").tempdir()?;
        let path = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&path)?;
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            mood: watch::Sender::new(Mood::Well),
            trap: Mutex::new(None),
            released: Notify::new(),
        });
        let passing = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = passing.clone();
                // A client that breaks off is its own affair.
                tokio::spawn(async move { drop(shared.pass(client).await) });
            }
        });
        Ok(Self {
            shared,
            path,
            task,
            _dir: dir,
        })
    }

    /// Its path.
    pub fn socket(&self) -> &Path {
        &self.path
    }

    /// The daemon seems to be so from now on.
    pub fn set(&self, mood: Mood) {
        self.shared.mood.send_replace(mood);
    }

    /// Holds the `nth` change from now on, counted from 1; the receiver is told which it was.
    pub fn trap(&self, nth: u32, hold: Hold) -> oneshot::Receiver<String> {
        let (sprung, told) = oneshot::channel();
        let left = nth;
        *self.shared.trap.lock().expect("no holder panics") = Some(Trap { left, hold, sprung });
        told
    }

    /// Nothing is held any more.
    pub fn release(&self) {
        self.shared.trap.lock().expect("no holder panics").take();
        self.shared.released.notify_waiters();
    }
}

impl Shared {
    /// One connection, judged by its first request: agents make one for each.
    async fn pass(&self, mut client: UnixStream) -> Result<()> {
        let mut head = vec![0; HEAD_MAX];
        let length = client.read(&mut head).await?;
        head.truncate(length);
        let line = String::from_utf8_lossy(&head);
        let line = line.lines().next().unwrap_or_default().to_owned();
        let mut mood = self.mood.subscribe();
        let now = *mood.borrow_and_update();
        match now {
            Mood::Well => {}
            Mood::Slow(wait) => tokio::time::sleep(wait).await,
            Mood::Wedged if line.contains("/_ping ") || line.contains("/version ") => {}
            // Hangs until somebody restarts the daemon, and then the connection is gone.
            Mood::Wedged => return Ok(mood.changed().await?),
        }
        let mut upstream = UnixStream::connect(&self.upstream)
            .await
            .context("the daemon")?;
        if let Some((hold, sprung)) = self.springs(&line) {
            let released = self.released.notified();
            if hold == Hold::After {
                upstream.write_all(&head).await?;
                // The beginning of the answer: the change is made.
                let mut answer = [0; 1];
                upstream.read_exact(&mut answer).await?;
            }
            let _ = sprung.send(line);
            released.await;
            return Ok(());
        }
        upstream.write_all(&head).await?;
        copy_bidirectional(&mut client, &mut upstream).await?;
        Ok(())
    }

    fn springs(&self, line: &str) -> Option<(Hold, oneshot::Sender<String>)> {
        let is_change = ["/containers/create", "/start ", "/stop", "/stop?"]
            .iter()
            .any(|word| line.starts_with("POST ") && line.contains(word))
            || line.starts_with("DELETE ") && line.contains("/containers/");
        let mut trap = self.trap.lock().expect("no holder panics");
        let set = trap.as_mut().filter(|_| is_change)?;
        set.left -= 1;
        if set.left > 0 {
            return None;
        }
        trap.take().map(|trap| (trap.hold, trap.sprung))
    }
}
