//! What a part writes to stderr: all of it goes to a file of its own, warnings and errors also to
//! the terminal. One thread a part; bounded files.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, PipeReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Size at which a log is set aside (one older one is kept), in bytes.
const FILE_MAX: u64 = 16 << 20;
/// Longest line; the rest counts as another, in bytes.
const LINE_MAX: u64 = 16 << 10;
/// Newest lines kept for the explanation of a death.
const TAIL: usize = 20;

/// The log of one part. Cheap to clone.
#[derive(Clone)]
pub(super) struct Log {
    name: &'static str,
    path: PathBuf,
    tail: Arc<Mutex<VecDeque<String>>>,
}

impl Log {
    /// The log of part `name` in `folder`.
    pub(super) fn new(folder: &Path, name: &'static str) -> Self {
        Self {
            name,
            path: folder.join(format!("{name}.log")),
            tail: Arc::default(),
        }
    }

    /// Its file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The newest lines, oldest first.
    pub(super) fn tail(&self) -> Vec<String> {
        let tail = self.tail.lock().expect("no holder panics");
        tail.iter().cloned().collect()
    }

    /// Reads `pipe` to its end on a thread of its own.
    pub(super) fn follow(&self, pipe: PipeReader) {
        let log = self.clone();
        std::thread::spawn(move || {
            if let Err(error) = log.copy(pipe) {
                eprintln!("{}: its log cannot be written: {error}", log.name);
            }
        });
    }

    fn copy(&self, pipe: PipeReader) -> io::Result<()> {
        let mut reader = BufReader::new(pipe);
        let mut file = self.open()?;
        let mut size = file.metadata()?.len();
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                line.push(b'\n');
            }
            if size + line.len() as u64 > FILE_MAX {
                std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
                file = self.open()?;
                size = 0;
            }
            // A full disk must not stop the part: its pipe has to be read on.
            if file.write_all(&line).is_ok() {
                size += line.len() as u64;
            }
            self.look_at(String::from_utf8_lossy(&line).trim_end());
        }
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
    }

    fn look_at(&self, line: &str) {
        if is_alarming(line) {
            let _ = writeln!(io::stderr(), "{}: {line}", self.name);
        }
        let mut tail = self.tail.lock().expect("no holder panics");
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    }
}

/// Warnings and errors by the level behind the time, panics by their own words.
fn is_alarming(line: &str) -> bool {
    let level = line.split_whitespace().nth(1);
    matches!(level, Some("WARN" | "ERROR")) || line.contains(" panicked at ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_alarms_reaches_the_terminal() {
        assert!(is_alarming("2026-01-01T00:00:00.0Z  WARN skep: slow"));
        assert!(is_alarming("thread 'main' (7) panicked at a.rs:1:2:"));
        assert!(!is_alarming(
            "2026-01-01T00:00:00.0Z  INFO skep: WARN is a word"
        ));
    }

    #[test]
    fn everything_is_kept_in_the_file_and_the_newest_lines_in_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::new(folder.path(), "part");
        let (reader, mut writer) = io::pipe().expect("a pipe");
        for number in 0..TAIL + 5 {
            writeln!(writer, "line {number}").expect("written");
        }
        writer.write_all(b"cut").expect("written");
        drop(writer);
        log.copy(reader).expect("copied");
        let text = std::fs::read_to_string(log.path()).expect("a file");
        assert_eq!(text.lines().count(), TAIL + 6);
        assert_eq!(log.tail().len(), TAIL);
        assert_eq!(log.tail().last().map(String::as_str), Some("cut"));
    }
}
