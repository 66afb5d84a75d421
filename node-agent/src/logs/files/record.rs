//! One record of Docker's `json-file` driver: `{"log":"text\n","stream":"stdout","time":"..."}` and a
//! line break. A line longer than 16 KiB comes as several records, of which only the last has its line
//! break inside. Pure.

use std::borrow::Cow;

use serde::Deserialize;

use crate::clock;
use crate::logs::lines::TEXT_MAX;

/// Longest record: 16 KiB of text, of which each byte may take six, and what is around it.
pub(super) const RECORD_MAX: usize = 128 << 10;

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
}

/// A record, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) at_ns: u64,
    pub(super) stderr: bool,
    text: Cow<'a, str>,
}

/// None: damaged, as after a loss of power.
pub(super) fn parse(line: &[u8]) -> Option<Record<'_>> {
    let raw: Raw<'_> = serde_json::from_slice(line).ok()?;
    Some(Record {
        at_ns: clock::parse_ns(&raw.time)?,
        stderr: raw.stream == "stderr",
        text: raw.log,
    })
}

/// Puts the parts of long lines together, for each stream apart.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    parts: [String; 2],
}

impl Joiner {
    /// The line that a record ends; none: more of it is to come.
    pub(super) fn take(&mut self, record: &Record<'_>) -> Option<String> {
        let part = &mut self.parts[usize::from(record.stderr)];
        let Some(text) = record.text.strip_suffix('\n') else {
            push(part, &record.text);
            return None;
        };
        let text = text.strip_suffix('\r').unwrap_or(text);
        let mut line = std::mem::take(part);
        push(&mut line, text);
        Some(line)
    }

    /// Whether a line has begun and not ended.
    pub(super) fn is_within(&self) -> bool {
        self.parts.iter().any(|part| !part.is_empty())
    }

    /// What was written without a line break at the end of the log: (standard error, text).
    pub(super) fn rest(&mut self) -> Vec<(bool, String)> {
        let parts = [false, true].into_iter().zip(&mut self.parts);
        let parts = parts.map(|(stderr, part)| (stderr, std::mem::take(part)));
        parts.filter(|(_, text)| !text.is_empty()).collect()
    }
}

/// At most [`TEXT_MAX`] bytes; what is beyond is cut off.
fn push(line: &mut String, text: &str) {
    let room = TEXT_MAX.saturating_sub(line.len()).min(text.len());
    line.push_str(&text[..text.floor_char_boundary(room)]);
}
