//! Reading the log of one allocation across its containers.
//!
//! What is there is read first (its end, where only that is wanted), then, when following, what
//! comes: each container's log from the second before the last line on, passing over what was
//! told already. Resuming is therefore the same as reading on.

use skep_model::problem::{Code, Problem};
use skep_proto::v1;
use tokio::sync::{mpsc, watch};

use super::filter::Filter;
use super::{Logs, Places, Request, docker, spooled};

/// Lines and bytes of one chunk.
const CHUNK_LINES: usize = 256;
const CHUNK_BYTES: usize = 64 << 10;
/// Most lines that can be asked for from the end.
const TAIL_MAX: u32 = 10_000;
/// Lines read before the wanted end, so that equal time stamps are numbered as in a full reading.
pub(super) const TAIL_MARGIN: u32 = 64;

type Chunks = mpsc::Sender<v1::LogChunk>;

/// Why reading ended early.
pub(super) enum Stop {
    /// Nobody listens, or nothing more is wanted.
    Closed,
    /// The log cannot be read.
    Problem(Problem),
}

/// One reading.
pub(super) struct Reader<'a> {
    pub(super) logs: &'a Logs,
    pub(super) request: &'a Request,
    pub(super) filter: Filter,
    pub(super) places: watch::Receiver<Places>,
    pub(super) chunks: &'a Chunks,
    pub(super) empty: &'a v1::LogChunk,
    /// Stamp of the newest line that was told or passed over.
    pub(super) told_ns: u64,
}

/// Sends what `request` asks for; ends at the log's end, or with the allocation when following.
pub(super) async fn read(
    logs: &Logs,
    request: &Request,
    chunks: &Chunks,
    empty: &v1::LogChunk,
) -> Result<(), Problem> {
    let mut reader = Reader {
        logs,
        request,
        filter: Filter::new(request)?,
        places: logs.places.clone(),
        chunks,
        empty,
        told_ns: request.after_ns,
    };
    if reader.containers().is_none() {
        return Err(Problem::new(
            Code::NotFound,
            format!("allocation {} has no container here", request.allocation),
        )
        .hint("it has not started, or has ended and was removed"));
    }
    match reader.run().await {
        Ok(()) | Err(Stop::Closed) => Ok(()),
        Err(Stop::Problem(problem)) => Err(problem),
    }
}

impl Reader<'_> {
    async fn run(&mut self) -> Result<(), Stop> {
        let mut done: Vec<String> = Vec::new();
        if self.request.tail > 0 {
            done = self.containers().unwrap_or_default();
            if let Some(newest) = done.pop() {
                let tail = self.request.tail.min(TAIL_MAX);
                match self.logs.spool(&newest).await? {
                    Some(spool) => spooled::newest(self, spool, tail).await?,
                    None => docker::newest(self, &newest, tail).await?,
                }
            }
            if !self.request.follow {
                return Ok(());
            }
        }
        loop {
            self.places.borrow_and_update();
            let Some(all) = self.containers() else {
                return Ok(());
            };
            done.retain(|container| all.contains(container));
            let todo = all.into_iter().find(|container| !done.contains(container));
            match todo {
                Some(container) => {
                    match self.logs.spool(&container).await? {
                        Some(spool) => spooled::from(self, &container, spool).await?,
                        None => docker::from(self, &container).await?,
                    }
                    done.push(container);
                }
                None if self.request.follow => {
                    if self.places.changed().await.is_err() {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            }
        }
    }

    /// The allocation's containers, oldest first; none: it has none.
    fn containers(&self) -> Option<Vec<String>> {
        let places = self.places.borrow();
        let place = places.get(&self.request.allocation)?;
        Some(place.containers.iter().map(|one| one.id.clone()).collect())
    }

    /// Whether a container writes nothing any more.
    pub(super) fn is_over(&self, container: &str, places: &mut watch::Receiver<Places>) -> bool {
        let places = places.borrow_and_update();
        let place = places.get(&self.request.allocation);
        let one = place.and_then(|place| place.containers.iter().find(|one| one.id == container));
        one.is_none_or(|one| one.is_over)
    }

    pub(super) fn is_chunk(&self, lines: &[v1::LogLine]) -> bool {
        let bytes = || lines.iter().map(|line| line.text.len()).sum::<usize>();
        lines.len() >= CHUNK_LINES || (lines.len().is_multiple_of(16) && bytes() >= CHUNK_BYTES)
    }

    /// Sends lines, in as many chunks as they need.
    pub(super) async fn send(&self, lines: Vec<v1::LogLine>) -> Result<(), Stop> {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        for line in lines {
            bytes += line.text.len();
            chunk.push(line);
            if chunk.len() >= CHUNK_LINES || bytes >= CHUNK_BYTES {
                self.send_chunk(std::mem::take(&mut chunk)).await?;
                bytes = 0;
            }
        }
        self.send_chunk(chunk).await
    }

    async fn send_chunk(&self, lines: Vec<v1::LogLine>) -> Result<(), Stop> {
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
