//! High availability: what it has is started and stopped by orders that it carries out later, what has ended by itself is
//! started again, and what was on a host that has fenced itself is started elsewhere.

use crate::guest::Guest;
use crate::world::World;

/// Until its guests are started elsewhere, after their host is away: a minute for the watchdog, one for the others.
const HA_RECOVERS_MS: u64 = 120_000;
/// Its manager and its hosts each look at what is to be done every 10 s: at most, until an order is carried out.
const ORDERED_MS: u64 = 20_000;

/// Power for a guest, asked for on the way of guests that high availability has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    On,
    Off,
}

impl World {
    /// The hosts that are there, where they are a majority.
    fn majority(&self) -> Option<Vec<String>> {
        let online = self.hosts.iter().filter(|(_, is_online)| **is_online);
        let online: Vec<String> = online.map(|(name, _)| name.clone()).collect();
        (2 * online.len() > self.hosts.len()).then_some(online)
    }

    /// An order is taken: what the guest is to be from now on, whoever it was that asked.
    pub(crate) fn order(&mut self, vmid: u32, power: Power) {
        let due_ms = self.now_ms() + self.random.u64(1_000..ORDERED_MS);
        if let Some(guest) = self.guests.get_mut(&vmid) {
            guest.is_unwanted = power == Power::Off;
            guest.order = Some((power, due_ms));
        }
    }

    /// What is to run and does not, on a host that is there, is ordered to, by nobody but high availability itself.
    pub(crate) fn keep_running(&mut self, now: u64) {
        for guest in self.guests.values_mut() {
            let is_down = guest.is_ha && !guest.is_unwanted && !guest.is_running;
            if is_down && guest.order.is_none() && !guest.is_template() {
                let due_ms = now + self.random.u64(1_000..ORDERED_MS);
                guest.order = Some((Power::On, due_ms));
            }
        }
    }

    pub(crate) fn obey_orders(&mut self, now: u64) {
        let Some(online) = self.majority() else {
            return;
        };
        for guest in self.guests.values_mut() {
            let is_due = |(power, due_ms): (Power, u64)| (due_ms <= now).then_some(power);
            let Some(power) = guest.order.and_then(is_due) else {
                continue;
            };
            if !online.contains(&guest.host) || guest.lock().is_some() {
                continue;
            }
            guest.order = None;
            match power {
                Power::On if !guest.is_running => guest.start(),
                Power::On => {}
                Power::Off => guest.is_running = false,
            }
        }
    }

    /// High availability starts elsewhere what was on a host that has fenced itself by now, where hosts have a majority.
    pub(crate) fn recover(&mut self, now: u64) {
        let Some(online) = self.majority() else {
            return;
        };
        let is_recovered = |guest: &Guest| guest.is_ha && !guest.is_bound && !guest.is_unwanted;
        for (host, since) in &self.away_since {
            if now.saturating_sub(*since) < HA_RECOVERS_MS {
                continue;
            }
            let its = self.guests.values_mut();
            for guest in its.filter(|it| it.host == *host && is_recovered(it)) {
                guest.host.clone_from(&online[0]);
                guest.start();
            }
        }
    }
}
