//! What a host answers to questions: nothing is changed.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use skep_proxmox::{GuestKind, Nic, Reply};

use crate::answer::{data, drifting};
use crate::guest::Guest;
use crate::pending;
use crate::requests::no;
use crate::world::World;

/// Lists show nothing but where a guest is for so long after it was made.
const LAG_MS: u64 = 10_000;

pub(crate) fn version(world: &World) -> Reply {
    let release: Vec<&str> = world.version.split('.').take(2).collect();
    data(&json!({"version": world.version, "release": release.join("."), "repoid": "sim"}))
}

/// All of what a pool's token needs, where its role gives it.
pub(crate) fn permissions() -> Reply {
    let set = |names: &[&str]| -> Value {
        let all = names.iter().map(|name| ((*name).to_owned(), json!(1)));
        Value::Object(all.collect())
    };
    let guests = set(&[
        "VM.Allocate",
        "VM.Audit",
        "VM.Backup",
        "VM.Clone",
        "VM.PowerMgmt",
        "VM.Config.Disk",
        "VM.Config.CPU",
        "VM.Config.Memory",
        "VM.Config.Network",
        "VM.Config.Options",
        "VM.Config.Cloudinit",
        "VM.GuestAgent.Audit",
        "VM.GuestAgent.FileWrite",
        "Pool.Audit",
    ]);
    let storage = set(&["Datastore.AllocateSpace", "Datastore.Audit"]);
    data(&json!({
        "/": set(&["Sys.Audit"]),
        "/nodes": set(&["Sys.Audit"]),
        "/pool/skep": guests,
        "/storage/local": storage,
        "/storage/nas": storage,
        "/sdn/zones/localnetwork/vmbr0": set(&["SDN.Use"]),
    }))
}

pub(crate) fn host(world: &World) -> Reply {
    data(
        &json!({"cpu": 0.05, "wait": 0, "loadavg": ["0.10", "0.20", "0.30"],
        "memory": {"total": 256u64 << 30, "used": 16u64 << 30, "free": 240u64 << 30},
        "rootfs": {"total": 100u64 << 30, "used": 10u64 << 30, "free": 90u64 << 30},
        "pveversion": format!("pve-manager/{}/sim", world.version), "uptime": world.now_ms() / 1_000}),
    )
}

pub(crate) fn storage() -> Reply {
    data(
        &json!([{"storage": "local", "type": "dir", "content": "images,rootdir,iso", "shared": 0, "active": 1,
        "total": 1_000u64 << 30, "used": 100u64 << 30, "avail": 900u64 << 30}]),
    )
}

pub(crate) fn pool(world: &mut World, name: Option<&String>) -> Reply {
    let Some(name) = name else {
        return data(&json!([{"poolid": "skep"}]));
    };
    if name != "skep" {
        return no(world, 500, &format!("pool '{name}' does not exist"));
    }
    let kind = world.kind.as_str();
    let members = world.guests.iter();
    let members = members.filter(|(_, guest)| guest.pool.as_ref() == Some(name));
    let rows = members.map(|(vmid, guest)| {
        json!({"id": format!("{kind}/{vmid}"), "type": kind, "vmid": vmid, "node": guest.host})
    });
    data(&json!([{"poolid": name, "members": rows.collect::<Vec<_>>()}]))
}

pub(crate) fn resources(world: &mut World, kind: &str) -> Reply {
    if kind == "node" {
        let rows: Vec<Value> = world
            .hosts
            .iter()
            .map(|(name, is_online)| {
                let status = if *is_online { "online" } else { "offline" };
                json!({"node": name, "status": status, "type": "node", "id": format!("node/{name}"),
                    "maxmem": 256u64 << 30, "maxcpu": 32})
            })
            .collect();
        return data(&Value::Array(rows));
    }
    let now = world.now_ms();
    let as_text = world.random.bool();
    let kind = world.kind.as_str();
    let rows = world.guests.iter().map(|(vmid, guest)| {
        let mut row = json!({"id": format!("{kind}/{vmid}"), "type": kind, "node": guest.host,
            "vmid": drifting(u64::from(*vmid), as_text), "status": "unknown"});
        if now.saturating_sub(guest.made_ms) >= LAG_MS && world.hosts[&guest.host] {
            let memory = guest
                .config
                .get("memory")
                .and_then(|it| it.parse::<u64>().ok());
            row["status"] = json!(if guest.is_running {
                "running"
            } else {
                "stopped"
            });
            row["name"] = json!(guest.name());
            row["tags"] = json!(guest.config.get("tags"));
            row["template"] = json!(if guest.is_template() { "1" } else { "" });
            row["maxmem"] = drifting(memory.unwrap_or(0) << 20, as_text);
            row["lock"] = json!(guest.lock());
        }
        // Membership is the cluster's own knowledge, and never late.
        row["pool"] = json!(guest.pool);
        row
    });
    data(&Value::Array(rows.collect()))
}

/// Of a guest, since a time.
pub(crate) fn tasks(world: &World, host: &str, asked: &BTreeMap<String, String>) -> Reply {
    let (vmid, since) = (asked.get("vmid"), asked.get("since"));
    let since_s: u64 = since.and_then(|it| it.parse().ok()).unwrap_or(0);
    let its = world
        .tasks
        .iter()
        .filter(|task| task.host == host && vmid == Some(&task.about.to_string()))
        .filter(|task| (world.epoch_ms + task.begun_ms) / 1_000 >= since_s);
    let rows = its.map(|task| match &task.exit {
        Some(exit) => json!({"upid": task.upid, "status": exit, "endtime": task.ends_ms / 1_000}),
        None => json!({"upid": task.upid}),
    });
    data(&Value::Array(rows.collect()))
}

pub(crate) fn task(world: &mut World, upid: &str) -> Reply {
    let found = world.tasks.iter().find(|task| task.upid == upid).cloned();
    match found {
        None => no(world, 500, "no such task"),
        Some(task) => data(&match task.exit {
            Some(exit) => json!({"status": "stopped", "exitstatus": exit, "upid": upid}),
            None => json!({"status": "running", "upid": upid}),
        }),
    }
}

pub(crate) fn task_log(world: &mut World, upid: &str) -> Reply {
    let Some(task) = world.tasks.iter().find(|task| task.upid == upid) else {
        return no(world, 500, "no such task");
    };
    let empty = ["no content".to_owned()];
    let lines = if task.log.is_empty() {
        &empty[..]
    } else {
        &task.log
    };
    let rows = (1..).zip(lines).map(|(n, text)| json!({"n": n, "t": text}));
    data(&Value::Array(rows.collect()))
}

pub(crate) fn of_guest(world: &mut World, guest: &Guest, rest: &[&str]) -> Reply {
    match rest {
        ["config"] => {
            let as_text = world.random.bool();
            let entry = |(name, value): (&String, &String)| {
                let value = match value.parse::<u64>() {
                    Ok(number) => drifting(number, as_text),
                    Err(_) => json!(value),
                };
                (name.clone(), value)
            };
            data(&Value::Object(
                guest.with_pending().iter().map(entry).collect(),
            ))
        }
        ["pending"] => pending::shown(world, guest),
        ["agent", "network-get-interfaces"] if guest.is_running => {
            let mac = guest.mac().unwrap_or_default().to_lowercase();
            data(&json!({"result": [
                {"name": "docker0", "hardware-address": "02:42:00:00:00:01",
                    "ip-addresses": [{"ip-address": "172.17.0.1", "ip-address-type": "ipv4"}]},
                {"name": "eth0", "hardware-address": mac,
                    "ip-addresses": [{"ip-address": address_of(guest), "ip-address-type": "ipv4"}]},
            ]}))
        }
        ["status", "current"] => {
            let status = if guest.is_running {
                "running"
            } else {
                "stopped"
            };
            data(&json!({"status": status, "name": guest.name(), "lock": guest.lock()}))
        }
        ["interfaces"] => {
            let mac = guest.mac().unwrap_or_default().to_lowercase();
            let rows = json!([{"name": "eth0", "hardware-address": mac, "ip-addresses": [
                {"ip-address": address_of(guest), "ip-address-type": "inet"}]}]);
            data(if guest.is_running {
                &rows
            } else {
                &Value::Null
            })
        }
        ["agent", "network-get-interfaces"] => no(world, 500, "QEMU guest agent is not running"),
        _ => no(world, 501, "Method not implemented"),
    }
}

/// What a DHCP server would have given, where no address was written down.
fn address_of(guest: &Guest) -> String {
    let nic = guest.config.get("net0").map(|it| Nic::parse(it));
    let of_nic = nic.and_then(|nic| nic.options.get("ip").cloned());
    let of_vm = guest.config.get("ipconfig0").and_then(|it| {
        let mut parts = it.split(',');
        parts
            .find_map(|part| part.strip_prefix("ip="))
            .map(str::to_owned)
    });
    let written = of_vm.or(of_nic).unwrap_or_default();
    match written.split_once('/') {
        Some((address, _)) => address.to_owned(),
        None => "10.0.0.9".to_owned(),
    }
}

pub(crate) fn cluster_status(world: &World) -> Reply {
    let online = world.hosts.values().filter(|is| **is).count();
    let mut rows = vec![
        json!({"type": "cluster", "name": "sim", "nodes": world.hosts.len(),
        "quorate": u8::from(2 * online > world.hosts.len()), "version": 3}),
    ];
    rows.extend(world.hosts.iter().map(|(name, is_online)| {
        json!({"type": "node", "name": name, "online": u8::from(*is_online), "ip": "127.0.0.1"})
    }));
    data(&Value::Array(rows))
}

pub(crate) fn ha_resources(world: &World) -> Reply {
    let short = match world.kind {
        GuestKind::Qemu => "vm",
        GuestKind::Lxc => "ct",
    };
    let managed = world.guests.iter().filter(|(_, guest)| guest.is_ha);
    let rows = managed.map(|(vmid, guest)| {
        let state = if guest.is_unwanted {
            "stopped"
        } else {
            "started"
        };
        json!({"sid": format!("{short}:{vmid}"), "state": state})
    });
    data(&Value::Array(rows.collect()))
}
