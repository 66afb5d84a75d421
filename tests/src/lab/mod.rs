//! Several hosts on one machine: network namespaces, each with a cable to one switch, in an address
//! range of their own. Cables are cut, processes killed and frozen, disks filled and clocks moved,
//! and nothing beside the lab notices. What it made goes with it; what a killed run left goes with
//! the next. Needs root, as network namespaces do.
//!
//! The switch is a bridge in a namespace of its own: on the machine's own network Docker's rules
//! would drop what it forwards.

mod clock;
pub mod cluster;

mod command;
pub mod faults;
pub mod faulty;
mod host;
pub mod node;
pub mod nodes;
mod number;
pub mod registry;

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use tempfile::TempDir;

pub use clock::Clock;
pub use command::run;
pub use host::Host;

use number::Number;

/// The machine itself, as the hosts see it.
const MACHINE: u8 = 1;
/// Place of the first host.
const FIRST_HOST: u8 = 10;
/// Hosts of a lab.
const HOSTS: u8 = 100;
const SWITCH: &str = "switch";
const BRIDGE: &str = "bridge";

/// Hosts, and the network between them.
pub struct Lab {
    hosts: Vec<Host>,
    dir: TempDir,
    // Last: its end removes the namespaces.
    number: Number,
}

impl Lab {
    /// Makes a switch that nothing but this machine is plugged into.
    ///
    /// # Errors
    /// The kernel or the rights are missing.
    pub async fn new() -> Result<Self> {
        let number = Number::take()?;
        let (switch, uplink) = (number.namespace(SWITCH), number.uplink());
        run("ip", &["netns", "add", &switch]).await?;
        let in_switch = ["-n", switch.as_str()];
        for arguments in [
            &["link", "add", BRIDGE, "type", "bridge"][..],
            &["link", "set", BRIDGE, "up"],
            // The kernel would ask the switch's own (empty) rules about every frame.
            &["link", "set", "lo", "up"],
        ] {
            run("ip", &[&in_switch[..], arguments].concat()).await?;
        }
        let lab = Self {
            hosts: Vec::new(),
            dir: tempfile::Builder::new().prefix("skep-lab-").tempdir()?,
            number,
        };
        lab.plug(&uplink, None).await?;
        let address = format!("{}/24", lab.machine());
        run("ip", &["address", "add", &address, "dev", &uplink]).await?;
        run("ip", &["link", "set", &uplink, "up"]).await?;
        Ok(lab)
    }

    /// Lays a cable from a new interface to the switch's port of the same name.
    async fn plug(&self, interface: &str, namespace: Option<&str>) -> Result<()> {
        let (switch, port) = (self.number.namespace(SWITCH), format!("p{interface}"));
        let mut pair = vec!["link", "add", interface];
        if let Some(namespace) = namespace {
            pair.extend(["netns", namespace]);
        }
        pair.extend(["type", "veth", "peer", "name", &port, "netns", &switch]);
        run("ip", &pair).await?;
        let master = ["-n", &switch, "link", "set", &port, "master", BRIDGE, "up"];
        run("ip", &master).await?;
        Ok(())
    }

    /// Adds a host; answers its place among the hosts.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn add_host(&mut self) -> Result<usize> {
        let place = self.hosts.len();
        let number = u8::try_from(place)?;
        ensure!(number < HOSTS, "a lab has {HOSTS} hosts at most");
        let name = format!("h{place}");
        let (namespace, interface) = (self.number.namespace(&name), format!("e{place}"));
        let address = self.number.address(FIRST_HOST + number);
        run("ip", &["netns", "add", &namespace]).await?;
        self.plug(&interface, Some(&namespace)).await?;
        let with_mask = format!("{address}/24");
        for arguments in [
            &["link", "set", "lo", "up"][..],
            &["address", "add", &with_mask, "dev", &interface],
            &["link", "set", &interface, "up"],
        ] {
            run("ip", &[&["-n", namespace.as_str()][..], arguments].concat()).await?;
        }
        let dir = self.dir.path().join(&name);
        std::fs::create_dir(&dir)?;
        self.hosts
            .push(Host::new(name, namespace, interface, address, dir));
        Ok(place)
    }

    /// A host by its place.
    pub fn host(&self, place: usize) -> &Host {
        &self.hosts[place]
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Address of this machine in the lab.
    pub fn machine(&self) -> Ipv4Addr {
        self.number.address(MACHINE)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Processes first: they keep disks busy.
        self.number.sweep();
        for host in &self.hosts {
            host.unmount();
        }
        if std::env::var_os("SKEP_KEEP").is_some() {
            self.dir.disable_cleanup(true);
            println!("kept: {}", self.dir.path().display());
        }
    }
}
