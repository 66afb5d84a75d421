//! Whether another pool of private addresses would do: it has room for what there is, and is in nobody's way.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::id::EnvironmentId;
use skep_model::network::{Pool, block_of};
use skep_model::problem::{Code, Problem};
use skep_state::State as View;

use super::check::Answers;

/// Names of what is in the way, of one kind, that a problem tells.
const NAMED: usize = 8;

/// Whether addresses can be given out of `pool` from now on. What is given stays, so it is enough that it
/// could hold all blocks that there are.
///
/// # Errors
/// It is too small, or shares addresses with what nodes have; both with names.
pub(crate) fn check(view: &View, pool: Pool, answers: &Answers) -> Result<(), Problem> {
    has_room(view, pool)?;
    let mut in_the_way = Vec::new();
    for (node, heard) in answers {
        let name = view.node(*node).map_or("", |node| &node.name);
        for overlap in &heard.own.overlaps {
            in_the_way.push(format!(
                "{} ({} of node {name})",
                overlap.network, overlap.what
            ));
        }
        if let Some(bridges) = heard.own.pool.filter(|bridges| bridges.overlaps(pool)) {
            in_the_way.push(format!("{bridges} (`--private-network` of node {name})"));
        }
    }
    if in_the_way.is_empty() {
        return Ok(());
    }
    let text = format!("{pool} shares addresses with {}", listed(in_the_way));
    Err(Problem::new(Code::Conflict, text)
        .at("pool")
        .hint("choose a network that no node has a part of: `ip route` there tells what it has"))
}

fn has_room(view: &View, pool: Pool) -> Result<(), Problem> {
    let mut blocks: BTreeMap<EnvironmentId, BTreeSet<u32>> = BTreeMap::new();
    for held in view.private_addresses() {
        let block = block_of(u32::from(held.address));
        blocks.entry(held.environment).or_default().insert(block);
    }
    let needed: usize = blocks.values().map(BTreeSet::len).sum();
    if needed <= pool.blocks() as usize {
        return Ok(());
    }
    let name = |(environment, own): (&EnvironmentId, &BTreeSet<u32>)| {
        format!(
            "{} ({})",
            super::show::environment_name(view, *environment),
            own.len()
        )
    };
    let named = listed(blocks.iter().map(name).collect());
    let text = format!(
        "{pool} is too small: it has {} blocks of 32 addresses, and {needed} are in use: {named}",
        pool.blocks()
    );
    Err(Problem::invalid("pool", text).hint("choose a network with fewer leading bits"))
}

fn listed(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}
