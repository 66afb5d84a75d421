//! A Proxmox cluster without machines, that behaves as a real one does where that hurts: numbers that come as text, guests
//! without a name while they are made, locks, tasks that take long or fail, lines that break before or after a change took
//! effect, hosts that go away, guests that move, people who make, remove and take numbers in between. Time is tokio's own:
//! paused, an hour takes a moment; as it is, [`server`] serves the world over TLS, to the client as it is used.

mod answer;
mod available;
mod backups;
mod disks;
mod guest;
mod pending;
mod people;
mod reads;
mod requests;
pub mod server;
mod world;

pub use backups::{Archive, STORAGE};
pub use disks::Disks;
pub use guest::{Guest, Owner};
pub use skep_proxmox::GuestKind;
pub use world::{Faults, World};

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use skep_proxmox::{Failure, Reply, Transport};

/// The way to a world, as many as are wanted.
#[derive(Debug, Clone)]
pub struct Line {
    world: Arc<Mutex<World>>,
}

impl Line {
    /// To a world.
    pub fn new(world: World) -> Self {
        Self {
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// Looks at the world, or changes it.
    pub fn with<T>(&self, does: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world.lock().expect("nothing panics while it is held");
        world.catch_up();
        does(&mut world)
    }
}

impl Transport for Line {
    async fn send(&self, request: http::Request<Bytes>) -> Result<Reply, Failure> {
        let fate = self.with(|world| world.fate(&request));
        tokio::time::sleep(fate.before).await;
        if fate.is_lost_before {
            return Err(Failure::Unknown("the line broke".to_owned()));
        }
        let reply = self.with(|world| world.answer(&request));
        tokio::time::sleep(fate.after).await;
        match fate.is_lost_after {
            true => Err(Failure::Unknown("the line broke".to_owned())),
            false => Ok(reply),
        }
    }
}
