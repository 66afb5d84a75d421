//! Docker's log frames as lines with strictly rising time stamps. Pure and deterministic: reading
//! the same log again gives the same stamps, so that a reader resumes without gap or repeat.

use skep_proto::v1;

use crate::clock;

/// One line; more of it is cut off.
const TEXT_MAX: usize = 64 << 10;

/// Numbers the lines of one allocation.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    last_ns: u64,
}

impl Stamps {
    /// `frame`: Docker's time stamp, a space, the text. None: no stamp, hence no line of Docker's.
    pub(super) fn line(&mut self, frame: &[u8], stderr: bool) -> Option<v1::LogLine> {
        let text = String::from_utf8_lossy(frame);
        let (stamp, text) = text.split_once(' ').unwrap_or((text.trim_end(), ""));
        let at_ns = clock::parse_ns(stamp)?.max(self.last_ns + 1);
        self.last_ns = at_ns;
        let mut text = text.strip_suffix('\n').unwrap_or(text);
        text = text.strip_suffix('\r').unwrap_or(text);
        let cut = (0..=text.len().min(TEXT_MAX))
            .rev()
            .find(|at| text.is_char_boundary(*at));
        Some(v1::LogLine {
            at_ns,
            stderr,
            text: text[..cut.unwrap_or(0)].to_owned(),
        })
    }
}
