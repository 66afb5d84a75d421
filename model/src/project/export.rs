//! A file out of what there is, and the text of a file.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use toml::{Table, Value};

use super::{Current, EnvironmentTable, Given, Origin, Project, ServiceTable, Variables};
use crate::manifest::Manifest;
use crate::tenancy::DEFAULT_ENVIRONMENT;

/// The file that says what there is. What is the same wherever a service is, is said once.
pub fn export(name: &str, current: &Current) -> Project {
    let places = current.services.keys();
    let known = places.map(|place| &place.environment);
    let known: BTreeSet<&String> = known.chain(current.shared.keys()).collect();
    let mut project = Project {
        name: name.to_owned(),
        variables: common(known.iter().map(|it| current.shared.get(*it))),
        ..Project::default()
    };
    let is_usual = known.iter().all(|it| *it == DEFAULT_ENVIRONMENT);
    for environment in known.iter().filter(|_| !is_usual) {
        let shared = current.shared.get(*environment).cloned();
        let table = EnvironmentTable {
            variables: without(shared.unwrap_or_default(), &project.variables),
            services: BTreeMap::new(),
        };
        project.environments.insert((*environment).clone(), table);
    }
    let names: BTreeSet<&String> = current.services.keys().map(|it| &it.service).collect();
    for service in names {
        add(&mut project, service, (current, known.len()));
    }
    project
}

/// Adds a service in all environments that have it.
fn add(project: &mut Project, service: &str, (current, environments): (&Current, usize)) {
    let all = current.services.iter();
    let found: Vec<_> = all.filter(|(place, _)| place.service == service).collect();
    let tables = found.iter().map(|(_, it)| table(&Manifest::of(&it.spec)));
    let tables: Vec<Table> = tables.collect();
    let origins: Vec<_> = found.iter().map(|(_, it)| Origin::of(&it.spec)).collect();
    let mut general = tables.first().cloned().unwrap_or_default();
    general.retain(|key, value| tables.iter().all(|it| it.get(key) == Some(value)));
    let is_one_origin = origins.windows(2).all(|two| two[0] == two[1]);
    let variables = common(found.iter().map(|(_, it)| Some(&it.variables)));
    for (((place, it), mut rest), origin) in found.iter().zip(tables).zip(&origins) {
        rest.retain(|key, _| !general.contains_key(key));
        let table = ServiceTable {
            origin: origin.clone().filter(|_| !is_one_origin),
            environments: None,
            manifest: manifest(rest),
            variables: without(it.variables.clone(), &variables),
        };
        let there = project.environments.get_mut(&place.environment);
        if let Some(there) = there.filter(|_| table != ServiceTable::default()) {
            there.services.insert(service.to_owned(), table);
        }
    }
    let only = || found.iter().map(|(place, _)| place.environment.clone());
    let table = ServiceTable {
        origin: origins
            .into_iter()
            .next()
            .flatten()
            .filter(|_| is_one_origin),
        environments: (found.len() < environments).then(|| only().collect()),
        manifest: manifest(general),
        variables,
    };
    project.services.insert(service.to_owned(), table);
}

/// What all of them have.
fn common<'a>(mut all: impl Iterator<Item = Option<&'a Variables>>) -> Variables {
    let mut common = all.next().flatten().cloned().unwrap_or_default();
    for other in all {
        common.retain(|name, given| other.is_some_and(|it| it.get(name) == Some(given)));
    }
    common
}

fn without(mut variables: Variables, said: &Variables) -> Variables {
    variables.retain(|name, _| !said.contains_key(name));
    variables
}

/// As TOML has it.
pub(super) fn table<T: Serialize>(it: &T) -> Table {
    Table::try_from(it).expect("what is read from TOML can be written as TOML")
}

fn manifest(table: Table) -> Manifest {
    table.try_into().expect("it was written from a manifest")
}

impl Project {
    /// The text of the file.
    pub fn text(&self) -> String {
        let text = toml::to_string_pretty(&self.table());
        text.expect("what is read from TOML can be written as TOML")
    }

    /// The file as TOML has it, for programs.
    pub fn table(&self) -> Table {
        let mut file = Table::new();
        file.insert("project".into(), self.name.clone().into());
        put(&mut file, "variables", said(&self.variables));
        put(&mut file, "services", services(&self.services));
        let mut environments = Table::new();
        for (name, it) in &self.environments {
            let mut table = Table::new();
            put(&mut table, "variables", said(&it.variables));
            put(&mut table, "services", services(&it.services));
            environments.insert(name.clone(), table.into());
        }
        put(&mut file, "environments", environments);
        file
    }
}

fn services(all: &BTreeMap<String, ServiceTable>) -> Table {
    let written = all.iter().map(|(name, it)| {
        let mut service = table(&it.manifest);
        if let Some(origin) = &it.origin {
            service.insert("from".into(), table(origin).into());
        }
        if let Some(only) = &it.environments {
            let only = only.iter().cloned().map(Value::from);
            service.insert("environments".into(), Value::Array(only.collect()));
        }
        put(&mut service, "variables", said(&it.variables));
        (name.clone(), service.into())
    });
    written.collect()
}

fn said(variables: &Variables) -> Table {
    let written = variables.iter().map(|(name, given)| {
        let value = match given {
            Given::Value(value) => Value::from(&**value),
            Given::Secret | Given::Made => {
                Table::from_iter([("secret".to_owned(), true.into())]).into()
            }
        };
        (name.clone(), value)
    });
    written.collect()
}

/// Tables that say nothing are left out.
fn put(into: &mut Table, key: &str, table: Table) {
    if !table.is_empty() {
        into.insert(key.into(), table.into());
    }
}
