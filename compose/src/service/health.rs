//! `healthcheck`: what decides on traffic. Times are those that the file means, also where it says none.

use skep_model::health::Check;

use crate::draft::Draft;
use crate::report::At;
use crate::units;
use crate::value::Value;

/// Docker's own interval and timeout, in ms.
const DOCKER_MS: u64 = 30_000;
/// Docker's own number of failures.
const DOCKER_RETRIES: u32 = 3;

/// Reads the key.
pub(super) fn read<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    let (mut interval, mut timeout, mut start) = (DOCKER_MS, DOCKER_MS, 0);
    let mut retries = DOCKER_RETRIES;
    let mut check = None;
    let (mut is_disabled, mut has_test) = (false, false);
    let time = |at: &At<'a>| at.read_as("a time like 1m30s", units::millis);
    for (key, at) in at.entries() {
        match key {
            "test" => {
                has_test = true;
                match test(&at) {
                    Test::None => is_disabled = true,
                    Test::Some(words) => check = Some((Check::Exec(words), at)),
                    Test::Odd => {}
                }
            }
            "interval" => interval = time(&at).filter(|ms| *ms > 0).unwrap_or(interval),
            "timeout" => timeout = time(&at).filter(|ms| *ms > 0).unwrap_or(timeout),
            "start_period" => start = time(&at).unwrap_or_default(),
            "retries" => {
                retries = at
                    .parsed("a number")
                    .filter(|it| *it > 0)
                    .unwrap_or(retries)
            }
            "disable" => is_disabled = at.flag().unwrap_or_default(),
            "start_interval" => at.differs(
                "until the first success checks are made up to four times a second",
                "nothing is to be done",
            ),
            _ if key.starts_with("x-") => at.take(),
            _ => at.unknown(),
        }
    }
    if !has_test && !is_disabled {
        at.left(
            "without a `test` it means nothing: an image's own HEALTHCHECK is not asked",
            "`test: [CMD, ...]`, as the image has it",
        );
    }
    let Some((check, at)) = check.filter(|_| !is_disabled) else {
        // Without a check a worker is well as soon as it runs, a web service when its port takes connections.
        return;
    };
    // By then Docker would call it unhealthy.
    let deadline = start.saturating_add(interval.saturating_mul(retries.into()));
    draft.change(&at, |spec| {
        let health = &mut spec.health;
        health.check = Some(check);
        health.interval_ms = interval;
        health.timeout_ms = timeout;
        health.failures = retries;
        health.deadline_ms = health.deadline_ms.max(deadline);
    });
}

enum Test {
    None,
    Some(Vec<String>),
    Odd,
}

fn test(at: &At<'_>) -> Test {
    let shell = |text: String| Test::Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), text]);
    if let Value::Text(_) = at.value {
        return at.text().map_or(Test::Odd, shell);
    }
    let mut words = at.items().into_iter().filter_map(|at| at.text());
    match (words.next().as_deref(), words.next()) {
        (Some("NONE"), None) => Test::None,
        (Some("CMD"), Some(first)) => Test::Some(std::iter::once(first).chain(words).collect()),
        (Some("CMD-SHELL"), Some(text)) if words.next().is_none() => shell(text),
        _ => {
            at.left(
                "no test of Compose's",
                "a text, or a list that begins with CMD, CMD-SHELL or NONE",
            );
            Test::Odd
        }
    }
}
