//! In which order services are changed: one that others refer to before those.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Current, Given, Place, Project};
use crate::variable::reference::{self, Owner, Part};

/// The services of the file, one that others refer to first; by name where nothing else decides. Services that
/// refer to each other stand by name: releases need variables of others, not what runs of them.
pub(super) fn by_reference(file: &Project, current: &Current) -> Vec<Place> {
    let places = file.places();
    let needed: BTreeMap<&Place, BTreeSet<Place>> = places
        .iter()
        .map(|place| (place, needs(file, current, place)))
        .collect();
    let mut ordered = Vec::new();
    let mut begun = BTreeSet::new();
    for place in &places {
        visit(place, &needed, (&mut begun, &mut ordered));
    }
    ordered
}

fn visit(
    place: &Place,
    needed: &BTreeMap<&Place, BTreeSet<Place>>,
    (begun, ordered): (&mut BTreeSet<Place>, &mut Vec<Place>),
) {
    // A circle ends where it began.
    if !needed.contains_key(place) || !begun.insert(place.clone()) {
        return;
    }
    for other in &needed[place] {
        visit(other, needed, (begun, ordered));
    }
    ordered.push(place.clone());
}

/// Services of its environment that its variables refer to, with those that the file leaves as they are.
fn needs(file: &Project, current: &Current, place: &Place) -> BTreeSet<Place> {
    let found = current.services.get(place);
    let mut variables = found.map(|it| it.variables.clone()).unwrap_or_default();
    variables.extend(file.variables(place));
    let own = Owner::Service(place.service.clone());
    let values = variables.values().filter_map(|given| match given {
        Given::Value(value) => reference::read(&own, value).ok(),
        // Nobody can look into it.
        Given::Secret | Given::Made => None,
    });
    values
        .flatten()
        .filter_map(|part| match part {
            Part::Reference(reference::Place {
                owner: Owner::Service(service),
                ..
            }) => Some(Place::new(&place.environment, &service)),
            _ => None,
        })
        .collect()
}
