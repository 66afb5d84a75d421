//! A guest becomes another size, step by step: what is asked for, in which order, and what is not.

use std::time::Duration;

use skep_model::id::GuestId;
use skep_model::pool::{Guest, GuestSize, Kind, Note, Phase, Recipe, Resizing, VmidRange};
use skep_pools::{Ask, Driver, Turn, Way, way};
use skep_proxmox::{Client, Credentials};
use skep_proxmox_simulation::server::obey;
use skep_proxmox_simulation::{Faults, Line, World};

const TO: GuestSize = GuestSize {
    cores: 8,
    memory_mib: 16_384,
    disk_gib: 40,
};

fn recipe() -> Recipe {
    Recipe {
        kind: Kind::Vm,
        templates: [("pve1".to_owned(), 9000)].into(),
        full_clone: false,
        storage: None,
        cores: 4,
        memory_mib: 8_192,
        disk_gib: 32,
        disk: "scsi0".to_owned(),
        bridge: "vmbr0".to_owned(),
        vlan: None,
        user: None,
        ssh_keys: Vec::new(),
        vmids: VmidRange {
            first: 5000,
            last: 5015,
        },
        resource_pool: "skep".to_owned(),
        max_per_host: None,
        addresses: None,
    }
}

/// A guest that is ready, and whoever drives it.
struct Scene {
    line: Line,
    client: Client<Line>,
    recipe: Recipe,
    guest: Guest,
}

impl Scene {
    async fn new(is_hot: bool) -> Self {
        let line = Line::new(World::new(3));
        line.with(|world| world.is_hot = is_hot);
        let token = Credentials::token("skep@pve!a=b").expect("one");
        let mut scene = Self {
            client: Client::new(line.clone(), token),
            line,
            recipe: recipe(),
            guest: Guest::planned(GuestId::from_u128(1 << 64)),
        };
        for _ in 0..100 {
            if scene.guest.phase == Phase::Starting {
                scene.guest.take(Note::Joined);
                // Lists show little of what is new.
                tokio::time::sleep(Duration::from_secs(15)).await;
                return scene;
            }
            scene.turn().await;
        }
        panic!("it does not come: {:?}", scene.guest);
    }

    async fn turn(&mut self) -> Option<Turn> {
        let driver = Driver {
            client: &self.client,
            recipe: &self.recipe,
        };
        let others = [self.guest.clone()];
        let turn = driver.turn(&self.guest, &others, 1).await.ok();
        if let Some(Turn::Note(note)) = &turn {
            self.guest.take(note.clone());
        }
        turn
    }

    /// Asked to become another size; which way that is.
    async fn ask(&mut self, may_interrupt: bool) -> Way {
        let driver = Driver {
            client: &self.client,
            recipe: &self.recipe,
        };
        let look = driver.size_of(&self.guest).await.expect("asked");
        let look = look.expect("there");
        assert_eq!(look.size, self.guest.size(&self.recipe));
        let way = way(Kind::Vm, &look, TO);
        self.guest.size = Some(TO);
        self.guest.resizing = Some(Resizing {
            asked_ms: 1,
            from: look.size,
            stops: way == Way::Down,
            may_interrupt,
            drain_ms: 0,
            held: None,
            down: None,
            done_ms: None,
        });
        way
    }

    /// What is done until it has its size.
    async fn done(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while self.guest.is_changing() {
            assert!(all.len() < 20, "{all:?}");
            let turn = self.turn().await;
            all.push(match turn {
                Some(Turn::Did(ask)) => format!("{ask:?}"),
                Some(Turn::Note(Note::Resized { .. })) => "Resized".to_owned(),
                Some(Turn::Note(note)) => format!("{note:?}"),
                Some(other) => panic!("{other:?}"),
                None => "refused".to_owned(),
            });
        }
        all
    }

    fn vmid(&self) -> u32 {
        self.guest.vmid.expect("made")
    }

    fn boots(&self) -> u32 {
        let vmid = self.vmid();
        self.line.with(|world| world.guests[&vmid].boots)
    }
}

#[tokio::test(start_paused = true)]
async fn a_vm_without_hot_plug_goes_down_for_it_once() {
    let mut scene = Scene::new(false).await;
    assert_eq!(scene.ask(false).await, Way::Down);
    let expected = ["Resize", "ShutDown", "Down", "Reshape", "Start", "Resized"];
    assert_eq!(scene.done().await, expected);
    assert_eq!(scene.boots(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_can_be_plugged_in_is_and_what_is_left_to_the_next_start_is_noticed() {
    let mut scene = Scene::new(true).await;
    assert_eq!(scene.ask(false).await, Way::LiveOrDown);
    assert_eq!(scene.done().await, ["Resize", "Reshape", "Resized"]);
    assert_eq!(scene.boots(), 1);

    let mut scene = Scene::new(true).await;
    scene.ask(false).await;
    assert_eq!(scene.turn().await, Some(Turn::Did(Ask::Resize)));
    // Its system takes no more.
    let faults = |failed_task| Faults {
        failed_task,
        ..Faults::default()
    };
    scene.line.with(|world| world.faults = faults(1_000));
    assert_eq!(scene.turn().await, None);
    scene.line.with(|world| world.faults = faults(0));
    let waits = scene.turn().await;
    assert!(
        matches!(&waits, Some(Turn::Wait(why)) if why.contains("--yes")),
        "{waits:?}"
    );
    scene.guest.resizing.as_mut().expect("one").may_interrupt = true;
    let expected = ["MustStop", "ShutDown", "Down", "Start", "Resized"];
    assert_eq!(scene.done().await, expected);
    assert_eq!(scene.boots(), 2);
}

/// It had room when that was asked for; its node was emptied meanwhile.
#[tokio::test(start_paused = true)]
async fn a_host_that_has_filled_up_since_keeps_it_as_it_is() {
    let mut scene = Scene::new(false).await;
    scene.ask(false).await;
    let host = scene.guest.host.clone().expect("one");
    scene.line.with(|world| {
        obey(world, "add 100 theirs").expect("made");
        let theirs = world.guests.get_mut(&100).expect("made");
        theirs.host = host;
        theirs
            .config
            .insert("memory".to_owned(), "250000".to_owned());
    });
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(scene.turn().await, Some(Turn::Did(Ask::Resize)));
    let full = scene.turn().await;
    assert!(
        matches!(&full, Some(Turn::Wait(why)) if why.contains("250000 MiB") && why.contains("16384 MiB")),
        "{full:?}"
    );
    assert_eq!(scene.boots(), 1, "it runs on");
    scene.line.with(|world| world.guests.remove(&100));
    let expected = ["ShutDown", "Down", "Reshape", "Start", "Resized"];
    assert_eq!(scene.done().await, expected);
}
