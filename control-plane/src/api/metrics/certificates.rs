//! Numbers of certificates: how many there are, how long the next ones hold, how orders went. As many lines as there may
//! be certificates would be too many: the nearest ones alone have their own.

use skep_state::State as View;

use super::Page;
use crate::acme::Tally;
use crate::api::nodes::certificate_counts;
use crate::store::now_ms;

/// Certificates with a line of their own.
const NEAREST: usize = 50;

/// What all servers know, and what this one did as the leader.
pub(super) fn certificates(page: &mut Page, view: &View, tally: &Tally) {
    let counts = certificate_counts(view);
    page.head(
        "skep_certificates",
        "gauge",
        "Certificates of apps: held; failing, of which the last attempt failed; ending, to have been renewed by now.",
    );
    for (word, count) in [
        ("held", counts.held),
        ("failing", counts.failing),
        ("ending", counts.ending),
    ] {
        page.labelled("skep_certificates", ("state", word), count);
    }
    page.head(
        "skep_certificate_expiry_seconds",
        "gauge",
        "How long a certificate still holds; negative: for how long it has not. The 50 that end first.",
    );
    for (name, seconds) in nearest(view, now_ms()) {
        page.labelled("skep_certificate_expiry_seconds", ("name", name), seconds);
    }
    page.one(
        "skep_certificate_issued_total",
        "counter",
        "Certificates that were issued while this server led.",
        tally.issued(),
    );
    page.one(
        "skep_certificate_failures_total",
        "counter",
        "Orders of certificates that failed while this server led.",
        tally.failed(),
    );
}

/// Those that end first, with what is left of them in seconds.
fn nearest(view: &View, now_ms: u64) -> Vec<(&str, i64)> {
    let left = |ends_ms: u64| {
        let ends = i64::try_from(ends_ms / 1_000).unwrap_or(i64::MAX);
        let now = i64::try_from(now_ms / 1_000).unwrap_or(i64::MAX);
        ends.saturating_sub(now)
    };
    let held = view.certificates().filter_map(|it| {
        let material = it.material.as_ref()?;
        Some((it.name.as_str(), left(material.not_after_ms)))
    });
    let mut held: Vec<_> = held.collect();
    held.sort_by_key(|(_, seconds)| *seconds);
    held.truncate(NEAREST);
    held
}
