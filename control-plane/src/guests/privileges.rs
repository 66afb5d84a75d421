//! What an API token needs so that a pool's guests can be made and removed with it, and nothing beyond.

use skep_model::pool::{Backups, Kind, Recipe};
use skep_proxmox::Permission;

/// On the Proxmox pool of the guests.
const ON_POOL: [&str; 7] = [
    "VM.Allocate",
    "VM.Audit",
    "VM.PowerMgmt",
    "VM.Config.Disk",
    "VM.Config.CPU",
    "VM.Config.Memory",
    "VM.Config.Network",
];

/// What a token needs for a recipe and for copies, each where: one of the privileges of a row.
pub(crate) fn needed(recipe: &Recipe, backups: Option<&Backups>) -> Vec<Permission> {
    let pool = format!("/pool/{}", recipe.resource_pool);
    let one = |path: &str, privileges: &[&str]| Permission {
        path: path.to_owned(),
        privileges: privileges.iter().map(|it| (*it).to_owned()).collect(),
    };
    let mut needed: Vec<Permission> = ON_POOL.iter().map(|it| one(&pool, &[it])).collect();
    needed.push(one(&pool, &["VM.Config.Options"]));
    if recipe.kind == Kind::Vm {
        needed.push(one(&pool, &["VM.Config.Cloudinit"]));
        // Of Proxmox VE 9, and of 8.
        needed.push(one(&pool, &["VM.GuestAgent.Audit", "VM.Monitor"]));
        needed.push(one(&pool, &["VM.GuestAgent.FileWrite", "VM.Monitor"]));
    }
    let templates = recipe.templates.values();
    needed.extend(templates.map(|vmid| one(&format!("/vms/{vmid}"), &["VM.Clone"])));
    if let Some(storage) = &recipe.storage {
        let path = format!("/storage/{storage}");
        needed.push(one(&path, &["Datastore.AllocateSpace"]));
    }
    if let Some(backups) = backups {
        let path = format!("/storage/{}", backups.storage);
        needed.push(one(&pool, &["VM.Backup"]));
        needed.push(one(&path, &["Datastore.AllocateSpace"]));
        needed.push(one(&path, &["Datastore.Audit", "Datastore.Allocate"]));
    }
    let bridge = format!("/sdn/zones/localnetwork/{}", recipe.bridge);
    needed.push(one(&bridge, &["SDN.Use"]));
    let hosts = recipe.templates.keys();
    needed.extend(hosts.map(|host| one(&format!("/nodes/{host}"), &["Sys.Audit"])));
    needed
}
