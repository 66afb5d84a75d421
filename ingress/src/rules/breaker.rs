//! Leaves a service alone that fails: closed while it does not, open for a time, then ever more of its
//! requests again. Pure but for its lock: the time is given.

use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;
use skep_model::routing::CircuitBreaker;

/// Seconds that are looked back on.
const WINDOW: usize = 10;

#[derive(Debug)]
pub(super) struct Breaker {
    says: CircuitBreaker,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    seconds: [Second; WINDOW],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Closed,
    Open {
        since: Duration,
    },
    /// Of those that asked since then so many were let through.
    Recovering {
        since: Duration,
        asked: u32,
        through: u32,
    },
}

/// What was answered in one second.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    number: u64,
    all: u64,
    unreached: u64,
    failed: u64,
}

impl Breaker {
    pub(super) fn new(says: CircuitBreaker, began: Instant) -> Self {
        Self {
            says,
            began,
            state: Mutex::default(),
        }
    }

    /// Whether a request may go on; if not, when to come again.
    pub(super) fn enter(&self, now: Instant) -> Result<(), Duration> {
        let (open, now) = (self.open(), now.saturating_duration_since(self.began));
        let mut state = self.state.lock();
        if let Phase::Open { since } = state.phase
            && now >= since + open
        {
            state.phase = Phase::Recovering {
                since: since + open,
                asked: 0,
                through: 0,
            };
        }
        match &mut state.phase {
            Phase::Closed => Ok(()),
            Phase::Open { since } => Err(*since + open - now),
            Phase::Recovering { since, .. } if now >= *since + open => {
                state.phase = Phase::Closed;
                Ok(())
            }
            Phase::Recovering {
                since,
                asked,
                through,
            } => {
                *asked = asked.saturating_add(1);
                // The first one tells how it is; then as large a part as of the time has passed.
                let passed = (now - *since).as_secs_f64() / open.as_secs_f64();
                if *through == 0 || f64::from(*through) < passed * f64::from(*asked) {
                    *through += 1;
                    Ok(())
                } else {
                    Err(*since + open - now)
                }
            }
        }
    }

    /// What became of a request that was let through.
    pub(super) fn saw(&self, status: StatusCode, now: Instant) {
        let now = now.saturating_duration_since(self.began);
        let mut state = self.state.lock();
        // Sent before it opened: that is known already.
        if matches!(state.phase, Phase::Open { .. }) {
            return;
        }
        let number = now.as_secs();
        let second = &mut state.seconds[number as usize % WINDOW];
        if second.number != number {
            *second = Second {
                number,
                ..Second::default()
            };
        }
        let is_unreached = matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
        );
        second.all += 1;
        second.unreached += u64::from(is_unreached);
        second.failed += u64::from(status.is_server_error());
        if self.is_too_much(&state.seconds, number) {
            state.phase = Phase::Open { since: now };
            // What comes after it begins anew.
            state.seconds = Default::default();
        }
    }

    fn is_too_much(&self, seconds: &[Second; WINDOW], now: u64) -> bool {
        let recent = seconds.iter().filter(|it| it.number + WINDOW as u64 > now);
        let (all, unreached, failed) = recent.fold((0, 0, 0), |(all, unreached, failed), it| {
            (all + it.all, unreached + it.unreached, failed + it.failed)
        });
        let is_above = |part: u64, percent: Option<u32>| {
            percent.is_some_and(|percent| part * 100 > u64::from(percent) * all)
        };
        is_above(unreached, self.says.network_error_percent)
            || is_above(failed, self.says.response_5xx_percent)
    }

    fn open(&self) -> Duration {
        Duration::from_millis(u64::from(self.says.open_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of `MS WHAT`: `STATUS` is an answer, `+` a request that is let through, `-N` one that is not and
    /// is to come again after N ms.
    fn run(says: CircuitBreaker, steps: &str) {
        let began = Instant::now();
        let breaker = Breaker::new(says, began);
        for step in steps.split(',').map(str::trim) {
            let (ms, what) = step.split_once(' ').expect("a time and what happens");
            let now = began + Duration::from_millis(ms.parse().expect("ms"));
            match what {
                "+" => assert_eq!(breaker.enter(now), Ok(()), "{step} of {steps}"),
                _ if what.starts_with('-') => {
                    let left = Duration::from_millis(what[1..].parse().expect("ms"));
                    assert_eq!(breaker.enter(now), Err(left), "{step} of {steps}");
                }
                status => {
                    let status = StatusCode::from_bytes(status.as_bytes());
                    breaker.saw(status.expect("a status"), now);
                }
            }
        }
    }

    fn says(network: Option<u32>, failed: Option<u32>) -> CircuitBreaker {
        CircuitBreaker {
            network_error_percent: network,
            response_5xx_percent: failed,
            open_ms: 1_000,
        }
    }

    #[test]
    fn it_opens_above_the_share_and_closes_by_and_by() {
        for (network, failed, steps) in [
            // At the share it stays closed; above it does not.
            (
                None,
                Some(50),
                "0 200, 0 500, 0 +, 1 500, 1 -1000, 500 -501, 1000 -1",
            ),
            // 503 is an answer, 502 and 504 are none; 404 is the client's.
            (
                Some(50),
                None,
                "0 503, 0 500, 0 404, 0 +, 0 502, 0 +, 0 504, 0 504, 0 504, 0 -1000",
            ),
            // Either is enough.
            (Some(90), Some(10), "0 200, 0 +, 0 503, 0 -1000"),
            // What is older than the window does not count.
            (
                None,
                Some(50),
                "0 500, 2000 +, 3000 +, 9000 +, 12500 200, 12500 500, 12500 +",
            ),
            (
                None,
                Some(60),
                "0 200, 0 200, 9999 500, 9999 +, 10000 500, 10000 -1000",
            ),
            // One is let through at once, then as many as time has passed.
            (
                None,
                Some(50),
                "0 500, 0 -1000, 1000 +, 1000 -1000, 1500 +, 1500 -500, 1500 +, 1900 +, 1999 +",
            ),
            // All is well again.
            (
                None,
                Some(50),
                "0 500, 1000 +, 1000 200, 2000 +, 2000 +, 2000 +, 2000 500, 2000 +",
            ),
            // It still fails: open again, also by what was sent before.
            (
                None,
                Some(50),
                "0 500, 1000 +, 1100 500, 1100 -1000, 1100 200, 2099 -1, 2100 +",
            ),
        ] {
            run(says(network, failed), steps);
        }
    }
}
