//! What others do meanwhile.

use crate::guest::{Guest, Owner};
use crate::world::{Effect, World};

/// To remove a guest, and to make one under its number, are tasks of a second each at least.
const TAKEN_MS: u64 = 2_000;
/// Of younger guests there are no copies yet.
const OLD_MS: u64 = 5 * 60 * 1_000;

impl World {
    /// Somebody does something: makes a guest under a number that is next, removes one, takes the number of one that is
    /// gone, moves one, gives one to high availability or takes it back, or a host goes or comes; or a guest ends by itself.
    pub(crate) fn somebody_acts(&mut self) {
        match self.random.u32(..14) {
            0..=2 => {
                let vmid = 5000 + self.random.u32(..16);
                self.make_foreign(vmid);
            }
            3 => self.remove_and_take_its_number(),
            4..=7 => self.move_one(),
            10..=11 => self.spoil_what_is_read(),
            12 => self.turn_availability(),
            13 => self.end_one(),
            _ => self.turn_a_host(),
        }
    }

    /// The copy that a guest becomes just now is lost, or cannot be read to its end.
    fn spoil_what_is_read(&mut self) {
        let read = self.tasks.iter().find_map(|task| match &task.effect {
            Effect::PutBack(_, archive, _) if task.exit.is_none() => Some(archive.volid.clone()),
            _ => None,
        });
        let Some(volid) = read else { return };
        match self.random.bool() {
            true => self.lose(&volid),
            false => self.spoil(&volid),
        }
    }

    fn make_foreign(&mut self, vmid: u32) {
        self.make_named(vmid, &format!("theirs-{vmid}"));
    }

    /// Somebody makes a guest, where its number is nobody's.
    pub(crate) fn make_named(&mut self, vmid: u32, name: &str) {
        if self.guests.contains_key(&vmid) {
            return;
        }
        let host = self.some_host();
        let config = self.fresh_config(name);
        let mut guest = self.guest(&host, Owner::Foreign, config);
        guest.is_running = self.random.bool();
        self.guests.insert(vmid, guest);
    }

    /// A person removes a guest of ours; every other time its number is another's soon, which may even have its name:
    /// somebody has put an old copy in its place.
    fn remove_and_take_its_number(&mut self) {
        let Some(vmid) = self.some_guest(|guest| guest.owner != Owner::Foreign) else {
            return;
        };
        let removed = self.guests.remove(&vmid);
        // An old copy is of one that was there for a while, and runs: nothing was written down yet that would tell a copy
        // of another from it.
        let since = self.now_ms().saturating_sub(OLD_MS);
        let name = removed
            .filter(|it| it.made_ms < since && it.is_running)
            .and_then(|it| it.name().map(str::to_owned));
        if self.random.bool() {
            let name = name.filter(|_| self.random.bool());
            self.freed.push((self.now_ms() + TAKEN_MS, vmid, name));
        }
    }

    /// Numbers that are free become somebody's.
    pub(crate) fn take_numbers(&mut self, now: u64) {
        let (due, later) = std::mem::take(&mut self.freed)
            .into_iter()
            .partition(|(at, ..)| *at <= now);
        self.freed = later;
        let due: Vec<(u64, u32, Option<String>)> = due;
        for (_, vmid, name) in due {
            if self.guests.contains_key(&vmid) {
                continue;
            }
            self.make_foreign(vmid);
            if let (Some(guest), Some(name)) = (self.guests.get_mut(&vmid), name) {
                guest.config.insert("name".to_owned(), name);
                guest.pool = Some("skep".to_owned());
            }
        }
    }

    fn move_one(&mut self) {
        let to = self.some_host();
        if let Some(vmid) = self.some_guest(|guest| !guest.is_template())
            && let Some(guest) = self.guests.get_mut(&vmid)
            && self.hosts.get(&to) == Some(&true)
        {
            guest.host = to;
        }
    }

    /// What is not there to be ordered any more is done by nobody.
    fn turn_availability(&mut self) {
        if let Some(vmid) = self.some_guest(|guest| !guest.is_template())
            && let Some(guest) = self.guests.get_mut(&vmid)
        {
            guest.is_ha = !guest.is_ha;
            (guest.is_unwanted, guest.order) = (!guest.is_running, None);
        }
    }

    /// Its kernel has panicked, or its host had no memory left for it.
    fn end_one(&mut self) {
        if let Some(vmid) = self.some_guest(|guest| guest.is_running)
            && let Some(guest) = self.guests.get_mut(&vmid)
        {
            (guest.is_running, guest.has_ended) = (false, true);
        }
    }

    /// Somebody starts all that have ended by themselves and that nobody has started since.
    pub fn start_ended(&mut self) {
        for guest in self.guests.values_mut().filter(|it| it.has_ended) {
            guest.start();
        }
    }

    fn turn_a_host(&mut self) {
        let host = self.some_host();
        let away = self.hosts.values().filter(|is| !**is).count();
        if let Some(is_online) = self.hosts.get_mut(&host) {
            *is_online = !*is_online || away > 0;
        }
    }

    fn some_host(&mut self) -> String {
        let number = self.random.usize(..self.hosts.len());
        let name = self.hosts.keys().nth(number);
        name.cloned().unwrap_or_default()
    }

    /// One that nothing has locked.
    fn some_guest(&mut self, is_meant: impl Fn(&Guest) -> bool) -> Option<u32> {
        let all: Vec<u32> = self
            .guests
            .iter()
            .filter(|(_, guest)| is_meant(guest) && guest.lock().is_none() && !guest.is_template())
            .map(|(vmid, _)| *vmid)
            .collect();
        (!all.is_empty()).then(|| all[self.random.usize(..all.len())])
    }
}
