//! What carries our name and is written down nowhere. It is told, and never removed: whoever made it may know why.

use std::collections::BTreeSet;

use skep_model::id::GuestId;
use skep_model::pool::{Guest, Phase, name_of};
use skep_proxmox::calls::cluster;

use crate::TAG;

/// A guest that nobody knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its number.
    pub vmid: u32,
    /// The host that it is on.
    pub host: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Why it is thought to be ours.
    pub why: String,
}

/// Guests with our tag, or named as ours are, that none of these is.
pub fn orphans(guests: &[Guest], rows: &[cluster::Guest]) -> Vec<Orphan> {
    let known: BTreeSet<(u32, String)> = guests
        .iter()
        .filter(|guest| guest.phase < Phase::Gone)
        .filter_map(|guest| Some((guest.vmid?, guest.name())))
        .collect();
    let numbers: BTreeSet<u32> = known.iter().map(|(vmid, _)| *vmid).collect();
    let mut found = Vec::new();
    for row in rows.iter().filter(|row| !row.is_template()) {
        let Some(vmid) = row.vmid() else { continue };
        let vmid = vmid.get();
        let is_known = match &row.name {
            Some(name) => known.contains(&(vmid, name.clone())),
            // One that is being made has no name yet.
            None => numbers.contains(&vmid),
        };
        let is_named = row.name.as_deref().is_some_and(is_our_name);
        let why = match (is_known, is_named, row.tags().contains(&TAG)) {
            (true, ..) | (_, false, false) => continue,
            (false, true, _) => "it has the name of a guest that this cluster has made".to_owned(),
            (false, false, true) => format!("it has the tag `{TAG}`"),
        };
        found.push(Orphan {
            vmid,
            host: row.node.clone(),
            name: row.name.clone(),
            why,
        });
    }
    found
}

fn is_our_name(name: &str) -> bool {
    let id = name.strip_prefix("skep-").map(str::parse::<GuestId>);
    id.and_then(Result::ok)
        .is_some_and(|id| name_of(id) == name)
}
