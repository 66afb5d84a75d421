//! How long to wait before what failed is started again. Owns the formula; knows no clock.

/// Failures on one node after which another one is preferred.
pub(crate) const FAILURES_BEFORE_MOVING: u32 = 2;
/// Wait after the first failure.
const FIRST_MS: u64 = 1_000;
/// Longest wait: a service that cannot start is tried once a minute, for as long as it takes.
const MAX_MS: u64 = 60_000;
/// Failures within this of the newest one count together.
const WINDOW_MS: u64 = 600_000;

/// When each recent failure may be replaced, in cluster time, sorted. The wait is the same for all
/// of them: 1 s, doubled for each failure in the window after the first, at most 60 s. It does not
/// depend on the present, so that only a failure or the end of a wait changes the answer.
pub(crate) fn due_ms(mut failed_ms: Vec<u64>) -> Vec<u64> {
    failed_ms.sort_unstable();
    let Some(newest) = failed_ms.last().copied() else {
        return failed_ms;
    };
    failed_ms.retain(|at| newest - at < WINDOW_MS);
    let doublings = u32::try_from(failed_ms.len() - 1).unwrap_or(u32::MAX);
    let factor = 2_u64.checked_pow(doublings).unwrap_or(u64::MAX);
    let wait = FIRST_MS.saturating_mul(factor).min(MAX_MS);
    failed_ms.iter().map(|at| at.saturating_add(wait)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_minute_and_are_forgotten_after_ten() {
        assert!(due_ms(vec![]).is_empty());
        assert_eq!(due_ms(vec![5_000]), [6_000]);
        assert_eq!(due_ms(vec![9_000, 5_000, 7_000]), [9_000, 11_000, 13_000]);
        let many: Vec<u64> = (0..200).map(|second| second * 1_000).collect();
        assert_eq!(due_ms(many).last(), Some(&(199_000 + MAX_MS)));
        assert_eq!(due_ms(vec![0, WINDOW_MS]), [WINDOW_MS + FIRST_MS]);
    }
}
