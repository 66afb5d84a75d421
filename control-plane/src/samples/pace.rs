//! How fast the rest of what is counted of a container grows: from one reading to the next, which are ten seconds
//! apart. Pure: the times are those of the reader's own clock.

use skep_model::sample::{Counter, Extras};

/// A rate over less is noise, ms.
const SPAN_MIN_MS: u64 = 1_000;

/// The two newest readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pace {
    then: Option<(u64, Extras)>,
    now: Option<(u64, Extras)>,
}

impl Pace {
    /// A reading; what it does not say has not changed. One that is not newer than the newest changes nothing.
    pub(super) fn learn(&mut self, at_ms: u64, news: Extras) {
        let Some((known_ms, known)) = self.now else {
            self.now = Some((at_ms, news));
            return;
        };
        if at_ms >= known_ms + SPAN_MIN_MS {
            self.then = self.now;
            self.now = Some((at_ms, known.overlaid(&news)));
        }
    }

    /// The newest word on what does not grow.
    pub(super) fn value(&self, counter: Counter) -> Option<u64> {
        self.now?.1.get(counter)
    }

    /// Growth a second; none: not known twice. A counter that went back has begun anew.
    pub(super) fn per_second(&self, counter: Counter) -> Option<f64> {
        let ((then_ms, _), (now_ms, _)) = (self.then?, self.now?);
        let span_ms = now_ms - then_ms;
        Some(self.growth(counter)? as f64 * 1_000.0 / span_ms as f64)
    }

    /// Of a counter's growth the part that is another's, of 100; none: not known, or there was none.
    pub(super) fn percent(&self, part: Counter, of: Counter) -> Option<f64> {
        let (part, of) = (self.growth(part)?, self.growth(of)?);
        (of > 0).then(|| part as f64 * 100.0 / of as f64)
    }

    fn growth(&self, counter: Counter) -> Option<u64> {
        let (then, now) = (self.then?.1.get(counter)?, self.now?.1.get(counter)?);
        Some(now.checked_sub(then).unwrap_or(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extras(values: &[(Counter, u64)]) -> Extras {
        let mut extras = Extras::default();
        for (counter, value) in values {
            extras.set(*counter, Some(*value));
        }
        extras
    }

    #[test]
    fn what_is_not_said_has_not_grown() {
        let mut pace = Pace::default();
        let first = [
            (Counter::DiskRead, 100),
            (Counter::Periods, 10),
            (Counter::ThrottledPeriods, 4),
        ];
        pace.learn(10_000, extras(&first));
        assert_eq!(pace.per_second(Counter::DiskRead), None, "once is no rate");
        let second = [(Counter::Periods, 20), (Counter::ThrottledPeriods, 9)];
        pace.learn(20_000, extras(&second));
        assert_eq!(pace.per_second(Counter::DiskRead), Some(0.0));
        assert_eq!(
            pace.percent(Counter::ThrottledPeriods, Counter::Periods),
            Some(50.0)
        );
        assert_eq!(pace.per_second(Counter::NetworkSent), None, "never said");
        // Nothing was said, and so nothing happened.
        pace.learn(30_000, Extras::default());
        assert_eq!(
            pace.percent(Counter::ThrottledPeriods, Counter::Periods),
            None
        );
        assert_eq!(pace.value(Counter::DiskRead), Some(100));
        pace.learn(32_000, extras(&[(Counter::DiskRead, 300)]));
        assert_eq!(pace.per_second(Counter::DiskRead), Some(100.0));
    }

    #[test]
    fn what_is_said_twice_or_late_changes_nothing() {
        let mut pace = Pace::default();
        pace.learn(10_000, extras(&[(Counter::DiskRead, 0)]));
        pace.learn(20_000, extras(&[(Counter::DiskRead, 1_000)]));
        let was = pace;
        pace.learn(20_000, extras(&[(Counter::DiskRead, 1_000)]));
        pace.learn(10_000, extras(&[(Counter::DiskRead, 0)]));
        assert_eq!(pace, was);
        pace.learn(30_000, extras(&[(Counter::DiskRead, 50)]));
        assert_eq!(
            pace.per_second(Counter::DiskRead),
            Some(5.0),
            "it began anew"
        );
    }
}
