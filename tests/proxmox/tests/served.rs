//! The client as it is used, against a cluster that is served: whom it believes, what it does when a host or a connection goes
//! away, and a guest's whole way over TLS.

use std::sync::atomic::Ordering;
use std::time::Duration;

use skep_model::id::GuestId;
use skep_model::pool::{Guest, Kind, Note, Phase, Recipe, VmidRange};
use skep_pools::{Away, Driver, Turn, Verdict, WATCHDOG_MS};
use skep_proxmox::calls::{access, agent, cluster, guests};
use skep_proxmox::{At, Client, Credentials, GuestKind, Https, Kind as ErrorKind, Trust, Vmid};
use skep_proxmox_simulation::server::{Agents, Certificates, Host, Program, obey, serve};
use skep_proxmox_simulation::{Line, World};

const TOKEN: &str = "skep@pve!sim=secret";
/// Times as fast as outside: a turn takes a moment.
const SPEED: u32 = 200;

struct Served {
    line: Line,
    hosts: Vec<Host>,
    ca: String,
}

impl Served {
    async fn start() -> Self {
        let line = Line::new(World::new(7));
        line.with(|world| world.hurry(SPEED));
        let certificates = Certificates::new().expect("keys");
        let hosts = serve(&line, TOKEN, &certificates).await.expect("ports");
        Self {
            line,
            hosts,
            ca: certificates.pem(),
        }
    }

    fn client(&self, trust: &Trust) -> Client<Https> {
        let urls: Vec<String> = self
            .hosts
            .iter()
            .map(|host| format!("https://{}", host.address))
            .collect();
        let credentials = Credentials::token(TOKEN).expect("one");
        Client::new(Https::new(&urls, trust).expect("hosts"), credentials)
    }

    fn trusted(&self) -> Client<Https> {
        self.client(&Trust::Ca(self.ca.clone()))
    }

    fn obey(&self, command: &str) -> serde_json::Value {
        let answer = self.line.with(|world| obey(world, command));
        answer.expect(command)
    }
}

#[tokio::test]
async fn who_is_believed_and_who_may_ask() {
    let served = Served::start().await;
    let version = access::version();
    let by_ca = served.trusted().send(&version).await.expect("trusted");
    assert_eq!(by_ca.version, "9.2.4");
    let pins: Vec<&str> = served.hosts.iter().map(|host| host.pin.as_str()).collect();
    let by_pins = served.client(&Trust::pins(pins.iter().copied()).expect("pins"));
    by_pins.send(&version).await.expect("pinned");
    // Of three hosts one is believed: it is the one that answers.
    let by_last = served.client(&Trust::pins([pins[2]]).expect("a pin"));
    by_last.send(&version).await.expect("the third");
    let stranger = Certificates::new().expect("keys").pem();
    let refused = served.client(&Trust::Ca(stranger)).send(&version).await;
    assert_eq!(
        refused.expect_err("not believed").kind,
        ErrorKind::NotAnswered
    );

    let urls = [format!("https://{}", served.hosts[0].address)];
    let https = Https::new(&urls, &Trust::Ca(served.ca.clone())).expect("hosts");
    let other = Client::new(
        https,
        Credentials::token("skep@pve!sim=other").expect("one"),
    );
    let refused = other.send(&version).await.expect_err("not known");
    assert_eq!(refused.kind, ErrorKind::Unauthenticated, "{refused}");
}

#[tokio::test]
async fn a_host_that_is_away_is_gone_around_and_what_is_asked_of_it_is_said() {
    let served = Served::start().await;
    let client = served.trusted();
    client.send(&cluster::guests()).await.expect("all there");
    served.obey("kill pve1");
    // The line to it is open yet, and breaks: a read is made elsewhere.
    let rows = client.send(&cluster::guests()).await.expect("elsewhere");
    assert_eq!(rows.rows.len(), 3);
    let status = client.send(&cluster::status()).await.expect("elsewhere");
    assert!(status.is_quorate);
    let template = At {
        host: "pve1",
        kind: GuestKind::Qemu,
        vmid: Vmid::new(9000).expect("one"),
    };
    let refused = client.send(&guests::config(template)).await;
    assert_eq!(refused.expect_err("away").kind, ErrorKind::HostUnreachable);
    served.obey("kill pve2");
    let status = client.send(&cluster::status()).await.expect("the last");
    assert!(!status.is_quorate, "one of three");
    served.obey("kill pve3");
    let nobody = client.send(&cluster::guests()).await.expect_err("nobody");
    assert_eq!(nobody.kind, ErrorKind::NotAnswered);
    served.obey("revive pve2");
    client.send(&cluster::guests()).await.expect("back");
}

/// Their servers close what is idle for 5 s; the client has let go of it by then, and never sends a change over a line that
/// is about to be closed.
#[tokio::test]
async fn what_is_idle_is_let_go_of_before_hosts_close_it() {
    let served = Served::start().await;
    let client = served.trusted();
    for (pause_ms, made) in [(0, 1), (1_500, 1), (3_500, 2), (5_500, 3)] {
        // The pause itself is what is tested.
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        client.send(&access::version()).await.expect("answered");
        let connections = served.hosts[0].connections.load(Ordering::Relaxed);
        assert_eq!(connections, made, "after {pause_ms} ms");
    }
}

fn recipe() -> Recipe {
    Recipe {
        kind: Kind::Vm,
        templates: [("pve1".to_owned(), 9000), ("pve2".to_owned(), 9001)].into(),
        full_clone: false,
        storage: None,
        cores: 4,
        memory_mib: 8192,
        disk_gib: 32,
        disk: "scsi0".to_owned(),
        bridge: "vmbr0".to_owned(),
        vlan: None,
        user: Some("skep".to_owned()),
        ssh_keys: vec!["ssh-ed25519 AAA a@b".to_owned()],
        vmids: VmidRange {
            first: 5000,
            last: 5015,
        },
        resource_pool: "skep".to_owned(),
        max_per_host: None,
        addresses: None,
    }
}

/// Turns until the guest is as is wanted.
async fn until(served: &Served, guest: &mut Guest, text: &str, is: impl Fn(&Guest) -> bool) {
    let (recipe, client) = (recipe(), served.trusted());
    let driver = Driver {
        client: &client,
        recipe: &recipe,
    };
    let turns = async {
        while !is(guest) {
            let now_ms = served.line.with(|world| world.now_ms());
            let others = [guest.clone()];
            match driver
                .turn(guest, &others, now_ms)
                .await
                .expect("no faults")
            {
                Turn::Note(note) => guest.take(note),
                Turn::Introduce => {
                    guest.take(Note::Introduced { now_ms });
                    driver.introduce(guest, text).await.expect("told");
                }
                Turn::Did(_) | Turn::Wait(_) | Turn::Done => {}
            }
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(30), turns).await;
    outcome.unwrap_or_else(|_| panic!("{guest:?}"));
}

#[tokio::test]
async fn a_guest_comes_is_told_and_goes_over_tls() {
    let served = Served::start().await;
    let mut guest = Guest::planned(GuestId::from_u128(1 << 64));
    let text = "SKEP_SERVER=10.0.0.1:7072\nSKEP_JOIN_TOKEN=hush\n";
    until(&served, &mut guest, text, |it| it.address.is_some()).await;
    let vmid = guest.vmid.expect("a number");
    served.line.with(|world| {
        let there = &world.guests[&vmid];
        assert!(there.is_running, "{there:?}");
        assert_eq!(there.told.as_deref(), Some(text));
        let known = guest.identity.as_ref().expect("known");
        assert_eq!(there.mac().as_deref(), Some(known.mac.as_str()));
    });
    guest.take(Note::Joined);
    guest.take(Note::Leave);
    until(&served, &mut guest, text, |it| it.phase == Phase::Gone).await;
    served.line.with(|world| {
        assert!(!world.guests.contains_key(&vmid));
        assert!(world.violations.is_empty(), "{:?}", world.violations);
    });
}

#[tokio::test]
async fn the_guests_agent_is_asked_in_a_guest_that_runs() {
    let served = Served::start().await;
    let vmid = Vmid::new(9000).expect("one");
    let refused = served.trusted().send(&agent::ping("pve1", vmid)).await;
    assert_eq!(
        refused.expect_err("it does not run").kind,
        ErrorKind::NoAgent
    );
}

/// Waits for something that a process writes.
async fn until_log(file: &std::path::Path, is: impl Fn(&str) -> bool) -> String {
    let mut log = String::new();
    for _ in 0..200 {
        log = std::fs::read_to_string(file).unwrap_or_default();
        if is(&log) {
            return log;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{}: {log}", file.display());
}

#[tokio::test]
async fn what_runs_in_a_guest_knows_what_it_was_told_and_ends_with_its_host() {
    let served = Served::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut guest = Guest::planned(GuestId::from_u128(1 << 64));
    let text = "SKEP_SERVER=10.0.0.1:7072\nSKEP_JOIN_TOKEN=hush\n";
    // It says what it was given, then that it ends, which it does only with its standard input.
    let script = "echo \"$SKEP_JOIN_TOKEN $*\"; trap '' TERM; cat; echo ended";
    let program = Program {
        path: "/bin/sh".into(),
        arguments: ["-c", script, "sh"].map(str::to_owned).to_vec(),
        folder: folder.path().to_owned(),
    };
    let agents = tokio::spawn(Agents::new(served.line.clone(), program).keep());
    until(&served, &mut guest, text, |it| it.address.is_some()).await;
    let known = guest.identity.clone().expect("known");
    let log = folder.path().join(known.mac.replace(':', "-")).join("log");
    let started = until_log(&log, |log| log.ends_with('\n')).await;
    let uuid = known.smbios.expect("a VM has one");
    let expected = format!("hush --mac {}", known.mac);
    assert!(started.starts_with(&expected), "{started}");
    assert!(
        started.trim_end().ends_with(&format!("--uuid {uuid}")),
        "{started}"
    );

    let host = guest.host.clone().expect("a host");
    served.obey(&format!("kill {host}"));
    served.obey(&format!("revive {host}"));
    // It does not run until somebody starts it, and then it knows what it was told before.
    until(&served, &mut guest, text, |it| it.phase == Phase::Starting).await;
    let started_again = until_restarted(&served, &mut guest, (&log, text)).await;
    assert_eq!(started_again.matches("hush").count(), 2, "{started_again}");
    assert!(
        !started_again.contains("ended"),
        "without power nothing says goodbye"
    );
    agents.abort();
}

async fn until_restarted(
    served: &Served,
    guest: &mut Guest,
    (log, text): (&std::path::Path, &str),
) -> String {
    let vmid = guest.vmid.expect("a number");
    until(served, guest, text, |_| {
        served.line.with(|world| world.guests[&vmid].is_running)
    })
    .await;
    until_log(log, |log| log.matches("hush").count() > 1).await
}

#[tokio::test]
async fn a_guest_is_dead_when_it_was_stopped_and_not_when_its_host_is_away() {
    let served = Served::start().await;
    let mut guest = Guest::planned(GuestId::from_u128(1 << 64));
    let text = "SKEP_JOIN_TOKEN=hush\n";
    until(&served, &mut guest, text, |it| it.address.is_some()).await;
    let (recipe, client) = (recipe(), served.trusted());
    let driver = Driver {
        client: &client,
        recipe: &recipe,
    };
    let host = guest.host.clone().expect("a host");
    let vmid = guest.vmid.expect("a number");
    let now_ms = 1_000_000;
    let mut away = Away::default();
    served.obey(&format!("kill {host}"));
    let mut verdict = driver.fence(&guest, &mut away, now_ms).await;
    for later_ms in (0..=WATCHDOG_MS).step_by(5_000) {
        verdict = driver.fence(&guest, &mut away, now_ms + later_ms).await;
    }
    let verdict = verdict.expect("looked");
    assert!(
        matches!(&verdict, Verdict::NotYet { why } if why.contains("is away")),
        "{verdict:?}"
    );
    served.obey(&format!("revive {host}"));
    served
        .line
        .with(|world| world.guests.get_mut(&vmid).expect("there").is_running = true);
    let verdict = driver
        .fence(&guest, &mut away, now_ms)
        .await
        .expect("looked");
    assert!(
        matches!(&verdict, Verdict::Dead { why, .. } if why.starts_with("it was stopped")),
        "{verdict:?}"
    );
    served
        .line
        .with(|world| assert!(!world.guests[&vmid].is_running));
}

#[tokio::test]
async fn what_high_availability_has_is_stopped_by_its_order_and_started_again_afterwards() {
    let served = Served::start().await;
    let mut guest = Guest::planned(GuestId::from_u128(1 << 64));
    let text = "SKEP_JOIN_TOKEN=hush\n";
    until(&served, &mut guest, text, |it| it.address.is_some()).await;
    let (recipe, client) = (recipe(), served.trusted());
    let driver = Driver {
        client: &client,
        recipe: &recipe,
    };
    let vmid = guest.vmid.expect("a number");
    served.obey(&format!("ha {vmid}"));
    let boots = served.line.with(|world| world.guests[&vmid].boots);
    let mut away = Away::default();
    // Given up once it was ordered: who asks again hears that nobody wants it.
    let ordered = async {
        while !served.line.with(|world| world.guests[&vmid].is_unwanted) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        biased;
        () = ordered => {}
        verdict = driver.fence(&guest, &mut away, 1_000_000) => panic!("carried out at once: {verdict:?}"),
    }
    let verdict = driver.fence(&guest, &mut away, 1_000_000).await;
    let verdict = verdict.expect("looked");
    assert!(
        matches!(&verdict, Verdict::Dead { why, is_wanted: true } if why.starts_with("it was stopped")),
        "{verdict:?}"
    );
    served.line.with(|world| {
        let there = &world.guests[&vmid];
        assert!(!there.is_running && there.is_unwanted);
    });
    driver.start_again(&guest).await.expect("started");
    served.line.with(|world| {
        let there = &world.guests[&vmid];
        assert!(there.is_running && !there.is_unwanted && there.boots == boots + 1);
        assert!(world.violations.is_empty(), "{:?}", world.violations);
    });
}
