//! Reading a container's log out of Docker's files.

use std::collections::VecDeque;
use std::io;

use skep_model::problem::{Code, Problem};
use skep_proto::v1;
use tokio::task::spawn_blocking;

use super::files::{Spool, Step, Tail};
use super::filter::{Filter, Verdict};
use super::read::{Reader, Stop, TAIL_MARGIN};

/// Read at a time, in bytes: what one reader holds in memory.
const BUDGET: u64 = 256 << 10;
/// How far back the newest lines are looked for, one after the other.
const WINDOWS: [u64; 4] = [64 << 10, 1 << 20, 8 << 20, u64::MAX];

/// The newest lines that are there.
pub(super) async fn newest(reader: &mut Reader<'_>, spool: Spool, tail: u32) -> Result<(), Stop> {
    let (filter, told_ns) = (reader.filter.clone(), reader.told_ns);
    let found = blocking(move || find(&spool, &filter, (told_ns, tail as usize))).await?;
    reader.told_ns = found.last_ns;
    reader.send(found.lines.into()).await
}

struct Found {
    lines: VecDeque<v1::LogLine>,
    last_ns: u64,
}

fn find(spool: &Spool, filter: &Filter, (told_ns, most): (u64, usize)) -> io::Result<Found> {
    let mut found = Found {
        lines: VecDeque::new(),
        last_ns: told_ns,
    };
    for window in WINDOWS {
        let mut tail = Tail::open(spool.clone(), 0)?;
        let is_cut = tail.seek_end(window)?;
        found.lines.clear();
        let (mut wanted, mut is_over) = (0, false);
        let mut take = |line: v1::LogLine| {
            if line.at_ns <= told_ns || is_over {
                return;
            }
            found.last_ns = line.at_ns;
            match filter.judge(&line) {
                Verdict::Take => {
                    wanted += 1;
                    found.lines.push_back(line);
                }
                Verdict::Pass => {}
                Verdict::Over => is_over = true,
            }
            if found.lines.len() > most {
                found.lines.pop_front();
            }
        };
        while tail.read(0, BUDGET, &mut take)? == Step::More {}
        // With some to spare, so that equal stamps are numbered as in a whole reading.
        if !is_cut || wanted >= most + TAIL_MARGIN as usize {
            break;
        }
    }
    Ok(found)
}

/// Everything after what was told, and what comes until the container ends.
pub(super) async fn from(
    reader: &mut Reader<'_>,
    container: &str,
    spool: Spool,
) -> Result<(), Stop> {
    let mut watch = reader.logs.watcher.watch(spool.path());
    let mut places = reader.places.clone();
    let (told_ns, turns) = (reader.told_ns, watch.turns());
    let opened = blocking(move || {
        let mut tail = Tail::open(spool, turns)?;
        match told_ns {
            0 => tail.want_all(),
            _ => tail.seek_time(told_ns)?,
        }
        Ok(tail)
    });
    let mut tail = opened.await?;
    loop {
        // Judged before it is read: what a container wrote is in its files before it has ended.
        let is_over = !reader.request.follow || reader.is_over(container, &mut places);
        let (filter, told_ns, turns) = (reader.filter.clone(), reader.told_ns, watch.turns());
        let read = blocking(move || {
            let mut part = Part::new(told_ns);
            let mut take = |line| part.take(line, &filter);
            let step = tail.read(turns, BUDGET, &mut take)?;
            if (step == Step::End && is_over) || step == Step::Gone {
                tail.rest(&mut take);
            }
            Ok((tail, part, step))
        });
        let (same, part, step) = read.await?;
        tail = same;
        reader.told_ns = part.told_ns;
        reader.send(part.lines).await?;
        if part.is_over {
            return Err(Stop::Closed);
        }
        match step {
            Step::More => {}
            Step::End if !is_over => tokio::select! {
                () = watch.changed() => {}
                _ = places.changed() => {}
                () = reader.chunks.closed() => return Err(Stop::Closed),
            },
            Step::End | Step::Gone => return Ok(()),
        }
    }
}

/// The wanted lines of one read.
struct Part {
    lines: Vec<v1::LogLine>,
    told_ns: u64,
    is_over: bool,
}

impl Part {
    fn new(told_ns: u64) -> Self {
        Self {
            lines: Vec::new(),
            told_ns,
            is_over: false,
        }
    }

    fn take(&mut self, line: v1::LogLine, filter: &Filter) {
        if line.at_ns <= self.told_ns || self.is_over {
            return;
        }
        self.told_ns = line.at_ns;
        match filter.judge(&line) {
            Verdict::Take => self.lines.push(line),
            Verdict::Pass => {}
            Verdict::Over => self.is_over = true,
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Stop> {
    let done = spawn_blocking(work).await;
    let done = done.unwrap_or_else(|_| Err(io::Error::other("reading it panicked")));
    done.map_err(|error| {
        Stop::Problem(Problem::new(
            Code::Runtime,
            format!("the log's files cannot be read: {error}"),
        ))
    })
}
