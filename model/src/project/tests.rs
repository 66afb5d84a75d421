//! Laws over random projects, changes by example, and what is refused.

mod changes;
mod laws;
mod mistakes;

use super::{Current, Found, Given, Place, Project, Running};
use crate::spec::ServiceSpec;

fn read(text: &str) -> Project {
    Project::parse(text).expect("accepted")
}

fn running(spec: ServiceSpec) -> Found {
    Found {
        spec,
        variables: Default::default(),
        running: Running::Current,
    }
}

/// What there is once a file has been carried out on nothing.
fn carried_out(file: &Project) -> Current {
    let mut current = Current::default();
    for environment in file.environments() {
        let shared = file.shared(environment);
        if !shared.is_empty() {
            current.shared.insert(environment.to_owned(), shared);
        }
    }
    for place in file.places() {
        let spec = file.spec(&place, &ServiceSpec::default());
        let variables = file.variables(&place);
        let found = Found {
            variables,
            ..running(spec.expect("accepted"))
        };
        current.services.insert(place, found);
    }
    current
}

fn has<'a>(current: &'a mut Current, place: (&str, &str)) -> &'a mut Found {
    let place = Place::new(place.0, place.1);
    current.services.get_mut(&place).expect("there")
}

fn value(text: &str) -> Given {
    Given::Value(text.to_owned())
}
