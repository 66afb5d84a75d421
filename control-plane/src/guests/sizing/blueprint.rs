//! What the next nodes of a pool will be like: as those that there are, as the last that went, else as the recipe
//! says. Decides nothing.

use std::collections::BTreeMap;

use skep_model::guest_pool::{Auto, GuestPool};
use skep_model::id::NodeId;
use skep_model::node::{Admin, Facts, Node, NodeStatus};
use skep_model::pool::{Kind, Phase};
use skep_scheduler::autoscale::pool::MAX_ADDED;
use skep_scheduler::autoscale::trial::Blueprint;
use skep_scheduler::room::Room;
use skep_state::State;

use super::has_arrived;
use crate::placement::common_meta;

/// Of a VM's memory, what its kernel takes before anything runs: 1/24, rounded up from what Debian 12 shows of 2 to 16 GiB.
const KERNEL_SHARE: u64 = 24;
/// Of a disk, what partitions, the file system and the system itself take: 1/8.
const SYSTEM_SHARE: u64 = 8;
/// What Proxmox VE runs on.
const ARCHITECTURE: &str = "x86_64";

/// The next nodes of a pool, and how many more its hosts may get beside those that come already.
pub(super) fn of(view: &State, pool: &GuestPool, auto: Auto, now_ms: u64) -> (Blueprint, u32) {
    let mut meta = pool.meta.clone();
    meta.insert("pool".to_owned(), pool.name.clone());
    let mut node = Node {
        id: NodeId::from_u128(0),
        name: pool.name.clone(),
        facts: facts(view, pool),
        status: NodeStatus::Ready,
        status_ms: 0,
        generation: 0,
        joined_ms: 0,
        meta,
        admin: Admin::Eligible,
        seat: 0,
        fencing: Default::default(),
        witnesses: Vec::new(),
    };
    if let Some(meta) = common_meta(view, &node) {
        node.meta = meta;
    }
    let (hosts, more) = hosts(view, pool, now_ms);
    let blueprint = Blueprint {
        pool: pool.name.clone(),
        node,
        hosts,
        headroom: Room {
            cpu_millis: auto.headroom_cpu_millis.into(),
            memory_bytes: auto.headroom_memory_bytes,
            disk_bytes: 0,
        },
        spare: auto.spare,
        may_come: true,
    };
    (blueprint, more)
}

fn facts(view: &State, pool: &GuestPool) -> Facts {
    let mut alike = view
        .guests_of(&pool.name)
        // One that was given a size of its own says nothing of others.
        .filter(|one| one.is_ready() && one.edition == pool.edition && one.guest.size.is_none())
        .filter_map(|one| view.node(one.node?));
    let known = alike
        .find(|node| node.facts.memory_bytes > 0)
        .map(|node| &node.facts);
    let gone = pool.seen.as_ref();
    let gone = gone.filter(|seen| seen.edition == pool.edition);
    let known = known.or(gone.map(|seen| &seen.facts));
    let mut facts = known.cloned().unwrap_or_else(|| by_recipe(pool));
    facts.volumes.clear();
    facts.meta.remove(skep_model::node::HOST);
    facts.machine.memory_unknown = false;
    facts
}

/// Nobody has seen one yet: it can all that an agent can, and has what a system leaves.
fn by_recipe(pool: &GuestPool) -> Facts {
    let recipe = &pool.recipe;
    let memory = u64::from(recipe.memory_mib) << 20;
    let disk = u64::from(recipe.disk_gib) << 30;
    Facts {
        architecture: ARCHITECTURE.to_owned(),
        cpu_millis: recipe.cores.saturating_mul(1_000),
        memory_bytes: match recipe.kind {
            Kind::Vm => memory - memory / KERNEL_SHARE,
            Kind::Lxc => memory,
        },
        disk_bytes: disk - disk / SYSTEM_SHARE,
        builder: true,
        private_network: true,
        storage: true,
        image_address: Some("new:0".to_owned()),
        mesh_address: Some("new:0".to_owned()),
        ..Facts::default()
    }
}

/// The hosts of the next nodes: of those that come, then, as they are spread, of more; and how many more. A program says
/// nothing of hosts, and gives what is asked of it until it does not.
fn hosts(view: &State, pool: &GuestPool, now_ms: u64) -> (Vec<String>, u32) {
    if pool.recipe.templates.is_empty() {
        return (Vec::new(), u32::MAX);
    }
    let mut counts: BTreeMap<&str, u32> = pool
        .recipe
        .hosts()
        .into_iter()
        .map(|host| (host, 0))
        .collect();
    let (mut next, mut unchosen) = (Vec::new(), 0_usize);
    for one in view.guests_of(&pool.name) {
        if one.guest.phase == Phase::Gone {
            continue;
        }
        if let Some(count) = one
            .guest
            .host
            .as_deref()
            .and_then(|host| counts.get_mut(host))
        {
            *count += 1;
        }
        if one.counts() && !has_arrived(view, one, now_ms) {
            match &one.guest.host {
                Some(host) => next.push(host.clone()),
                None => unchosen += 1,
            }
        }
    }
    let most = pool.recipe.max_per_host.unwrap_or(u32::MAX);
    let wanted = next.len() + unchosen + MAX_ADDED as usize;
    let coming = next.len() + unchosen;
    while next.len() < wanted {
        let least = counts
            .iter_mut()
            .min_by_key(|(host, count)| (**count, **host));
        match least.filter(|(_, count)| **count < most) {
            Some((host, count)) => {
                *count += 1;
                next.push((*host).to_owned());
            }
            None => break,
        }
    }
    let more = u32::try_from(next.len().saturating_sub(coming)).unwrap_or(u32::MAX);
    (next, more)
}
