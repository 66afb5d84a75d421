//! Copies of guests, and guests that become one of them, while copies are lost and spoiled, restores fail, and whoever runs
//! the pool gives one up for another.

use std::time::Duration;

use skep_model::id::GuestId;
use skep_model::pool::{Guest, Note, Phase, Restoring};
use skep_pools::{Ask, Driver, Turn};
use skep_proxmox::calls::backups;
use skep_proxmox::{At, GuestKind, Patience, Vmid};
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
        if ready.is_empty() || self.random.bool() {
            return;
        }
        let guest = &ready[self.random.usize(..ready.len())];
        let (limit, recipe) = (self.limit(true), recipe(self.seed));
        let driver = Driver {
            client: &self.client,
            recipe: &recipe,
        };
        if self.random.u32(..3) != 0 {
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
            match self.random.u32(..48) {
                0 => self.line.with(|world| world.lose(&archive)),
                1 => self.line.with(|world| world.spoil(&archive)),
                2..12 => {
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
            let there = world.guests.get(&guest.vmid.expect("made"));
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

/// A guest that is ready, with two copies of it, where nothing goes wrong.
async fn ready() -> (Run, GuestId, [String; 2]) {
    let mut run = Run::new(0);
    run.book.add();
    let id = *run.book.guests.keys().next().expect("one");
    while run.book.guests[&id].phase != Phase::Ready {
        run.turn_all(false).await;
        run.join();
    }
    let (guest, recipe) = (run.book.guests[&id].clone(), recipe(0));
    let driver = Driver {
        client: &run.client,
        recipe: &recipe,
    };
    for _ in 0..2 {
        let begun = driver.begin_backup(&guest, STORAGE).await.expect("calm");
        let task = begun.expect("free");
        let waited = run.client.wait(&task, Patience::default(), |_| {});
        waited.await.expect("calm");
    }
    let archives = driver.archives(&guest, STORAGE).await.expect("calm");
    let names = archives.expect("there").into_iter().map(|it| it.volid);
    let both: Vec<String> = names.collect();
    (run, id, both.try_into().expect("two"))
}

impl Run {
    /// It becomes a copy, and has just stopped for that.
    async fn stopped(&mut self, id: GuestId, archive: &str) {
        self.become_one(id, archive.to_owned());
        while self.there(id).is_running {
            self.turn(id, false).await;
        }
    }

    fn there(&self, id: GuestId) -> skep_proxmox_simulation::Guest {
        let vmid = self.book.guests[&id].vmid.expect("made");
        self.line.with(|world| world.guests[&vmid].clone())
    }

    /// Whoever drove it before has a copy put over it, and is killed before that is written down.
    async fn put_over(&self, id: GuestId, archive: &str) {
        let guest = &self.book.guests[&id];
        let at = At {
            host: &self.there(id).host,
            kind: GuestKind::Qemu,
            vmid: Vmid::new(guest.vmid.expect("made")).expect("one"),
        };
        let call = backups::put_back(at, archive);
        let ran = self.client.run(&call, Patience::default()).await;
        ran.expect("calm");
    }

    /// It is back; how often a copy was put over it.
    async fn back(&mut self, id: GuestId) -> u64 {
        while self.book.guests[&id].restoring.is_some() {
            self.turn(id, false).await;
        }
        self.line.with(|world| world.calls["POST restore"])
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_restored_before_a_kill_is_not_restored_again() {
    let (mut run, id, [x, _]) = ready().await;
    run.stopped(id, &x).await;
    run.put_over(id, &x).await;
    assert_eq!(run.back(id).await, 1);
    assert_eq!(run.there(id).restored_from, Some(x));
}

#[tokio::test(start_paused = true)]
async fn what_was_restored_before_a_kill_is_not_taken_for_another_copy() {
    let (mut run, id, [x, y]) = ready().await;
    run.stopped(id, &x).await;
    run.become_one(id, y.clone());
    // It begins after the other one was named: only its log tells them apart.
    tokio::time::sleep(Duration::from_secs(5)).await;
    run.put_over(id, &x).await;
    assert_eq!(run.back(id).await, 2);
    assert_eq!(run.there(id).restored_from, Some(y));
}

#[tokio::test(start_paused = true)]
async fn a_first_copy_that_comes_about_late_is_replaced_before_anything_starts() {
    let (mut run, id, [x, y]) = ready().await;
    run.stopped(id, &x).await;
    run.become_one(id, y.clone());
    let is_back = |run: &Run| {
        let restoring = run.book.guests[&id].restoring.as_ref();
        restoring.is_some_and(|it| it.is_back)
    };
    while !is_back(&run) {
        run.turn(id, false).await;
    }
    run.put_over(id, &x).await;
    let boots = run.there(id).boots;
    run.turn(id, false).await;
    assert!(!is_back(&run) && run.copies.not_back == 1);
    assert_eq!(run.back(id).await, 3);
    let there = run.there(id);
    assert_eq!((there.restored_from, there.boots), (Some(y), boots + 1));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_lost_or_broken_starts_nothing_until_another_is_named() {
    let (mut run, id, [x, y]) = ready().await;
    run.line.with(|world| world.spoil(&x));
    run.stopped(id, &x).await;
    for _ in 0..5 {
        run.turn(id, false).await;
    }
    assert!(run.there(id).is_half && !run.there(id).is_running);
    assert_eq!(run.copies.failed, 5);
    run.line.with(|world| world.lose(&x));
    for _ in 0..5 {
        run.turn(id, false).await;
    }
    assert_eq!(run.copies.failed, 10);
    assert!(run.name_another(id, |_| true));
    run.back(id).await;
    let there = run.there(id);
    assert!(there.is_running && !there.is_half);
    assert_eq!(there.restored_from, Some(y));
}
