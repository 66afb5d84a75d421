//! The calls, as a host answers them.

use std::collections::BTreeMap;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use skep_proxmox::{GuestKind, Reply};

use crate::answer::{data, refused, wrong};
use crate::available::Power;
use crate::backups;
use crate::guest::{Guest, Owner};
use crate::pending::configure;
use crate::reads;
use crate::world::{Effect, World};

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
        ("GET", ["version"]) => reads::version(world),
        ("GET", ["access", "permissions"]) => reads::permissions(),
        ("GET", ["nodes", _, "status"]) => reads::host(world),
        ("GET", ["nodes", _, "storage"]) => reads::storage(),
        ("GET", ["pools"]) => reads::pool(world, asked.parameters.get("poolid")),
        ("GET", ["cluster", "status"]) => reads::cluster_status(world),
        ("GET", ["cluster", "ha", "resources"]) => reads::ha_resources(world),
        ("GET", ["cluster", "resources"]) => {
            reads::resources(world, asked.parameters["type"].as_str())
        }
        ("GET", ["nodes", host, "tasks"]) => reads::tasks(world, host, &asked.parameters),
        ("POST", ["nodes", host, "vzdump"]) => backups::create(world, host, &asked.parameters),
        ("GET", ["nodes", _, "storage", backups::STORAGE, "content"]) => backups::content(world),
        ("DELETE", ["nodes", _, "storage", backups::STORAGE, "content", volid]) => {
            backups::remove(world, volid)
        }
        ("POST", ["nodes", host, kind]) if *kind == world.kind.as_str() => {
            backups::put_back(world, host, &asked.parameters)
        }
        ("GET", ["nodes", _, "tasks", upid, "status"]) => reads::task(world, upid),
        ("GET", ["nodes", _, "tasks", upid, "log"]) => reads::task_log(world, upid),
        (_, ["nodes", host, kind, vmid, rest @ ..]) if *kind == world.kind.as_str() => {
            let Ok(vmid) = vmid.parse() else {
                return no(world, 400, "Parameter verification failed.");
            };
            of_guest(world, &asked, (host, vmid), rest)
        }
        _ => no(world, 501, "Method not implemented"),
    }
}

pub(crate) fn no(world: &mut World, status: u16, text: &str) -> Reply {
    refused(status, text, world.random.bool())
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
        return reads::of_guest(world, &guest, rest);
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

fn change(
    world: &mut World,
    asked: &Asked<'_>,
    (host, vmid): (&str, u32),
    (guest, rest): (&Guest, &[&str]),
) -> Reply {
    let takes = world.random.u64(200..20_000);
    let (kind, effect) = match (asked.method.as_str(), rest) {
        ("POST", ["config"]) => match configure(world, vmid, &asked.parameters) {
            true => ("qmconfig", Effect::Nothing),
            false => ("qmconfig", Effect::Fails),
        },
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
            let disk = asked.parameters["disk"].clone();
            if gib(guest.config.get(&disk)) > gib(Some(&format!("size={size}"))) {
                return no(world, 500, "shrinking disks is not supported");
            }
            if let Some(guest) = world.guests.get_mut(&vmid) {
                guest
                    .config
                    .insert(disk, format!("local:vm-{vmid}-disk-0,size={size}"));
            }
            ("resize", Effect::Nothing)
        }
        ("POST", ["status", "stop"])
            if guest.is_ha && asked.parameters.contains_key("overrule-shutdown") =>
        {
            return wrong("overrule-shutdown", "Not applicable for HA resources.");
        }
        ("POST", ["status", "start"]) if guest.is_ha => {
            ("hastart", Effect::Ordered(vmid, Power::On))
        }
        ("POST", ["status", "shutdown" | "stop"]) if guest.is_ha => {
            ("hastop", Effect::Ordered(vmid, Power::Off))
        }
        ("POST", ["status", "start"]) if guest.is_running => {
            return no(world, 500, &format!("VM {vmid} already running"));
        }
        ("POST", ["status", "start"]) => {
            if guest.is_half {
                let text = format!("{vmid} was started, and its disks are nobody's");
                world.violations.push(text);
            }
            ("qmstart", Effect::Started(vmid))
        }
        ("POST", ["status", "shutdown" | "stop"]) => ("qmshutdown", Effect::Stopped(vmid)),
        ("DELETE", []) if guest.is_running => {
            return no(
                world,
                500,
                &format!("VM {vmid} is running - destroy failed"),
            );
        }
        ("DELETE", []) if guest.is_ha && !asked.parameters.contains_key("purge") => {
            let text = format!(
                "unable to remove VM {vmid} - used in HA resources and purge parameter not set."
            );
            return no(world, 500, &text);
        }
        ("DELETE", []) => ("qmdestroy", Effect::Removed(vmid)),
        _ => return no(world, 501, "Method not implemented"),
    };
    let upid = world.begin((host, kind, vmid), effect, takes);
    data(&json!(upid))
}

/// The size of a disk, as its entry says it; 0: it does not.
fn gib(entry: Option<&String>) -> u64 {
    let parts = entry.into_iter().flat_map(|it| it.split(','));
    let size = parts.filter_map(|part| part.strip_prefix("size=")).next();
    let size = size.unwrap_or("0G");
    let (number, unit) = size.split_at(size.len() - 1);
    let number: u64 = number.parse().unwrap_or(0);
    match unit {
        "G" => number,
        _ => number / 1_024,
    }
}
