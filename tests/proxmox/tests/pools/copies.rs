//! Copies of guests, and guests that become one of them, while copies are lost and spoiled, restores fail, and whoever runs
//! the pool gives one up for another.

use skep_model::id::GuestId;
use skep_model::pool::{Guest, Note, Phase, Restoring};
use skep_pools::{Ask, Driver, Turn};
use skep_proxmox_simulation::{Owner, STORAGE};

use super::{Run, recipe};

/// What has come about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// Restores that Proxmox refused, or whose task failed.
    pub(super) failed: usize,
    /// Copies that took another one's place.
    pub(super) instead: usize,
    /// Guests that were said to be a copy, and turned out to be another one, or nobody's.
    pub(super) not_back: usize,
    /// Guests that came back.
    pub(super) restored: usize,
}

impl Run {
    /// Somebody has a guest copied, or become an older copy of it. Killed: whoever asks hears nothing of what came of it.
    pub(super) async fn copy(&mut self) {
        let ready: Vec<Guest> = self
            .book
            .guests
            .values()
            .filter(|guest| guest.phase == Phase::Ready && guest.restoring.is_none())
            .filter(|guest| guest.resizing.is_none())
            .cloned()
            .collect();
        if ready.is_empty() || self.random.u32(..3) != 0 {
            return;
        }
        let guest = &ready[self.random.usize(..ready.len())];
        let (limit, recipe) = (self.limit(true), recipe(self.seed));
        let driver = Driver {
            client: &self.client,
            recipe: &recipe,
        };
        if self.random.bool() {
            let begun = driver.begin_backup(guest, STORAGE);
            self.kills += usize::from(tokio::time::timeout(limit, begun).await.is_err());
            return self.check();
        }
        let Ok(Some(archives)) = driver.archives(guest, STORAGE).await else {
            return;
        };
        if archives.is_empty() {
            return;
        }
        let archive = archives[self.random.usize(..archives.len())].volid.clone();
        self.become_one(guest.id, archive);
    }

    fn become_one(&mut self, id: GuestId, archive: String) {
        let now_ms = self.line.with(|it| it.now_ms());
        let one = self.book.guests.get_mut(&id).expect("known");
        let first = one.restoring.as_ref();
        self.copies.instead += usize::from(first.is_some());
        one.restoring = Some(Restoring::asked(archive, first, now_ms));
        one.problem = None;
    }

    /// Somebody gives the copy that a guest becomes up for another one of it. False: there is no other.
    pub(super) fn name_another(&mut self, id: GuestId, is_meant: impl Fn(bool) -> bool) -> bool {
        let guest = &self.book.guests[&id];
        let Some(first) = guest.restoring.as_ref().map(|it| it.archive.clone()) else {
            return false;
        };
        let (vmid, name) = (guest.vmid, guest.name());
        let others: Vec<String> = self.line.with(|world| {
            let its = world.archives.iter();
            let its = its.filter(|it| Some(it.vmid) == vmid && it.notes == name);
            let others = its.filter(|it| it.volid != first && is_meant(it.is_broken));
            others.map(|it| it.volid.clone()).collect()
        });
        if others.is_empty() {
            return false;
        }
        let other = others[self.random.usize(..others.len())].clone();
        self.become_one(id, other);
        true
    }

    /// Copies that guests are becoming are lost or spoiled, and another one is named for whatever reason.
    pub(super) fn upset_copies(&mut self) {
        for (id, archive) in self.becoming() {
            match self.random.u32(..24) {
                0 => self.line.with(|world| world.lose(&archive)),
                1 => self.line.with(|world| world.spoil(&archive)),
                2..5 => {
                    self.name_another(id, |_| true);
                }
                _ => {}
            }
        }
    }

    /// Where nothing else goes wrong any more: another copy for each that cannot come back; and where there is none, another
    /// node.
    pub(super) fn give_up_copies(&mut self) {
        for (id, archive) in self.becoming() {
            let is_good = self.line.with(|world| {
                let mut all = world.archives.iter();
                all.any(|it| it.volid == archive && !it.is_broken)
            });
            if !is_good && !self.name_another(id, |is_broken| !is_broken) {
                self.book.note(id, Note::Leave);
            }
        }
    }

    fn becoming(&self) -> Vec<(GuestId, String)> {
        let all = self.book.guests.values();
        all.filter_map(|it| Some((it.id, it.restoring.as_ref()?.archive.clone())))
            .collect()
    }

    /// What was done with a guest that becomes a copy, by whoever drives it: nothing is started, and nothing is said to have
    /// come back, but from the copy that was named to them.
    pub(super) fn check_copy(&mut self, guest: &Guest, turn: &Turn) {
        let is_said = match turn {
            Turn::Note(Note::Restored(_)) => {
                self.copies.restored += 1;
                true
            }
            Turn::Note(Note::NotBack(_)) => {
                self.copies.not_back += 1;
                false
            }
            Turn::Did(Ask::Start) => true,
            _ => false,
        };
        let Some(restoring) = guest.restoring.as_ref().filter(|_| is_said) else {
            return;
        };
        let seed = self.seed;
        self.line.with(|world| {
            let there = &world.guests.get(&guest.vmid.expect("made"));
            // Somebody may have removed it in this very moment.
            let Some(there) = there.filter(|it| it.owner != Owner::Foreign) else {
                return;
            };
            let is_it = there.restored_from.as_ref() == Some(&restoring.archive);
            assert!(
                is_it && !there.is_half,
                "seed {seed}: {turn:?} of {guest:?}, with disks of {:?}",
                there.restored_from
            );
        });
    }
}
