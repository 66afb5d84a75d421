//! Numbers of physical hosts: which are under maintenance, and which have promised more memory than they have.

use skep_state::State as View;

use super::Page;
use crate::hosts::Promises;

/// What all servers know, and what this one saw as the leader.
pub(super) fn hosts(page: &mut Page, view: &View, promises: &Promises) {
    page.one(
        "skep_hosts_under_maintenance",
        "gauge",
        "Physical hosts whose nodes are drained.",
        view.maintenances().count(),
    );
    page.head(
        "skep_host_overcommitted_bytes",
        "gauge",
        "Memory that guests of a physical host were promised beyond what it has; none where this server does not lead.",
    );
    for (_, it) in promises.all() {
        let beyond = it.promised.saturating_sub(it.has);
        page.labelled("skep_host_overcommitted_bytes", ("host", &it.host), beyond);
    }
}
