//! Numbers of notifications: what waits for receivers, what was given up, what was dropped. Not by receiver: their
//! names and numbers are `skep notify ls`'s.

use skep_model::notify::Standing;
use skep_state::State as View;

use super::Page;

/// What all servers know.
pub(super) fn notifications(page: &mut Page, view: &View) {
    let kept = view.receivers().flat_map(|it| view.notifications_of(it.id));
    let given_up = kept.filter(|it| it.standing == Standing::GivenUp).count();
    let pending: usize = view.receivers().map(|it| view.pending_of(it.id)).sum();
    let dropped: u64 = view.receivers().map(|it| it.dropped).sum();
    page.head(
        "skep_notifications",
        "gauge",
        "Notifications of deployments: pending, that are still to arrive; given_up, of those that are kept.",
    );
    for (word, count) in [("pending", pending), ("given_up", given_up)] {
        page.labelled("skep_notifications", ("state", word), count);
    }
    page.one(
        "skep_notifications_dropped",
        "gauge",
        "Notifications that were dropped because too many waited for a receiver that there is.",
        dropped,
    );
}
