//! Guests of a pool come and go while everything goes wrong: whoever drives them is killed at any moment, and somebody else
//! goes on from what is written down. `SKEP_CHAOS=full` runs all seeds; a seed that fails names itself, and `SKEP_SEED=n`
//! runs it alone.

#[path = "pools/copies.rs"]
mod copies;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_model::id::GuestId;
use skep_model::pool::{
    Addresses, Guest, GuestSize, Kind, Note, Phase, Recipe, Resizing, VmidRange,
};
use skep_pools::{Ask, Driver, Turn, Way, orphans, way};
use skep_proxmox::calls::cluster;
use skep_proxmox::{Client, Credentials, GuestKind};
use skep_proxmox_simulation::{Faults, Line, Owner, World};

/// Of `make check`, and of `make chaos`.
const SEEDS: [u64; 2] = [30, 1_000];
/// How long things go wrong, and how long nothing does afterwards; virtual.
const TROUBLE: Duration = Duration::from_secs(20 * 60);
const CALM: Duration = Duration::from_secs(90 * 60);
/// The latest that a lost clone comes about, and has a name.
const LATEST: Duration = Duration::from_secs(25 * 60);
/// Between two looks at all guests.
const PAUSE_S: std::ops::Range<u64> = 3..20;

/// Every other seed is of containers, and every other pair has a range of addresses.
fn recipe(seed: u64) -> Recipe {
    let kind = kind(seed);
    let parse = |text: &str| text.parse().expect("an address");
    let addresses = Addresses {
        first: parse("10.0.0.100"),
        last: parse("10.0.0.109"),
        prefix: 24,
        gateway: parse("10.0.0.1"),
        dns: Vec::new(),
    };
    let templates = [("pve1", 9000), ("pve2", 9001), ("pve3", 9002)];
    Recipe {
        kind,
        templates: templates.map(|(host, vmid)| (host.to_owned(), vmid)).into(),
        full_clone: false,
        storage: None,
        cores: 4,
        memory_mib: 8192,
        disk_gib: 32,
        disk: if kind == Kind::Vm { "scsi0" } else { "rootfs" }.to_owned(),
        bridge: "vmbr0".to_owned(),
        vlan: Some(10),
        user: Some("skep".to_owned()),
        ssh_keys: vec!["ssh-ed25519 AAA a@b".to_owned()],
        vmids: VmidRange {
            first: 5000,
            last: 5015,
        },
        resource_pool: "skep".to_owned(),
        max_per_host: None,
        addresses: (seed % 4 >= 2).then_some(addresses),
    }
}

const fn kind(seed: u64) -> Kind {
    match seed % 2 {
        0 => Kind::Vm,
        _ => Kind::Lxc,
    }
}

/// What is written down, as the replicated state would keep it.
struct Book {
    guests: BTreeMap<GuestId, Guest>,
    next: u128,
}

impl Book {
    fn all(&self) -> Vec<Guest> {
        self.guests.values().cloned().collect()
    }

    fn add(&mut self) {
        self.next += 1;
        let guest = Guest::planned(GuestId::from_u128(self.next << 64));
        self.guests.insert(guest.id, guest);
    }

    fn note(&mut self, id: GuestId, note: Note) {
        self.guests.get_mut(&id).expect("known").take(note);
    }

    fn staying(&self) -> usize {
        let all = self.guests.values();
        all.filter(|guest| guest.phase < Phase::Leaving).count()
    }
}

struct Run {
    seed: u64,
    line: Line,
    book: Book,
    random: fastrand::Rng,
    client: Client<Line>,
    kills: usize,
    /// How often one was told how to join; each time with a token of its own.
    told: usize,
    /// How often one was asked to become another size, and how often one became it.
    resizes: [usize; 2],
    copies: copies::Seen,
}

impl Run {
    fn new(seed: u64) -> Self {
        let kind = match kind(seed) {
            Kind::Vm => GuestKind::Qemu,
            Kind::Lxc => GuestKind::Lxc,
        };
        let line = Line::new(World::of(seed, kind));
        // Of every other seed with VMs, cores and memory can be plugged in.
        line.with(|world| world.is_hot = seed % 4 == 2);
        let token = Credentials::token("skep@pve!a=b").expect("one");
        Self {
            seed,
            client: Client::new(line.clone(), token),
            line,
            book: Book {
                guests: BTreeMap::new(),
                next: 0,
            },
            random: fastrand::Rng::with_seed(seed ^ 0x5eed),
            kills: 0,
            told: 0,
            resizes: [0; 2],
            copies: copies::Seen::default(),
        }
    }

    /// A turn of a guest. Killed: what it was doing stops wherever it is, and what it has found out is lost.
    async fn turn(&mut self, id: GuestId, may_kill: bool) {
        let (recipe, all, now_ms) = (
            recipe(self.seed),
            self.book.all(),
            self.line.with(|it| it.now_ms()),
        );
        let guest = self.book.guests[&id].clone();
        let (limit, introduction_limit) = (self.limit(may_kill), self.limit(may_kill));
        let driver = Driver {
            client: &self.client,
            recipe: &recipe,
        };
        let outcome = tokio::time::timeout(limit, driver.turn(&guest, &all, now_ms)).await;
        if let Ok(Ok(turn)) = &outcome {
            self.check_copy(&guest, turn);
        }
        // Another copy may be named while one is restored: whoever drives the guest hears of it later.
        if may_kill && guest.restoring.is_some() && self.random.u32(..12) == 0 {
            self.name_another(id, |_| true);
        }
        let driver = Driver {
            client: &self.client,
            recipe: &recipe,
        };
        match outcome {
            Ok(Ok(Turn::Note(note))) => {
                self.resizes[1] += usize::from(matches!(note, Note::Resized { .. }));
                self.book.note(id, note);
            }
            Ok(Ok(Turn::Did(Ask::ShutDown))) => self.check_stop(&guest),
            Ok(Ok(Turn::Introduce)) => {
                let now_ms = self.line.with(|it| it.now_ms());
                self.book.note(id, Note::Introduced { now_ms });
                self.told += 1;
                let text = told(id, self.told);
                let introduced = driver.introduce(&guest, &text);
                match tokio::time::timeout(introduction_limit, introduced).await {
                    Ok(Ok(turn)) => assert!(
                        matches!(turn, Turn::Did(_) | Turn::Wait(_)),
                        "seed {}: {turn:?}",
                        self.seed
                    ),
                    Ok(Err(error)) => assert!(
                        !format!("{error:?}").contains(SECRET),
                        "seed {}: {error:?}",
                        self.seed
                    ),
                    Err(_) => self.kills += 1,
                }
            }
            Ok(Err(error)) => {
                let is_failed = error.text.contains("it does not become");
                self.copies.failed += usize::from(is_failed);
            }
            Ok(Ok(Turn::Did(_) | Turn::Done | Turn::Wait(_))) => {}
            Err(_) => self.kills += 1,
        }
        self.check();
    }

    /// How long one does something before it is killed.
    fn limit(&mut self, may_kill: bool) -> Duration {
        match may_kill && self.random.u32(..4) == 0 {
            true => Duration::from_millis(self.random.u64(1..20_000)),
            false => Duration::from_secs(3_600),
        }
    }

    /// Nothing is shut down to become another size that could have it while it runs, or whose node was not emptied for that.
    fn check_stop(&self, guest: &Guest) {
        let resizing = guest.resizing.as_ref();
        let Some(resizing) = resizing.filter(|_| guest.restoring.is_none()) else {
            return;
        };
        assert!(
            resizing.stops && kind(self.seed) == Kind::Vm,
            "seed {}: {guest:?} was shut down",
            self.seed
        );
    }

    /// What holds at every moment.
    fn check(&self) {
        let (mut numbers, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for guest in self
            .book
            .guests
            .values()
            .filter(|it| it.phase < Phase::Gone)
        {
            let Some(vmid) = guest.vmid else { continue };
            if let Some(given) = guest.given {
                assert!(
                    addresses.insert(given),
                    "seed {}: {given} is two guests'",
                    self.seed
                );
            }
            assert!(
                numbers.insert(vmid),
                "seed {}: {vmid} is two guests'",
                self.seed
            );
        }
        self.line.with(|world| {
            assert!(
                world.violations.is_empty(),
                "seed {}: {:?}",
                self.seed,
                world.violations
            );
            for there in world.guests.values() {
                let seed = self.seed;
                let is_ours = there.owner != Owner::Foreign;
                assert!(
                    !(is_ours && there.is_running && there.is_half),
                    "seed {seed}: half restored, and started: {there:?}"
                );
                // One whose disks are being replaced has no name meanwhile.
                let (Some(told), Some(name)) = (&there.told, there.name()) else {
                    continue;
                };
                let own = format!("SKEP_NODE_NAME={name}");
                let is_its_own = told.lines().any(|line| line == own);
                let is_lost = !told.contains("SKEP_");
                assert!(
                    is_its_own || is_lost,
                    "seed {}: {name} was told another's token",
                    self.seed
                );
            }
        });
    }

    /// Whoever runs the pool changes their mind; the nodes of guests that run join.
    fn wish(&mut self) {
        if self.book.staying() < 5 && self.random.u32(..3) == 0 {
            self.book.add();
        }
        let staying: Vec<GuestId> = self
            .book
            .guests
            .values()
            .filter(|guest| guest.phase < Phase::Leaving)
            .map(|guest| guest.id)
            .collect();
        if !staying.is_empty() && self.random.u32(..10) == 0 {
            let id = staying[self.random.usize(..staying.len())];
            self.book.note(id, Note::Leave);
        }
        self.join();
    }

    /// Somebody gives a guest another size, one at a time; or another one in its place, when the first is under way.
    async fn resize(&mut self) {
        let all = self.book.guests.values();
        let ready: Vec<Guest> = all
            .filter(|guest| guest.phase == Phase::Ready && guest.restoring.is_none())
            .cloned()
            .collect();
        let under_way = ready.iter().find(|guest| guest.resizing.is_some());
        let chance = if under_way.is_some() { 12 } else { 4 };
        if ready.is_empty() || self.random.u32(..chance) != 0 {
            return;
        }
        let any = &ready[self.random.usize(..ready.len())];
        let guest = under_way.unwrap_or(any).clone();
        let recipe = recipe(self.seed);
        let driver = Driver {
            client: &self.client,
            recipe: &recipe,
        };
        let Ok(Some(look)) = driver.size_of(&guest).await else {
            return;
        };
        let pick = |random: &mut fastrand::Rng, of: &[u32]| of[random.usize(..of.len())];
        let to = GuestSize {
            cores: pick(&mut self.random, &[2, 4, 8, 12]),
            memory_mib: pick(&mut self.random, &[4_096, 6_000, 8_192, 16_384]),
            disk_gib: look.size.disk_gib + pick(&mut self.random, &[0, 0, 8]),
        };
        let may_interrupt = self.random.u32(..4) != 0;
        let one = self.book.guests.get_mut(&guest.id).expect("known");
        let down = guest.resizing.as_ref().and_then(|it| it.down);
        one.size = Some(to);
        one.resizing = Some(Resizing {
            asked_ms: 0,
            from: look.size,
            stops: way(recipe.kind, &look, to) == Way::Down
                || guest.resizing.as_ref().is_some_and(Resizing::keeps_empty),
            may_interrupt,
            drain_ms: 0,
            held: None,
            down,
            done_ms: None,
        });
        self.resizes[0] += 1;
    }

    /// The agents of guests that were resized are back; and where nothing else helps, they may be shut down.
    fn come_back(&mut self, may_interrupt: bool) {
        for guest in self.book.guests.values_mut() {
            guest.resizing = guest.resizing.take().filter(|it| it.done_ms.is_none());
            if let Some(resizing) = &mut guest.resizing {
                resizing.may_interrupt |= may_interrupt;
            }
        }
    }

    /// Guests that run and know how join: by what they were told, and in no other way.
    fn join(&mut self) {
        let knows = |guest: &Guest| {
            let vmid = guest.vmid.unwrap_or_default();
            self.line.with(|world| {
                let there = world.guests.get(&vmid);
                there.is_some_and(|it| {
                    let told = it.told.as_deref().unwrap_or_default();
                    it.is_running
                        && it.name() == Some(guest.name().as_str())
                        && told.contains(SECRET)
                })
            })
        };
        let ready: Vec<GuestId> = self
            .book
            .guests
            .values()
            .filter(|guest| guest.phase == Phase::Starting && knows(guest))
            .map(|guest| guest.id)
            .collect();
        for id in ready {
            self.book.note(id, Note::Joined);
        }
    }

    async fn trouble(&mut self) {
        let until = tokio::time::Instant::now() + TROUBLE;
        while tokio::time::Instant::now() < until {
            self.wish();
            self.copy().await;
            self.upset_copies();
            self.resize().await;
            self.come_back(false);
            self.turn_all(true).await;
        }
    }

    /// Nothing goes wrong any more: all of it comes to an end by itself.
    async fn calm(&mut self) {
        let until = tokio::time::Instant::now() + CALM;
        while !self.is_settled() && tokio::time::Instant::now() < until {
            self.join();
            self.turn_all(false).await;
            self.give_up_copies();
            self.come_back(true);
        }
        // What has come to an end stays as it is, whatever else comes about.
        let until = tokio::time::Instant::now() + LATEST;
        while tokio::time::Instant::now() < until {
            self.turn_all(false).await;
        }
    }

    async fn turn_all(&mut self, may_kill: bool) {
        for id in self.book.guests.keys().copied().collect::<Vec<_>>() {
            if self.book.guests[&id].phase != Phase::Gone {
                self.turn(id, may_kill).await;
            }
        }
        let pause = self.random.u64(PAUSE_S);
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }

    fn is_settled(&self) -> bool {
        let mut all = self.book.guests.values();
        all.all(|guest| {
            let is_still = guest.restoring.is_none() && guest.resizing.is_none();
            matches!(guest.phase, Phase::Ready | Phase::Gone) && is_still
        })
    }

    /// Everything is as it is written down, and what is not is told.
    async fn settle(&self) -> usize {
        let rows = self
            .client
            .send(&cluster::guests())
            .await
            .expect("calm")
            .rows;
        let told: BTreeSet<u32> = orphans(&self.book.all(), &rows)
            .iter()
            .map(|it| it.vmid)
            .collect();
        for guest in self.book.guests.values() {
            let is_still = guest.restoring.is_none() && guest.resizing.is_none();
            let is_right = matches!(guest.phase, Phase::Ready | Phase::Gone) && is_still;
            assert!(
                is_right,
                "seed {}: it does not converge: {guest:?}",
                self.seed
            );
        }
        let ready: Vec<&Guest> = self
            .book
            .guests
            .values()
            .filter(|guest| guest.phase == Phase::Ready)
            .collect();
        let known: BTreeMap<u32, String> = ready
            .iter()
            .filter_map(|guest| Some((guest.vmid?, guest.name())))
            .collect();
        // Nobody but high availability does, and what is written down for the next start is in effect then.
        self.line.with(World::start_ended);
        for guest in &ready {
            self.check_size(guest).await;
        }
        self.line.with(|world| {
            let seed = self.seed;
            for (vmid, there) in &world.guests {
                let is_told = told.contains(vmid);
                match &there.owner {
                    Owner::Ours(name) => {
                        let is_known = known.get(vmid) == Some(name);
                        assert!(
                            is_known != is_told,
                            "seed {seed}: {vmid} {name} told: {is_told}: {there:?}, written down: {:?}",
                            self.book.guests.values().find(|it| it.name() == *name)
                        );
                        assert!(
                            !is_known || there.is_running,
                            "seed {seed}: {vmid} is stopped"
                        );
                    }
                    // One that has a name of ours is told, too.
                    Owner::Foreign => {
                        let name = there.name().unwrap_or_default();
                        let is_stranger = name.starts_with("theirs");
                        assert!(
                            !is_stranger || !is_told,
                            "seed {seed}: {vmid} is a stranger"
                        );
                    }
                }
            }
            for (vmid, name) in &known {
                let there = world.guests.get(vmid);
                let owner = there.map(|there| &there.owner);
                assert_eq!(owner, Some(&Owner::Ours(name.clone())), "seed {seed}");
                // Its token is in its configuration no more; what else it starts with is, and what its template has there.
                let env = there.and_then(|it| it.config.get("env"));
                let kept = format!("TZ=UTC\0SKEP_NODE_NAME={name}");
                let expected = (kind(seed) == Kind::Lxc).then_some(&kept);
                assert_eq!(env, expected, "seed {seed}: {name}");
            }
        });
        told.len()
    }
}

impl Run {
    /// It is as large as it is to be, and nothing waits for its next start.
    async fn check_size(&self, guest: &Guest) {
        let recipe = recipe(self.seed);
        let driver = Driver {
            client: &self.client,
            recipe: &recipe,
        };
        let look = driver.size_of(guest).await.expect("calm").expect("there");
        let (is, to) = (look.size, guest.size(&recipe));
        let rounded = to.memory_mib.next_multiple_of(512);
        let is_right = (is.cores, is.disk_gib) == (to.cores, to.disk_gib)
            && (is.memory_mib == to.memory_mib || (look.hot.memory && is.memory_mib == rounded));
        let seed = self.seed;
        assert!(is_right, "seed {seed}: {} has {is}, not {to}", guest.name());
        self.line.with(|world| {
            let there = &world.guests[&guest.vmid.expect("made")];
            assert!(there.pending.is_empty(), "seed {seed}: {there:?}");
        });
    }
}

/// What is told, and nobody prints.
const SECRET: &str = "hush-";

/// The environment of a guest's agent, with a token that is this introduction's alone.
fn told(id: GuestId, number: usize) -> String {
    let name = skep_model::pool::name_of(id);
    format!("SKEP_NODE_NAME={name}\nSKEP_JOIN_TOKEN={SECRET}{number}\n")
}

/// What a run has seen, to know that it has seen something.
async fn run(seed: u64) -> [usize; 13] {
    let mut run = Run::new(seed);
    run.line.with(|world| {
        world.faults = Faults {
            broken_line: 40,
            unknown: 30,
            lock_timeout: 40,
            failed_task: 60,
            people: 15,
        };
    });
    run.trouble().await;
    run.line.with(|world| {
        world.faults = Faults::default();
        for is_online in world.hosts.values_mut() {
            *is_online = true;
        }
    });
    run.calm().await;
    let told = run.settle().await;
    let count = |call: &str| {
        let made = run
            .line
            .with(|world| world.calls.get(call).copied().unwrap_or(0));
        usize::try_from(made).expect("few")
    };
    [
        run.book.guests.len(),
        count("POST clone"),
        run.kills,
        run.told,
        told,
        count("POST vzdump"),
        count("POST restore"),
        run.resizes[0],
        run.resizes[1],
        run.copies.restored,
        run.copies.failed,
        run.copies.instead,
        run.copies.not_back,
    ]
}

#[test]
fn nothing_is_lost_doubled_or_anybody_elses() {
    let seeds: Vec<u64> = match std::env::var("SKEP_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => {
            let is_full = std::env::var("SKEP_CHAOS").is_ok_and(|it| it == "full");
            (0..SEEDS[usize::from(is_full)]).collect()
        }
    };
    let mut seen = [0; 13];
    for seed in &seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let one = runtime.block_on(run(*seed));
        seen = std::array::from_fn(|number| seen[number] + one[number]);
    }
    let [
        guests,
        clones,
        kills,
        introduced,
        told,
        copies,
        restores,
        asked,
        resized,
        back,
        failed,
        instead,
        not_back,
    ] = seen;
    println!(
        "{} seeds: {guests} guests, {clones} clones, {kills} kills, {introduced} introductions, {copies} copies, {restores} restores ({failed} failed, {instead} given up for another copy, {not_back} turned out to be another's), {back} guests back, {asked} sizes asked for, {resized} had, {told} orphans told, 0 violations",
        seeds.len()
    );
    if seeds.len() > 1 {
        // A first copy that comes about between the second's end and its start is rarer than that.
        let (_rare, common) = seen.split_last().expect("some");
        assert!(
            common.iter().all(|count| *count > 0),
            "nothing went wrong: {seen:?}"
        );
    }
}
