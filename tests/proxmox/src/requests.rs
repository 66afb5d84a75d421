//! The calls, as a host answers them.

use std::collections::BTreeMap;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use skep_proxmox::Reply;

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
        ("GET", ["cluster", "resources"]) => resources(world, asked.parameters["type"].as_str()),
        ("GET", ["nodes", host, "tasks"]) => tasks(world, host, &asked.parameters["vmid"]),
        ("GET", ["nodes", _, "tasks", upid, "status"]) => task(world, upid),
        (_, ["nodes", host, "qemu", vmid, rest @ ..]) => {
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
    let rows = world.guests.iter().map(|(vmid, guest)| {
        let mut row = json!({"id": format!("qemu/{vmid}"), "type": "qemu", "node": guest.host,
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
            let net0 = guest.config.get("net0").cloned().unwrap_or_default();
            let mac = net0
                .split([',', '='])
                .nth(1)
                .unwrap_or_default()
                .to_lowercase();
            data(&json!({"result": [
                {"name": "docker0", "hardware-address": "02:42:00:00:00:01",
                    "ip-addresses": [{"ip-address": "172.17.0.1", "ip-address-type": "ipv4"}]},
                {"name": "eth0", "hardware-address": mac,
                    "ip-addresses": [{"ip-address": "10.0.0.9", "ip-address-type": "ipv4"}]},
            ]}))
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
        parameters.get("name"),
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
        if !["delete", "digest"].contains(&name.as_str()) {
            guest.config.insert(name.clone(), value.clone());
        }
    }
}
