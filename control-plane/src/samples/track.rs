//! How fast a CPU counter grows: the newest readings of one container or node, thinned out so that a few
//! reach back far enough. Pure: the times are those of the reader's own clock.

/// Readings kept, 16 bytes each.
const POINTS: usize = 9;
/// Least time between two that are kept, ms; the newest is always kept. Together they reach back over
/// the longest window.
const GAP_MS: u64 = 4_000;
/// A rate over less is noise, ms.
const SPAN_MIN_MS: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Point {
    at_ms: u64,
    cpu_us: u64,
}

/// The readings, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Track {
    points: [Point; POINTS],
    len: u8,
}

impl Track {
    /// A reading. One that is not newer than the newest changes nothing; a counter that went back has
    /// begun anew, and so does the track.
    pub(super) fn push(&mut self, at_ms: u64, cpu_us: u64) {
        let point = Point { at_ms, cpu_us };
        if let Some(newest) = self.points().last() {
            if newest.at_ms >= at_ms {
                return;
            }
            if newest.cpu_us > cpu_us {
                *self = Self::default();
            }
        }
        let len = usize::from(self.len);
        let is_close = |a: Point, b: Point| b.at_ms - a.at_ms < GAP_MS;
        if len >= 2 && is_close(self.points[len - 2], self.points[len - 1]) {
            self.points[len - 1] = point;
        } else if len < POINTS {
            self.points[len] = point;
            self.len += 1;
        } else {
            self.points.rotate_left(1);
            self.points[POINTS - 1] = point;
        }
    }

    /// Thousandths of a core in use over the last `window_ms` at least, or over what is known of them.
    pub(super) fn millis(&self, window_ms: u64) -> Option<u64> {
        let (newest, older) = self.points().split_last()?;
        let is_enough = |point: &&Point| newest.at_ms - point.at_ms >= window_ms;
        let then = older.iter().rev().find(is_enough).or(older.first())?;
        let span_ms = newest.at_ms - then.at_ms;
        // us a ms are thousandths of a core.
        (span_ms >= SPAN_MIN_MS).then(|| (newest.cpu_us - then.cpu_us) / span_ms)
    }

    fn points(&self) -> &[Point] {
        &self.points[..usize::from(self.len)]
    }
}
