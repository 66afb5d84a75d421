//! What it takes to make what there is what the file says. Pure: compares, changes nothing.

mod order;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::check::{at, check_hosts};
use super::{Current, Found, Given, Origin, Place, Project, Running, Variables};
use crate::manifest::Manifest;
use crate::problem::Problem;
use crate::spec::{ServiceSpec, Source};

/// All that is to be done, in the order in which it is done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Plan {
    /// The changes.
    pub changes: Vec<Change>,
    /// Secrets that the file names and nobody has set: until then nothing is done.
    pub missing: Vec<Missing>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// Variables that an environment shares.
    Shared(SharedChange),
    /// A service is made or changed.
    Service(Box<ServiceChange>),
    /// A service that the file does not have goes.
    Remove(Place),
}

/// Variables that an environment shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SharedChange {
    /// The environment.
    pub environment: String,
    /// What changes.
    pub fields: Vec<Field>,
    /// To set.
    #[serde(skip)]
    pub set: BTreeMap<String, String>,
    /// To forget.
    #[serde(skip)]
    pub unset: Vec<String>,
}

/// A service is made or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceChange {
    /// Which.
    #[serde(flatten)]
    pub place: Place,
    /// There is none yet.
    pub is_new: bool,
    /// What changes; of a new one what is not as usual.
    pub fields: Vec<Field>,
    /// What brings it to what runs.
    pub deploy: Deploy,
    /// The specification as it is to be.
    #[serde(skip)]
    pub spec: ServiceSpec,
    /// Hosts that were its own are another's from then on: it has to let go of them first.
    #[serde(skip)]
    pub frees_hosts: bool,
    /// Variables to set.
    #[serde(skip)]
    pub set: BTreeMap<String, String>,
    /// Variables to forget.
    #[serde(skip)]
    pub unset: Vec<String>,
    /// Secrets to make and to set.
    #[serde(skip)]
    pub make: Vec<String>,
}

/// What brings a change to what runs of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Deploy {
    /// Nothing: it is in force at once, or nothing is to run.
    Nothing,
    /// The image that runs, with the new configuration.
    Redeploy,
    /// What its source has now.
    Source,
    /// A folder that somebody uploads: no file has it.
    Folder,
}

/// One thing that is said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Where, in the words of the file.
    pub path: String,
    /// As it is; none: as usual, or not there.
    pub old: Option<String>,
    /// As it is to be; the same.
    pub new: Option<String>,
}

/// A secret that has to be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// In this environment.
    pub environment: String,
    /// Of this service; none: shared.
    pub service: Option<String>,
    /// Its name.
    pub name: String,
    /// The service does not exist yet, either.
    pub is_new: bool,
}

impl Plan {
    /// Whether everything is as the file says.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.missing.is_empty()
    }
}

/// What makes of `current` what `file` says; `prune`: what it does not say goes, in its environments.
///
/// # Errors
/// What would come of it is not accepted.
pub fn plan(file: &Project, current: &Current, prune: bool) -> Result<Plan, Problem> {
    let specs = specs(file, current)?;
    let mut plan = Plan::default();
    for environment in file.environments() {
        let has = current.shared.get(environment).cloned();
        let turn = Turn::of(&has.unwrap_or_default(), &file.shared(environment), prune);
        let missing = turn.missing.iter().map(|name| Missing {
            environment: environment.to_owned(),
            service: None,
            name: name.clone(),
            is_new: false,
        });
        plan.missing.extend(missing);
        if !turn.fields.is_empty() {
            plan.changes.push(Change::Shared(SharedChange {
                environment: environment.to_owned(),
                fields: turn.fields,
                set: turn.set,
                unset: turn.unset,
            }));
        }
    }
    for place in order::by_reference(file, current) {
        let found = current.services.get(&place);
        let has = found.map(|it| it.variables.clone()).unwrap_or_default();
        let turn = Turn::of(&has, &file.variables(&place), prune);
        let missing = turn.missing.iter().map(|name| Missing {
            environment: place.environment.clone(),
            service: Some(place.service.clone()),
            name: name.clone(),
            is_new: found.is_none(),
        });
        plan.missing.extend(missing);
        let change = of_service(place, found, (&specs, turn));
        plan.changes
            .extend(change.map(|it| Change::Service(Box::new(it))));
    }
    if prune {
        let kept = file.places();
        let there = file.environments();
        let gone = current.services.keys();
        let gone =
            gone.filter(|place| there.contains(&*place.environment) && !kept.contains(place));
        plan.changes.extend(gone.cloned().map(Change::Remove));
    }
    Ok(plan)
}

/// The services of the file as they are to be.
fn specs(file: &Project, current: &Current) -> Result<BTreeMap<Place, ServiceSpec>, Problem> {
    let usual = ServiceSpec::default();
    let mut specs = BTreeMap::new();
    for place in file.places() {
        let found = current.services.get(&place);
        let base = found.map_or(&usual, |it| &it.spec);
        let spec = file.spec(&place, base);
        // What nobody touches is not judged anew: rules may have become stricter since.
        let spec = spec.and_then(|spec| match spec == *base {
            true => Ok(spec),
            false => spec.check_given().map(|()| spec),
        });
        let spec = spec.map_err(|problem| at(&place, problem))?;
        specs.insert(place, spec);
    }
    check_hosts(&specs)?;
    Ok(specs)
}

/// What becomes of variables.
#[derive(Debug, Default)]
struct Turn {
    fields: Vec<Field>,
    set: BTreeMap<String, String>,
    unset: Vec<String>,
    make: Vec<String>,
    missing: Vec<String>,
}

impl Turn {
    fn of(has: &Variables, said: &Variables, prune: bool) -> Self {
        let mut turn = Self::default();
        for (name, given) in said {
            let old = has.get(name);
            if old == Some(given) {
                continue;
            }
            match given {
                Given::Made if old == Some(&Given::Secret) => {}
                Given::Made if old.is_none() => {
                    turn.fields.push(variable(name, old, Some(given)));
                    turn.make.push(name.clone());
                }
                // One in place of a text that something may depend on is nobody's but a person's to make.
                Given::Secret | Given::Made => turn.missing.push(name.clone()),
                Given::Value(value) => {
                    turn.fields.push(variable(name, old, Some(given)));
                    turn.set.insert(name.clone(), value.clone());
                }
            }
        }
        for (name, old) in has
            .iter()
            .filter(|(name, _)| prune && !said.contains_key(*name))
        {
            turn.fields.push(variable(name, Some(old), None));
            turn.unset.push(name.clone());
        }
        turn
    }
}

fn variable(name: &str, old: Option<&Given>, new: Option<&Given>) -> Field {
    let shown = |given: &Given| match given {
        Given::Value(value) => toml::Value::from(&**value).to_string(),
        Given::Secret => "a secret".to_owned(),
        Given::Made => "a secret that is made".to_owned(),
    };
    Field {
        path: format!("variables.{name}"),
        old: old.map(shown),
        new: new.map(shown),
    }
}

/// None where the service is as it is to be.
fn of_service(
    place: Place,
    found: Option<&Found>,
    (specs, turn): (&BTreeMap<Place, ServiceSpec>, Turn),
) -> Option<ServiceChange> {
    let spec = specs.get(&place)?.clone();
    let usual = ServiceSpec::default();
    let before = found.map_or(&usual, |it| &it.spec);
    let deploy = match found {
        Some(found) => bringing(found, &spec, !turn.fields.is_empty()),
        None => fetched(&spec),
    };
    let mut fields = differences(&said(before), &said(&spec));
    let is_same = fields.is_empty() && turn.fields.is_empty();
    // An upload that nobody made yet is nothing that this could change.
    if found.is_some() && is_same && matches!(deploy, Deploy::Nothing | Deploy::Folder) {
        return None;
    }
    fields.extend(turn.fields);
    let kept = spec.hosts();
    let others = || specs.iter().filter(|(other, _)| **other != place);
    let is_anothers = |host: &&str| others().any(|(_, other)| other.hosts().contains(host));
    Some(ServiceChange {
        is_new: found.is_none(),
        fields,
        deploy,
        frees_hosts: (before.hosts().difference(&kept)).any(is_anothers),
        set: turn.set,
        unset: turn.unset,
        make: turn.make,
        spec,
        place,
    })
}

fn fetched(spec: &ServiceSpec) -> Deploy {
    match spec.source {
        // Its first push deploys it.
        Some(Source::Pushed { .. }) => Deploy::Nothing,
        Some(_) => Deploy::Source,
        None => Deploy::Folder,
    }
}

fn bringing(found: &Found, spec: &ServiceSpec, variables_change: bool) -> Deploy {
    let is_rebuilt = built(&found.spec) != built(spec);
    let is_renewed = variables_change || released(&found.spec) != released(spec);
    match found.running {
        Running::Stopped => Deploy::Nothing,
        Running::Never => fetched(spec),
        Running::Failed if spec.source.is_some() => Deploy::Source,
        _ if is_rebuilt && spec.source.is_some() => Deploy::Source,
        Running::Behind => Deploy::Redeploy,
        _ if is_renewed => Deploy::Redeploy,
        _ if is_rebuilt => Deploy::Folder,
        _ => Deploy::Nothing,
    }
}

/// What an image is made of: the rest of a specification as usual.
pub fn built(spec: &ServiceSpec) -> ServiceSpec {
    let mut part = ServiceSpec {
        source: spec.source.clone(),
        builder: spec.builder.clone(),
        dockerfile: spec.dockerfile.clone(),
        build: spec.build.clone(),
        nixpacks: spec.nixpacks.clone(),
        site: spec.site.clone(),
        ..ServiceSpec::default()
    };
    part.fetch.submodules = spec.fetch.submodules;
    part.fetch.lfs = spec.fetch.lfs;
    part
}

/// What a release holds: the rest of a specification as usual.
pub fn released(spec: &ServiceSpec) -> ServiceSpec {
    ServiceSpec {
        kind: spec.kind,
        port: spec.port,
        command: spec.command.clone(),
        resources: spec.resources,
        placement: spec.placement.clone(),
        container: spec.container.clone(),
        hooks: spec.hooks.clone(),
        health: spec.health.clone(),
        restart: spec.restart,
        stop_grace_ms: spec.stop_grace_ms,
        storage: spec.storage.clone(),
        ..ServiceSpec::default()
    }
}

/// A specification in the words of the file, each value with its path.
fn said(spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut words = BTreeMap::new();
    flatten("", super::export::table(&Manifest::of(spec)), &mut words);
    if let Some(origin) = Origin::of(spec) {
        flatten("from", super::export::table(&origin), &mut words);
    }
    words
}

fn flatten(path: &str, table: toml::Table, into: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let path = match path {
            "" => key,
            path => format!("{path}.{key}"),
        };
        match value {
            toml::Value::Table(table) => flatten(&path, table, into),
            value => {
                into.insert(path, value.to_string());
            }
        }
    }
}

fn differences(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Field> {
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ = paths
        .into_iter()
        .filter(|path| old.get(*path) != new.get(*path));
    let field = |path: &String| Field {
        path: path.clone(),
        old: old.get(path).cloned(),
        new: new.get(path).cloned(),
    };
    differ.map(field).collect()
}
