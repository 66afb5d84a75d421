//! Whether a canary serves worse than the live release beside it: by the share of requests that fail, and of those
//! that are slow. Pure; counts come in, a verdict goes out.
//!
//! A share of few requests says little, so each is taken for the interval that it is surely in (Wilson's, wide
//! enough to be looked at every other second for hours): worse is only what is worse at the best that the new
//! release's may be, and the worst that the live one's may be. So four failed requests of four are waited for, ten of
//! ten are not, and what hurts both alike (a database that is away) is no fault of the new release.

use skep_model::rollout::Analysis;
use skep_model::sample::{CLASSES, LATENCY_BOUNDS_US, LATENCY_BUCKETS};

/// Width of the interval, in standard deviations. Both ends have to miss each other, every two seconds again.
const DEVIATIONS: f64 = 3.3;
/// Fewer failed or slow requests are chance, whatever their share.
const LEAST: u64 = 5;
/// Slow is what takes longer than so many of 100 requests of the live release, and a bucket more.
const USUAL_PERCENT: u64 = 95;
/// Fewer requests of the live release do not say what is usual.
const USUAL_OF: u64 = 50;
/// The class of answers that are the app's fault.
const FAILED: usize = 4;
/// The class of requests that the client left: nobody's fault.
const ABORTED: usize = CLASSES - 1;

/// The requests that a release got while two serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All, but for those that the client left.
    pub all: u64,
    /// Those that were answered with 5xx, or not at all.
    pub failed: u64,
    /// Those that were answered by time to the head of the answer; bounds in [`LATENCY_BOUNDS_US`].
    pub latency: [u64; LATENCY_BUCKETS],
}

impl Counts {
    /// Adds what was counted meanwhile, by class and by latency.
    pub fn add(&mut self, requests: &[u64; CLASSES], latency: &[u64; LATENCY_BUCKETS]) {
        self.all += requests[..ABORTED].iter().sum::<u64>();
        self.failed += requests[FAILED];
        for (mine, more) in self.latency.iter_mut().zip(latency) {
            *mine += more;
        }
    }

    /// Adds requests that got no answer and were sent elsewhere.
    pub fn add_moved_on(&mut self, count: u64) {
        self.all += count;
        self.failed += count;
    }

    /// How many took longer than the bound of this bucket.
    fn slower_than(&self, bucket: usize) -> u64 {
        self.latency[bucket + 1..].iter().sum()
    }
}

/// Both releases, since the new one serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trial {
    /// The release that is tried.
    pub new: Counts,
    /// The live one.
    pub live: Counts,
}

/// Why the new release is worse than the live one, for a person; none: nothing says so (yet).
pub fn judge(analysis: &Analysis, trial: &Trial) -> Option<String> {
    let Trial { new, live } = trial;
    let (failed, usual) = ((new.failed, new.all), (live.failed, live.all));
    if is_worse(failed, usual, analysis.errors_percent) {
        return Some(format!(
            "{}, {} of the live release",
            words(failed, "failed"),
            of(usual)
        ));
    }
    let bucket = usual_bucket(live)?;
    let answered = |counts: &Counts| counts.latency.iter().sum::<u64>();
    let slow = (new.slower_than(bucket), answered(new));
    let usual = (live.slower_than(bucket), answered(live));
    is_worse(slow, usual, analysis.slow_percent).then(|| {
        let ms = LATENCY_BOUNDS_US[bucket] / 1_000;
        let what = format!("took longer than {ms} ms");
        format!("{}, {} of the live release", words(slow, &what), of(usual))
    })
}

/// The last bucket that is not slow; none: that is not known, or nothing can be slower.
fn usual_bucket(live: &Counts) -> Option<usize> {
    let all: u64 = live.latency.iter().sum();
    if all < USUAL_OF {
        return None;
    }
    let mut so_far = 0;
    let usual = live.latency.iter().position(|count| {
        so_far += count;
        so_far * 100 >= all * USUAL_PERCENT
    });
    // Bounds are a factor of 2 to 2.5 apart: within that it is not called slow.
    let bucket = usual? + 1;
    (bucket < LATENCY_BOUNDS_US.len()).then_some(bucket)
}

/// Whether a share is surely more than `percent` of 100 above another one.
fn is_worse(new: (u64, u64), live: (u64, u64), percent: u32) -> bool {
    let (least, _) = interval(new);
    let (_, most) = interval(live);
    new.0 >= LEAST && least > most + f64::from(percent) / 100.0
}

/// Wilson's interval of a share. Of nothing it is everything.
fn interval((count, of): (u64, u64)) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    let (of, square) = (of as f64, DEVIATIONS * DEVIATIONS);
    let share = (count as f64 / of).min(1.0);
    let middle = share + square / (2.0 * of);
    let half = DEVIATIONS * ((share * (1.0 - share) + square / (4.0 * of)) / of).sqrt();
    let whole = 1.0 + square / of;
    ((middle - half) / whole, (middle + half) / whole)
}

fn words((count, of): (u64, u64), what: &str) -> String {
    format!("{count} of {of} requests {what}")
}

fn of((count, of): (u64, u64)) -> String {
    format!("{count} of {of}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(failed: u64, all: u64) -> Counts {
        let mut counts = Counts::default();
        let mut latency = [0; LATENCY_BUCKETS];
        latency[0] = all;
        counts.add(&[0, all - failed, 0, 0, failed, 7], &latency);
        counts
    }

    /// All within `usual` ms, but for some that take a second.
    fn timed(slow: u64, all: u64, usual: u64) -> Counts {
        let place = |ms: u64| LATENCY_BOUNDS_US.partition_point(|bound| *bound < ms * 1_000);
        let mut latency = [0; LATENCY_BUCKETS];
        latency[place(usual)] += all - slow;
        latency[place(1_000)] += slow;
        let mut counts = Counts::default();
        counts.add(&[0, all, 0, 0, 0, 0], &latency);
        counts
    }

    #[test]
    fn errors_in_a_table() {
        let table = [
            // new, live, worse
            ((0, 0), (0, 0), false),
            ((3, 3), (0, 0), false),
            ((1, 3), (0, 1_000), false),
            ((4, 4), (0, 1_000), false),
            ((5, 5), (0, 1_000), true),
            ((10, 10), (0, 20), true),
            ((10, 10), (0, 3), false),
            ((12, 40), (3, 900), true),
            // Both alike.
            ((50, 100), (480, 1_000), false),
            ((100, 100), (100, 100), false),
            // Better.
            ((0, 1_000), (50, 1_000), false),
            // Within what is allowed.
            ((150, 10_000), (50, 10_000), false),
            ((350, 10_000), (50, 10_000), true),
        ];
        let analysis = Analysis::default();
        for (new, live, wanted) in table {
            let trial = Trial {
                new: counts(new.0, new.1),
                live: counts(live.0, live.1),
            };
            let verdict = judge(&analysis, &trial);
            assert_eq!(verdict.is_some(), wanted, "{new:?} {live:?}: {verdict:?}");
        }
        let trial = Trial {
            new: counts(12, 40),
            live: counts(3, 900),
        };
        assert_eq!(
            judge(&analysis, &trial).as_deref(),
            Some("12 of 40 requests failed, 3 of 900 of the live release")
        );
        let patient = Analysis {
            errors_percent: 40,
            ..analysis
        };
        assert_eq!(judge(&patient, &trial), None);
    }

    #[test]
    fn slowness_in_a_table() {
        let table = [
            // new and live: slow, all, usual ms
            ((0, 100, 5), (0, 100, 5), None),
            // The next bucket is not called slow.
            ((0, 500, 10), (0, 500, 5), None),
            ((0, 500, 25), (0, 500, 5), Some("10 ms")),
            ((200, 500, 5), (5, 500, 5), Some("10 ms")),
            ((30, 500, 5), (5, 500, 5), None),
            // What is usual is not known yet.
            ((40, 40, 5), (0, 40, 5), None),
        ];
        for (new, live, wanted) in table {
            let trial = Trial {
                new: timed(new.0, new.1, new.2),
                live: timed(live.0, live.1, live.2),
            };
            let verdict = judge(&Analysis::default(), &trial);
            let said = verdict
                .as_ref()
                .map(|text| text.contains(wanted.unwrap_or("?")));
            assert_eq!(said, wanted.map(|_| true), "{new:?} {live:?}: {verdict:?}");
        }
    }

    #[test]
    fn requests_that_got_no_answer_from_it_count_though_others_answered_them() {
        let mut new = Counts::default();
        new.add_moved_on(20);
        let live = counts(0, 1_000);
        assert!(judge(&Analysis::default(), &Trial { new, live }).is_some());
    }

    /// A thousand canaries that are as good as the live release, each looked at 900 times (half an hour), and a
    /// thousand that fail one request in ten.
    #[test]
    fn good_ones_go_on_and_bad_ones_do_not() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            // xorshift
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % 1_000
        };
        let mut gone = |of_thousand: u64, looks: u32| {
            let mut trial = Trial::default();
            for look in 1..=looks {
                let mut failed =
                    |count: u64, rate: u64| (0..count).filter(|_| next() < rate).count() as u64;
                let (new, live) = (failed(2, of_thousand), failed(18, 20));
                trial
                    .new
                    .add(&[0, 2 - new, 0, 0, new, 0], &[0; LATENCY_BUCKETS]);
                trial
                    .live
                    .add(&[0, 18 - live, 0, 0, live, 0], &[0; LATENCY_BUCKETS]);
                if judge(&Analysis::default(), &trial).is_some() {
                    return Some(look);
                }
            }
            None
        };
        let wrong = (0..1_000).filter(|_| gone(20, 900).is_some()).count();
        assert_eq!(wrong, 0, "of 1000 as good as what is live");
        let caught: Vec<u32> = (0..1_000).filter_map(|_| gone(200, 900)).collect();
        assert_eq!(caught.len(), 1_000, "of those that fail a fifth");
        let slowest = caught.iter().max();
        assert!(slowest < Some(&300), "{slowest:?} looks");
    }
}
