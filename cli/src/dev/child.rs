//! One part as a child process: started, watched, started again when it dies, ended by the end of
//! its stdin. The child ends so however this process ends, SIGKILL included.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::log::Log;
use super::plan::{Launch, Part};

/// Pauses before a part that died is started again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A part that lived this long is not failing at its start.
const SETTLED: Duration = Duration::from_secs(30);
/// Longest line of readiness, in bytes.
const READY_MAX: u64 = 64 << 10;

/// What happens to a part.
#[derive(Debug)]
pub(super) enum Event {
    /// It runs.
    Started {
        /// Which.
        part: Part,
        /// Its process.
        pid: u32,
    },
    /// It serves, and says where.
    Ready {
        /// Which.
        part: Part,
        /// Its own words.
        words: Value,
    },
    /// It ended by itself.
    Died {
        /// Which.
        part: Part,
        /// How.
        how: String,
    },
}

/// How to keep a part up.
pub(super) struct Keeper<L> {
    /// Which.
    pub(super) part: Part,
    /// Where its stderr goes.
    pub(super) log: Log,
    /// How it is started; asked before each start.
    pub(super) launch: L,
    /// Who is told.
    pub(super) events: mpsc::Sender<Event>,
    /// Ends it gracefully.
    pub(super) stop: CancellationToken,
    /// How long a graceful end may take.
    pub(super) grace: Duration,
}

impl<L: Fn() -> Launch + Send> Keeper<L> {
    /// Keeps the part up until it is stopped; returns when it has ended.
    pub(super) async fn run(self) {
        let mut pause = PAUSE_MIN;
        while !self.stop.is_cancelled() {
            let begun = Instant::now();
            let how = match self.start() {
                Err(error) => format!("cannot be started: {error}"),
                Ok(child) => match self.watch(child).await {
                    None => return,
                    Some(status) => status,
                },
            };
            if begun.elapsed() >= SETTLED {
                pause = PAUSE_MIN;
            }
            self.tell(Event::Died {
                part: self.part,
                how,
            })
            .await;
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn start(&self) -> io::Result<Child> {
        let launch = (self.launch)();
        let (stderr, theirs) = io::pipe()?;
        let child = Command::new(std::env::current_exe()?)
            .args(launch.arguments)
            .envs(launch.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(theirs)
            // Ctrl-C is for the parent: the parts end in their order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        self.log.follow(stderr);
        Ok(child)
    }

    /// How the child ended by itself; none: it was stopped.
    async fn watch(&self, mut child: Child) -> Option<String> {
        let pid = child.id().unwrap_or_default();
        self.tell(Event::Started {
            part: self.part,
            pid,
        })
        .await;
        // Held: its end is the sign to end.
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let mut words = std::pin::pin!(first_words(stdout));
        let mut is_open = true;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => {
                    drop(stdin);
                    self.end(child).await;
                    return None;
                }
                ended = child.wait() => return Some(describe(ended)),
                words = &mut words, if is_open => {
                    is_open = false;
                    if let Some(words) = words {
                        self.tell(Event::Ready { part: self.part, words }).await;
                    }
                }
            }
        }
    }

    async fn end(&self, mut child: Child) {
        if tokio::time::timeout(self.grace, child.wait()).await.is_ok() {
            return;
        }
        eprintln!(
            "{}: did not end within {} s, killed",
            self.part.name(),
            self.grace.as_secs()
        );
        let _ = child.kill().await;
    }

    /// Nobody listens any more once everything ends.
    async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await;
    }
}

/// The line of readiness; none where the child ends without one.
async fn first_words(stdout: Option<ChildStdout>) -> Option<Value> {
    let mut lines = BufReader::new(stdout?.take(READY_MAX)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(words) = serde_json::from_str::<Value>(&line)
            && words.is_object()
        {
            return Some(words);
        }
    }
    None
}

fn describe(ended: io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => format!("ended ({status})"),
        Err(error) => format!("cannot be watched: {error}"),
    }
}
