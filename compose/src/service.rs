//! One service: which of its keys means what. Every key has an arm here, a line in [`left`], or is unknown.

mod build;
mod container;
mod deploy;
mod environment;
mod files;
mod health;
mod labels;
mod left;
mod network;
mod volumes;

use skep_model::spec::Pull;

use crate::draft::{Condition, Draft};
use crate::report::At;
use crate::world::World;

pub(crate) use deploy::settle;
pub(crate) use files::{Material, material};

/// Reads a service's keys.
pub(crate) fn read<'a>(draft: &mut Draft<'a>, at: &At<'a>, world: &World<'_>) {
    let mut entries = at.entries();
    // What a key means may depend on another: ports before labels, which know the port better, and files last, for
    // they become variables beside those that are said.
    entries.sort_by_key(|(key, _)| match *key {
        "ports" => 0,
        "labels" => 1,
        "env_file" => 2,
        "environment" => 3,
        "secrets" | "configs" => 5,
        _ => 4,
    });
    for (key, at) in entries {
        entry(draft, key, &at, world);
    }
}

fn entry<'a>(draft: &mut Draft<'a>, key: &str, at: &At<'a>, world: &World<'_>) {
    match key {
        "image" => draft.image = at.text(),
        "build" => build::read(draft, at, world),
        "command" => {
            let words = at.words().unwrap_or_default();
            draft.change(at, |spec| spec.command = words);
        }
        "pull_policy" => pull_policy(draft, at),
        "ports" => network::ports(draft, at),
        "expose" => at.take(),
        "networks" => network::networks(at),
        "hostname" | "container_name" => network::name(draft, at),
        "labels" => labels::read(draft, at),
        "environment" => environment::read(draft, at, world),
        "env_file" => environment::files(draft, at, world),
        "secrets" => files::read(draft, at, &world.secrets, "/run/secrets/"),
        "configs" => files::read(draft, at, &world.configs, "/"),
        "volumes" => volumes::read(draft, at, world),
        "healthcheck" => health::read(draft, at),
        "depends_on" => depends_on(draft, at),
        "restart" => deploy::restart(draft, at),
        "deploy" => deploy::read(draft, at),
        "scale" => deploy::replicas(draft, at),
        "cpus" | "mem_limit" | "mem_reservation" | "memswap_limit" => {
            deploy::amount(draft, key, at)
        }
        // Looked at before: whether the service is wanted at all.
        "profiles" => at.take(),
        _ if key.starts_with("x-") => at.take(),
        _ if container::read(draft, key, at) => {}
        _ => match left::hint(key) {
            Some(hint) => at.left("it has no counterpart", hint),
            None => at.unknown(),
        },
    }
}

fn pull_policy<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    let Some(text) = at.text() else { return };
    let pull = match &*text {
        "always" => Pull::Always,
        "missing" | "if_not_present" => Pull::Missing,
        "never" => Pull::Never,
        // It is built wherever there is something to build.
        "build" => return,
        _ => return at.left("no policy of Skep's", "always, missing or never"),
    };
    draft.change(at, |spec| spec.image.pull = pull);
}

fn depends_on<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    if matches!(at.value, crate::value::Value::List(_)) {
        for at in at.items() {
            if let Some(name) = at.text() {
                draft.depends_on.insert(name, (Condition::Started, at));
            }
        }
        return;
    }
    for (name, of_name) in at.entries() {
        let mut condition = Condition::Started;
        for (key, at) in of_name.entries() {
            match (key, at.text().as_deref()) {
                ("condition", Some("service_started")) | ("required", Some(_)) => {}
                ("condition", Some("service_healthy")) => condition = Condition::Healthy,
                ("condition", Some("service_completed_successfully")) => {
                    condition = Condition::Completed;
                }
                ("condition", _) => at.left("no condition of Compose's", "service_healthy"),
                ("restart", Some("false")) => {}
                ("restart", _) => at.left(
                    "services are not started again with others",
                    "connect again where a connection is lost; `skep restart` does it by hand",
                ),
                _ => at.unknown(),
            }
        }
        draft
            .depends_on
            .insert(name.to_owned(), (condition, of_name));
    }
}
