//! The heal phase: no more faults, and everybody must get where the others are.

use super::{CONVERGE_MS, World};
use crate::invariants::{self, Violation};
use crate::member::Member;
use crate::network::Network;
use crate::workload;

impl World {
    /// No more faults: servers start, links are whole, and everybody must get where the others are.
    pub(super) fn heal_phase(&mut self) -> Result<(), Violation> {
        self.is_chaos = false;
        self.mortality = 0;
        self.network = Network::calm();
        for slot in 0..self.servers.len() {
            self.servers[slot].paused_until = 0;
            self.start_soon(slot, 10);
        }
        let deadline = self.now + CONVERGE_MS;
        let mut checked = self.now;
        while self.now < deadline {
            self.next_event()?;
            if self.now >= checked + 500 {
                checked = self.now;
                self.retire();
                if self.has_converged() {
                    return self.last_look();
                }
            }
        }
        Err(self.not_converged())
    }

    /// Servers that were taken out, and are no members any more, stop.
    pub(super) fn retire(&mut self) {
        let members = self.servers.iter().find_map(|server| {
            let member = server.running.as_ref()?;
            member.leads().then(|| member.members().clone())
        });
        let Some(members) = members else { return };
        for slot in 0..self.servers.len() {
            let id = self.servers[slot].member;
            let is_member = members.voters.contains(&id)
                || members.learners.contains(&id)
                || members.voters_outgoing.contains(&id)
                || members.learners_next.contains(&id);
            if !is_member && !self.wanted.contains(&id) {
                self.kill(slot);
                self.servers[slot].is_retired = true;
            }
        }
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Member> {
        self.servers
            .iter()
            .filter_map(|server| server.running.as_ref())
            .filter(|member| self.wanted.contains(&member.id))
    }

    pub(super) fn has_converged(&self) -> bool {
        let newest = self.live().map(|member| member.applied.index).max();
        let leaders = self.live().filter(|member| member.leads()).count();
        let is_everybody_there = self.live().count() == self.wanted.len();
        let voters = self
            .live()
            .find(|member| member.leads())
            .map_or(0, |member| member.members().voters.len());
        leaders == 1
            && is_everybody_there
            && voters % 2 == 1
            && voters + 1 >= self.wanted.len().min(5)
            && self.clients.iter().all(|client| client.current.is_none())
            && self
                .live()
                .all(|member| Some(member.applied.index) == newest)
    }

    pub(super) fn last_look(&mut self) -> Result<(), Violation> {
        let mut first = None;
        for member in self.live() {
            self.invariants.acknowledged.holds(member.id, |register| {
                workload::read(&member.state, register)
            })?;
            let bytes = member.state.encode();
            if first.get_or_insert_with(|| bytes.clone()) != &bytes {
                return invariants::broken(
                    "same-state-at-same-index",
                    format!("member {} ended in another state", member.id),
                );
            }
        }
        Ok(())
    }

    pub(super) fn not_converged(&self) -> Violation {
        let servers: Vec<String> = self
            .servers
            .iter()
            .map(|server| match &server.running {
                Some(member) => format!(
                    "{}: at {}, leads {}, leader {:?}, voters {:?}+{:?} learners {:?}",
                    member.id,
                    member.applied.index,
                    member.leads(),
                    member.leader(),
                    member.members().voters,
                    member.members().voters_outgoing,
                    member.members().learners,
                ),
                None => format!("{}: down, retired {}", server.member, server.is_retired),
            })
            .collect();
        let open: Vec<_> = self
            .clients
            .iter()
            .filter_map(|client| Some((client.id, client.current?.request.operation)))
            .collect();
        Violation {
            invariant: "converges",
            what: format!(
                "{} ms after the last fault: {}; wanted {:?}; open {open:?}",
                CONVERGE_MS,
                servers.join("; "),
                self.wanted
            ),
        }
    }
}
