//! When what ran in a guest is known to have ended, so that what may only run once can run elsewhere. Pure: what is not known
//! is not dead, and a host that is merely away never is enough, as everything on it may run on.

use std::collections::{BTreeMap, BTreeSet};

use skep_proxmox::calls::{cluster, ha};

use crate::seen::{Presence, Seen};

/// A host with guests of high availability that has lost the majority is reset by its watchdog after 60 s, and a minute later
/// the others take what it had for theirs. As long again is left for clocks, and for a look that was late.
pub const WATCHDOG_MS: u64 = 3 * 60 * 1_000;

/// Looks that are further apart say nothing of the time between them: a host may have come and gone.
/// A call to a host that is away may take 40 s, and no host boots in a minute.
pub const LOOKS_APART_MS: u64 = 60 * 1_000;

/// What is kept between looks: since when hosts are away without a break, as far as somebody has looked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Away {
    /// By host, ms by the clock of whoever looks.
    since: BTreeMap<String, u64>,
    looked_ms: u64,
    /// Guests that high availability was to have run when they were ordered to stop, by number.
    ended: BTreeSet<u32>,
}

impl Away {
    /// Takes in what was seen at a look. `now_ms`: by a clock that nobody sets, as one that jumps would count time that no
    /// watchdog had. A look without a majority says nothing, nor does one long after the last.
    pub fn look(&mut self, cluster: &cluster::Status, now_ms: u64) {
        let is_broken = now_ms < self.looked_ms || now_ms - self.looked_ms > LOOKS_APART_MS;
        if is_broken || !cluster.is_quorate {
            self.since.clear();
        }
        self.looked_ms = now_ms;
        if !cluster.is_quorate {
            return;
        }
        for host in &cluster.hosts {
            if host.is_online {
                self.since.remove(&host.name);
            } else {
                self.since.entry(host.name.clone()).or_insert(now_ms);
            }
        }
    }

    /// A guest is about to be ordered to stop. From then on its provider says that nobody wants it, also to whoever asks
    /// again because no answer came.
    pub fn ends(&mut self, vmid: u32) {
        self.ended.insert(vmid);
    }

    /// Whether a guest that was ordered to stop was wanted; it is said once.
    pub fn had_ended(&mut self, vmid: u32) -> bool {
        self.ended.remove(&vmid)
    }

    /// By host, ms by the clock of whoever looks.
    pub fn since(&self) -> &BTreeMap<String, u64> {
        &self.since
    }
}

/// What is known of a guest's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// What ran in it has ended.
    Dead {
        /// By what that is known.
        why: String,
        /// It was stopped to know that, and high availability was to have it run: whoever asked has it started again
        /// once its end is written down, as nobody else does.
        is_wanted: bool,
    },
    /// It may run.
    NotYet {
        /// What keeps that from being known.
        why: String,
    },
}

impl Verdict {
    fn dead(why: impl Into<String>) -> Self {
        Self::Dead {
            why: why.into(),
            is_wanted: false,
        }
    }

    fn not_yet(why: impl Into<String>) -> Self {
        Self::NotYet { why: why.into() }
    }
}

/// What is known beside the guest.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// The cluster, as the host that was asked sees it.
    pub cluster: &'a cluster::Status,
    /// Guests that high availability has.
    pub managed: &'a [ha::Resource],
    /// Since when hosts are away without a break, ms by the caller's clock: whoever calls has seen that.
    pub away_since: &'a BTreeMap<String, u64>,
    /// Now, by the same clock.
    pub now_ms: u64,
}

/// Whether what ran in a guest has ended. `was_stopped`: a task that was to stop it has ended well, and it was looked at
/// afterwards.
pub fn confirmed_dead(
    (vmid, host): (u32, &str),
    seen: &Seen,
    was_stopped: bool,
    around: Around<'_>,
) -> Verdict {
    if !around.cluster.is_quorate {
        return Verdict::not_yet("the hosts have no majority: what others do is not known");
    }
    let hosts = &around.cluster.hosts;
    let are_all_there = hosts.iter().all(|it| it.is_online);
    match (&seen.presence, hosts.iter().find(|it| it.name == host)) {
        (Presence::Unknown(why), Some(member)) if member.is_online => Verdict::not_yet(why),
        (Presence::Absent | Presence::Foreign, _) if seen.is_busy => {
            Verdict::not_yet("a task about it runs")
        }
        // What is written down about it is gone. It may run all the same where nobody can look.
        (Presence::Absent | Presence::Foreign, _) if are_all_there => {
            Verdict::dead("it is on no host any more, and all of them answer")
        }
        (Presence::Absent | Presence::Foreign, _) => {
            Verdict::not_yet("it is on no host that answers, and not all of them do")
        }
        (_, None) => Verdict::not_yet(format!("{host} is no host of this cluster")),
        (Presence::Ours(facts), Some(member)) if member.is_online => {
            if facts.is_running {
                Verdict::not_yet("it runs")
            } else if facts.lock.is_some() || seen.is_busy {
                Verdict::not_yet("a task about it runs")
            } else if !was_stopped {
                // Who has stopped it may be about to start it.
                Verdict::not_yet("it is stopped, and nobody knows for how long")
            } else {
                Verdict::Dead {
                    why: "it was stopped, and its host says that it is".to_owned(),
                    is_wanted: wants(around.managed, vmid),
                }
            }
        }
        (Presence::Ours(_) | Presence::Unknown(_), Some(_)) => of_absent_host((vmid, host), around),
    }
}

/// Whether high availability is to have a guest run.
pub(crate) fn wants(managed: &[ha::Resource], vmid: u32) -> bool {
    managed.iter().any(|it| it.has(vmid) && it.is_wanted())
}

/// Its host is away: dead is only what Proxmox itself ends there, and only when that must have happened.
fn of_absent_host((vmid, host): (u32, &str), around: Around<'_>) -> Verdict {
    // What is ignored or disabled makes no host watch itself.
    if !wants(around.managed, vmid) {
        return Verdict::not_yet(format!(
            "{host} is away, which ends nothing there: high availability does not have the guest"
        ));
    }
    let since = around.away_since.get(host);
    let away_ms = since.map_or(0, |since| around.now_ms.saturating_sub(*since));
    let text = format!("{host} has been away for {} s", away_ms / 1_000);
    match away_ms >= WATCHDOG_MS {
        true => Verdict::dead(format!("{text}: its watchdog has reset it")),
        false => Verdict::not_yet(format!(
            "{text}: that its watchdog has reset it is certain after {} s",
            WATCHDOG_MS / 1_000
        )),
    }
}

#[cfg(test)]
mod tests;
