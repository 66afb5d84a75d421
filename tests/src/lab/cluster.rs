//! A cluster's servers on hosts of a lab: one host each, its data on a small disk of its own, its
//! clock to be moved.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;

use anyhow::{Result, anyhow};
use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

use super::{Clock, Host, Lab};
use crate::chaos;
use crate::room::Room;
use crate::servers::{Servers, Site, join_node};

/// Enough that a server calls it healthy, small enough to be filled in a moment.
const DISK_MIB: u32 = 640;
/// Labs at once: with one server they mostly wait for Docker and for nodes to be given up. Several servers
/// have all of it: elections are about time, and the machine is small.
const LABS: u32 = 2;
static ROOM: Semaphore = Semaphore::const_new(LABS as usize);

/// Servers on hosts.
pub struct LabCluster {
    // In this order: processes end before their hosts.
    /// The servers, each on the host of the same place.
    pub servers: Servers,
    clocks: Vec<Clock>,
    variables: Vec<(&'static str, String)>,
    lab: Lab,
}

/// Runs a test on a cluster of its own with so many servers.
///
/// # Panics
/// When the test fails, after its logs were printed and its traces removed.
pub async fn with_servers(
    name: &str,
    count: usize,
    test: impl AsyncFnOnce(&mut LabCluster) -> Result<()>,
) {
    with_servers_set(name, count, Vec::new(), test).await;
}

/// The same with these variables in the servers' environment.
///
/// # Panics
/// As `with_servers`.
pub async fn with_servers_set(
    name: &str,
    count: usize,
    variables: Vec<(&'static str, String)>,
    test: impl AsyncFnOnce(&mut LabCluster) -> Result<()>,
) {
    if let Err(error) = run(count, variables, test).await {
        panic!("{name}: {error:#}");
    }
}

/// Runs a test on an empty lab.
///
/// # Panics
/// When the test fails.
pub async fn with_lab(name: &str, test: impl AsyncFnOnce(&mut Lab) -> Result<()>) {
    // Whoever asks for an empty lab puts several servers there.
    let _own = own_room(true).await;
    let outcome = async {
        let _room = Room::shared().await?;
        let mut lab = Lab::new().await?;
        test(&mut lab).await
    };
    if let Err(error) = outcome.await {
        panic!("{name}: {error:#}");
    }
}

/// The same for a program that goes on.
///
/// # Errors
/// The test failed; its logs were printed and its traces removed.
pub async fn try_with_servers(
    count: usize,
    test: impl AsyncFnOnce(&mut LabCluster) -> Result<()>,
) -> Result<()> {
    run(count, Vec::new(), test).await
}

/// A place in this process for a lab, of several servers or not.
async fn own_room(several: bool) -> SemaphorePermit<'static> {
    let permits = if several || chaos::is_full() { LABS } else { 1 };
    ROOM.acquire_many(permits).await.expect("never closed")
}

async fn run(
    count: usize,
    variables: Vec<(&'static str, String)>,
    test: impl AsyncFnOnce(&mut LabCluster) -> Result<()>,
) -> Result<()> {
    let _own = own_room(count > 1).await;
    let _room = Room::shared().await?;
    let mut cluster = LabCluster::start(count, variables).await?;
    let outcome = AssertUnwindSafe(test(&mut cluster)).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(anyhow!("panicked: {}", text.unwrap_or_default()))
    });
    if outcome.is_err() {
        cluster.servers.print_logs();
    }
    outcome
}

impl LabCluster {
    async fn start(count: usize, variables: Vec<(&'static str, String)>) -> Result<Self> {
        let mut lab = Lab::new().await?;
        let (mut sites, mut clocks) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (site, clock) = prepare(&mut lab, &variables).await?;
            sites.push(site);
            clocks.push(clock);
        }
        Ok(Self {
            servers: Servers::start_at(sites).await?,
            clocks,
            variables,
            lab,
        })
    }

    /// One more server on one more host.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn join(&mut self) -> Result<()> {
        let (site, clock) = prepare(&mut self.lab, &self.variables).await?;
        self.clocks.push(clock);
        self.servers.join(site).await
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        self.lab.hosts()
    }

    /// The host of a server.
    pub fn host(&self, place: usize) -> &Host {
        self.lab.host(place)
    }

    /// The clock of a server.
    pub fn clock(&self, place: usize) -> &Clock {
        &self.clocks[place]
    }

    /// Any port of the machine itself, as the hosts see it.
    pub fn machine(&self) -> SocketAddr {
        (self.lab.machine(), 0).into()
    }

    /// The lab, for more hosts.
    pub fn lab(&mut self) -> &mut Lab {
        &mut self.lab
    }

    /// Fills the disk of a server's data; answers how many bytes it took.
    ///
    /// # Errors
    /// The disk fails otherwise.
    pub async fn fill_disk(&self, place: usize) -> Result<u64> {
        let disk = self.servers.server(place).site.data.clone();
        spawn_blocking(move || Host::fill_disk(&disk)).await?
    }

    /// Gives a server its disk back.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn empty_disk(&self, place: usize) -> Result<()> {
        let disk = self.servers.server(place).site.data.clone();
        spawn_blocking(move || Host::empty_disk(&disk)).await?
    }

    /// A node whose metadata are the registers of a test; answers its name.
    ///
    /// # Errors
    /// It cannot join.
    pub async fn register_node(&self) -> Result<String> {
        let bootstrap = self.servers.bootstrap();
        let address = self.servers.server(0).site.cluster;
        let joined = join_node(
            address,
            &bootstrap.ca_pem,
            &bootstrap.join_token,
            "registers",
        );
        Ok(joined.await?.name)
    }
}

async fn prepare(lab: &mut Lab, variables: &[(&'static str, String)]) -> Result<(Site, Clock)> {
    let place = lab.add_host().await?;
    let host = lab.host(place);
    host.small_disk("data", DISK_MIB).await?;
    let clock = Clock::new(host.path("clock"))?;
    let mut site = Site::on(host);
    for (name, value) in clock.environment()? {
        site = site.env(name, value);
    }
    for (name, value) in variables {
        site = site.env(name, value);
    }
    Ok((site, clock))
}
