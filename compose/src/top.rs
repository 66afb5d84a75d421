//! What a file declares for all its services: volumes, networks, secrets and configs. Makes nothing of them yet.

use std::collections::BTreeMap;

use crate::report::At;
use crate::service;
use crate::value::Value;
use crate::world::World;

/// `volumes`: which names services may mount.
pub(crate) fn volumes(world: &mut World<'_>, at: &At<'_>) {
    for (name, at) in at.entries() {
        world.volumes.insert(name.to_owned());
        for (key, at) in at.entries() {
            match (key, at.value) {
                ("driver", Value::Text(driver)) if driver == "local" => at.take(),
                ("labels", _) => at.left("it means nothing here", "leave it out"),
                ("name" | "external", _) => at.differs(
                    "a new volume is made, named and kept by its service",
                    "`skep cp` brings files into it; `skep volume ls` shows it",
                ),
                ("driver" | "driver_opts", _) => at.left(
                    "volumes are folders of the node that the service runs on",
                    "docs/skep-toml.md, volumes",
                ),
                _ if key.starts_with("x-") => at.take(),
                _ => at.unknown(),
            }
        }
    }
}

/// `networks`: an environment has one, whatever the file makes.
pub(crate) fn networks(at: &At<'_>) {
    for (_, at) in at.entries() {
        for (key, at) in at.entries() {
            match (key, at.value) {
                ("driver", Value::Text(driver)) if driver == "bridge" || driver == "overlay" => {
                    at.take()
                }
                _ => at.left(
                    "an environment has one network, made by Skep",
                    "docs/private-network.md; what is to be apart goes into another environment",
                ),
            }
        }
    }
}

/// `secrets` or `configs`: what is in them, for services that name them.
pub(crate) fn materials(world: &mut World<'_>, key: &str, at: &At<'_>) {
    let is_secret = key == "secrets";
    let all = at.entries();
    let read = |(name, at): (&str, At<'_>)| {
        let material = service::material(&at, is_secret, world);
        (name.to_owned(), material)
    };
    let all: BTreeMap<_, _> = all.into_iter().map(read).collect();
    match is_secret {
        true => world.secrets = all,
        false => world.configs = all,
    }
}
