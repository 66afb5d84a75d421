//! Reading the log of one allocation across its containers.
//!
//! What is there is read first (its end, where only that is wanted), then, when following, what
//! comes: each container's log from the second before the last line on, passing over what was
//! told already. Resuming is therefore the same as reading on.

use std::collections::VecDeque;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::{FutureExt, StreamExt};
use skep_model::problem::{Code, Problem};
use skep_proto::v1;
use tokio::sync::{mpsc, watch};

use super::lines::Stamps;
use super::{Places, Request};
use crate::runtime::Runtime;

/// Lines and bytes of one chunk.
const CHUNK_LINES: usize = 256;
const CHUNK_BYTES: usize = 64 << 10;
/// Most lines that can be asked for from the end.
const TAIL_MAX: u32 = 10_000;
/// Lines read before the wanted end, so that equal time stamps are numbered as in a full reading.
const TAIL_MARGIN: u32 = 64;
const NS_PER_S: u64 = 1_000_000_000;

type Chunks = mpsc::Sender<v1::LogChunk>;

/// Why reading ended early.
enum Stop {
    /// Nobody listens.
    Closed,
    /// The log cannot be read.
    Problem(Problem),
}

/// Sends what `request` asks for; ends at the log's end, or with the allocation when following.
pub(super) async fn read(
    runtime: &Runtime,
    mut places: watch::Receiver<Places>,
    request: &Request,
    chunks: &Chunks,
    empty: &v1::LogChunk,
) -> Result<(), Problem> {
    let mut told_ns = request.after_ns;
    let mut reader = Reader {
        runtime,
        chunks,
        empty,
    };
    let containers = |places: &Places| places.get(&request.allocation).cloned();
    if containers(&places.borrow()).is_none() {
        return Err(Problem::new(
            Code::NotFound,
            format!("allocation {} has no container here", request.allocation),
        )
        .hint("it has not started, or has ended and was removed"));
    }
    let result = async {
        let mut done: Vec<String> = Vec::new();
        if request.tail > 0 {
            done = containers(&places.borrow()).unwrap_or_default();
            if let Some(newest) = done.pop() {
                reader
                    .tail(&newest, request.tail.min(TAIL_MAX), &mut told_ns)
                    .await?;
            }
            if !request.follow {
                return Ok(());
            }
        }
        loop {
            places.borrow_and_update();
            let Some(all) = containers(&places.borrow()) else {
                return Ok(());
            };
            done.retain(|container| all.contains(container));
            let todo = all.into_iter().find(|container| !done.contains(container));
            match todo {
                Some(container) => {
                    reader
                        .from(&container, request.follow, &mut told_ns)
                        .await?;
                    done.push(container);
                }
                None if request.follow => {
                    if places.changed().await.is_err() {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            }
        }
    };
    match result.await {
        Ok(()) | Err(Stop::Closed) => Ok(()),
        Err(Stop::Problem(problem)) => Err(problem),
    }
}

struct Reader<'a> {
    runtime: &'a Runtime,
    chunks: &'a Chunks,
    empty: &'a v1::LogChunk,
}

impl Reader<'_> {
    /// The newest lines that are there.
    async fn tail(&mut self, container: &str, tail: u32, told_ns: &mut u64) -> Result<(), Stop> {
        let options = LogsOptions {
            tail: (tail + TAIL_MARGIN).to_string(),
            ..options(false)
        };
        let mut stamps = Stamps::default();
        let mut newest = VecDeque::new();
        let mut frames = std::pin::pin!(self.runtime.docker().logs(container, Some(options)));
        while let Some(frame) = frames.next().await {
            let (frame, stderr) = split(frame.map_err(failed)?);
            newest.extend(
                stamps
                    .line(&frame, stderr)
                    .filter(|line| line.at_ns > *told_ns),
            );
            if newest.len() > tail as usize {
                newest.pop_front();
            }
        }
        let mut lines: Vec<v1::LogLine> = newest.into();
        *told_ns = lines.last().map_or(*told_ns, |line| line.at_ns);
        while !lines.is_empty() {
            let rest = lines.split_off(lines.len().min(CHUNK_LINES));
            self.send(std::mem::replace(&mut lines, rest)).await?;
        }
        Ok(())
    }

    /// Everything after `told_ns`, and what comes until the container ends.
    async fn from(&mut self, container: &str, follow: bool, told_ns: &mut u64) -> Result<(), Stop> {
        // From a second before, so that equal stamps are numbered as they were.
        let since_s = (*told_ns / NS_PER_S).saturating_sub(1);
        let options = LogsOptions {
            since: i32::try_from(since_s).unwrap_or(i32::MAX),
            ..options(follow)
        };
        let mut stamps = Stamps::default();
        let mut lines = Vec::new();
        let mut bytes = 0;
        let mut frames = std::pin::pin!(self.runtime.docker().logs(container, Some(options)));
        loop {
            // What is there at once goes together; nothing waits for more.
            let frame = match frames.next().now_or_never() {
                Some(frame) => frame,
                None => {
                    self.send(std::mem::take(&mut lines)).await?;
                    bytes = 0;
                    frames.next().await
                }
            };
            let Some(frame) = frame else { break };
            let (frame, stderr) = split(frame.map_err(failed)?);
            let Some(line) = stamps
                .line(&frame, stderr)
                .filter(|line| line.at_ns > *told_ns)
            else {
                continue;
            };
            *told_ns = line.at_ns;
            bytes += line.text.len();
            lines.push(line);
            if lines.len() >= CHUNK_LINES || bytes >= CHUNK_BYTES {
                self.send(std::mem::take(&mut lines)).await?;
                bytes = 0;
            }
        }
        self.send(lines).await
    }

    async fn send(&self, lines: Vec<v1::LogLine>) -> Result<(), Stop> {
        if lines.is_empty() {
            return Ok(());
        }
        let chunk = v1::LogChunk {
            lines,
            ..self.empty.clone()
        };
        self.chunks.send(chunk).await.map_err(|_| Stop::Closed)
    }
}

fn options(follow: bool) -> LogsOptions {
    LogsOptions {
        follow,
        stdout: true,
        stderr: true,
        timestamps: true,
        ..Default::default()
    }
}

fn split(frame: LogOutput) -> (bytes::Bytes, bool) {
    let stderr = matches!(frame, LogOutput::StdErr { .. });
    (frame.into_bytes(), stderr)
}

fn failed(error: bollard::errors::Error) -> Stop {
    use bollard::errors::Error;
    // Removed while it was read: the log ends there.
    if let Error::DockerResponseServerError {
        status_code: 404, ..
    } = error
    {
        return Stop::Closed;
    }
    let why = crate::error_chain(&error);
    Stop::Problem(Problem::new(
        Code::Runtime,
        format!("docker cannot read the log: {why}"),
    ))
}
