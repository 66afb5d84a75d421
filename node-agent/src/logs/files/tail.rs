//! Reading a spool from some place on, over its turns. Blocks on the disk, hence never called on an
//! async worker; keeps one buffer, whatever the log's size.

use std::io;

use skep_proto::v1;

use super::Spool;
use super::held::{FileId, Held, Lost, Open};
use super::record::{self, Joiner, RECORD_MAX};
use crate::logs::lines::Stamps;

/// Read at a time. More than the longest record.
const BUFFER: usize = 2 * RECORD_MAX;
/// Stamps of lines within this of each other may depend on each other.
const OVERLAP_NS: u64 = 1_000_000_000;
/// Closer than this a time is not searched for.
const SEARCH_MIN: u64 = 64 << 10;

/// Where a reading stopped, and can be taken up again by another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    /// The file.
    pub(crate) file: FileId,
    /// Behind the last line that was read, in bytes.
    pub(crate) offset: u64,
    /// The stamp of that line.
    pub(crate) last_ns: u64,
}

/// How a reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more.
    More,
    /// That is all there is yet.
    End,
    /// That is all, and the files are gone.
    Gone,
}

/// A reader of one spool.
#[derive(Debug)]
pub(crate) struct Tail {
    held: Held,
    offset: u64,
    stamps: Stamps,
    joiner: Joiner,
    buffer: Vec<u8>,
    /// Lost and not said yet.
    lost: Lost,
    /// No line has begun before it that ends behind it.
    safe: Position,
}

impl Tail {
    /// Stands before the oldest line there is. `turns`: see [`Self::read`].
    ///
    /// # Errors
    /// The files cannot be read.
    pub(crate) fn open(spool: Spool, turns: u64) -> io::Result<Self> {
        let mut tail = Self {
            held: Held::new(spool),
            offset: 0,
            stamps: Stamps::default(),
            joiner: Joiner::default(),
            buffer: Vec::new(),
            lost: Lost::default(),
            safe: Position::default(),
        };
        tail.held.refresh(0, turns)?;
        tail.mark();
        Ok(tail)
    }

    /// Wants the log from its very beginning: where older files may have gone, that is said.
    pub(crate) fn want_all(&mut self) {
        self.want_after(0);
    }

    /// Goes to where an earlier reading stopped; where that is gone, it stays before the oldest line,
    /// and says that something is lost. The default: to the very beginning.
    pub(crate) fn resume(&mut self, at: Position) {
        if at == Position::default() {
            return self.want_all();
        }
        self.stamps = Stamps::after(at.last_ns);
        if self.held.seek(at.file) {
            self.offset = at.offset;
        } else {
            self.lost.at_least = true;
        }
        self.mark();
    }

    /// All later than `after_ns` is wanted, and all that is left is: before the oldest line, there may
    /// have been others where Docker keeps no more files.
    fn want_after(&mut self, after_ns: u64) {
        let begin_ns = self.held.first().map_or(0, Open::begin_ns);
        if self.held.is_full() && begin_ns > after_ns {
            // Said right before that line.
            self.stamps = Stamps::after(after_ns.max(begin_ns.saturating_sub(2)));
            self.lost.at_least = true;
        }
        self.mark();
    }

    /// Goes to a little before the first line that is later than `after_ns`. Where there may have been
    /// others before the oldest that is left, that is said.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(crate) fn seek_time(&mut self, after_ns: u64) -> io::Result<()> {
        let from_ns = after_ns.saturating_sub(OVERLAP_NS);
        let begins = |open: &Open| open.begin_ns() != 0 && open.begin_ns() <= from_ns;
        while self.held.files().get(1).is_some_and(begins) {
            self.held.turn();
        }
        self.want_after(after_ns);
        let Some(first) = self.held.first() else {
            return Ok(());
        };
        let (mut low, mut high) = (0, first.len()?);
        while high - low > SEARCH_MIN {
            let middle = low + (high - low) / 2;
            let Some((start, at_ns)) = record_at(first, middle, &mut self.buffer)? else {
                break;
            };
            match at_ns < from_ns {
                true => low = start,
                false => high = middle,
            }
        }
        self.offset = low;
        self.mark();
        Ok(())
    }

    /// Goes to the first line that begins in the newest `bytes`. False: that is all there is.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(crate) fn seek_end(&mut self, bytes: u64) -> io::Result<bool> {
        let mut behind = 0;
        for open in self.held.files() {
            behind += open.len()?;
        }
        let mut skip = behind.saturating_sub(bytes);
        if skip == 0 {
            return Ok(false);
        }
        while let Some(first) = self.held.first() {
            let len = first.len()?;
            if skip < len {
                let found = record_at(first, skip, &mut self.buffer)?;
                self.offset = found.map_or(len, |(start, _)| start);
                break;
            }
            skip -= len;
            self.held.turn();
        }
        self.mark();
        Ok(true)
    }

    /// Holds on to the files that are there, without reading.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(crate) fn hold(&mut self, turns: u64) -> io::Result<()> {
        self.refresh(turns)
    }

    /// Where this reading has come to.
    pub(crate) fn position(&self) -> Position {
        self.safe
    }

    /// Reads about `budget` bytes of the files, and hands on what lines are in them. `turns`: how often
    /// the files have been turned since the reader began, as far as anybody saw it.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(crate) fn read(
        &mut self,
        turns: u64,
        budget: u64,
        sink: &mut dyn FnMut(v1::LogLine),
    ) -> io::Result<Step> {
        self.refresh(turns)?;
        let mut left = budget;
        loop {
            let has_newer = self.held.files().len() > 1;
            let Some(first) = self.held.first() else {
                self.tell_lost(sink);
                return Ok(self.end());
            };
            if left == 0 {
                return Ok(Step::More);
            }
            self.buffer.resize(BUFFER, 0);
            let read = first.read_at(&mut self.buffer, self.offset)?;
            let whole = self.buffer[..read]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            if whole > 0 {
                self.take(whole, sink);
                left = left.saturating_sub(whole as u64);
                continue;
            }
            if read == BUFFER {
                // Nothing that Docker writes is as long.
                self.lost.add(read as u64, false);
                self.offset += read as u64;
                continue;
            }
            if read == 0 && first.len()? < self.offset {
                // Cut by somebody else.
                self.lost.at_least = true;
                self.offset = 0;
                continue;
            }
            if has_newer {
                // Known before it was read, hence nothing more is written to this one.
                self.lost.add(read as u64, false);
                self.held.turn();
                self.offset = 0;
                self.mark();
                continue;
            }
            self.refresh(turns)?;
            if self.held.files().len() < 2 {
                self.tell_lost(sink);
                return Ok(self.end());
            }
        }
    }

    /// What was written without a line break at the end, once nothing more can come.
    pub(crate) fn rest(&mut self, sink: &mut dyn FnMut(v1::LogLine)) {
        for (stderr, text) in self.joiner.rest() {
            let at_ns = self.stamps.next(0);
            sink(v1::LogLine {
                at_ns,
                stderr,
                text,
                lost: None,
            });
        }
        self.mark_here();
    }

    fn end(&mut self) -> Step {
        // Of many that wait for more none needs one.
        self.buffer = Vec::new();
        match self.held.is_gone() {
            true => Step::Gone,
            false => Step::End,
        }
    }

    fn refresh(&mut self, turns: u64) -> io::Result<()> {
        let before = self.held.first().map(Open::id);
        let lost = self.held.refresh(self.offset, turns)?;
        self.lost.add(lost.bytes, lost.at_least);
        let is_same = |id: FileId| {
            self.held
                .first()
                .is_some_and(|open| open.id().inode == id.inode)
        };
        if !before.is_some_and(is_same) {
            self.offset = 0;
            self.joiner = Joiner::default();
        }
        self.mark();
        Ok(())
    }

    fn take(&mut self, whole: usize, sink: &mut dyn FnMut(v1::LogLine)) {
        self.tell_lost(sink);
        let buffer = std::mem::take(&mut self.buffer);
        for line in buffer[..whole].split_inclusive(|byte| *byte == b'\n') {
            self.offset += line.len() as u64;
            let Some(record) = record::parse(line) else {
                self.lost.add(line.len() as u64, false);
                continue;
            };
            self.tell_lost(sink);
            if let Some(text) = self.joiner.take(&record) {
                let at_ns = self.stamps.next(record.at_ns);
                sink(v1::LogLine {
                    at_ns,
                    stderr: record.stderr,
                    text,
                    lost: None,
                });
            }
            self.mark();
        }
        self.buffer = buffer;
    }

    /// In the place of what is missing stands how much it is.
    fn tell_lost(&mut self, sink: &mut dyn FnMut(v1::LogLine)) {
        if self.lost.is_any() {
            let lost = std::mem::take(&mut self.lost);
            sink(missing(&mut self.stamps, lost));
        }
    }

    fn mark(&mut self) {
        if !self.joiner.is_within() {
            self.mark_here();
        }
    }

    fn mark_here(&mut self) {
        self.safe = Position {
            file: self.held.first().map(Open::id).unwrap_or_default(),
            offset: self.offset,
            last_ns: self.stamps.last_ns(),
        };
    }
}

/// A line that stands for others.
fn missing(stamps: &mut Stamps, lost: Lost) -> v1::LogLine {
    let text = match (lost.bytes, lost.at_least) {
        (0, _) => {
            "-- lines may be missing here: the log was turned over before they were read --".into()
        }
        (bytes, at_least) => format!(
            "-- {}{bytes} bytes of the log are missing here: it was turned over before they were read --",
            if at_least { "at least " } else { "" }
        ),
    };
    v1::LogLine {
        at_ns: stamps.next(0),
        stderr: true,
        text,
        lost: Some(v1::LogLost {
            bytes: lost.bytes,
            at_least: lost.at_least,
        }),
    }
}

/// The first record that begins at or behind `offset`: where, and when it was written. None: there is
/// none that can be read.
fn record_at(open: &Open, offset: u64, buffer: &mut Vec<u8>) -> io::Result<Option<(u64, u64)>> {
    buffer.resize(BUFFER, 0);
    // One that begins right here follows on a line break.
    let from = offset.saturating_sub(1);
    let read = open.read_at(buffer, from)?;
    let text = &buffer[..read];
    let skip = match from == offset {
        true => Some(0),
        false => text.iter().position(|byte| *byte == b'\n').map(|at| at + 1),
    };
    let Some(skip) = skip else { return Ok(None) };
    let line = text[skip..].split_inclusive(|byte| *byte == b'\n').next();
    let record = line.and_then(record::parse);
    Ok(record.map(|record| (from + skip as u64, record.at_ns)))
}
