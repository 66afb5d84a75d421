//! Lines of builds on their way to the server: numbered without a gap within a run of a build, kept
//! until acknowledged, bounded. What does not fit is replaced by one line that says how many were left out. Pure.

use std::collections::{BTreeMap, VecDeque};

use skep_model::id::DeploymentId;
use skep_proto::convert::id_bytes;
use skep_proto::v1;

/// Lines of one build that wait for their acknowledgement.
const LINES_MAX: usize = 4_096;
/// Their bytes.
const BYTES_MAX: usize = 1 << 20;
/// One line; more of it is cut off.
const LINE_MAX: usize = 8 << 10;
/// Lines and bytes of one message.
const MESSAGE_LINES: usize = 256;
const MESSAGE_BYTES: usize = 64 << 10;
/// Builds that ended and whose last lines still wait; beyond that the oldest lose them.
const CLOSED_MAX: usize = 16;

#[derive(Debug, Default)]
struct Log {
    /// Names the run: the server tells the lines of two runs apart by it.
    run: u128,
    /// Number of the first line in `lines`.
    first: u64,
    lines: VecDeque<String>,
    bytes: usize,
    /// Lines left out since the last marker.
    left_out: u64,
    /// Number of the next line to send in this session.
    sent: u64,
    closed: bool,
}

impl Log {
    fn is_full(&self) -> bool {
        self.lines.len() >= LINES_MAX || self.bytes >= BYTES_MAX
    }

    fn end(&self) -> u64 {
        self.first + self.lines.len() as u64
    }

    fn keep(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    fn mark(&mut self) {
        if self.left_out > 0 && !self.is_full() {
            let marker = format!(
                "... {} lines were left out here: the server took them too slowly ...",
                self.left_out
            );
            self.left_out = 0;
            self.keep(marker);
        }
    }

    fn push(&mut self, mut line: String) {
        self.mark();
        if self.is_full() {
            self.left_out += 1;
            return;
        }
        if line.len() > LINE_MAX {
            let cut = (0..=LINE_MAX).rev().find(|at| line.is_char_boundary(*at));
            line.truncate(cut.unwrap_or(0));
            line.push_str(" ... (cut)");
        }
        self.keep(line);
    }

    fn acknowledge(&mut self, next: u64) {
        while self.first < next {
            match self.lines.pop_front() {
                Some(line) => {
                    self.bytes -= line.len();
                    self.first += 1;
                }
                // A server that knows no runs takes those of an earlier one for these.
                None => self.first = next,
            }
        }
        self.sent = self.sent.max(self.first);
        self.mark();
    }

    fn next(&mut self, deployment: DeploymentId) -> Option<v1::BuildLog> {
        let from = usize::try_from(self.sent - self.first).ok()?;
        let mut bytes = 0;
        let lines: Vec<String> = self
            .lines
            .iter()
            .skip(from)
            .take(MESSAGE_LINES)
            .take_while(|line| {
                bytes += line.len();
                bytes <= MESSAGE_BYTES
            })
            .cloned()
            .collect();
        if lines.is_empty() {
            return None;
        }
        let first = self.sent;
        self.sent += lines.len() as u64;
        Some(v1::BuildLog {
            deployment: id_bytes(deployment.as_u128()),
            first,
            lines,
            run: id_bytes(self.run),
        })
    }
}

/// The logs of all builds.
#[derive(Debug, Default)]
pub(super) struct BuildLogs {
    logs: BTreeMap<DeploymentId, Log>,
}

impl BuildLogs {
    /// A run of a build begins; `run` was never used before. What waits of an earlier run goes: it
    /// was of another life of the same build.
    pub(super) fn begin(&mut self, deployment: DeploymentId, run: u128) {
        let log = Log {
            run,
            ..Log::default()
        };
        self.logs.insert(deployment, log);
    }

    /// A line of the run that began last; none is kept where none did.
    pub(super) fn push(&mut self, deployment: DeploymentId, line: String) {
        if let Some(log) = self.logs.get_mut(&deployment) {
            log.push(line);
        }
    }

    /// No more lines will come.
    pub(super) fn close(&mut self, deployment: DeploymentId) {
        if let Some(log) = self.logs.get_mut(&deployment) {
            log.closed = true;
        }
        self.logs
            .retain(|_, log| !log.closed || log.end() > log.first || log.left_out > 0);
        let closed: Vec<_> = self
            .logs
            .iter()
            .filter(|(_, log)| log.closed)
            .map(|(id, _)| *id)
            .collect();
        for id in closed.iter().take(closed.len().saturating_sub(CLOSED_MAX)) {
            self.logs.remove(id);
        }
    }

    /// The server has the lines of a run before `next`.
    pub(super) fn acknowledge(&mut self, deployment: DeploymentId, run: &[u8], next: u64) {
        let log = self.logs.get_mut(&deployment);
        // A server that knows no runs names none: it has the newest one's lines.
        let Some(log) = log.filter(|log| run.is_empty() || run == id_bytes(log.run)) else {
            return;
        };
        log.acknowledge(next);
        if log.closed && log.lines.is_empty() {
            self.logs.remove(&deployment);
        }
    }

    /// Unacknowledged lines are due again.
    pub(super) fn resend(&mut self) {
        for log in self.logs.values_mut() {
            log.sent = log.first;
        }
    }

    pub(super) fn next(&mut self) -> Option<v1::BuildLog> {
        self.logs.iter_mut().find_map(|(id, log)| log.next(*id))
    }
}
