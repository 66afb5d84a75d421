//! What tests do to a world that is served: a line is a command, and each is answered with a line of JSON.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::guest::Owner;
use crate::world::World;

/// The commands, for whoever asks.
const HELP: &str = "\
list                    hosts and guests, as they are
calls                   how often each call was made that changes something
violations              what was done to guests that are somebody else's
kill HOST               a host loses its power: its guests stop
revive HOST             it comes back
move VMID HOST          a guest moves
add VMID NAME           somebody makes a guest
remove VMID             somebody removes one
stop VMID               somebody stops one
lose ARCHIVE            a copy is not on its storage any more
protect ARCHIVE         somebody marks it as not to be removed
spoil ARCHIVE           it cannot be read any more
ha VMID [here]          high availability gets one; here: a rule keeps it on its host
version VERSION         what the hosts say they are
faults NAME=N ...       broken_line, unknown, lock_timeout, failed_task, people: of 1,000; others: 0";

/// Obeys.
///
/// # Errors
/// It is no command, or there is no such guest or host.
pub fn obey(world: &mut World, line: &str) -> Result<Value> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["help"] => return Ok(json!(HELP)),
        ["list"] => return Ok(list(world)),
        ["calls"] => return Ok(json!(world.calls)),
        ["violations"] => return Ok(json!(world.violations)),
        ["kill", host] => power(world, host, false)?,
        ["revive", host] => power(world, host, true)?,
        ["move", vmid, host] => {
            if !world.hosts.contains_key(*host) {
                bail!("no host {host}");
            }
            guest(world, vmid)?.host = (*host).to_owned();
        }
        ["add", vmid, name] => world.make_named(vmid.parse()?, name),
        ["remove", vmid] => {
            let removed = world.guests.remove(&vmid.parse()?);
            removed.with_context(|| format!("no guest {vmid}"))?;
        }
        ["stop", vmid] => guest(world, vmid)?.is_running = false,
        ["lose", volid] => world.lose(volid),
        ["protect", volid] => world.protect(volid),
        ["spoil", volid] => world.spoil(volid),
        ["ha", vmid] => guest(world, vmid)?.is_ha = true,
        ["ha", vmid, "here"] => {
            let guest = guest(world, vmid)?;
            (guest.is_ha, guest.is_bound) = (true, true);
        }
        ["version", version] => world.version = (*version).to_owned(),
        ["faults", faults @ ..] => set_faults(world, faults)?,
        _ => bail!("`{line}` is no command:\n{HELP}"),
    }
    Ok(json!("ok"))
}

fn list(world: &World) -> Value {
    let guests = world.guests.iter().map(|(vmid, guest)| {
        json!({
            "vmid": vmid,
            "name": guest.name(),
            "host": guest.host,
            "is_ours": matches!(guest.owner, Owner::Ours(_)),
            "is_running": guest.is_running,
            "is_template": guest.is_template(),
            // Never what: there is a token in it.
            "is_told": guest.told.is_some(),
            "mac": guest.mac(),
            "uuid": guest.smbios(),
            "config": guest.config.iter().filter(|(name, _)| *name != "env").collect::<Vec<_>>(),
        })
    });
    json!({"now_ms": world.now_ms(), "hosts": world.hosts, "guests": guests.collect::<Vec<_>>()})
}

fn power(world: &mut World, host: &str, is_on: bool) -> Result<()> {
    match world.power(host, is_on) {
        true => Ok(()),
        false => bail!("no host {host}"),
    }
}

fn guest<'w>(world: &'w mut World, vmid: &str) -> Result<&'w mut crate::Guest> {
    let found = world.guests.get_mut(&vmid.parse()?);
    found.with_context(|| format!("no guest {vmid}"))
}

fn set_faults(world: &mut World, words: &[&str]) -> Result<()> {
    let mut faults = crate::Faults::default();
    for word in words {
        let (name, value) = word.split_once('=').context("NAME=N is expected")?;
        let value = value.parse()?;
        match name {
            "broken_line" => faults.broken_line = value,
            "unknown" => faults.unknown = value,
            "lock_timeout" => faults.lock_timeout = value,
            "failed_task" => faults.failed_task = value,
            "people" => faults.people = value,
            _ => bail!("no fault {name}"),
        }
    }
    world.faults = faults;
    Ok(())
}
