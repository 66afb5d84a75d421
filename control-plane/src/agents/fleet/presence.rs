//! One node as one server hears of it, and what follows from that: alive, suspect, or silent for too
//! long. Pure: the time is an argument.

use std::time::{Duration, Instant};

use skep_identity::key_id::KeyId;
use skep_model::node::NodeStatus;

use super::{LOST_AFTER, RouteStatus, Runtime};

/// A session that broke may come back within that, and mostly does: an agent dials again after a tenth
/// of a second.
const COMES_BACK: Duration = Duration::from_millis(200);
/// Two heartbeats, of which the leader hears up to a second later where another server holds the
/// session. Who is silent for so long is asked for; a node that was lost comes back by a fresher word.
pub(super) const ASKED_AFTER: Duration = Duration::from_secs(4);

/// What one server has heard of one node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Presence {
    pub(super) session: u64,
    pub(super) is_connected: bool,
    /// Not connected, because the session broke: neither side had ended it.
    pub(super) broke: bool,
    pub(super) last_heard: Instant,
    pub(super) runtime: Runtime,
    pub(super) routes: RouteStatus,
    /// Revision of the challenges that its ingress answers.
    pub(super) challenges: u64,
    pub(super) ca: Option<KeyId>,
    /// When it was last touched, in the fleet's own counting.
    pub(super) version: u64,
}

impl Presence {
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_heard)
    }

    /// Whether both say the same of the node, times and its certificate apart.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let said = |of: &Self| (of.is_connected, of.broke, of.runtime, of.routes);
        said(self) == said(other) && self.challenges == other.challenges
    }

    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.is_connected && self.silence(now) < LOST_AFTER
    }

    /// Two servers may speak of one node: whoever has it connected knows better than who lost it,
    /// and who heard it last knows better than a session that nobody has noticed to be dead.
    pub(super) fn rank(&self, now: Instant) -> (bool, Instant) {
        (self.is_live(now), self.last_heard)
    }

    /// From when on its peers are asked whether its machine lives. None: they are not, an end that was
    /// meant says nothing about the machine. `judged_from`: silence before it is not held against it.
    pub(super) fn suspect_from(&self, judged_from: Instant) -> Option<Instant> {
        match (self.is_connected, self.broke) {
            (true, _) => Some(self.last_heard.max(judged_from) + ASKED_AFTER),
            (false, true) => Some(self.last_heard + COMES_BACK),
            (false, false) => None,
        }
    }

    /// Whether its peers are to be asked now; from [`LOST_AFTER`] on its silence says enough.
    pub(super) fn is_suspect(&self, judged_from: Instant, now: Instant) -> bool {
        let from = self.suspect_from(judged_from);
        from.is_some_and(|from| from <= now) && self.silence(now) < LOST_AFTER
    }
}

/// What the leader concludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conclusion {
    /// It is there, with this status, until then if it says nothing more.
    There(NodeStatus, Instant),
    /// It is what it was, until then.
    Unchanged(Instant),
    /// Nobody has heard of it for too long.
    Silent,
    /// Its peers have testified that its machine is gone.
    Witnessed,
}

/// From the best word on a node, when its peers testified against it, and whether it is lost already.
pub(super) fn conclude(
    best: Option<&Presence>,
    condemned: Option<Instant>,
    is_lost: bool,
    (judged_from, now): (Instant, Instant),
) -> Conclusion {
    let Some(presence) = best else {
        return silent(judged_from, is_lost, now);
    };
    if !is_lost && condemned.is_some_and(|at| presence.last_heard <= at) {
        return Conclusion::Witnessed;
    }
    // A session that nobody has noticed to be dead brings nobody back.
    let is_back = !is_lost || presence.silence(now) < ASKED_AFTER;
    if presence.is_live(now) && is_back {
        let status = presence.runtime.status();
        return Conclusion::There(status, presence.last_heard + LOST_AFTER);
    }
    silent(presence.last_heard.max(judged_from), is_lost, now)
}

fn silent(since: Instant, is_lost: bool, now: Instant) -> Conclusion {
    let lost_at = since + LOST_AFTER;
    match is_lost || lost_at <= now {
        true => Conclusion::Silent,
        false => Conclusion::Unchanged(lost_at),
    }
}

#[cfg(test)]
#[path = "presence_tests.rs"]
mod tests;
