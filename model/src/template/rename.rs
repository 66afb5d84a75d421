//! Other names for all services of a project, and for whoever refers to them.

use std::collections::BTreeSet;

use crate::name;
use crate::problem::Problem;
use crate::project::{Given, Project, Variables};
use crate::variable::reference::{self, Owner, Part};

/// Puts `before` before the name of each service. References to others than these stay as they are.
pub(super) fn services(project: &mut Project, before: &str) -> Result<(), Problem> {
    let own: BTreeSet<String> = project.services.keys().cloned().collect();
    let mut renamed = std::collections::BTreeMap::new();
    for (service, mut table) in std::mem::take(&mut project.services) {
        let owner = Owner::Service(service.clone());
        follow(&mut table.variables, &owner, (&own, before))?;
        let service = format!("{before}{service}");
        name::check("name", &service)?;
        renamed.insert(service, table);
    }
    project.services = renamed;
    follow(&mut project.variables, &Owner::Shared, (&own, before))
}

fn follow(
    variables: &mut Variables,
    owner: &Owner,
    (own, before): (&BTreeSet<String>, &str),
) -> Result<(), Problem> {
    for given in variables.values_mut() {
        let Given::Value(value) = given else {
            continue;
        };
        let mut text = String::new();
        for part in reference::read(owner, value)? {
            match part {
                Part::Text(it) => text.push_str(&reference::escape(&it)),
                Part::Reference(place) => match &place.owner {
                    it if it == owner => text.push_str(&format!("${{{{{}}}}}", place.name)),
                    Owner::Service(service) if own.contains(service) => {
                        text.push_str(&format!("${{{{{before}{place}}}}}"));
                    }
                    _ => text.push_str(&format!("${{{{{place}}}}}")),
                },
            }
        }
        *value = text;
    }
    Ok(())
}
