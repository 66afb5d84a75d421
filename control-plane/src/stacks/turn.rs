//! What it takes to make of a service what a file says of it. Compares; opens and seals nothing.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::deployment::{Deployment, Origin, Status};
use skep_model::project::{built, released};
use skep_model::service::Service;
use skep_model::spec::{ServiceSpec, Source};
use skep_model::stack::{Change, Member};
use skep_model::variable::VariableInput;

use super::Wanted;
use super::merge::merged;

/// A service as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Current<'a> {
    /// It.
    pub(crate) service: &'a Service,
    /// Its variables, opened.
    pub(crate) variables: &'a BTreeMap<String, VariableInput>,
    /// What its stack knows of it; none: it is not the stack's.
    pub(crate) member: Option<&'a Member>,
    /// Its newest deployment.
    pub(crate) newest: Option<&'a Deployment>,
}

/// What is to be done about a service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Turn {
    /// In a word.
    pub(crate) change: Change,
    /// What of it is otherwise than before.
    pub(crate) fields: Vec<String>,
    /// The specification as it is to be.
    pub(crate) spec: ServiceSpec,
    /// Variables to set.
    pub(crate) set: Vec<VariableInput>,
    /// Variables to forget.
    pub(crate) unset: Vec<String>,
    /// What brings it to what runs.
    pub(crate) deploy: Deploy,
    /// What the file says of it.
    pub(crate) said: BTreeSet<String>,
}

/// What brings a change to what runs of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deploy {
    /// It is in force at once.
    Nothing,
    /// This release's image, with the new configuration.
    Release(u64),
    /// What its source has.
    Source,
}

/// How a variable is called among what a file says.
fn path_of(name: &str) -> String {
    format!("variables.{name}")
}

/// What makes of a service what `wanted` says; `reading`: the number of the reading that says so.
pub(crate) fn turn(wanted: &Wanted, current: Option<Current<'_>>, reading: u64) -> Turn {
    let nothing = BTreeSet::new();
    let member = current.and_then(|it| it.member);
    let before = member.map_or(&nothing, |it| &it.said);
    let merge = merged(current.map(|it| &it.service.spec), &wanted.spec, before);
    let has = current.map(|it| it.variables);
    let differs = |(name, input): &(&String, &VariableInput)| {
        has.is_none_or(|has| has.get(*name) != Some(*input))
    };
    let set: Vec<VariableInput> = wanted
        .variables
        .iter()
        .filter(differs)
        .map(|(_, input)| input.clone())
        .collect();
    let is_left =
        |name: &&String| !wanted.variables.contains_key(*name) && before.contains(&path_of(name));
    let unset: Vec<String> = has
        .map(|has| has.keys().filter(is_left).cloned().collect())
        .unwrap_or_default();
    let mut fields = merge.changed;
    fields.extend(set.iter().map(|it| path_of(&it.name)));
    fields.extend(unset.iter().map(|name| path_of(name)));
    let mut said = merge.said;
    said.extend(wanted.variables.keys().map(|name| path_of(name)));
    let (change, deploy) = match current {
        None => (Change::Make, Deploy::Source),
        Some(current) => {
            let tree = wanted.tree != member.and_then(|it| it.built.clone());
            if tree && wanted.tree.is_some() {
                fields.insert(0, "files".to_owned());
            }
            let is_renewed = !set.is_empty() || !unset.is_empty();
            judge(&current, &merge.spec, (tree, is_renewed, &fields), reading)
        }
    };
    Turn {
        change,
        fields,
        spec: merge.spec,
        set,
        unset,
        deploy,
        said,
    }
}

/// What a change is called, and what brings it to what runs.
fn judge(
    current: &Current<'_>,
    spec: &ServiceSpec,
    (tree, variables, fields): (bool, bool, &[String]),
    reading: u64,
) -> (Change, Deploy) {
    let service = current.service;
    let is_rebuilt = tree || built(&service.spec) != built(spec);
    let is_renewed = variables || released(&service.spec) != released(spec);
    let ended = current.newest.map(|it| it.status);
    let is_broken = matches!(ended, Some(Status::Failed | Status::Canceled));
    if is_rebuilt || ended.is_none() {
        return (Change::Build, Deploy::Source);
    }
    if is_broken && current.member.is_none_or(|it| it.reading < reading) {
        return (Change::Again, Deploy::Source);
    }
    if is_renewed {
        // What is on its way, or failed, has another image than what is live.
        let live = service.live.filter(|_| ended == Some(Status::Live));
        let deploy = live.map_or(Deploy::Source, |it| Deploy::Release(it.release));
        return (Change::Configure, deploy);
    }
    match fields.is_empty() && current.member.is_some() {
        true => (Change::Same, Deploy::Nothing),
        false => (Change::Set, Deploy::Nothing),
    }
}

/// Where a deployment of a specification's source begins.
pub(crate) fn origin(spec: &ServiceSpec, commit: &str) -> Option<Origin> {
    Some(match spec.source.as_ref()? {
        Source::Git {
            repository,
            branch,
            directory,
        } => Origin::Git {
            repository: repository.clone(),
            branch: branch.clone(),
            commit: Some(commit.to_owned()),
            directory: directory.clone(),
        },
        Source::Image { reference } => Origin::Image {
            reference: reference.clone(),
        },
        Source::Pushed { .. } => return None,
    })
}
