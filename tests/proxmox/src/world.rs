//! What there is, and what happens to it with time.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use skep_proxmox::{GuestKind, Reply};
use tokio::time::Instant;

use crate::answer::refused;
use crate::available::Power;
use crate::backups::Archive;
use crate::disks::Disks;
use crate::guest::{Guest, Owner};
use crate::requests;

/// A restore whose answer was lost comes about within so many seconds: its host waits for a lock.
const LATE_RESTORE_S: u64 = 10;

/// How much goes wrong: chances of one in a thousand, for each request or each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// A request whose line breaks before, and the same after it took effect.
    pub broken_line: u32,
    /// An answer of 596, of which half had their effect.
    pub unknown: u32,
    /// A lock that is not to be had.
    pub lock_timeout: u32,
    /// A task that fails.
    pub failed_task: u32,
    /// A second in which somebody does something to a guest or a host.
    pub people: u32,
}

/// A task.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) upid: String,
    pub(crate) host: String,
    pub(crate) about: u32,
    pub(crate) begun_ms: u64,
    pub(crate) ends_ms: u64,
    pub(crate) effect: Effect,
    pub(crate) exit: Option<String>,
    pub(crate) log: Vec<String>,
}

/// What a task does when it ends.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    Cloned {
        vmid: u32,
        config: BTreeMap<String, String>,
        pool: Option<String>,
    },
    Started(u32),
    Stopped(u32),
    /// Stopped, and started with its configuration as it is by then.
    Rebooted(u32),
    /// High availability is told to start it, or to stop it.
    Ordered(u32, Power),
    Removed(u32),
    BackedUp(Box<Archive>),
    /// A guest becomes a copy; with what was written down about it before.
    PutBack(u32, Box<Archive>, BTreeMap<String, String>),
    /// It fails before anything of a guest was changed.
    FailsBefore(u32, BTreeMap<String, String>),
    Nothing,
    /// It fails.
    Fails,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fate {
    pub(crate) before: Duration,
    pub(crate) after: Duration,
    pub(crate) is_lost_before: bool,
    pub(crate) is_lost_after: bool,
}

/// A Proxmox cluster.
#[derive(Debug)]
pub struct World {
    pub(crate) random: fastrand::Rng,
    began: Instant,
    last_ms: u64,
    /// How much faster than outside time passes.
    pub(crate) speed: u32,
    /// `qemu` or `lxc`: what its templates, and so all guests, are.
    pub(crate) kind: GuestKind,
    /// Cores and memory of its VMs can be plugged in.
    pub is_hot: bool,
    /// The version that it says it is.
    pub version: String,
    /// How much goes wrong.
    pub faults: Faults,
    /// Hosts, and whether each is there.
    pub hosts: BTreeMap<String, bool>,
    /// Since when hosts are away, ms.
    pub(crate) away_since: BTreeMap<String, u64>,
    /// Guests by number.
    pub guests: BTreeMap<u32, Guest>,
    pub(crate) tasks: Vec<Task>,
    /// Copies of guests.
    pub archives: Vec<Archive>,
    /// What is on their disks, where something runs in them.
    pub disks: Option<Disks>,
    /// When the world began, ms since 1970 by a clock outside: what copies and tasks say of time follows from it.
    pub epoch_ms: u64,
    /// Requests that were answered as lost, and take effect at their time.
    late: Vec<(u64, http::Request<Bytes>)>,
    /// Numbers that somebody has freed, from when on they are another's, and the name that it has then.
    pub(crate) freed: Vec<(u64, u32, Option<String>)>,
    /// What was done to guests that are not whose they were taken for. Must stay empty.
    pub violations: Vec<String>,
    /// How often each call was made.
    pub calls: BTreeMap<String, u64>,
    pub(crate) made: u32,
}

impl World {
    /// Three hosts, each with a template of a VM from 9000 on.
    pub fn new(seed: u64) -> Self {
        Self::of(seed, GuestKind::Qemu)
    }

    /// The same with guests of a kind.
    pub fn of(seed: u64, kind: GuestKind) -> Self {
        let mut world = Self {
            random: fastrand::Rng::with_seed(seed),
            began: Instant::now(),
            last_ms: 0,
            speed: 1,
            kind,
            is_hot: false,
            version: "9.2.4".to_owned(),
            faults: Faults::default(),
            hosts: BTreeMap::new(),
            away_since: BTreeMap::new(),
            guests: BTreeMap::new(),
            tasks: Vec::new(),
            archives: Vec::new(),
            disks: None,
            epoch_ms: 0,
            late: Vec::new(),
            freed: Vec::new(),
            violations: Vec::new(),
            calls: BTreeMap::new(),
            made: 0,
        };
        for (number, host) in (9000..).zip(["pve1", "pve2", "pve3"]) {
            world.hosts.insert(host.to_owned(), true);
            let mut config = world.fresh_config("template");
            config.insert("template".to_owned(), "1".to_owned());
            let template = world.guest(host, Owner::Foreign, config);
            world.guests.insert(number, template);
        }
        world
    }

    pub(crate) fn guest(
        &self,
        host: &str,
        owner: Owner,
        config: BTreeMap<String, String>,
    ) -> Guest {
        Guest {
            owner,
            host: host.to_owned(),
            config,
            pending: BTreeMap::new(),
            pool: None,
            is_running: false,
            boots: 0,
            has_ended: false,
            is_ha: false,
            is_bound: false,
            is_unwanted: false,
            order: None,
            told: None,
            restored_from: None,
            is_half: false,
            made_ms: self.now_ms(),
        }
    }

    /// What a guest that is just made is written down as: its address and id are its own.
    pub(crate) fn fresh_config(&mut self, name: &str) -> BTreeMap<String, String> {
        self.made += 1;
        let number = self.made;
        let mac = format!("BC:24:11:00:{:02X}:{:02X}", number >> 8, number & 255);
        let common = [("cores", "1".to_owned()), ("memory", "1024".to_owned())];
        let own = match self.kind {
            GuestKind::Qemu => [
                ("name", name.to_owned()),
                ("scsi0", "local:vm-disk-0,size=3584M".to_owned()),
                ("net0", format!("virtio={mac},bridge=vmbr0")),
                (
                    "smbios1",
                    format!("uuid=00000000-0000-4000-8000-{number:012x}"),
                ),
            ],
            GuestKind::Lxc => [
                ("hostname", name.to_owned()),
                ("rootfs", "local:vm-disk-0,size=3584M".to_owned()),
                (
                    "net0",
                    format!("name=eth0,bridge=vmbr0,hwaddr={mac},ip=dhcp,type=veth"),
                ),
                ("env", "TZ=UTC".to_owned()),
            ],
        };
        let hot = [
            ("hotplug", "network,disk,cpu,memory".to_owned()),
            ("numa", "1".to_owned()),
            ("vcpus", "1".to_owned()),
            ("cores", "16".to_owned()),
        ];
        let hot = hot.into_iter().filter(|_| self.is_hot);
        let all = common.into_iter().chain(own).chain(hot);
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Since the world began, ms.
    pub fn now_ms(&self) -> u64 {
        let outside = u64::try_from(self.began.elapsed().as_millis());
        outside.map_or(u64::MAX, |ms| ms.saturating_mul(u64::from(self.speed)))
    }

    /// The same as a clock outside shows it, which nobody hurries.
    pub(crate) fn outside_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Time passes so many times as fast as outside from now on.
    pub fn hurry(&mut self, speed: u32) {
        self.speed = speed.max(1);
    }

    pub(crate) fn chance(&mut self, of_thousand: u32) -> bool {
        self.random.u32(..1_000) < of_thousand
    }

    /// What has happened since somebody looked last.
    pub(crate) fn catch_up(&mut self) {
        let now = self.now_ms();
        while self.last_ms + 1_000 <= now {
            self.last_ms += 1_000;
            self.end_tasks(self.last_ms);
            self.do_late(self.last_ms);
            self.take_numbers(self.last_ms);
            self.keep_running(self.last_ms);
            self.obey_orders(self.last_ms);
            self.recover(self.last_ms);
            if self.chance(self.faults.people) {
                self.somebody_acts();
            }
        }
        self.end_tasks(now);
    }

    /// A clone whose answer was lost comes about after all.
    fn do_late(&mut self, now: u64) {
        let (due, later) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.late = later;
        let due: Vec<(u64, http::Request<Bytes>)> = due;
        for (_, request) in due {
            // Whoever has taken the number in between was never meant: nobody could have known.
            if !is_restore(&request) || self.is_still_meant(&request) {
                requests::answer(self, &request);
            }
        }
    }

    /// A host loses its power, and what runs there its memory; or it comes back, with nothing running.
    pub fn power(&mut self, host: &str, is_on: bool) -> bool {
        let now = self.now_ms();
        let Some(is_online) = self.hosts.get_mut(host) else {
            return false;
        };
        *is_online = is_on;
        self.away_since.remove(host);
        if !is_on {
            self.away_since.insert(host.to_owned(), now);
            for guest in self.guests.values_mut().filter(|it| it.host == host) {
                guest.is_running = false;
            }
        }
        true
    }

    fn end_tasks(&mut self, now: u64) {
        for number in 0..self.tasks.len() {
            let task = &self.tasks[number];
            if task.exit.is_some() || task.ends_ms > now {
                continue;
            }
            let (effect, host) = (task.effect.clone(), task.host.clone());
            let is_failed = self.chance(self.faults.failed_task);
            let exit = self.end(effect, &host, is_failed);
            self.tasks[number].exit = Some(exit);
        }
    }

    fn end(&mut self, effect: Effect, host: &str, is_failed: bool) -> String {
        let failed = "command 'x' failed: exit code 1".to_owned();
        match effect {
            Effect::Cloned { vmid, config, pool } => {
                let is_ours = self
                    .guests
                    .get(&vmid)
                    .is_some_and(|it| it.lock() == Some("clone"));
                if !is_ours {
                    return failed;
                }
                if is_failed {
                    self.guests.remove(&vmid);
                    return failed;
                }
                if let Some(guest) = self.guests.get_mut(&vmid) {
                    guest.config = config;
                    guest.pool = pool;
                }
                "OK".to_owned()
            }
            Effect::BackedUp(archive) => match self.keep(*archive, is_failed) {
                true => "OK".to_owned(),
                false => failed,
            },
            Effect::PutBack(vmid, archive, before) => {
                match self.become_copy(vmid, (&archive, before), is_failed) {
                    true => "OK".to_owned(),
                    false => failed,
                }
            }
            Effect::FailsBefore(vmid, before) => {
                if let Some(guest) = self.guests.get_mut(&vmid) {
                    guest.config = before;
                }
                "no such volume".to_owned()
            }
            Effect::Fails => failed,
            _ if is_failed => failed,
            Effect::Nothing => "OK".to_owned(),
            Effect::Started(vmid) => match self.on(vmid, host) {
                Some(guest) => {
                    guest.start();
                    "OK".to_owned()
                }
                None => gone(vmid),
            },
            Effect::Rebooted(vmid) => match self.on(vmid, host) {
                Some(guest) if guest.is_running => {
                    guest.start();
                    "OK".to_owned()
                }
                Some(_) => format!("CT {vmid} not running"),
                None => gone(vmid),
            },
            Effect::Stopped(vmid) => match self.on(vmid, host) {
                Some(guest) => {
                    guest.is_running = false;
                    "OK".to_owned()
                }
                None => gone(vmid),
            },
            Effect::Ordered(vmid, power) => {
                self.order(vmid, power);
                "OK".to_owned()
            }
            Effect::Removed(vmid) => match self.on(vmid, host).map(|it| it.is_running) {
                Some(true) => format!("VM {vmid} is running - destroy failed"),
                Some(false) => {
                    self.guests.remove(&vmid);
                    "OK".to_owned()
                }
                None => gone(vmid),
            },
        }
    }

    fn on(&mut self, vmid: u32, host: &str) -> Option<&mut Guest> {
        self.guests
            .get_mut(&vmid)
            .filter(|guest| guest.host == host)
    }

    pub(crate) fn fate(&mut self, request: &http::Request<Bytes>) -> Fate {
        let _ = request;
        let is_lost = self.chance(self.faults.broken_line);
        let is_lost_before = is_lost && self.random.bool();
        Fate {
            before: Duration::from_millis(self.random.u64(1..40)) / self.speed,
            after: Duration::from_millis(self.random.u64(1..40)) / self.speed,
            is_lost_before,
            is_lost_after: is_lost && !is_lost_before,
        }
    }

    pub(crate) fn answer(&mut self, request: &http::Request<Bytes>) -> Reply {
        let is_change = request.method() != http::Method::GET;
        let is_old = self.random.bool();
        if is_change && self.chance(self.faults.lock_timeout) {
            let text = "can't lock file '/var/lock/qemu-server/lock-1.conf' - got timeout";
            return refused(500, text, is_old);
        }
        let is_unknown = self.chance(self.faults.unknown);
        if is_unknown && self.random.bool() {
            if request.uri().path().ends_with("/clone") {
                // Mostly soon; one in eight so late that nobody waits for it any more.
                let longest = if self.random.u32(..8) == 0 {
                    1_200
                } else {
                    300
                };
                let due = self.now_ms() + 1_000 * self.random.u64(1..longest);
                self.late.push((due, request.clone()));
            } else if is_restore(request) {
                let due = self.now_ms() + 1_000 * self.random.u64(1..LATE_RESTORE_S);
                self.late.push((due, request.clone()));
            }
            return refused(596, "Connection timed out", is_old);
        }
        let reply = requests::answer(self, request);
        match is_unknown {
            true => refused(596, "Connection timed out", is_old),
            false => reply,
        }
    }

    pub(crate) fn begin(
        &mut self,
        (host, kind, about): (&str, &str, u32),
        effect: Effect,
        takes_ms: u64,
    ) -> String {
        let now = self.now_ms();
        let number = self.tasks.len() as u32;
        let upid = format!(
            "UPID:{host}:{number:08X}:{:08X}:{:08X}:{kind}:{about}:skep@pve!a:",
            number + 1,
            now / 1_000
        );
        self.tasks.push(Task {
            upid: upid.clone(),
            host: host.to_owned(),
            about,
            begun_ms: self.outside_ms(),
            ends_ms: now + takes_ms,
            effect,
            exit: None,
            log: Vec::new(),
        });
        upid
    }
}

fn is_restore(request: &http::Request<Bytes>) -> bool {
    let path = request.uri().path();
    request.method() == http::Method::POST && (path.ends_with("/qemu") || path.ends_with("/lxc"))
}

fn gone(vmid: u32) -> String {
    format!("Configuration file 'nodes/pve/qemu-server/{vmid}.conf' does not exist")
}
