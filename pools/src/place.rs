//! Where a guest is made, and under which number.

use std::collections::BTreeSet;
use std::net::IpAddr;

use skep_model::pool::{Guest, GuestSize, Phase, Recipe};
use skep_proxmox::calls::cluster;

/// A host and a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The host.
    pub host: String,
    /// The number.
    pub vmid: u32,
    /// An address, where the recipe has a range.
    pub address: Option<IpAddr>,
}

/// Chooses for one guest of a pool: the host with the fewest of its guests, of those that have room for its memory, then the
/// one with the most room. A guest that had a number that turned out to be somebody's gets one behind it. Of addresses the
/// lowest that no guest has that may exist.
///
/// # Errors
/// No host can have it, or no number or address is free: what is against each.
pub fn choose(
    recipe: &Recipe,
    guest: &Guest,
    others: &[Guest],
    (hosts, rows): (&[cluster::Host], &[cluster::Guest]),
) -> Result<Choice, String> {
    let vmid = number(recipe, guest, others, rows)?;
    let address = address(recipe, guest, others)?;
    let mut refused = Vec::new();
    let mut best = None;
    for name in recipe.hosts() {
        let host = hosts.iter().find(|host| host.node == name);
        let own = |other: &&Guest| {
            other.id != guest.id
                && other.phase < Phase::Gone
                && host_of(other, rows).as_deref() == Some(name)
        };
        let count = others.iter().filter(own).count();
        match room(recipe, (name, host), count, rows) {
            Ok(free_bytes) => {
                let rank = (count, std::cmp::Reverse(free_bytes), name);
                if best.as_ref().is_none_or(|it| rank < *it) {
                    best = Some(rank);
                }
            }
            Err(why) => refused.push(format!("{name} {why}")),
        }
    }
    match best {
        Some((_, _, host)) => Ok(Choice {
            host: host.to_owned(),
            vmid,
            address,
        }),
        None => Err(format!("no host can have it: {}", refused.join("; "))),
    }
}

/// Where a guest is now; where it is not seen, where it is to be.
fn host_of(guest: &Guest, rows: &[cluster::Guest]) -> Option<String> {
    let row = rows
        .iter()
        .find(|row| row.vmid().map(skep_proxmox::Vmid::get) == guest.vmid && guest.vmid.is_some());
    row.and_then(|row| row.node.clone())
        .or_else(|| guest.host.clone())
}

/// Memory that no guest of a host was promised, bytes.
fn room(
    recipe: &Recipe,
    (name, host): (&str, Option<&cluster::Host>),
    own: usize,
    rows: &[cluster::Guest],
) -> Result<u64, String> {
    let host = host.ok_or("is no host of this cluster")?;
    if !host.is_online() {
        return Err("is away".to_owned());
    }
    if host.ha_state.as_deref() == Some("maintenance") {
        return Err("is in maintenance".to_owned());
    }
    if let Some(most) = recipe.max_per_host
        && own >= most as usize
    {
        return Err(format!("has {own} of at most {most}"));
    }
    let promised: u64 = rows
        .iter()
        .filter(|row| row.node.as_deref() == Some(name) && !row.is_template())
        .filter_map(|row| row.maxmem)
        .sum();
    let free = host.maxmem.unwrap_or(0).saturating_sub(promised);
    let needed = u64::from(recipe.memory_mib) << 20;
    match free >= needed {
        true => Ok(free),
        false => Err(format!(
            "has {} MiB of memory that no guest was promised",
            free >> 20
        )),
    }
}

/// Whether a host has room for a guest of it that gets more memory.
///
/// # Errors
/// What it has and what is promised, for a person.
pub(crate) fn grows(
    (host, vmid): (&str, u32),
    to: GuestSize,
    (hosts, rows): (&[cluster::Host], &[cluster::Guest]),
) -> Result<(), String> {
    let its = rows
        .iter()
        .filter(|row| row.node.as_deref() == Some(host) && !row.is_template());
    let is_it = |row: &&cluster::Guest| row.vmid().is_some_and(|it| it.get() == vmid);
    let (own, others): (Vec<_>, Vec<_>) = its.partition(is_it);
    let sum = |rows: &[&cluster::Guest]| rows.iter().filter_map(|row| row.maxmem).sum::<u64>();
    let (own, others) = (sum(&own), sum(&others));
    let wanted = u64::from(to.memory_mib) << 20;
    let Some(there) = hosts.iter().find(|it| it.node == host) else {
        return Err(format!("{host} is no host of this cluster"));
    };
    let cores = there.maxcpu.map_or(u32::MAX, |it| it as u32);
    if to.cores > cores {
        return Err(format!(
            "{host} has {cores} processors, and no guest gets more than its host: {} were wanted",
            to.cores
        ));
    }
    let has = there.maxmem.unwrap_or(0);
    match wanted <= own || wanted.saturating_add(others) <= has {
        true => Ok(()),
        false => Err(format!(
            "{host} has {} MiB of memory, and its other guests were promised {} MiB: {} MiB are more than the {} MiB that are left",
            has >> 20,
            others >> 20,
            to.memory_mib,
            has.saturating_sub(others) >> 20
        )),
    }
}

fn number(
    recipe: &Recipe,
    guest: &Guest,
    others: &[Guest],
    rows: &[cluster::Guest],
) -> Result<u32, String> {
    let seen = rows.iter().filter_map(|row| Some(row.vmid()?.get()));
    let written = others.iter().filter(|other| {
        // What is gone may yet come about, as long as its answer may be on its way.
        other.id != guest.id && other.phase < Phase::Gone
    });
    let mut taken: BTreeSet<u32> = seen.collect();
    taken.extend(written.filter_map(|other| other.vmid));
    taken.extend(guest.vmid);
    let range = recipe.vmids;
    let behind = guest.vmid.filter(|vmid| range.contains(*vmid));
    let (before, after): (Vec<u32>, Vec<u32>) = range
        .iter()
        .filter(|vmid| !taken.contains(vmid))
        .partition(|vmid| behind.is_some_and(|behind| *vmid < behind));
    let free = after.into_iter().chain(before).next();
    free.ok_or_else(|| format!("no number from {} to {} is free", range.first, range.last))
}

fn address(recipe: &Recipe, guest: &Guest, others: &[Guest]) -> Result<Option<IpAddr>, String> {
    let Some(range) = &recipe.addresses else {
        return Ok(None);
    };
    let taken: BTreeSet<IpAddr> = others
        .iter()
        .filter(|other| other.id != guest.id && other.phase < Phase::Gone)
        .flat_map(|other| other.given.into_iter().chain(other.address))
        .collect();
    let free = range.iter().find(|address| !taken.contains(address));
    let none = || format!("no address from {} to {} is free", range.first, range.last);
    free.map(Some).ok_or_else(none)
}

#[cfg(test)]
mod tests;
