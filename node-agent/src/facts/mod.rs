//! What this machine is: read from the kernel, from Docker and from the data plane.

mod machine;
mod read;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::SystemInfo;
use skep_model::machine::Machine;
use skep_model::node::Facts;
use sysinfo::{Disks, System};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::images::Images;
use crate::net::client::{NetStatusLocal, Unbound};
use crate::network::Networks;
use crate::options::Options;
use crate::runtime::Runtime;
use crate::session::Outbox;
use crate::storage::{shared, volumes};

/// How long the first word waits for the data plane.
const PATIENCE: Duration = Duration::from_secs(2);
/// A machine changes rarely: it may be given memory, or Docker may be upgraded.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What the machine is without Docker and the data plane. Reads `/proc`.
pub(crate) fn machine(options: &Options) -> Facts {
    let devices = options.devices.iter();
    let devices = devices.map(|(name, paths)| (name.clone(), paths.len() as u32));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (machine, memory) = this_machine(options.memory_bytes);
    Facts {
        hostname: System::host_name().unwrap_or_default(),
        architecture: std::env::consts::ARCH.to_owned(),
        kernel: System::kernel_version().unwrap_or_default(),
        cpu_millis: u32::try_from(cores * 1_000).unwrap_or(u32::MAX),
        memory_bytes: memory,
        disk_bytes: 0,
        docker_version: String::new(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ingress_port: None,
        builder: options.builder,
        devices: devices.collect(),
        meta: options.meta.clone(),
        storage: true,
        volumes: volumes::held(&options.data_dir),
        host_paths: options
            .host_paths
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        machine,
        builders: match options.builder {
            true => options.tools.names(),
            false => Vec::new(),
        },
        ..Facts::default()
    }
}

/// What this machine is, and its memory in bytes: found out, or as an operator says.
pub(crate) fn this_machine(said_bytes: Option<u64>) -> (Machine, u64) {
    machine::machine(&read::read(), said_bytes)
}

/// Adds what is wrong with a storage driver.
pub(crate) fn judge_storage(machine: &mut Machine, driver: &str) {
    machine::add_docker(machine, driver, 0);
}

/// Size of the filesystem that holds `path` and what of it is free, in bytes; 0: not known. Blocks on
/// the disk.
pub(crate) fn disk_room(path: &Path) -> (u64, u64) {
    let Ok(disks) = Disks::new_with_refreshed_list() else {
        return (0, 0);
    };
    let holds = disks.iter().filter(|it| path.starts_with(it.mount_point()));
    let nearest = holds.max_by_key(|it| it.mount_point().as_os_str().len());
    nearest.map_or((0, 0), |it| (it.total_space(), it.available_space()))
}

/// Size of the filesystem that holds `path`; 0: not known. Blocks on the disk.
fn disk_bytes(path: &Path) -> u64 {
    disk_room(path).0
}

async fn add_docker(facts: &mut Facts, info: SystemInfo) {
    let driver = info.driver.as_deref().unwrap_or_default();
    machine::add_docker(&mut facts.machine, driver, cgroup_version(&info));
    facts.docker_version = info.server_version.unwrap_or_default();
    if let Some(root) = info.docker_root_dir {
        let size = spawn_blocking(move || disk_bytes(Path::new(&root))).await;
        facts.disk_bytes = size.unwrap_or(0);
    }
}

fn cgroup_version(info: &SystemInfo) -> u32 {
    use bollard::models::SystemInfoCgroupVersionEnum as Version;
    match info.cgroup_version {
        Some(Version::_1) => 1,
        Some(Version::_2) => 2,
        _ => 0,
    }
}

/// Keeps the facts that a server is greeted with true, until `cancel`.
pub(crate) async fn keep(
    (runtime, images, networks): (Runtime, Images, Networks),
    mut net: watch::Receiver<Option<NetStatusLocal>>,
    outbox: Arc<Outbox>,
    (options, volumes_made): (Options, Arc<Notify>),
    cancel: CancellationToken,
) {
    let mut facts = machine(&options);
    facts.image_address = Some(images.address().to_owned());
    let mut room = images.warning();
    let mut unbound = Unbound::default();
    let mut storages = shared::Look::default();
    let keep = async {
        // Not there in time: then it is told when it comes.
        let _ = timeout(PATIENCE, net.wait_for(Option::is_some)).await;
        let mut again = interval(LOOK_AGAIN);
        loop {
            tokio::select! {
                changed = net.changed() => if changed.is_err() { return },
                () = volumes_made.notified() => facts.volumes = volumes::held(&options.data_dir),
                () = async {
                    tokio::select! {
                        _ = again.tick() => {}
                        // The sender lives as long as the images that are held here.
                        _ = room.changed() => {}
                    }
                } => {
                    let machine = machine(&options);
                    facts.cpu_millis = machine.cpu_millis;
                    facts.memory_bytes = machine.memory_bytes;
                    facts.volumes = machine.volumes;
                    facts.shared_storage = storages.there(&options.shared_storage).await;
                    let said = std::mem::replace(&mut facts.machine, machine.machine);
                    // While Docker is away what it said last stays.
                    match runtime.info().await {
                        Ok(info) => add_docker(&mut facts, info).await,
                        Err(_) => machine::add_docker(
                            &mut facts.machine,
                            &said.storage_driver,
                            said.cgroup_version,
                        ),
                    }
                    facts.machine.warnings.extend(room.borrow_and_update().clone());
                    facts.machine.warnings.extend(networks.warning());
                    facts.machine.warnings.extend(unbound.warning());
                }
            }
            facts.private_network = networks.works();
            // A data plane that restarts comes back on its port: no word about the gap.
            if let Some(status) = *net.borrow_and_update() {
                facts.ingress_port = Some(status.ingress_port).filter(|port| *port != 0);
                facts.mesh_address = beside(images.address(), status.mesh_port);
                let before = std::mem::replace(&mut unbound, status.unbound).warning();
                let warnings = &mut facts.machine.warnings;
                warnings.retain(|warning| Some(warning) != before.as_ref());
                warnings.extend(unbound.warning());
            }
            outbox.set_facts(facts.clone());
        }
    };
    cancel.run_until_cancelled(keep).await;
}

/// Another port of the host of `address`; none: it is 0.
fn beside(address: &str, port: u16) -> Option<String> {
    let (host, _) = address.rsplit_once(':')?;
    (port != 0).then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_beside_another() {
        assert_eq!(beside("[fd00::1]:7", 9).as_deref(), Some("[fd00::1]:9"));
        assert_eq!(beside("h:7", 9).as_deref(), Some("h:9"));
        assert_eq!(beside("h:7", 0), None);
    }

    #[test]
    fn this_machine_has_a_name_cores_memory_and_a_disk() {
        let facts = machine(&Options {
            meta: [("rack".to_owned(), "b2".to_owned())].into(),
            devices: [("gpu".to_owned(), vec!["/dev/a".into(), "/dev/b".into()])].into(),
            ..crate::testing::options()
        });
        assert_eq!((facts.devices["gpu"], &*facts.meta["rack"]), (2, "b2"));
        assert!(!facts.hostname.is_empty() && facts.cpu_millis >= 1_000);
        assert!(facts.memory_bytes > 16 << 20 && facts.builder);
        assert!(disk_bytes(Path::new("/")) > 0);
    }
}
