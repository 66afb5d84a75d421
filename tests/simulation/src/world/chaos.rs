//! Faults carried out.

use super::{Server, World};
use crate::disk::Disk;
use crate::fault::Fault;
use crate::invariants::Violation;
use crate::network::Network;

/// Most servers that a run has at once.
const MAX_SERVERS: usize = 6;

impl World {
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if !self.is_chaos {
            return Ok(());
        }
        if self.are_leaders_falling {
            self.fell_leaders();
            return Ok(());
        }
        let pause = self.rng.u64(100..1_800);
        self.after(pause, crate::event::Event::Fault);
        self.report.faults += 1;
        self.retire();
        match Fault::draw(&mut self.rng) {
            Fault::Kill => self.kill_one(),
            Fault::KillAll => {
                for slot in 0..self.servers.len() {
                    self.kill(slot);
                    let delay = self.rng.u64(50..2_500);
                    self.start_soon(slot, delay);
                }
            }
            Fault::Isolate => self.isolate(),
            Fault::Split => self.split(),
            Fault::OneWay => {
                let (from, to) = (self.any_member(), self.any_member());
                self.network.cut(from, to);
            }
            Fault::Weather => {
                let rough = Network::rough(&mut self.rng);
                self.network.delay_ms = rough.delay_ms;
                self.network.loss = rough.loss;
                self.network.repeats = rough.repeats;
                self.network.late = rough.late;
            }
            Fault::Mend => self.network.mend(),
            Fault::Pause => {
                let slot = self.rng.usize(..self.servers.len());
                let until = self.now + self.rng.u64(500..4_000);
                self.servers[slot].paused_until = until;
            }
            Fault::Damage => self.damage(),
            Fault::Join => self.join(),
            Fault::Leave => self.leave(),
            Fault::Transfer => return self.transfer(),
        }
        Ok(())
    }

    /// Kills whoever leads, soon after it has begun; three of the five run at any moment.
    fn fell_leaders(&mut self) {
        let pause = match self.rng.u32(..10) {
            0 => self.rng.u64(200..1_200),
            _ => self.rng.u64(1..60),
        };
        self.after(pause, crate::event::Event::Fault);
        let leaders: Vec<usize> = (0..self.servers.len())
            .filter(|&slot| {
                let running = self.servers[slot].running.as_ref();
                running.is_some_and(|member| member.leader() == Some(member.id))
            })
            .collect();
        for slot in leaders {
            if self.rng.bool() {
                self.report.faults += 1;
                self.kill(slot);
            }
        }
        let down: Vec<usize> = (0..self.servers.len())
            .filter(|&slot| self.servers[slot].running.is_none())
            .collect();
        if down.len() > self.servers.len() / 2 {
            let slot = down[self.rng.usize(..down.len())];
            self.start_soon(slot, 1);
        }
    }

    fn any_member(&mut self) -> u64 {
        let slot = self.rng.usize(..self.servers.len());
        self.servers[slot].member
    }

    fn kill_one(&mut self) {
        let slot = self.rng.usize(..self.servers.len());
        self.kill(slot);
        let delay = self.rng.u64(50..5_000);
        self.start_soon(slot, delay);
    }

    fn isolate(&mut self) {
        let alone = self.any_member();
        let others: Vec<u64> = self.servers.iter().map(|server| server.member).collect();
        for other in others {
            self.network.cut(alone, other);
            self.network.cut(other, alone);
        }
    }

    fn split(&mut self) {
        let members: Vec<u64> = self.servers.iter().map(|server| server.member).collect();
        let sides: Vec<bool> = members.iter().map(|_| self.rng.bool()).collect();
        for (from, left) in members.iter().zip(&sides) {
            for (to, right) in members.iter().zip(&sides) {
                if left != right {
                    self.network.cut(*from, *to);
                }
            }
        }
    }

    /// Lost data costs a vote until the server has been rebuilt: one at a time, and never so many
    /// that what was acknowledged could be on damaged disks alone.
    fn damage(&mut self) {
        let is_whole = self.wanted.len() >= 3
            && self.servers.iter().all(|server| {
                server.is_retired || (!server.disk.is_damaged() && self.is_settled(server.member))
            });
        if !is_whole {
            return;
        }
        let slot = self.rng.usize(..self.servers.len());
        if self.servers[slot].is_retired {
            return;
        }
        self.kill(slot);
        let mut rng = self.rng.fork();
        self.servers[slot].disk.damage(&mut rng);
        let delay = self.rng.u64(200..2_000);
        self.start_soon(slot, delay);
    }

    /// Whether a member is a voter in the eyes of some leader, and no joint change is under way.
    fn is_settled(&self, member: u64) -> bool {
        self.live().any(|leader| {
            leader.leads()
                && leader.members().voters_outgoing.is_empty()
                && leader.members().voters.contains(&member)
        })
    }

    fn join(&mut self) {
        if self.wanted.len() >= MAX_SERVERS {
            return;
        }
        let member = self.next_member;
        self.next_member += 1;
        self.servers.push(Server::new(member, Disk::default()));
        self.wanted.insert(member);
        let slot = self.servers.len() - 1;
        self.start_soon(slot, 50);
    }

    fn leave(&mut self) {
        if self.wanted.len() <= 1 {
            return;
        }
        let member = self.any_member();
        self.wanted.remove(&member);
    }

    fn transfer(&mut self) -> Result<(), Violation> {
        for slot in 0..self.servers.len() {
            self.step(slot, |member, world| member.transfer(world))?;
        }
        Ok(())
    }
}
