//! The calls, as a host answers them.

use std::collections::BTreeMap;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use skep_proxmox::{GuestKind, Nic, Reply};

use crate::answer::{data, drifting, refused};
use crate::guest::{Guest, Owner};
use crate::world::{Effect, World};

/// Lists show nothing but where a guest is for so long after it was made.
const LAG_MS: u64 = 10_000;

/// A request, taken apart.
struct Asked<'a> {
    method: &'a http::Method,
    parts: Vec<String>,
    parameters: BTreeMap<String, String>,
}

pub(crate) fn answer(world: &mut World, request: &http::Request<Bytes>) -> Reply {
    let path = request.uri().path().trim_start_matches("/api2/json/");
    let decoded = path
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned());
    let form = match request.method().as_str() {
        "GET" | "DELETE" => request
            .uri()
            .query()
            .unwrap_or_default()
            .as_bytes()
            .to_vec(),
        _ => request.body().to_vec(),
    };
    let asked = Asked {
        method: request.method(),
        parts: decoded.collect(),
        parameters: form_urlencoded::parse(&form)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect(),
    };
    let parts: Vec<&str> = asked.parts.iter().map(String::as_str).collect();
    if let ["nodes", host, ..] = parts.as_slice() {
        match world.hosts.get(*host) {
            None => return no(world, 500, &format!("no such cluster node '{host}'")),
            Some(false) => return no(world, 595, "No route to host"),
            Some(true) => {}
        }
    }
    match (asked.method.as_str(), parts.as_slice()) {
        ("GET", ["version"]) => {
            let release: Vec<&str> = world.version.split('.').take(2).collect();
            data(&json!({"version": world.version, "release": release.join("."), "repoid": "sim"}))
        }
        ("GET", ["cluster", "status"]) => cluster_status(world),
        ("GET", ["cluster", "ha", "resources"]) => ha_resources(world),
        ("GET", ["cluster", "resources"]) => resources(world, asked.parameters["type"].as_str()),
        ("GET", ["nodes", host, "tasks"]) => tasks(world, host, &asked.parameters["vmid"]),
        ("GET", ["nodes", _, "tasks", upid, "status"]) => task(world, upid),
        (_, ["nodes", host, kind, vmid, rest @ ..]) if *kind == world.kind.as_str() => {
            let Ok(vmid) = vmid.parse() else {
                return no(world, 400, "Parameter verification failed.");
            };
            of_guest(world, &asked, (host, vmid), rest)
        }
        _ => no(world, 501, "Method not implemented"),
    }
}

fn no(world: &mut World, status: u16, text: &str) -> Reply {
    refused(status, text, world.random.bool())
}

fn resources(world: &mut World, kind: &str) -> Reply {
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

fn tasks(world: &World, host: &str, vmid: &str) -> Reply {
    let its = world
        .tasks
        .iter()
        .filter(|task| task.host == host && task.about.to_string() == vmid);
    let rows = its.map(|task| match &task.exit {
        Some(exit) => json!({"upid": task.upid, "status": exit, "endtime": task.ends_ms / 1_000}),
        None => json!({"upid": task.upid}),
    });
    data(&Value::Array(rows.collect()))
}

fn task(world: &mut World, upid: &str) -> Reply {
    let found = world.tasks.iter().find(|task| task.upid == upid).cloned();
    match found {
        None => no(world, 500, "no such task"),
        Some(task) => data(&match task.exit {
            Some(exit) => json!({"status": "stopped", "exitstatus": exit, "upid": upid}),
            None => json!({"status": "running", "upid": upid}),
        }),
    }
}

fn of_guest(
    world: &mut World,
    asked: &Asked<'_>,
    (host, vmid): (&str, u32),
    rest: &[&str],
) -> Reply {
    let found = world
        .guests
        .get(&vmid)
        .filter(|guest| guest.host == host)
        .cloned();
    let Some(guest) = found else {
        let text =
            format!("Configuration file 'nodes/{host}/qemu-server/{vmid}.conf' does not exist");
        return no(world, 500, &text);
    };
    let method = asked.method.as_str();
    if method == "GET" {
        return read(world, &guest, rest);
    }
    if rest == ["agent", "ping"] {
        return match guest.is_running {
            true => data(&Value::Null),
            false => no(world, 500, "QEMU guest agent is not running"),
        };
    }
    let name = format!("{method} {}", rest.join("/"));
    *world.calls.entry(name.clone()).or_insert(0) += 1;
    if rest == ["clone"] {
        return clone(world, (host, vmid), &guest, &asked.parameters);
    }
    if guest.owner == Owner::Foreign {
        let text = format!("{name} of {vmid}, which is {:?}", guest.name());
        world.violations.push(text);
    }
    if let Some(lock) = guest.lock() {
        return no(world, 500, &format!("VM is locked ({lock})"));
    }
    change(world, asked, (host, vmid), (&guest, rest))
}

fn read(world: &mut World, guest: &Guest, rest: &[&str]) -> Reply {
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
            data(&Value::Object(guest.config.iter().map(entry).collect()))
        }
        ["agent", "network-get-interfaces"] if guest.is_running => {
            let mac = guest.mac().unwrap_or_default().to_lowercase();
            data(&json!({"result": [
                {"name": "docker0", "hardware-address": "02:42:00:00:00:01",
                    "ip-addresses": [{"ip-address": "172.17.0.1", "ip-address-type": "ipv4"}]},
                {"name": "eth0", "hardware-address": mac,
                    "ip-addresses": [{"ip-address": address_of(guest), "ip-address-type": "ipv4"}]},
            ]}))
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

/// A number is taken, and nameless, from the first moment; name, pool and disks come with the end of the task. The task is
/// about the template.
fn clone(
    world: &mut World,
    (host, template): (&str, u32),
    guest: &Guest,
    parameters: &BTreeMap<String, String>,
) -> Reply {
    if !guest.is_template() {
        let text = format!("clone of {template}, which is no template");
        world.violations.push(text);
    }
    let (Some(name), Some(Ok(vmid))) = (
        parameters.get("name").or(parameters.get("hostname")),
        parameters.get("newid").map(|it| it.parse::<u32>()),
    ) else {
        return no(world, 400, "Parameter verification failed.");
    };
    if let Some(there) = world.guests.get(&vmid) {
        let text = format!(
            "unable to create VM {vmid}: VM {vmid} already exists on node '{}'",
            there.host
        );
        return no(world, 500, &text);
    }
    let config = world.fresh_config(name);
    let locked = BTreeMap::from([("lock".to_owned(), "clone".to_owned())]);
    let made = world.guest(host, Owner::Ours(name.clone()), locked);
    world.guests.insert(vmid, made);
    let takes = world.random.u64(500..60_000);
    let effect = Effect::Cloned {
        vmid,
        config,
        pool: parameters.get("pool").cloned(),
    };
    let upid = world.begin((host, "qmclone", template), effect, takes);
    data(&json!(upid))
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

fn cluster_status(world: &World) -> Reply {
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

fn ha_resources(world: &World) -> Reply {
    let short = match world.kind {
        GuestKind::Qemu => "vm",
        GuestKind::Lxc => "ct",
    };
    let managed = world.guests.iter().filter(|(_, guest)| guest.is_ha);
    let rows =
        managed.map(|(vmid, _)| json!({"sid": format!("{short}:{vmid}"), "state": "started"}));
    data(&Value::Array(rows.collect()))
}

fn change(
    world: &mut World,
    asked: &Asked<'_>,
    (host, vmid): (&str, u32),
    (guest, rest): (&Guest, &[&str]),
) -> Reply {
    let takes = world.random.u64(200..20_000);
    let (kind, effect) = match (asked.method.as_str(), rest) {
        ("POST", ["config"]) => {
            configure(world, vmid, &asked.parameters);
            ("qmconfig", Effect::Nothing)
        }
        // Of a container it is done when it is answered.
        ("PUT", ["config"]) if world.kind == GuestKind::Lxc => {
            configure(world, vmid, &asked.parameters);
            return data(&Value::Null);
        }
        ("POST", ["agent", "file-write"]) if !guest.is_running => {
            return no(world, 500, "QEMU guest agent is not running");
        }
        ("POST", ["agent", "file-write"]) => {
            let content = asked.parameters["content"].clone();
            if let Some(guest) = world.guests.get_mut(&vmid) {
                guest.told = Some(content);
            }
            return data(&Value::Null);
        }
        ("POST", ["status", "reboot"]) if !guest.is_running => {
            return no(world, 500, &format!("CT {vmid} not running"));
        }
        ("POST", ["status", "reboot"]) => ("vzreboot", Effect::Rebooted(vmid)),
        ("PUT", ["resize"]) => {
            let size = asked.parameters["size"].clone();
            if let Some(guest) = world.guests.get_mut(&vmid) {
                let disk = asked.parameters["disk"].clone();
                guest
                    .config
                    .insert(disk, format!("local:vm-{vmid}-disk-0,size={size}"));
            }
            ("resize", Effect::Nothing)
        }
        ("POST", ["status", "start"]) if guest.is_running => {
            return no(world, 500, &format!("VM {vmid} already running"));
        }
        ("POST", ["status", "start"]) => ("qmstart", Effect::Started(vmid)),
        ("POST", ["status", "shutdown" | "stop"]) => ("qmshutdown", Effect::Stopped(vmid)),
        ("DELETE", []) if guest.is_running => {
            return no(
                world,
                500,
                &format!("VM {vmid} is running - destroy failed"),
            );
        }
        ("DELETE", []) => ("qmdestroy", Effect::Removed(vmid)),
        _ => return no(world, 501, "Method not implemented"),
    };
    let upid = world.begin((host, kind, vmid), effect, takes);
    data(&json!(upid))
}

fn configure(world: &mut World, vmid: u32, parameters: &BTreeMap<String, String>) {
    let Some(guest) = world.guests.get_mut(&vmid) else {
        return;
    };
    for (name, value) in parameters {
        if name == "delete" {
            for entry in value.split(',') {
                guest.config.remove(entry);
            }
        } else if name != "digest" {
            guest.config.insert(name.clone(), value.clone());
        }
    }
}
