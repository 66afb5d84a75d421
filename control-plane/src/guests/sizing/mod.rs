//! How many nodes a pool that scales itself should have: what waits, what its next nodes would be like and what is kept
//! of the past go in, one decision comes out. Proposes nothing, asks no provider.

mod blueprint;
mod outlook;
mod work;

use std::collections::BTreeMap;

use skep_model::guest_pool::{DRAIN_MS, GuestPool, MAX_DECISION, PoolGuest};
use skep_model::id::{GuestId, NodeId};
use skep_model::node::{Node, NodeStatus};
use skep_model::pool::Phase;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_scheduler::autoscale::pool::{Change, Member, Pool, Unneeded, plan_nodes};
use skep_scheduler::autoscale::trial::{Blueprint, Ground, Unplaced};
use skep_scheduler::cluster::Cluster;
use skep_state::State;

pub(crate) use outlook::outlook;
use work::Paper;

/// A guest that is not a node after so long is given up: a clone of a large disk, its start and its joining are done by then.
const DEADLINE_MS: u64 = 20 * 60 * 1_000;
/// Nothing is expected of a guest that has been kept from going on for so long: another pool may be asked.
const SLOW_MS: u64 = 5 * 60 * 1_000;
/// The same of one that has found no host: its provider is full.
const NO_HOST_MS: u64 = 20_000;
/// From a node's joining to its first session are milliseconds: after so long it is one that is lost.
const ARRIVAL_MS: u64 = 30_000;
/// After a guest was given up none is ordered of its pool for so long; doubled with each, up to [`LONGEST_PAUSE_MS`].
const FIRST_PAUSE_MS: u64 = 5 * 60 * 1_000;
/// After many.
const LONGEST_PAUSE_MS: u64 = 60 * 60 * 1_000;
/// Services that a reason names.
const NAMED_MAX: usize = 3;

/// What is kept between decisions. Lost with the leader, which only delays.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    unneeded: Unneeded,
    /// Since when each guest that comes has been kept from going on, ms.
    troubled_ms: BTreeMap<GuestId, u64>,
    setbacks: BTreeMap<String, Setback>,
}

/// Guests of a pool did not come.
#[derive(Debug, Clone, Copy)]
struct Setback {
    failures: u32,
    at_ms: u64,
    until_ms: u64,
}

/// What is to be written down.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decision {
    /// Of which pool.
    pub(crate) pool: String,
    /// What and why, for a person.
    pub(crate) reason: String,
    /// The command that says so.
    pub(crate) kind: Kind,
}

/// The pools that scale themselves.
pub(crate) fn scaling(view: &State) -> impl Iterator<Item = &GuestPool> {
    view.guest_pools()
        .map(|it| &**it)
        .filter(|it| it.size.auto.is_some())
}

/// One decision, on a cluster that shows this view; none: it is as it should be, or nothing helps.
pub(crate) fn decide(
    view: &State,
    cluster: Cluster,
    memory: &mut Memory,
    now_ms: u64,
) -> Option<Decision> {
    let pools: Vec<&GuestPool> = scaling(view).collect();
    memory.keep_up(view, &pools, now_ms);
    if let Some(overdue) = memory.give_up_overdue(view, &pools, now_ms) {
        return Some(overdue);
    }
    let standings: Vec<Standing<'_>> = pools
        .iter()
        .map(|pool| Standing::of(view, pool, memory, now_ms))
        .collect();
    let scene = Scene::of(view, cluster, standings, now_ms);
    let tenants = |node| work::tenants(view, node);
    let ground = scene.ground(&tenants);
    let change = plan_nodes(&scene.offers(), &ground, &mut memory.unneeded, now_ms);
    match change {
        Change::Add {
            pool,
            nodes,
            unplaced,
        } => {
            let standing = scene.standing(&pool)?;
            let reason = scene.why_more(nodes, unplaced);
            let wanted = standing.size().saturating_add(nodes);
            Some(say(standing.pool, (wanted, None), reason, now_ms))
        }
        Change::Remove {
            node,
            pool,
            unneeded_ms,
        } => {
            let standing = scene.standing(&pool)?;
            let guest = view.guest_of(node)?;
            let name = guest.guest.name();
            let reason = format!(
                "{name} goes: for {} all would have had a place without it",
                span(unneeded_ms)
            );
            let wanted = standing.size().saturating_sub(1);
            Some(say(
                standing.pool,
                (wanted, Some(guest.guest.id)),
                reason,
                now_ms,
            ))
        }
        Change::Keep { unplaced: 0 } => {
            let decision = scene.without_the_stuck(now_ms)?;
            memory.set_back(&decision.pool, now_ms);
            Some(decision)
        }
        Change::Keep { .. } => None,
    }
}

fn say(
    pool: &GuestPool,
    (wanted, guest): (u32, Option<GuestId>),
    mut reason: String,
    now_ms: u64,
) -> Decision {
    reason.truncate(reason.floor_char_boundary(MAX_DECISION));
    Decision {
        pool: pool.name.clone(),
        reason: reason.clone(),
        kind: Kind::DecideNodes(v1::DecideNodes {
            pool: pool.name.clone(),
            expected_generation: pool.generation,
            wanted,
            guest: guest.map_or_else(Vec::new, |it| id_bytes(it.as_u128())),
            drain_deadline_ms: now_ms + DRAIN_MS,
            reason,
        }),
    }
}

/// A pool's guests by what is expected of them.
struct Standing<'a> {
    pool: &'a GuestPool,
    ready: Vec<&'a PoolGuest>,
    /// They come, or will as soon as they are planned.
    coming: u32,
    /// They were ordered, and nothing is expected of them.
    stuck: Vec<&'a PoolGuest>,
    is_held: bool,
}

impl<'a> Standing<'a> {
    fn of(view: &'a State, pool: &'a GuestPool, memory: &Memory, now_ms: u64) -> Self {
        let counted = view.guests_of(&pool.name).map(|it| &**it);
        let counted = counted.filter(|it| it.counts());
        let (ready, others): (Vec<&PoolGuest>, Vec<&PoolGuest>) =
            counted.partition(|it| has_arrived(view, it, now_ms));
        let stuck: Vec<&PoolGuest> = others
            .into_iter()
            .filter(|it| memory.is_stuck(it, now_ms))
            .collect();
        let there = ready.len() + stuck.len();
        let there = u32::try_from(there).unwrap_or(u32::MAX);
        let setback = memory.setbacks.get(&pool.name);
        Self {
            pool,
            coming: pool.size.wanted.saturating_sub(there),
            is_held: !stuck.is_empty() || setback.is_some_and(|it| now_ms < it.until_ms),
            ready,
            stuck,
        }
    }

    fn size(&self) -> u32 {
        let there = self.ready.len() + self.stuck.len();
        u32::try_from(there)
            .unwrap_or(u32::MAX)
            .saturating_add(self.coming)
    }

    /// As the decision sees it: with at most so many more.
    fn offer(&self, view: &State, cluster: &Cluster, more: u32) -> Pool {
        let size = self.pool.size;
        let auto = size.auto.unwrap_or_default();
        let member = |one: &&PoolGuest| {
            let node = view.node(one.node?)?;
            Some(Member {
                id: node.id,
                added_ms: node.joined_ms,
                used_percent: used_percent(cluster, node.id),
            })
        };
        let all = self.ready.iter().chain(&self.stuck);
        Pool {
            name: self.pool.name.clone(),
            min: size.min,
            max: size.max.min(self.size().saturating_add(more)),
            cost: auto.cost.into(),
            members: self.ready.iter().filter_map(member).collect(),
            coming: self.coming,
            stuck: u32::try_from(self.stuck.len()).unwrap_or(u32::MAX),
            is_held: self.is_held,
            idle_ms: auto.idle_ms,
            ordered_ms: all.map(|it| it.planned_ms).max(),
        }
    }
}

/// Of the resource of which more is asked for.
fn used_percent(cluster: &Cluster, node: NodeId) -> u32 {
    let Some(node) = cluster.node(node) else {
        return 0;
    };
    let of = |capacity: u64, free: u64| {
        let used = capacity.saturating_sub(free).saturating_mul(100);
        used.checked_div(capacity).unwrap_or(0)
    };
    let cpu = of(node.capacity.cpu_millis, node.free.cpu_millis);
    let memory = of(node.capacity.memory_bytes, node.free.memory_bytes);
    u32::try_from(cpu.max(memory)).unwrap_or(u32::MAX)
}

/// All that one decision is made from.
struct Scene<'a> {
    view: &'a State,
    standings: Vec<Standing<'a>>,
    blueprints: Vec<Blueprint>,
    /// How many more the hosts of each pool may get.
    more: Vec<u32>,
    cluster: Cluster,
    waiting: Vec<Unplaced>,
}

impl<'a> Scene<'a> {
    fn of(view: &'a State, cluster: Cluster, standings: Vec<Standing<'a>>, now_ms: u64) -> Self {
        let paper = Paper::of(view, cluster, now_ms);
        let mut scene = Self {
            view,
            standings,
            blueprints: Vec::new(),
            more: Vec::new(),
            cluster: paper.cluster,
            waiting: paper.waiting,
        };
        for standing in &scene.standings {
            let auto = standing.pool.size.auto.unwrap_or_default();
            let (mut blueprint, more) = blueprint::of(view, standing.pool, auto, now_ms);
            let room = standing.offer(view, &scene.cluster, more).room();
            blueprint.may_come = standing.coming > 0 || room > 0;
            scene.blueprints.push(blueprint);
            scene.more.push(more);
        }
        scene
    }

    fn ground<'g>(&self, tenants: &'g skep_scheduler::autoscale::trial::Tenants<'g>) -> Ground<'g> {
        let system = work::of_system(self.view);
        Ground::new(
            self.cluster.clone(),
            self.blueprints.clone(),
            (self.waiting.clone(), system),
            tenants,
        )
    }

    fn offers(&self) -> Vec<Pool> {
        let both = self.standings.iter().zip(&self.more);
        both.map(|(standing, more)| standing.offer(self.view, &self.cluster, *more))
            .collect()
    }

    fn standing(&self, pool: &str) -> Option<&Standing<'a>> {
        self.standings.iter().find(|it| it.pool.name == pool)
    }

    fn why_more(&self, nodes: u32, (before, after): (u32, u32)) -> String {
        let order = match nodes {
            1 => "1 more node".to_owned(),
            _ => format!("{nodes} more nodes"),
        };
        if before == after {
            return format!("{order}: fewer than the least were wanted");
        }
        let waiting: u32 = self.waiting.iter().map(|it| it.count).sum();
        let mut named: Vec<String> = self
            .waiting
            .iter()
            .take(NAMED_MAX)
            .map(|one| {
                match self.view.service(one.ask.service) {
                    Some(service) => format!("{} of `{}`", one.count, self.view.label_of(service)),
                    // Of all services together.
                    None => format!("builds ({})", one.count),
                }
            })
            .collect();
        if self.waiting.len() > NAMED_MAX {
            named.push("others".to_owned());
        }
        let why = match waiting {
            0 => "what is to be kept free is not".to_owned(),
            _ => format!("without a place: {}", named.join(", ")),
        };
        let rest = match after {
            0 => String::new(),
            _ => format!("; {after} still have none then"),
        };
        format!("{order}: {why}{rest}")
    }

    /// What does not come is given up where nobody waits for it.
    fn without_the_stuck(&self, now_ms: u64) -> Option<Decision> {
        // What comes in its place may not come either.
        if self.standings.iter().any(|standing| standing.coming > 0) {
            return None;
        }
        self.standings.iter().find_map(|standing| {
            let one = standing.stuck.last()?;
            (standing.size() > standing.pool.size.min).then(|| {
                let reason = format!(
                    "{} is given up: it does not come, and nothing waits for it",
                    one.guest.name()
                );
                let wanted = standing.size() - 1;
                say(standing.pool, (wanted, Some(one.guest.id)), reason, now_ms)
            })
        })
    }
}

impl Memory {
    fn keep_up(&mut self, view: &State, pools: &[&GuestPool], now_ms: u64) {
        let troubled = view
            .guests()
            .filter(|it| it.counts() && !it.is_ready() && it.guest.problem.is_some());
        let before = std::mem::take(&mut self.troubled_ms);
        self.troubled_ms = troubled
            .map(|it| {
                (
                    it.guest.id,
                    before.get(&it.guest.id).copied().unwrap_or(now_ms),
                )
            })
            .collect();
        self.setbacks.retain(|name, setback| {
            let is_there = pools.iter().any(|pool| pool.name == *name);
            let mut nodes = view.guests_of(name).filter_map(|it| view.node(it.node?));
            is_there && !nodes.any(|node| node.joined_ms > setback.at_ms)
        });
    }

    fn is_stuck(&self, one: &PoolGuest, now_ms: u64) -> bool {
        let since = self.troubled_ms.get(&one.guest.id);
        let troubled_ms = since.map_or(0, |at| now_ms.saturating_sub(*at));
        let most = match one.guest.phase {
            Phase::Planned => NO_HOST_MS,
            _ => SLOW_MS,
        };
        troubled_ms >= most || is_overdue(one, now_ms)
    }

    /// None is ordered of a pool until its pause is over.
    fn set_back(&mut self, pool: &str, now_ms: u64) {
        let setback = self.setbacks.entry(pool.to_owned()).or_insert(Setback {
            failures: 0,
            at_ms: 0,
            until_ms: 0,
        });
        // Several of one order are one failure.
        if now_ms >= setback.until_ms {
            let pause = FIRST_PAUSE_MS.saturating_mul(1 << setback.failures.min(10));
            setback.failures += 1;
            setback.until_ms = now_ms + pause.min(LONGEST_PAUSE_MS);
        }
        setback.at_ms = now_ms;
    }

    /// A guest that did not come in its time goes: by what is left of it nobody is held up any longer.
    fn give_up_overdue(
        &mut self,
        view: &State,
        pools: &[&GuestPool],
        now_ms: u64,
    ) -> Option<Decision> {
        let mut all = pools.iter().flat_map(|pool| {
            let guests = view.guests_of(&pool.name).map(move |one| (*pool, &**one));
            guests.filter(|(_, one)| one.counts() && !one.is_ready() && is_overdue(one, now_ms))
        });
        let (pool, one) = all.next()?;
        let why = one.guest.problem.as_deref();
        let reason = format!(
            "{} is given up: it was no node after {}{}",
            one.guest.name(),
            span(now_ms.saturating_sub(one.planned_ms)),
            why.map_or_else(String::new, |why| format!("; {why}"))
        );
        self.set_back(&pool.name, now_ms);
        let may_be_fewer = pool.size.wanted > pool.size.min;
        if may_be_fewer {
            let wanted = pool.size.wanted - 1;
            return Some(say(pool, (wanted, Some(one.guest.id)), reason, now_ms));
        }
        // As many are wanted as before: another one comes in its place.
        Some(Decision {
            pool: pool.name.clone(),
            reason,
            kind: Kind::RetireGuest(v1::RetireGuest {
                id: id_bytes(one.guest.id.as_u128()),
                replace: true,
                leave: true,
                drain_deadline_ms: now_ms,
            }),
        })
    }
}

/// Whether a node runs in it that may be given work, or was. Between its joining and its first session a node is there and
/// takes nothing: what it was ordered for would have another one ordered.
fn has_arrived(view: &State, one: &PoolGuest, now_ms: u64) -> bool {
    let is_new = |node: &Node| {
        node.status == NodeStatus::Lost
            && node.status_ms == node.joined_ms
            && now_ms < node.joined_ms.saturating_add(ARRIVAL_MS)
    };
    let node = one.node.and_then(|id| view.node(id));
    one.is_ready() && !node.is_some_and(|it| is_new(it))
}

fn is_overdue(one: &PoolGuest, now_ms: u64) -> bool {
    now_ms.saturating_sub(one.planned_ms) >= DEADLINE_MS
}

fn span(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

#[cfg(test)]
mod builders;
#[cfg(test)]
mod laws;
#[cfg(test)]
pub(in crate::guests) mod tests;
