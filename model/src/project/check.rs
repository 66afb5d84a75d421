//! Whether a file is good in itself: every service in every environment, before anybody is asked.

use std::collections::BTreeMap;

use super::{Place, Project};
use crate::problem::Problem;
use crate::spec::ServiceSpec;

impl Project {
    pub(crate) fn check(&self) -> Result<(), Problem> {
        self.check_environments()?;
        let mut specs = BTreeMap::new();
        for place in self.places() {
            let spec = self
                .spec(&place, &ServiceSpec::default())
                .and_then(|spec| spec.check_given().map(|()| spec))
                .map_err(|problem| at(&place, problem))?;
            specs.insert(place, spec);
        }
        check_hosts(&specs)
    }

    /// What a service says of environments is what the file knows.
    fn check_environments(&self) -> Result<(), Problem> {
        let known = self.environments();
        for (service, table) in &self.services {
            let field = format!("services.{service}.environments");
            let only = table.environments.iter().flatten();
            if let Some(other) = only.into_iter().find(|it| !known.contains(it.as_str())) {
                let told = format!("the file has no environment `{}`", other.escape_debug());
                return Err(Problem::invalid(field, told)
                    .hint(format!("add [environments.{}]", other.escape_debug())));
            }
        }
        for (environment, table) in &self.environments {
            for service in table.services.keys() {
                if !self.places().contains(&Place::new(environment, service)) {
                    let field = format!("environments.{environment}.services.{service}");
                    let told = format!("`{service}` is not to be in `{environment}`");
                    return Err(Problem::invalid(field, told).hint(format!(
                        "add `{environment}` to services.{service}.environments, or leave this out"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// A problem of a service in an environment: the file may say it in either of two places.
pub(super) fn at(place: &Place, mut problem: Problem) -> Problem {
    let field = problem.field.take().unwrap_or_default();
    problem.message = format!("in {}: {}", place.environment, problem.message);
    let service = &place.service;
    problem.at(format!("services.{service}.{field}"))
}

/// A host and path leads to one service: what a file says in general is said of each environment.
pub(super) fn check_hosts(specs: &BTreeMap<Place, ServiceSpec>) -> Result<(), Problem> {
    let mut taken: BTreeMap<(&str, &str), &Place> = BTreeMap::new();
    for (place, spec) in specs.iter().filter(|(_, spec)| spec.is_routed()) {
        let domains = spec.domains.iter().map(|host| (&**host, ""));
        let routes = spec.routes.iter();
        let routes = routes.filter_map(|route| Some((route.host.as_deref()?, route.prefix())));
        for (host, path) in domains.chain(routes) {
            let Some(other) = taken.insert((host, path), place).filter(|it| *it != place) else {
                continue;
            };
            let told = format!("{host}{path} would lead to {other} and to {place}");
            let field = format!("services.{}.domains", place.service);
            return Err(Problem::invalid(field, told).hint(format!(
                "a host of its own for each: [environments.{}.services.{}] domains = [...]",
                place.environment, place.service
            )));
        }
    }
    Ok(())
}
