//! Lines with strictly rising time stamps. Pure and deterministic: reading the same log again gives
//! the same stamps, so that a reader resumes without gap or repeat. A stamp is a line's number, too.

use skep_proto::v1;

use crate::clock;

/// One line; more of it is cut off.
pub(super) const TEXT_MAX: usize = 64 << 10;

/// Numbers the lines of one allocation.
#[derive(Debug, Clone, Default)]
pub(super) struct Stamps {
    last_ns: u64,
}

impl Stamps {
    /// Goes on behind the line that had this stamp.
    pub(super) fn after(last_ns: u64) -> Self {
        Self { last_ns }
    }

    /// The stamp of the last line.
    pub(super) fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// The stamp of a line that was written at `at_ns`.
    pub(super) fn next(&mut self, at_ns: u64) -> u64 {
        self.last_ns = at_ns.max(self.last_ns + 1);
        self.last_ns
    }

    /// A frame of Docker's answer: its time stamp, a space, the text. None: no stamp, hence no line of
    /// Docker's.
    pub(super) fn line(&mut self, frame: &[u8], stderr: bool) -> Option<v1::LogLine> {
        let text = String::from_utf8_lossy(frame);
        let (stamp, text) = text.split_once(' ').unwrap_or((text.trim_end(), ""));
        let at_ns = self.next(clock::parse_ns(stamp)?);
        let mut text = text.strip_suffix('\n').unwrap_or(text);
        text = text.strip_suffix('\r').unwrap_or(text);
        Some(v1::LogLine {
            at_ns,
            stderr,
            text: text[..text.floor_char_boundary(TEXT_MAX)].to_owned(),
            lost: None,
        })
    }
}
