//! Reading a container's log by Docker's API, where its files are out of reach: another machine's,
//! another user's, or another driver's.

use std::collections::VecDeque;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::{FutureExt, StreamExt};
use skep_model::problem::{Code, Problem};

use super::filter::Verdict;
use super::lines::Stamps;
use super::read::{Reader, Stop, TAIL_MARGIN};

const NS_PER_S: u64 = 1_000_000_000;

/// The newest lines that are there.
pub(super) async fn newest(
    reader: &mut Reader<'_>,
    container: &str,
    tail: u32,
) -> Result<(), Stop> {
    // Among how many lines the wanted ones are nobody knows.
    let is_all = reader.request.grep.is_empty() && reader.request.until_ns == 0;
    let options = LogsOptions {
        tail: match is_all {
            true => (tail + TAIL_MARGIN).to_string(),
            false => "all".to_owned(),
        },
        ..options(false)
    };
    let mut stamps = Stamps::default();
    let mut newest = VecDeque::new();
    let mut last_ns = reader.told_ns;
    let docker = reader.logs.runtime.docker();
    let mut frames = std::pin::pin!(docker.logs(container, Some(options)));
    while let Some(frame) = frames.next().await {
        let (frame, stderr) = split(frame.map_err(failed)?);
        let line = stamps.line(&frame, stderr);
        let Some(line) = line.filter(|line| line.at_ns > reader.told_ns) else {
            continue;
        };
        last_ns = line.at_ns;
        match reader.filter.judge(&line) {
            Verdict::Take => newest.push_back(line),
            Verdict::Pass => {}
            Verdict::Over => break,
        }
        if newest.len() > tail as usize {
            newest.pop_front();
        }
    }
    reader.told_ns = last_ns;
    reader.send(newest.into()).await
}

/// Everything after what was told, and what comes until the container ends.
pub(super) async fn from(reader: &mut Reader<'_>, container: &str) -> Result<(), Stop> {
    // From a second before, so that equal stamps are numbered as they were.
    let since_s = (reader.told_ns / NS_PER_S).saturating_sub(1);
    let options = LogsOptions {
        since: i32::try_from(since_s).unwrap_or(i32::MAX),
        ..options(reader.request.follow)
    };
    let mut stamps = Stamps::default();
    let mut lines = Vec::new();
    let docker = reader.logs.runtime.docker().clone();
    let mut frames = std::pin::pin!(docker.logs(container, Some(options)));
    loop {
        // What is there at once goes together; nothing waits for more.
        let frame = match frames.next().now_or_never() {
            Some(frame) => frame,
            None => {
                reader.send(std::mem::take(&mut lines)).await?;
                frames.next().await
            }
        };
        let Some(frame) = frame else { break };
        let (frame, stderr) = split(frame.map_err(failed)?);
        let line = stamps.line(&frame, stderr);
        let Some(line) = line.filter(|line| line.at_ns > reader.told_ns) else {
            continue;
        };
        reader.told_ns = line.at_ns;
        match reader.filter.judge(&line) {
            Verdict::Take => lines.push(line),
            Verdict::Pass => continue,
            Verdict::Over => {
                reader.send(lines).await?;
                return Err(Stop::Closed);
            }
        }
        if reader.is_chunk(&lines) {
            reader.send(std::mem::take(&mut lines)).await?;
        }
    }
    reader.send(lines).await
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
