//! The files of one spool, held open in their order. A file that is held stays what it is while it is
//! renamed, and its inode is not given to another one.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use super::Spool;
use super::record::{self, RECORD_MAX};

/// Names one file for good: inodes are used again, times of first records are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FileId {
    pub(crate) inode: u64,
    /// Of its first record, ns since the epoch; 0: there is none yet.
    pub(crate) begin_ns: u64,
}

/// One file.
#[derive(Debug)]
pub(super) struct Open {
    file: File,
    inode: u64,
    begin_ns: u64,
}

impl Open {
    fn new(file: File, inode: u64) -> io::Result<Self> {
        let mut open = Self {
            file,
            inode,
            begin_ns: 0,
        };
        open.learn_begin()?;
        Ok(open)
    }

    fn learn_begin(&mut self) -> io::Result<()> {
        if self.begin_ns != 0 {
            return Ok(());
        }
        let mut buffer = vec![0; 4 << 10];
        let mut read = self.file.read_at(&mut buffer, 0)?;
        if read == buffer.len() && !buffer.contains(&b'\n') {
            buffer.resize(RECORD_MAX, 0);
            read = self.file.read_at(&mut buffer, 0)?;
        }
        let first = buffer[..read].split_inclusive(|byte| *byte == b'\n').next();
        let first = first.and_then(record::parse);
        self.begin_ns = first.map_or(0, |record| record.at_ns);
        Ok(())
    }

    pub(super) fn id(&self) -> FileId {
        FileId {
            inode: self.inode,
            begin_ns: self.begin_ns,
        }
    }

    pub(super) fn begin_ns(&self) -> u64 {
        self.begin_ns
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
}

/// What was lost because files went before they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lost {
    /// Bytes of the files, at least.
    pub(crate) bytes: u64,
    /// There may be more of it.
    pub(crate) at_least: bool,
}

impl Lost {
    pub(super) fn is_any(self) -> bool {
        self != Self::default()
    }

    pub(super) fn add(&mut self, bytes: u64, at_least: bool) {
        self.bytes += bytes;
        self.at_least |= at_least;
    }
}

/// The files, oldest first: at most as many as Docker keeps, so that holding them costs no room.
#[derive(Debug)]
pub(crate) struct Held {
    spool: Spool,
    files: VecDeque<Open>,
    /// The container's folder is gone: nothing comes any more.
    is_gone: bool,
    /// Turns that are accounted for, by a file that was seen or by a loss that was counted.
    turns: u64,
}

impl Held {
    pub(crate) fn new(spool: Spool) -> Self {
        Self {
            spool,
            files: VecDeque::new(),
            is_gone: false,
            turns: 0,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    pub(super) fn files(&self) -> &VecDeque<Open> {
        &self.files
    }

    /// Docker keeps no more files: older ones may have gone.
    pub(super) fn is_full(&self) -> bool {
        // While they are turned over, there is one less: the oldest has gone, the newest is not made yet.
        let is_turning = |newest: &Open| newest.len().is_ok_and(|len| len >= self.spool.file_bytes);
        let turning = usize::from(self.files.back().is_some_and(is_turning));
        self.files.len() + turning >= self.spool.files_max
    }

    /// The file that is read.
    pub(super) fn first(&self) -> Option<&Open> {
        self.files.front()
    }

    /// The one that is read has been read to its end.
    pub(super) fn turn(&mut self) {
        self.files.pop_front();
    }

    /// The file at which an earlier reading stopped becomes the first; false: it is gone.
    pub(super) fn seek(&mut self, id: FileId) -> bool {
        // A file that was empty then has a beginning by now.
        let is_it = |open: &Open| {
            open.inode == id.inode && (id.begin_ns == 0 || open.begin_ns == id.begin_ns)
        };
        let Some(at) = self.files.iter().position(is_it) else {
            return false;
        };
        self.files.drain(..at);
        true
    }

    /// Opens what is new. `offset`: how far the first file has been read; what goes unread is counted.
    /// `turns`: how often the files were turned so far, as far as anybody saw it.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(super) fn refresh(&mut self, offset: u64, turns: u64) -> io::Result<Lost> {
        let mut lost = Lost::default();
        let newest = self.files.back().map(|open| open.inode);
        let mut fresh = Vec::new();
        let mut is_joined = newest.is_none();
        self.is_gone = !self.spool.folder().is_dir();
        // From the newest back to the newest that is held. A rotation in between moves files to later
        // names: one may be met twice, none is passed over.
        for age in 0..=self.spool.files_max {
            let file = match File::open(self.spool.file(age)) {
                Ok(file) => file,
                // Between two names, or the end of the row.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let inode = file.metadata()?.ino();
            if Some(inode) == newest {
                is_joined = true;
                break;
            }
            if fresh.iter().any(|open: &Open| open.inode == inode) {
                continue;
            }
            fresh.push(Open::new(file, inode)?);
        }
        match newest {
            None => self.turns = turns,
            Some(_) => self.turns += fresh.len() as u64,
        }
        if !is_joined && !fresh.is_empty() {
            // Files came and went between two looks: as many as were turned and never seen.
            let unseen = turns.saturating_sub(self.turns);
            self.turns += unseen;
            lost.add(unseen.saturating_mul(self.spool.file_bytes), true);
        }
        fresh.reverse();
        self.files.extend(fresh);
        let mut read = offset;
        while self.files.len() > self.spool.files_max {
            if let Some(open) = self.files.pop_front() {
                lost.add(open.len()?.saturating_sub(read), false);
            }
            read = 0;
        }
        for open in &mut self.files {
            open.learn_begin()?;
        }
        Ok(lost)
    }
}
