//! What a pool that scales itself would do as things are, and why, in words. Remembers nothing: for how long a node has
//! not been needed, the leader alone knows.

use skep_model::guest_pool::GuestPool;
use skep_scheduler::autoscale::pool::{Change, MAX_TRIALS, Trial as _, Unneeded, plan_nodes};
use skep_state::State;

use super::{Memory, Scene, Standing, scaling, span, work};
use crate::placement::cluster_of;

/// A line for each thing that is known: what waits, what is ordered, what does not come, what is not needed. Of the pool as
/// it is given, which may be one that is not there yet.
pub(crate) fn outlook(view: &State, pool: &GuestPool, now_ms: u64) -> Vec<String> {
    let Some(auto) = pool.size.auto else {
        return Vec::new();
    };
    let mut memory = Memory::default();
    // Whoever is troubled now has been for as long as it was planned, as far as is known here.
    let guests = view.guests().filter(|it| it.guest.problem.is_some());
    memory.troubled_ms = guests.map(|it| (it.guest.id, it.planned_ms)).collect();
    let mut pools: Vec<&GuestPool> = scaling(view).filter(|it| it.name != pool.name).collect();
    pools.push(pool);
    let standings = pools
        .iter()
        .map(|it| Standing::of(view, it, &memory, now_ms));
    let scene = Scene::of(view, cluster_of(view), standings.collect(), now_ms);
    let tenants = |node| work::tenants(view, node);
    let ground = scene.ground(&tenants);
    let change = plan_nodes(&scene.offers(), &ground, &mut Unneeded::default(), now_ms);
    let mut lines = Vec::new();
    let waiting: u32 = scene.waiting.iter().map(|it| it.count).sum();
    if waiting > 0 {
        let fit = ground.fit(&pool.name, &scene.waiting);
        let fitting = match fit.fitting {
            0 => "none fits".to_owned(),
            all if all == waiting => "each fits".to_owned(),
            some => format!("{some} of them fit"),
        };
        let why = fit
            .refusal
            .map(|it| format!("; the largest of the others: {it}"));
        lines.push(format!(
            "{waiting} without a place, {fitting} on a new node of this pool{}",
            why.unwrap_or_default()
        ));
    }
    if let Some(standing) = scene.standing(&pool.name) {
        match standing.coming {
            0 => {}
            1 => lines.push("1 node is coming".to_owned()),
            more => lines.push(format!("{more} nodes are coming")),
        }
        for one in &standing.stuck {
            let why = one.guest.problem.as_deref().unwrap_or("it takes too long");
            lines.push(format!("{} does not come: {why}", one.guest.name()));
        }
        if standing.is_held {
            lines.push("no more are ordered of it: it is tried again after a pause".to_owned());
        }
    }
    match change {
        Change::Add {
            pool: of,
            nodes,
            unplaced,
        } => {
            let why = scene.why_more(nodes, unplaced);
            let whose = match of == pool.name {
                true => String::new(),
                false => format!(" of the pool `{of}`"),
            };
            lines.push(format!("would now be ordered{whose}: {why}"));
        }
        Change::Keep { unplaced: 0 } => {
            let unneeded = unneeded(&scene, &pool.name, &|node| ground.fits_without(node));
            if !unneeded.is_empty() {
                let idle = span(auto.idle_ms);
                lines.push(format!(
                    "not needed now: {}; who is not for {idle} goes, one after the other, down to {}",
                    unneeded.join(", "),
                    pool.size.min
                ));
            }
        }
        Change::Keep { unplaced } => {
            lines.push(format!(
                "{unplaced} have no place on any node that may be ordered"
            ));
        }
        Change::Remove { .. } => {}
    }
    if lines.is_empty() {
        lines.push("as it should be".to_owned());
    }
    lines
}

fn unneeded(
    scene: &Scene<'_>,
    pool: &str,
    fits_without: &dyn Fn(skep_model::id::NodeId) -> bool,
) -> Vec<String> {
    let Some(standing) = scene.standing(pool) else {
        return Vec::new();
    };
    if standing.size() <= standing.pool.size.min {
        return Vec::new();
    }
    let tried = standing.ready.iter().take(MAX_TRIALS);
    let unneeded = tried.filter(|one| one.node.is_some_and(fits_without));
    unneeded.map(|one| one.guest.name()).collect()
}
